//! Results of views: one record in `bongsu.windows` for each window and group key.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::key::GroupKey;

/// One closed window of one group. `N`, `K` and `V` are the types of its name, key and values: whoever only writes one need not own
/// them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowRecord<N = String, K = GroupKey, V = Map<String, Value>> {
    /// Name of the view.
    pub view: N,
    /// Event time, inclusive.
    #[serde(with = "rfc3339")]
    pub window_start: DateTime<Utc>,
    /// Event time, exclusive.
    #[serde(with = "rfc3339")]
    pub window_end: DateTime<Utc>,
    /// The group keys.
    pub key: K,
    /// The view's other columns.
    pub values: V,
    /// True for the window as it closed; false for a correction of it, which replaces what was said before.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Ascending over the corrections of one window and key; absent in the window as it closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<i64>,
}

/// What tells where a record of `bongsu.windows` belongs, without reading the rest of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct WindowHead<'a> {
    /// Name of the view.
    #[serde(borrow)]
    pub view: Cow<'a, str>,
    /// Event time, inclusive.
    #[serde(with = "rfc3339")]
    pub window_start: DateTime<Utc>,
    /// As in [`WindowRecord`].
    #[serde(rename = "final")]
    pub is_final: bool,
}

/// RFC 3339 in UTC with a `Z`, with milliseconds only where they are not zero.
pub mod rfc3339 {
    use chrono::{DateTime, SecondsFormat, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    /// Text of a time, as every record has it.
    pub fn format(time: &DateTime<Utc>) -> String {
        let precision = if time.timestamp_subsec_millis() == 0 { SecondsFormat::Secs } else { SecondsFormat::Millis };
        time.to_rfc3339_opts(precision, true)
    }

    /// For `#[serde(with)]`.
    pub fn serialize<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(time))
    }

    /// For `#[serde(with)]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
        DateTime::<Utc>::deserialize(deserializer)
    }
}

/// As [`rfc3339`], for times that may be absent.
pub mod rfc3339_option {
    use chrono::{DateTime, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    /// For `#[serde(with)]`.
    pub fn serialize<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.serialize_str(&super::rfc3339::format(time)),
            None => serializer.serialize_none(),
        }
    }

    /// For `#[serde(with)]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
        Option::<DateTime<Utc>>::deserialize(deserializer)
    }
}

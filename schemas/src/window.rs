//! Results of views: one record in `bongsu.windows` for each window and group key.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::key::GroupKey;

/// One closed window of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowRecord {
    /// Name of the view.
    pub view: String,
    /// Event time, inclusive.
    #[serde(with = "rfc3339")]
    pub window_start: DateTime<Utc>,
    /// Event time, exclusive.
    #[serde(with = "rfc3339")]
    pub window_end: DateTime<Utc>,
    /// The group keys.
    pub key: GroupKey,
    /// The view's other columns.
    pub values: Map<String, Value>,
    /// False only for a window that may be corrected later.
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

//! Commands of people, in `bongsu.commands`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::hours::Hours;

/// What somebody asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Command {
    /// Mute alerts.
    Silence(Silence),
    /// End a silence.
    Unsilence {
        /// The silence's id.
        id: String,
        /// Who asked.
        by: String,
    },
    /// Take an incident.
    Acknowledge {
        /// The incident's id.
        incident_id: String,
        /// Who asked.
        by: String,
    },
}

/// Mutes alerts whose `window_end` lies in `[from, until)` and that the matcher fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Silence {
    /// Chosen by who writes it; a later silence of the same id replaces it.
    pub id: String,
    /// `service`, `rule` or a group key, each with the value that it must have. `~` before a value makes it a regular expression over the
    /// whole value; `!` before either negates it. All must fit; a key that the alert lacks fits nothing.
    pub matcher: BTreeMap<String, String>,
    /// Event time, inclusive.
    pub from: DateTime<Utc>,
    /// Event time, exclusive.
    pub until: DateTime<Utc>,
    /// Only in these hours between the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<Repeat>,
    /// Who asked.
    pub by: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// Hours of the week in which a silence holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// Such as `Sat,Sun 01:00-03:00`.
    pub hours: Hours,
    /// The IANA time zone whose clocks count.
    #[serde(with = "zone")]
    pub zone: Tz,
}

impl Silence {
    /// Whether `at` lies in the time of this silence.
    pub fn holds_at(&self, at: DateTime<Utc>) -> bool {
        let in_hours = |repeat: Repeat| repeat.hours.contains(at, repeat.zone);
        self.from <= at && at < self.until && self.repeat.is_none_or(in_hours)
    }
}

/// A time zone as its IANA name.
mod zone {
    use chrono_tz::Tz;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(zone: &Tz, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(zone.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tz, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(|_| de::Error::custom("the zone is no IANA time zone; write for example Asia/Seoul"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Scenario: all commands as earlier versions write them, a silence that repeats, and commands with something unknown in them.
    /// Guarantees: the contract: what was read is read, and is written as it was; nothing unknown is passed over silently.
    #[test]
    fn commands_on_the_wire() {
        let silence = json!({
            "command": "silence", "id": "a", "matcher": { "service": "order-api" }, "from": "2026-11-16T00:00:00Z",
            "until": "2026-11-17T00:00:00Z", "by": "me", "reason": "deploy",
        });
        let mut repeated = silence.clone();
        repeated["repeat"] = json!({ "hours": "Sat,Sun 01:00-03:00", "zone": "Asia/Seoul" });
        let others = [
            json!({ "command": "unsilence", "id": "a", "by": "me" }),
            json!({ "command": "acknowledge", "incident_id": "i", "by": "me" }),
        ];
        for wire in [silence.clone(), repeated.clone()].into_iter().chain(others) {
            let command: Command = serde_json::from_value(wire.clone()).unwrap();
            assert_eq!(serde_json::to_value(&command).unwrap(), wire);
        }
        let mut without_reason = silence.clone();
        without_reason.as_object_mut().unwrap().remove("reason");
        assert!(serde_json::from_value::<Command>(without_reason).is_ok());

        let with = |pointer: &str, value: serde_json::Value| {
            let mut wrong = repeated.clone();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            wrong.pointer_mut(parent).unwrap()[key] = value;
            wrong
        };
        let wrong = [
            with("/surprise", json!(1)),
            with("/matcher", json!("service")),
            with("/until", json!("tomorrow")),
            with("/repeat/hours", json!("at night")),
            with("/repeat/zone", json!("Mars/Olympus")),
            with("/repeat/days", json!("Mon")),
            json!({ "command": "unsilence", "id": "a", "by": "me", "surprise": 1 }),
        ];
        for wire in wrong {
            assert!(serde_json::from_value::<Command>(wire.clone()).is_err(), "{wire}");
        }
    }
}

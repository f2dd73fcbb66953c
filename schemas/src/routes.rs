//! Entries of `owner.routes`: which alerts of an owner's services go elsewhere than the rest.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::hours::Hours;

/// Alerts that an entry fits, and who is told of them. What is absent fits all.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteEntry {
    /// Severities that it fits: `4` or `4-5`.
    #[serde(default)]
    pub severity: Option<Severities>,
    /// Environments that it fits, one name or a list: the alert's group key `environment`.
    #[serde(default)]
    pub environment: Option<OneOrMore>,
    /// When it fits, in the zone of `time.zone`: `Mon-Fri 09:00-18:00`; `22:00-06:00` goes over midnight. The end of the window that fired
    /// counts.
    #[serde(default)]
    pub hours: Option<Hours>,
    /// Rules that it fits, one name or a list.
    #[serde(default)]
    pub rule: Option<OneOrMore>,
    /// Channels that are told, one or a list; an empty list tells nobody. The owner's where absent.
    #[serde(default)]
    pub slack: Option<OneOrMore>,
    /// Addresses that get these alerts by e-mail, whatever `alert_email` says. As the owner says where absent.
    #[serde(default)]
    pub email: Option<Vec<String>>,
}

impl RouteEntry {
    /// Whether there is an alert that it does not fit.
    pub fn has_condition(&self) -> bool {
        let RouteEntry { severity, environment, hours, rule, slack: _, email: _ } = self;
        severity.is_some() || environment.is_some() || hours.is_some() || rule.is_some()
    }

    /// Whether it says that nobody is told.
    pub fn tells_nobody(&self) -> bool {
        let no_channel = self.slack.as_ref().is_some_and(|slack| slack.0.is_empty());
        no_channel && self.email.as_ref().is_none_or(Vec::is_empty)
    }
}

/// The conditions, for people.
impl fmt::Display for RouteEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RouteEntry { severity, environment, hours, rule, slack: _, email: _ } = self;
        let conditions = [
            severity.map(|severity| format!("severity {severity}")),
            environment.as_ref().map(|environment| format!("environment {environment}")),
            hours.map(|hours| format!("hours {hours}")),
            rule.as_ref().map(|rule| format!("rule {rule}")),
        ];
        let conditions: Vec<String> = conditions.into_iter().flatten().collect();
        f.write_str(&if conditions.is_empty() { "any alert".to_owned() } else { conditions.join(", ") })
    }
}

/// One text, or a list of texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OneOrMore(pub Vec<String>);

impl From<String> for OneOrMore {
    fn from(one: String) -> OneOrMore {
        OneOrMore(vec![one])
    }
}

impl fmt::Display for OneOrMore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" or "))
    }
}

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OneOrMore, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = OneOrMore;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMore, E> {
                Ok(text.to_owned().into())
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<OneOrMore, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = items.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMore(texts))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for OneOrMore {
    fn schema_name() -> Cow<'static, str> {
        "OneOrMore".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "array"], "items": { "type": "string" } })
    }
}

/// One severity, or all from one to another. Invariant: `1 <= least <= most <= 5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Severities {
    least: u8,
    most: u8,
}

impl Severities {
    /// Whether `severity` is one of them.
    pub fn contains(self, severity: u8) -> bool {
        (self.least..=self.most).contains(&severity)
    }
}

impl FromStr for Severities {
    type Err = String;

    fn from_str(text: &str) -> Result<Severities, String> {
        let number = |text: &str| match text.as_bytes() {
            [digit @ b'1'..=b'5'] => Some(digit - b'0'),
            _ => None,
        };
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        match (number(least), number(most)) {
            (Some(least), Some(most)) if least <= most => Ok(Severities { least, most }),
            _ => {
                let shown: String = text.chars().take(100).collect();
                Err(format!("is no severity: `{shown}`; write a number from 1 to 5, or a range such as 4-5"))
            }
        }
    }
}

impl fmt::Display for Severities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Severities { least, most } = self;
        if least == most { write!(f, "{least}") } else { write!(f, "{least}-{most}") }
    }
}

impl<'de> Deserialize<'de> for Severities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Severities, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Severities;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 1 to 5, or a range such as 4-5")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Severities, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Severities, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Severities {
    fn schema_name() -> Cow<'static, str> {
        "Severities".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"], "minimum": 1, "maximum": 5, "pattern": "^[1-5](-[1-5])?$", "examples": ["4-5"]
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Scenario: severities as text and as numbers, and what is none.
    /// Guarantees: what is printed is read back; nonsense is refused with an example.
    #[test]
    fn severities() {
        let cases = [
            (json!(4), Some("4")),
            (json!("4"), Some("4")),
            (json!("4-5"), Some("4-5")),
            (json!("3-3"), Some("3")),
            (json!("5-4"), None),
            (json!("0-5"), None),
            (json!("4-"), None),
            (json!("four"), None),
            (json!(6), None),
            (json!(-1), None),
            (json!(4.5), None),
            (json!(null), None),
        ];
        for (value, expected) in cases {
            let read = serde_json::from_value::<Severities>(value.clone());
            assert_eq!(read.as_ref().ok().map(ToString::to_string).as_deref(), expected, "{value}");
        }
        let range: Severities = "2-4".parse().unwrap();
        assert_eq!([1, 2, 4, 5].map(|severity| range.contains(severity)), [false, true, true, false]);
    }

    /// Scenario: an entry with all keys, with none, one that mutes, one with an unknown key.
    /// Guarantees: one text and a list are both read; conditions are told in words; mistakes are found.
    #[test]
    fn entries() {
        let read = |value| serde_json::from_value::<RouteEntry>(value);
        let entry = read(json!({
            "severity": "4-5", "environment": ["staging", "test"], "hours": "22:00-06:00", "rule": "errors", "slack": "#a",
            "email": ["a@example.com"],
        }));
        let entry = entry.unwrap();
        assert_eq!(entry.to_string(), "severity 4-5, environment staging or test, hours 22:00-06:00, rule errors");
        assert!(entry.has_condition() && !entry.tells_nobody());
        let bare = read(json!({})).unwrap();
        assert!(!bare.has_condition() && !bare.tells_nobody() && bare.to_string() == "any alert");
        assert!(read(json!({ "slack": [] })).unwrap().tells_nobody());
        assert!(!read(json!({ "slack": [], "email": ["a@example.com"] })).unwrap().tells_nobody());
        assert!(read(json!({ "slak": "#a" })).is_err());
        assert!(read(json!({ "slack": [5] })).is_err());
    }

    proptest! {
        /// Guarantees: no text makes the parser panic, and what it takes is printed and read back as the same.
        #[test]
        fn arbitrary_text_never_panics(text in "[0-6-]{0,4}|.{0,6}") {
            if let Ok(severities) = text.parse::<Severities>() {
                prop_assert_eq!(severities.to_string().parse::<Severities>(), Ok(severities));
            }
        }
    }
}

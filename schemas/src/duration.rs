//! Durations as the configuration spells them: a number and a unit, such as `250ms`, `5s`, `10m`, `2h`, `35d` or `1w`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The regular expression that the schema states and that [`Span::from_str`] implements.
pub const PATTERN: &str = "^[0-9]+(ms|s|m|h|d|w)$";

/// A length of time, from configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// A span of that many milliseconds.
    pub const fn from_millis(millis: u64) -> Span {
        Span(Duration::from_millis(millis))
    }
    /// A span of that many seconds.
    pub const fn from_secs(secs: u64) -> Span {
        Span(Duration::from_secs(secs))
    }
    /// The same as a [`Duration`].
    pub const fn duration(self) -> Duration {
        self.0
    }
    /// Milliseconds; the parser admits none that would not fit.
    pub const fn millis(self) -> i64 {
        self.0.as_millis() as i64
    }
}

/// What is wrong with a duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSpan(String);

impl fmt::Display for BadSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is not a duration: `{}`; write a number and a unit, such as 250ms, 10s, 5m, 2h or 35d", self.0)
    }
}

impl std::error::Error for BadSpan {}

impl FromStr for Span {
    type Err = BadSpan;

    fn from_str(text: &str) -> Result<Span, BadSpan> {
        let bad = || BadSpan(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, unit) = text.split_at(digits);
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(bad()),
        };
        // A hundred years bounds all later arithmetic on epoch milliseconds.
        const LONGEST_MS: u64 = 100 * 366 * 86_400_000;
        let number: u64 = number.parse().map_err(|_| bad())?;
        let millis = number.checked_mul(unit_ms).filter(|millis| *millis <= LONGEST_MS).ok_or_else(bad)?;
        Ok(Span::from_millis(millis))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.millis();
        let units = [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        let exact = units.into_iter().find(|(_, unit_ms)| millis > 0 && millis % unit_ms == 0);
        let (unit, unit_ms) = exact.unwrap_or(("ms", 1));
        write!(f, "{}{unit}", millis / unit_ms)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Its text: so the JSON Schema of the configuration, and the reference made of it, tell the defaults.
impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "format": "bongsu-duration" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings() {
        let cases =
            [("250ms", Some(250)), ("10s", Some(10_000)), ("35d", Some(3_024_000_000)), ("10", None), ("s", None)];
        for (text, millis) in cases.into_iter().chain([("-1s", None), ("1.5s", None), ("99999999999999w", None)]) {
            assert_eq!(text.parse::<Span>().ok().map(Span::millis), millis, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(millis in 0u64..10_000_000_000) {
            let span = Span::from_millis(millis);
            prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
    }
}

//! Hours of the week, as people write them: `Mon-Fri 09:00-18:00`, `Sat,Sun 00:00-24:00`, or `22:00-06:00` on every day.
//!
//! - H1: an instant is judged by what a clock on the wall shows then. So changes of clocks need no rule of their own: an hour that is left
//!   out never comes, one that comes twice counts twice.
//! - H2: hours that end before they begin go over midnight; they belong to the day on which they begin.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Timelike, Utc, Weekday};
use chrono_tz::Tz;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const EVERY_DAY: u8 = 0b111_1111;
const DAY_MINUTES: u16 = 24 * 60;

/// Hours of some days of the week. Invariant: there is a day; `start_minute` is below a day's minutes, `end_minute` is from 1 to a day's
/// minutes, and the two differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hours {
    /// One bit for each day, Monday's the lowest.
    days: u8,
    /// Minute of the day, inclusive.
    start_minute: u16,
    /// Minute of the day, exclusive; of the next day where it is not after the start.
    end_minute: u16,
}

impl Hours {
    /// Whether a clock in `zone` shows one of these hours at `at`.
    pub fn contains(&self, at: DateTime<Utc>, zone: Tz) -> bool {
        let local = at.with_timezone(&zone);
        let minute = local.hour() * 60 + local.minute();
        let (from, until) = (minute >= u32::from(self.start_minute), minute < u32::from(self.end_minute));
        let (today, yesterday) = (self.has(local.weekday()), self.has(local.weekday().pred()));
        if self.start_minute < self.end_minute { today && from && until } else { today && from || yesterday && until }
    }

    fn has(&self, day: Weekday) -> bool {
        self.days & bit(day) != 0
    }
}

fn bit(day: Weekday) -> u8 {
    1 << day.num_days_from_monday()
}

/// What is wrong with hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadHours(String);

impl fmt::Display for BadHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.0.chars().take(100).collect();
        write!(f, "are no hours: `{shown}`; write for example Mon-Fri 09:00-18:00, Sat,Sun 00:00-24:00 or 22:00-06:00")
    }
}

impl std::error::Error for BadHours {}

impl FromStr for Hours {
    type Err = BadHours;

    fn from_str(text: &str) -> Result<Hours, BadHours> {
        parse(text.trim()).ok_or_else(|| BadHours(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Hours> {
    let (days, times) = match text.rsplit_once(char::is_whitespace) {
        Some((days, times)) => (parse_days(days)?, times),
        None => (EVERY_DAY, text),
    };
    let (start, end) = times.split_once('-')?;
    let (start_minute, end_minute) = (parse_time(start)?, parse_time(end)?);
    if start_minute == DAY_MINUTES || start_minute == end_minute {
        return None;
    }
    // Midnight at the end is the end of the day.
    let end_minute = if end_minute == 0 { DAY_MINUTES } else { end_minute };
    Some(Hours { days, start_minute, end_minute })
}

/// `Mon`, `Mon-Fri`, `Sat-Mon`, and lists of them.
fn parse_days(text: &str) -> Option<u8> {
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (Weekday, Weekday) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        let mut day = first;
        while day != last {
            days |= bit(day);
            day = day.succ();
        }
        days |= bit(last);
    }
    Some(days)
}

/// `9:00`, `09:00` or `24:00`, as minutes.
fn parse_time(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !(1..=2).contains(&hour.len()) || minute.len() != 2 || !digits(hour) || !digits(minute) {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let minutes = hour * 60 + minute;
    (minute < 60 && minutes <= DAY_MINUTES).then_some(minutes)
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = runs(self.days).iter().map(|run| run_name(run)).collect();
        if self.days != EVERY_DAY {
            write!(f, "{} ", names.join(","))?;
        }
        let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        write!(f, "{}-{}", time(self.start_minute), time(self.end_minute))
    }
}

/// Days that follow one another, as lists of names.
fn runs(days: u8) -> Vec<Vec<&'static str>> {
    let mut runs: Vec<Vec<&str>> = Vec::new();
    let mut goes_on = false;
    for (day, name) in DAYS.into_iter().enumerate() {
        let has = days & (1 << day) != 0;
        match runs.last_mut() {
            Some(run) if has && goes_on => run.push(name),
            _ if has => runs.push(vec![name]),
            _ => {}
        }
        goes_on = has;
    }
    runs
}

fn run_name(run: &[&str]) -> String {
    match run {
        [first, _, .., last] => format!("{first}-{last}"),
        few => few.join(","),
    }
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hours, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Hours {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Hours {
    fn schema_name() -> Cow<'static, str> {
        "Hours".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["Mon-Fri 09:00-18:00"] })
    }
}

#[cfg(test)]
mod tests {
    use chrono_tz::{Asia::Seoul, Europe::Berlin};
    use proptest::prelude::*;

    use super::*;

    /// Scenario: hours as people write them, and what is none.
    /// Guarantees: what is printed is the shortest way to say it; nonsense is refused with examples.
    #[test]
    fn spellings() {
        #[rustfmt::skip]
        let cases = [
            ("Mon-Fri 09:00-18:00",       Some("Mon-Fri 09:00-18:00")),
            ("mon-friday 9:00-18:00",     Some("Mon-Fri 09:00-18:00")),
            ("Sat,Sun 00:00-24:00",       Some("Sat,Sun 00:00-24:00")),
            (" Sat, Sun  01:00-03:00 ",   Some("Sat,Sun 01:00-03:00")),
            ("Mon,Tue,Wed 00:00-00:01",   Some("Mon-Wed 00:00-00:01")),
            ("Fri-Mon 22:00-06:00",       Some("Mon,Fri-Sun 22:00-06:00")),
            ("Mon-Sun 10:00-11:00",       Some("10:00-11:00")),
            ("22:00-06:00",               Some("22:00-06:00")),
            ("22:00-00:00",               Some("22:00-24:00")),
            ("", None), ("Mon", None), ("09:00", None), ("Mon 09:00", None), ("Mon09:00-10:00", None),
            ("Foo 09:00-10:00", None), ("Mon-Foo 09:00-10:00", None), (", 09:00-10:00", None),
            ("09:00-09:00", None), ("00:00-00:00", None), ("24:00-06:00", None), ("09:00-24:01", None),
            ("09:60-10:00", None), ("09:0-10:00", None), ("-9:00-10:00", None), ("+9:00-10:00", None),
            ("09:00-10:00-11:00", None), ("9-18", None), ("99:00-10:00", None), ("월 09:00-10:00", None),
        ];
        for (text, expected) in cases {
            let parsed = text.parse::<Hours>();
            assert_eq!(parsed.as_ref().ok().map(ToString::to_string).as_deref(), expected, "{text}");
            if let Err(error) = parsed {
                assert!(error.to_string().contains("Mon-Fri 09:00-18:00"), "{error}");
            }
        }
    }

    /// Scenario: instants at the edges of hours, over midnight, and around both changes of clocks in Berlin (29 March, 25 October 2026).
    /// Guarantees: H1 and H2, to the second.
    #[test]
    fn instants() {
        #[rustfmt::skip]
        let cases = [
            // hours, zone, instant, is in them
            ("Mon-Fri 09:00-18:00", Seoul,  "2026-11-24T08:59:59+09:00", false),
            ("Mon-Fri 09:00-18:00", Seoul,  "2026-11-24T09:00:00+09:00", true),
            ("Mon-Fri 09:00-18:00", Seoul,  "2026-11-24T17:59:59+09:00", true),
            ("Mon-Fri 09:00-18:00", Seoul,  "2026-11-24T18:00:00+09:00", false),
            ("Mon-Fri 09:00-18:00", Seoul,  "2026-11-28T12:00:00+09:00", false), // a Saturday
            ("Mon-Fri 09:00-18:00", Tz::UTC, "2026-11-24T17:30:00+09:00", false), // 08:30 there
            ("Sat,Sun 00:00-24:00", Seoul,  "2026-11-28T00:00:00+09:00", true),
            ("Sat,Sun 00:00-24:00", Seoul,  "2026-11-29T23:59:59+09:00", true),
            ("Sat,Sun 00:00-24:00", Seoul,  "2026-11-30T00:00:00+09:00", false),
            ("22:00-06:00",         Seoul,  "2026-11-24T21:59:59+09:00", false),
            ("22:00-06:00",         Seoul,  "2026-11-24T22:00:00+09:00", true),
            ("22:00-06:00",         Seoul,  "2026-11-25T05:59:59+09:00", true),
            ("22:00-06:00",         Seoul,  "2026-11-25T06:00:00+09:00", false),
            ("Fri 22:00-06:00",     Seoul,  "2026-11-27T05:00:00+09:00", false), // Thursday's night
            ("Fri 22:00-06:00",     Seoul,  "2026-11-28T05:00:00+09:00", true),
            ("Sun 22:00-06:00",     Seoul,  "2026-11-30T05:00:00+09:00", true),  // over the end of the week
            // Spring: 02:00 is followed by 03:00, so 02:30 never comes.
            ("Sun 02:00-03:00",     Berlin, "2026-03-29T01:59:59+01:00", false),
            ("Sun 02:00-03:00",     Berlin, "2026-03-29T03:00:00+02:00", false),
            ("Sun 01:00-04:00",     Berlin, "2026-03-29T03:59:59+02:00", true),
            ("Sun 01:00-04:00",     Berlin, "2026-03-29T04:00:00+02:00", false),
            // Autumn: 03:00 is followed by 02:00, so 02:30 comes twice.
            ("Sun 02:00-03:00",     Berlin, "2026-10-25T02:30:00+02:00", true),
            ("Sun 02:00-03:00",     Berlin, "2026-10-25T02:30:00+01:00", true),
            ("Sun 02:00-03:00",     Berlin, "2026-10-25T03:00:00+01:00", false),
            ("Sat 22:00-06:00",     Berlin, "2026-10-25T05:59:59+01:00", true),
            ("Sat 22:00-06:00",     Berlin, "2026-10-25T06:00:00+01:00", false),
        ];
        for (hours, zone, at, expected) in cases {
            let hours: Hours = hours.parse().unwrap();
            let at = DateTime::parse_from_rfc3339(at).unwrap().with_timezone(&Utc);
            assert_eq!(hours.contains(at, zone), expected, "{hours} {zone} {at}");
        }
    }

    fn piece() -> impl Strategy<Value = String> {
        const PIECES: &[&str] =
            &["Mon", "fri", "Sunday", "-", ",", " ", ":", "09", "24", "00", "9", "60", "\u{3000}", "月", "\u{0}"];
        prop_oneof![4 => prop::sample::select(PIECES).prop_map(str::to_owned), 1 => ".{0,4}"]
    }

    proptest! {
        /// Guarantees: what is printed is read back as the same.
        #[test]
        fn what_is_printed_is_read_back(days in 1u8..=EVERY_DAY, start in 0..DAY_MINUTES, end in 1..=DAY_MINUTES) {
            prop_assume!(start != end);
            let hours = Hours { days, start_minute: start, end_minute: end };
            prop_assert_eq!(hours.to_string().parse::<Hours>(), Ok(hours));
        }

        /// Guarantees: no text makes the parser panic, and what it takes is printed and read back as the same.
        #[test]
        fn arbitrary_text_never_panics(pieces in prop::collection::vec(piece(), 0..12)) {
            if let Ok(hours) = pieces.concat().parse::<Hours>() {
                prop_assert_eq!(hours.to_string().parse::<Hours>(), Ok(hours));
            }
        }

        /// Guarantees: in every zone, hours and the rest of the day are never both there, and never both absent.
        #[test]
        fn hours_and_the_rest_of_the_day_exclude_each_other(
            secs in 0i64..4_000_000_000, start in 1..DAY_MINUTES, end in 1..DAY_MINUTES,
            zone in prop::sample::select(chrono_tz::TZ_VARIANTS.to_vec()),
        ) {
            prop_assume!(start != end);
            let at = DateTime::from_timestamp(secs, 0).unwrap();
            let hours = Hours { days: EVERY_DAY, start_minute: start, end_minute: end };
            let rest = Hours { days: EVERY_DAY, start_minute: end, end_minute: start };
            prop_assert_ne!(hours.contains(at, zone), rest.contains(at, zone));
        }
    }
}

//! `bongsu backtest` on the command line.

use std::str::FromStr;

use bongsu_schemas::duration::Span;
use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use clap::Args;

use super::{ConfigFile, Format};

#[derive(Debug, Args)]
pub(crate) struct Backtest {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// Alerts that fire at this event time or later: RFC 3339, a date, or so long ago, such as -7d
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) from: Moment,
    /// Alerts that fire before this event time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, default_value = "now")]
    pub(crate) to: Moment,
    /// Only this rule; can be given several times
    #[arg(long)]
    pub(crate) rule: Vec<String>,
    /// Only alerts of this service
    #[arg(long)]
    pub(crate) service: Option<String>,
    /// Try another value of a rule's parameter, for --service or for all services without an own one, and tell what it changes; can be
    /// given several times
    #[arg(long, value_name = "RULE.NAME=VALUE")]
    pub(crate) param: Vec<Param>,
    /// How the alerts are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

/// A point in time as people give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    At(DateTime<Utc>),
    /// Its first instant in the zone of the configuration.
    Date(NaiveDate),
    Ago(Span),
    Now,
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Moment, String> {
        let moment = match text.strip_prefix('-') {
            Some(span) => span.parse().ok().map(Moment::Ago),
            None if text == "now" => Some(Moment::Now),
            None => {
                let date = || text.parse().ok().map(Moment::Date);
                let time = DateTime::parse_from_rfc3339(text).ok().map(|time| Moment::At(time.to_utc()));
                time.or_else(date)
            }
        };
        let is_near = |moment: &Moment| match moment {
            Moment::At(time) => YEARS.contains(&time.year()),
            Moment::Date(date) => YEARS.contains(&date.year()),
            Moment::Ago(_) | Moment::Now => true,
        };
        let needed = "write 2025-06-02T09:00:00Z, a date such as 2025-06-02, or so long ago, such as -7d or -90m";
        moment.filter(is_near).ok_or_else(|| needed.to_owned())
    }
}

/// Of which there can be history; arithmetic on them cannot overflow.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=9000;

impl Moment {
    /// The instant that is meant at `now` in `zone`.
    pub(crate) fn instant(self, now: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
        match self {
            Moment::At(time) => time,
            Moment::Date(date) => first_instant(date, zone),
            Moment::Ago(span) => now - TimeDelta::milliseconds(span.millis()),
            Moment::Now => now,
        }
    }
}

/// Some clocks skip midnight when they are put forward, and Samoa's skipped a whole day.
fn first_instant(date: NaiveDate, zone: Tz) -> DateTime<Utc> {
    const STEP: TimeDelta = TimeDelta::minutes(15);
    let midnight = date.and_time(NaiveTime::MIN);
    let shown = (0..2 * 24 * 4).find_map(|step| zone.from_local_datetime(&(midnight + STEP * step)).earliest());
    shown.map_or_else(|| midnight.and_utc(), |instant| instant.to_utc())
}

/// `RULE.NAME=VALUE`. What type the value has depends on the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Param {
    pub(crate) rule: String,
    pub(crate) name: String,
    pub(crate) value: String,
}

impl FromStr for Param {
    type Err = String;

    fn from_str(text: &str) -> Result<Param, String> {
        let parts = || {
            let (param, value) = text.split_once('=')?;
            let (rule, name) = param.split_once('.')?;
            (!rule.is_empty() && !name.is_empty()).then_some((rule, name, value))
        };
        match parts() {
            Some((rule, name, value)) => {
                Ok(Param { rule: rule.to_owned(), name: name.to_owned(), value: value.to_owned() })
            }
            None => Err("write RULE.NAME=VALUE, such as high-error-rate.max=0.1".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_given_in_several_ways() {
        let time = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().to_utc();
        let now = time("2025-06-10T12:00:00Z");
        #[rustfmt::skip]
        let cases = [
            // text                        zone                   instant
            ("2025-06-02T09:00:00Z",       Tz::Asia__Seoul,       Some("2025-06-02T09:00:00Z")),
            ("2025-06-02T09:00:00+09:00",  Tz::UTC,               Some("2025-06-02T00:00:00Z")),
            ("2025-06-02",                 Tz::UTC,               Some("2025-06-02T00:00:00Z")),
            ("2025-06-02",                 Tz::Asia__Seoul,       Some("2025-06-01T15:00:00Z")),
            ("2025-09-07",                 Tz::America__Santiago, Some("2025-09-07T04:00:00Z")), // clocks skip midnight
            ("-7d",                        Tz::Asia__Seoul,       Some("2025-06-03T12:00:00Z")),
            ("-90m",                       Tz::UTC,               Some("2025-06-10T10:30:00Z")),
            ("now",                        Tz::UTC,               Some("2025-06-10T12:00:00Z")),
            ("-7",                         Tz::UTC,               None),
            ("7d",                         Tz::UTC,               None),
            ("yesterday",                  Tz::UTC,               None),
            ("2025-06-02T09:00:00",        Tz::UTC,               None),
            ("9999-01-01",                 Tz::UTC,               None),
            ("",                           Tz::UTC,               None),
        ];
        for (text, zone, expected) in cases {
            let found = text.parse::<Moment>().ok().map(|moment| moment.instant(now, zone));
            assert_eq!(found, expected.map(time), "{text} in {zone}");
        }
    }

    #[test]
    fn parameters_are_taken_apart() {
        let param = |rule: &str, name: &str, value: &str| {
            Some(Param { rule: rule.to_owned(), name: name.to_owned(), value: value.to_owned() })
        };
        #[rustfmt::skip]
        let cases = [
            ("high-error-rate.max=0.1", param("high-error-rate", "max", "0.1")),
            ("r.text=a.b=c",            param("r", "text", "a.b=c")),
            ("r.text=",                 param("r", "text", "")),
            ("r.max",                   None),
            ("max=1",                   None),
            (".max=1",                  None),
            ("r.=1",                    None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in ".{0,40}") {
            if let Ok(moment) = text.parse::<Moment>() {
                moment.instant(DateTime::UNIX_EPOCH, Tz::UTC);
            }
            let _ = text.parse::<Param>();
        }
    }
}

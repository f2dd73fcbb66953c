//! Week arithmetic: ISO weeks in a time zone.
//!
//! - K1: a week is `[Monday 00:00, next Monday 00:00)` in the zone's local time, so 167, 168 or 169 hours long.
//! - K2: every instant lies in exactly one week.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc, Weekday};
use chrono_tz::Tz;

/// An ISO week, such as `2026-W47`. Invariant: `monday` is a Monday whose neighbours in time chrono can represent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Week {
    monday: NaiveDate,
}

impl Week {
    /// The week in which `at` lies, in `zone`.
    pub fn containing(at: DateTime<Utc>, zone: Tz) -> Week {
        let date = at.with_timezone(&zone).date_naive();
        let since_monday = Days::new(u64::from(date.weekday().num_days_from_monday()));
        Week { monday: date.checked_sub_days(since_monday).unwrap_or(date) }
    }

    /// The week before.
    pub fn previous(self) -> Week {
        Week { monday: self.monday - Days::new(7) }
    }

    /// The week after.
    pub fn next(self) -> Week {
        Week { monday: self.monday + Days::new(7) }
    }

    /// Its first day.
    pub fn monday(self) -> NaiveDate {
        self.monday
    }

    /// Its first instant.
    pub fn start(self, zone: Tz) -> DateTime<Utc> {
        local_instant(self.monday, NaiveTime::MIN, zone)
    }

    /// The first instant after it.
    pub fn end(self, zone: Tz) -> DateTime<Utc> {
        self.next().start(zone)
    }

    /// A day of this week at a local time.
    pub fn at(self, weekday: Weekday, time: NaiveTime, zone: Tz) -> DateTime<Utc> {
        local_instant(self.monday + Days::new(u64::from(weekday.num_days_from_monday())), time, zone)
    }
}

/// The instant of a local time: the earlier one where the clock shows it twice, the first one after the gap where never.
fn local_instant(date: NaiveDate, time: NaiveTime, zone: Tz) -> DateTime<Utc> {
    // Gaps are of at most a day (Samoa left out a whole date); half an hour is the finest step any zone has used since 1970.
    let wanted = date.and_time(time);
    (0..=48)
        .find_map(|half_hours| zone.from_local_datetime(&(wanted + TimeDelta::minutes(30 * half_hours))).earliest())
        .map_or_else(|| wanted.and_utc(), |found| found.with_timezone(&Utc))
}

impl fmt::Display for Week {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let week = self.monday.iso_week();
        write!(f, "{:04}-W{:02}", week.year(), week.week())
    }
}

impl FromStr for Week {
    type Err = String;

    fn from_str(text: &str) -> Result<Week, String> {
        let bad = || format!("is not an ISO week: `{text}`; write for example 2026-W47");
        let (year, week) = text.split_once("-W").ok_or_else(bad)?;
        let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(year, 4) || !digits(week, 2) {
            return Err(bad());
        }
        let year = year.parse().ok().filter(|year| (1970..=9000).contains(year)).ok_or_else(bad)?;
        let monday =
            NaiveDate::from_isoywd_opt(year, week.parse().map_err(|_| bad())?, Weekday::Mon).ok_or_else(bad)?;
        Ok(Week { monday })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Scenario: weeks with and without a change of the clocks, and at the turn of a year.
    /// Guarantees: K1.
    #[test]
    fn bounds() {
        use chrono_tz::{America::Santiago, Asia::Seoul, Europe::Berlin};
        #[rustfmt::skip]
        let cases = [
            ("2026-W47", Seoul,    "2026-11-15T15:00:00+00:00", 168),
            ("2026-W13", Berlin,   "2026-03-22T23:00:00+00:00", 167),
            ("2026-W43", Berlin,   "2026-10-18T22:00:00+00:00", 169),
            ("2020-W53", Seoul,    "2020-12-27T15:00:00+00:00", 168),
            ("2026-W36", Santiago, "2026-08-31T04:00:00+00:00", 167),
        ];
        for (text, zone, start, hours) in cases {
            let week: Week = text.parse().unwrap();
            assert_eq!(week.to_string(), text);
            assert_eq!(week.start(zone).to_rfc3339(), start, "{text}");
            assert_eq!((week.end(zone) - week.start(zone)).num_hours(), hours, "{text}");
        }
        for text in ["2026-W54", "2025-W53", "2026W47", "2026-W1", "-026-W01", "x", "2026-W+1", "9999-W01"] {
            assert!(text.parse::<Week>().is_err(), "{text}");
        }
    }

    proptest! {
        /// Guarantees: K2, across all changes of clocks.
        #[test]
        fn every_instant_lies_in_its_week(secs in 0i64..4_000_000_000, zone in prop::sample::select(chrono_tz::TZ_VARIANTS.to_vec())) {
            let at = DateTime::from_timestamp(secs, 0).unwrap();
            let week = Week::containing(at, zone);
            prop_assert!(week.start(zone) <= at && at < week.end(zone), "{} {} {}", at, week, zone);
            prop_assert_eq!(week.to_string().parse::<Week>().unwrap(), week);
            prop_assert_eq!(week.previous().end(zone), week.start(zone));
        }
    }
}

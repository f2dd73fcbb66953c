//! When the weekly report is due. Pure.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use super::week::Week;
use crate::config::WeeklyTime;

/// A report that is sent more than this after its time says that it is late.
pub(crate) const LATE_AFTER: TimeDelta = TimeDelta::hours(1);

/// A week whose report is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    /// The week that is reported.
    pub(crate) week: Week,
    /// When it should be sent.
    pub(crate) at: DateTime<Utc>,
}

/// The latest report that was due at `now` or before. Its week ended before it was due.
pub(crate) fn latest_due(now: DateTime<Utc>, time: WeeklyTime, zone: Tz) -> Due {
    let this_week = Week::containing(now, zone);
    let at = |week: Week| week.at(time.weekday, time.time, zone);
    let sending_week = if at(this_week) <= now { this_week } else { this_week.previous() };
    Due { week: sending_week.previous(), at: at(sending_week) }
}

/// When the next report after `now` is due.
pub(crate) fn next_due(now: DateTime<Utc>, time: WeeklyTime, zone: Tz) -> DateTime<Utc> {
    let sending_week = latest_due(now, time, zone).week.next().next();
    sending_week.at(time.weekday, time.time, zone)
}

impl Due {
    /// Whether a report sent at `now` has to say that it is late.
    pub(crate) fn is_late(&self, now: DateTime<Utc>) -> bool {
        now - self.at > LATE_AFTER
    }

    /// Whether there is something to report: nothing is for weeks that ended before the first event ever seen.
    pub(crate) fn is_covered(&self, known_since: Option<DateTime<Utc>>, zone: Tz) -> bool {
        known_since.is_some_and(|since| since < self.week.end(zone))
    }
}

#[cfg(test)]
mod tests {
    use chrono_tz::Asia::Seoul;
    use chrono_tz::Europe::Berlin;
    use proptest::prelude::*;

    use super::*;

    /// Scenario: instants around the time of sending, one of them in a week in which the clocks change.
    /// Guarantees: from the minute on the report of the week before is due, and not earlier.
    #[test]
    fn due() {
        let time: WeeklyTime = "Mon 09:00".parse().unwrap();
        let cases = [
            ("2026-11-23T08:59:59+09:00", Seoul, "2026-W46", "2026-11-23T09:00:00+09:00"),
            ("2026-11-23T09:00:00+09:00", Seoul, "2026-W47", "2026-11-30T09:00:00+09:00"),
            ("2026-11-29T23:59:59+09:00", Seoul, "2026-W47", "2026-11-30T09:00:00+09:00"),
            ("2026-10-24T12:00:00+02:00", Berlin, "2026-W42", "2026-10-26T09:00:00+01:00"),
        ];
        for (now, zone, week, next) in cases {
            let parse = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc);
            let due = latest_due(parse(now), time, zone);
            assert_eq!((due.week.to_string().as_str(), next_due(parse(now), time, zone)), (week, parse(next)), "{now}");
        }
    }

    /// Scenario: sent on time, an hour later, a day later; history that begins before, in and after the week.
    /// Guarantees: what is late says so; there is no catch-up for weeks before the first event.
    #[test]
    fn late_and_covered() {
        let due = Due { week: "2026-W47".parse().unwrap(), at: DateTime::from_timestamp(1_795_392_000, 0).unwrap() };
        assert!(!due.is_late(due.at) && !due.is_late(due.at + LATE_AFTER) && due.is_late(due.at + TimeDelta::days(1)));
        let end = due.week.end(Seoul);
        assert!(due.is_covered(Some(end - TimeDelta::seconds(1)), Seoul));
        assert!(!due.is_covered(Some(end), Seoul) && !due.is_covered(None, Seoul));
    }

    proptest! {
        /// Guarantees: every report is due exactly once: the next time is later than now, and then it is the next week's.
        #[test]
        fn no_week_is_left_out(secs in 0i64..4_000_000_000, day in 0u8..7, minute in 0u32..1440, zone in prop::sample::select(chrono_tz::TZ_VARIANTS.to_vec())) {
            let now = DateTime::from_timestamp(secs, 0).unwrap();
            let time = chrono::NaiveTime::from_num_seconds_from_midnight_opt(60 * minute, 0).unwrap();
            let time = WeeklyTime { weekday: chrono::Weekday::try_from(day).unwrap(), time };
            let (due, next) = (latest_due(now, time, zone), next_due(now, time, zone));
            prop_assert!(due.at <= now && now < next);
            prop_assert!(due.week.end(zone) <= due.at);
            prop_assert_eq!(latest_due(next, time, zone).week, due.week.next());
        }
    }
}

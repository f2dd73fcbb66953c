//! Days and weeks as people count them: in a zone, with days of 23 and 25 hours where clocks change.

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, TimeDelta, TimeZone};
use chrono_tz::Tz;

/// Windows of a calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Calendar {
    /// How long they are.
    pub unit: CalendarUnit,
    /// Whose clocks count.
    pub zone: Tz,
}

/// Length of a calendar window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CalendarUnit {
    /// From midnight to midnight.
    Day,
    /// From Monday to Monday (ISO 8601).
    Week,
}

impl CalendarUnit {
    /// As SQL spells it.
    pub fn name(self) -> &'static str {
        match self {
            CalendarUnit::Day => "day",
            CalendarUnit::Week => "week",
        }
    }
}

impl Calendar {
    /// First instant of the window that holds `time_ms` (epoch milliseconds).
    pub(super) fn start(self, time_ms: i64) -> i64 {
        self.first_instant(self.first_date(time_ms))
    }

    /// First instant of the window after the one that starts at `start_ms`.
    pub(super) fn next_start(self, start_ms: i64) -> i64 {
        let days = match self.unit {
            CalendarUnit::Day => 1,
            CalendarUnit::Week => 7,
        };
        let next = self.first_date(start_ms).checked_add_days(Days::new(days));
        // The decoder admits no time near the end of what a date can be.
        next.map_or(i64::MAX, |date| self.first_instant(date))
    }

    fn first_date(self, time_ms: i64) -> NaiveDate {
        let utc = DateTime::from_timestamp_millis(time_ms).unwrap_or_default();
        let date = utc.with_timezone(&self.zone).date_naive();
        match self.unit {
            CalendarUnit::Day => date,
            CalendarUnit::Week => date - Days::new(date.weekday().num_days_from_monday().into()),
        }
    }

    /// A day begins with the first time of the day that its clocks show. Some clocks skip midnight when they are put forward, and
    /// Samoa's skipped the whole of 30 December 2011.
    fn first_instant(self, date: NaiveDate) -> i64 {
        const STEP: TimeDelta = TimeDelta::minutes(15);
        let midnight = date.and_time(NaiveTime::MIN);
        let shown =
            (0..2 * 24 * 4).find_map(|step| self.zone.from_local_datetime(&(midnight + STEP * step)).earliest());
        shown.map_or(i64::MAX, |instant| instant.timestamp_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    fn calendar(unit: CalendarUnit, zone: &str) -> Calendar {
        Calendar { unit, zone: zone.parse().unwrap() }
    }

    /// Guarantees: W2 where clocks change.
    #[test]
    fn days_and_weeks_are_those_of_the_zone() {
        use CalendarUnit::{Day, Week};
        #[rustfmt::skip]
        let cases = [
            // unit zone              time                         start                        next start
            (Day,  "UTC",             "2026-11-24T13:17:46Z",      "2026-11-24T00:00:00Z",      "2026-11-25T00:00:00Z"),
            (Day,  "Asia/Seoul",      "2026-11-24T15:00:00Z",      "2026-11-25T00:00:00+09:00", "2026-11-26T00:00:00+09:00"),
            (Day,  "Asia/Seoul",      "2026-11-24T14:59:59.999Z",  "2026-11-24T00:00:00+09:00", "2026-11-25T00:00:00+09:00"),
            (Week, "Asia/Seoul",      "2026-11-22T14:59:59Z",      "2026-11-16T00:00:00+09:00", "2026-11-23T00:00:00+09:00"),
            (Day,  "Europe/Berlin",   "2026-03-29T12:00:00Z",      "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"),
            (Day,  "Europe/Berlin",   "2026-10-25T12:00:00Z",      "2026-10-25T00:00:00+02:00", "2026-10-26T00:00:00+01:00"),
            (Week, "Europe/Berlin",   "2026-10-25T12:00:00Z",      "2026-10-19T00:00:00+02:00", "2026-10-26T00:00:00+01:00"),
            // There was no midnight on 4 November 2018 in Sao Paulo, and no 30 December 2011 in Apia.
            (Day,  "America/Sao_Paulo", "2018-11-04T12:00:00Z",    "2018-11-04T01:00:00-02:00", "2018-11-05T00:00:00-02:00"),
            (Day,  "Pacific/Apia",    "2011-12-30T09:00:00Z",      "2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00"),
        ];
        for (unit, zone, time, start, next_start) in cases {
            let calendar = calendar(unit, zone);
            assert_eq!(calendar.start(ms(time)), ms(start), "{zone} {time}");
            assert_eq!(calendar.next_start(ms(start)), ms(next_start), "{zone} {time}");
        }
    }

    proptest! {
        /// Guarantees: every instant lies in exactly one window, and windows start on whole minutes.
        #[test]
        fn windows_follow_one_another(
            time_ms in 0i64..4_000_000_000_000, zone in prop::sample::select(chrono_tz::TZ_VARIANTS.to_vec()), is_week in any::<bool>(),
        ) {
            let unit = if is_week { CalendarUnit::Week } else { CalendarUnit::Day };
            let calendar = Calendar { unit, zone };
            let start_ms = calendar.start(time_ms);
            let next_ms = calendar.next_start(start_ms);
            prop_assert!(start_ms <= time_ms && time_ms < next_ms);
            prop_assert_eq!(calendar.start(start_ms), start_ms);
            prop_assert_eq!(calendar.start(next_ms - 1), start_ms);
            prop_assert_eq!(calendar.start(next_ms), next_ms);
            // Liberia's clocks were 44 minutes and 30 seconds behind until 1972.
            if time_ms > ms("1973-01-01T00:00:00Z") {
                prop_assert_eq!(start_ms.rem_euclid(60_000), 0);
            }
        }
    }
}

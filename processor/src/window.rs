//! Window arithmetic: pure functions of epoch milliseconds.
//!
//! A *pane* is the slice of event time that all windows of a view share: its length is the slide. A tumbling window is one pane, and so
//! is a calendar window.
//!
//! - W1: an event lies in exactly `size / slide` windows.
//! - W2: every start is a multiple of `slide`, before 1970 as well; a calendar window starts with the first instant of its day in the
//!   zone.
//! - W3: a pane is late if and only if the last window that contains it has closed.

mod calendar;

use std::fmt;

use bongsu_schemas::duration::Span;

pub use calendar::{Calendar, CalendarUnit};

/// Tumbling, hopping or calendar windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowSpec(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Invariant: `0 < slide_ms`, and `slide_ms` divides `size_ms`. Held by [`WindowSpec::new`], relied on everywhere else.
    Fixed {
        size_ms: i64,
        slide_ms: i64,
    },
    Calendar(Calendar),
}

/// The shortest window that a view may have; one transaction at a time cannot close windows faster.
pub const MIN_SLIDE_MS: i64 = 100;

/// The longest window that a view may have: `bongsu.panes` must keep what it is made of.
pub const MAX_SIZE_MS: i64 = 7 * 24 * 3_600_000;

/// The most windows that one event may lie in; each costs memory and a merge.
pub const MAX_WINDOWS_PER_EVENT: i64 = 1_000;

/// Longer windows are rolled up from closed panes of at most a minute, so that a restart has little to read again.
const LONGEST_DIRECT_MS: i64 = 10 * 60_000;

/// The longest pane that long windows are rolled up from. Starts of calendar windows are multiples of it in every zone since 1972.
const ROLL_UP_MS: i64 = 60_000;

impl WindowSpec {
    /// A hopping window, or a tumbling one where `size_ms == slide_ms`. The error says what is wrong, for people.
    pub fn new(size_ms: i64, slide_ms: i64) -> Result<WindowSpec, String> {
        if slide_ms < MIN_SLIDE_MS {
            return Err(format!("a window must be at least {MIN_SLIDE_MS} ms long"));
        }
        if size_ms % slide_ms != 0 || size_ms < slide_ms {
            return Err(
                "the size of a hopping window must be a multiple of its slide; the slide comes first".to_owned()
            );
        }
        if size_ms / slide_ms > MAX_WINDOWS_PER_EVENT {
            return Err(format!("a window may be at most {MAX_WINDOWS_PER_EVENT} times as long as its slide"));
        }
        if size_ms > MAX_SIZE_MS {
            return Err("a window may be at most seven days long".to_owned());
        }
        Ok(WindowSpec(Kind::Fixed { size_ms, slide_ms }))
    }

    /// The days or weeks of a zone.
    pub fn calendar(calendar: Calendar) -> WindowSpec {
        WindowSpec(Kind::Calendar(calendar))
    }

    /// Length of a pane; calendar days and weeks have none.
    pub fn slide_ms(self) -> Option<i64> {
        match self.0 {
            Kind::Fixed { slide_ms, .. } => Some(slide_ms),
            Kind::Calendar(_) => None,
        }
    }

    /// Whether each window is one pane of a fixed length.
    pub fn is_tumbling(self) -> bool {
        matches!(self.0, Kind::Fixed { size_ms, slide_ms } if size_ms == slide_ms)
    }

    /// The tumbling windows from whose results these are rolled up; none for short ones, which are made of partials themselves.
    pub fn rolled_up_from(self) -> Option<WindowSpec> {
        let pane_ms = match self.0 {
            Kind::Fixed { size_ms, .. } if size_ms <= LONGEST_DIRECT_MS => return None,
            Kind::Fixed { slide_ms, .. } => greatest_common_divisor(slide_ms, ROLL_UP_MS),
            Kind::Calendar(_) => ROLL_UP_MS,
        };
        Some(WindowSpec(Kind::Fixed { size_ms: pane_ms, slide_ms: pane_ms }))
    }

    /// Start of the pane that an event lies in. Panes of windows from which others are rolled up lie in the others' panes.
    pub fn pane_start(self, event_time_ms: i64) -> i64 {
        match self.0 {
            // A plain `%` would round times before 1970 towards the future.
            Kind::Fixed { slide_ms, .. } => event_time_ms - event_time_ms.rem_euclid(slide_ms),
            Kind::Calendar(calendar) => calendar.start(event_time_ms),
        }
    }

    /// End of the pane that starts at `pane_start_ms`, which is the start of the next one.
    pub fn pane_end(self, pane_start_ms: i64) -> i64 {
        match self.0 {
            Kind::Fixed { slide_ms, .. } => pane_start_ms + slide_ms,
            Kind::Calendar(calendar) => calendar.next_start(pane_start_ms),
        }
    }

    /// End of the last window that contains the pane; from then on the pane is late (W3).
    pub fn last_window_end(self, pane_start_ms: i64) -> i64 {
        match self.0 {
            // The last window to contain a pane starts where the pane starts.
            Kind::Fixed { size_ms, .. } => pane_start_ms + size_ms,
            Kind::Calendar(calendar) => calendar.next_start(pane_start_ms),
        }
    }

    /// Start of the window that ends at `end_ms`. Windows end where panes end.
    pub fn window_start(self, end_ms: i64) -> i64 {
        match self.0 {
            Kind::Fixed { size_ms, .. } => end_ms - size_ms,
            Kind::Calendar(calendar) => calendar.start(end_ms - 1),
        }
    }

    /// Ends of the windows that contain the pane (W1), of those that end after `after_ms` and at `until_ms` or earlier; earliest first.
    pub fn window_ends(self, pane_start_ms: i64, after_ms: i64, until_ms: i64) -> impl Iterator<Item = i64> {
        let first_end_ms = self.pane_end(pane_start_ms);
        let last_end_ms = self.last_window_end(pane_start_ms).min(until_ms);
        // A calendar window is one pane, so that there is no second end.
        let slide_ms = first_end_ms - pane_start_ms;
        let skipped = (after_ms - first_end_ms).div_euclid(slide_ms) + 1;
        let ends = (skipped.max(0)..).map(move |window| first_end_ms + window * slide_ms);
        ends.take_while(move |end_ms| *end_ms <= last_end_ms)
    }
}

/// As `bongsu check` prints it: `1m`, `5m every 10s`, `day in Asia/Seoul`.
impl fmt::Display for WindowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |millis: i64| Span::from_millis(millis.unsigned_abs());
        match self.0 {
            Kind::Fixed { size_ms, slide_ms } if size_ms == slide_ms => write!(f, "{}", span(size_ms)),
            Kind::Fixed { size_ms, slide_ms } => write!(f, "{} every {}", span(size_ms), span(slide_ms)),
            Kind::Calendar(Calendar { unit, zone }) => write!(f, "{} in {zone}", unit.name()),
        }
    }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Scenario: panes around the moment their last window closes.
    /// Guarantees: W3, to the millisecond.
    #[test]
    fn a_pane_is_late_once_its_last_window_has_closed() {
        let spec = WindowSpec::new(60_000, 10_000).unwrap();
        #[rustfmt::skip]
        let cases = [
            // name                       event time  closed up to  late
            ("window still open",              5_000,       59_999, false),
            ("the end itself",                 5_000,       60_000, true),
            ("next pane lives 10 s longer",   10_000,       60_000, false),
            ("before 1970",                       -1,       50_000, true),
        ];
        for (name, event_time_ms, closed_ms, expected) in cases {
            let late = spec.last_window_end(spec.pane_start(event_time_ms)) <= closed_ms;
            assert_eq!(late, expected, "{name}");
        }
    }

    #[test]
    fn only_long_windows_are_rolled_up() {
        const MINUTE_MS: i64 = 60_000;
        #[rustfmt::skip]
        let cases = [
            // size               slide             rolled up from
            (MINUTE_MS,           MINUTE_MS,        None),
            (10 * MINUTE_MS,      10_000,           None),
            (11 * MINUTE_MS,      11 * MINUTE_MS,   Some(MINUTE_MS)),
            (60 * MINUTE_MS,      10_000,           Some(10_000)),
            (15 * MINUTE_MS,      90_000,           Some(30_000)),
            (24 * 60 * MINUTE_MS, 60 * MINUTE_MS,   Some(MINUTE_MS)),
        ];
        for (size_ms, slide_ms, expected) in cases {
            let panes = WindowSpec::new(size_ms, slide_ms).unwrap().rolled_up_from();
            assert_eq!(
                panes,
                expected.map(|pane_ms| WindowSpec::new(pane_ms, pane_ms).unwrap()),
                "{size_ms} {slide_ms}"
            );
        }
    }

    proptest! {
        /// Guarantees: W1 and W2.
        #[test]
        fn an_event_lies_in_size_over_slide_windows(
            event_time_ms in -4_000_000_000_000i64..4_000_000_000_000, slide_ms in 100i64..100_000, times in 1i64..50,
            after_ms in -100_000i64..5_000_000, span_ms in 0i64..1_000_000,
        ) {
            let spec = WindowSpec::new(slide_ms * times, slide_ms).unwrap();
            let pane_start_ms = spec.pane_start(event_time_ms);
            let ends: Vec<_> = spec.window_ends(pane_start_ms, i64::MIN / 4, i64::MAX / 4).collect();
            prop_assert_eq!(ends.len() as i64, times);
            for end_ms in &ends {
                let start_ms = spec.window_start(*end_ms);
                prop_assert!(start_ms <= event_time_ms && event_time_ms < *end_ms);
                prop_assert_eq!(start_ms.rem_euclid(slide_ms), 0);
            }
            prop_assert_eq!(ends[ends.len() - 1], spec.last_window_end(pane_start_ms));
            prop_assert_eq!(spec.pane_start(spec.pane_end(pane_start_ms) - 1), pane_start_ms);
            let (after_ms, until_ms) = (event_time_ms + after_ms, event_time_ms + after_ms + span_ms);
            let some: Vec<_> = spec.window_ends(pane_start_ms, after_ms, until_ms).collect();
            let expected: Vec<_> = ends.into_iter().filter(|end| after_ms < *end && *end <= until_ms).collect();
            prop_assert_eq!(some, expected);
        }

        /// Guarantees: what long windows are rolled up from never lies across the edge of one of their panes.
        #[test]
        fn roll_ups_nest(event_time_ms in 0i64..4_000_000_000_000, slide_s in 1i64..3_600, times in 1i64..50) {
            let Ok(spec) = WindowSpec::new(slide_s * times * 1_000, slide_s * 1_000) else { return Ok(()) };
            let Some(panes) = spec.rolled_up_from() else { return Ok(()) };
            let start_ms = panes.pane_start(event_time_ms);
            prop_assert_eq!(spec.pane_start(start_ms), spec.pane_start(panes.pane_end(start_ms) - 1));
        }
    }
}

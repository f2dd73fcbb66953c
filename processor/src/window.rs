//! Window arithmetic: pure functions of epoch milliseconds.
//!
//! A *pane* is the slice of event time that all windows of a view share: its length is the slide. A tumbling window is one pane.
//!
//! - W1: an event lies in exactly `size / slide` windows.
//! - W2: every start is a multiple of `slide`, before 1970 as well.
//! - W3: a pane is late if and only if the last window that contains it has closed.

/// Invariant: `0 < slide_ms`, and `slide_ms` divides `size_ms`. Held by [`WindowSpec::new`], relied on everywhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowSpec {
    size_ms: i64,
    slide_ms: i64,
}

/// The shortest window that a view may have; one transaction at a time cannot close windows faster.
pub const MIN_SLIDE_MS: i64 = 100;

/// The most windows that one event may lie in; each costs memory and a merge.
pub const MAX_WINDOWS_PER_EVENT: i64 = 1_000;

impl WindowSpec {
    /// A hopping window, or a tumbling one where `size_ms == slide_ms`. The error says what is wrong, for people.
    pub fn new(size_ms: i64, slide_ms: i64) -> Result<WindowSpec, String> {
        if slide_ms < MIN_SLIDE_MS {
            return Err(format!("a window must be at least {MIN_SLIDE_MS} ms long"));
        }
        if size_ms % slide_ms != 0 || size_ms < slide_ms {
            return Err("the size of a hopping window must be a multiple of its slide".to_owned());
        }
        if size_ms / slide_ms > MAX_WINDOWS_PER_EVENT {
            return Err(format!("a window may be at most {MAX_WINDOWS_PER_EVENT} times as long as its slide"));
        }
        Ok(WindowSpec { size_ms, slide_ms })
    }

    /// Length of a window.
    pub fn size_ms(self) -> i64 {
        self.size_ms
    }

    /// Distance between the starts of two windows, which is the length of a pane.
    pub fn slide_ms(self) -> i64 {
        self.slide_ms
    }

    /// Start of the pane that an event lies in.
    pub fn pane_start(self, event_time_ms: i64) -> i64 {
        // A plain `%` would round times before 1970 towards the future.
        event_time_ms - event_time_ms.rem_euclid(self.slide_ms)
    }

    /// End of the last window that contains the pane; from then on the pane is late (W3).
    pub fn last_window_end(self, pane_start_ms: i64) -> i64 {
        // The last window to contain a pane starts where the pane starts.
        pane_start_ms + self.size_ms
    }

    /// Starts of the windows that contain the pane, earliest first (W1).
    pub fn windows_of(self, pane_start_ms: i64) -> impl Iterator<Item = i64> {
        let first = pane_start_ms - self.size_ms + self.slide_ms;
        (0..self.size_ms / self.slide_ms).map(move |window| first + window * self.slide_ms)
    }
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

    proptest! {
        #[test]
        fn an_event_lies_in_size_over_slide_windows(
            event_time_ms in -4_000_000_000_000i64..4_000_000_000_000, slide_ms in 100i64..100_000, times in 1i64..50,
        ) {
            let spec = WindowSpec::new(slide_ms * times, slide_ms).unwrap();
            let windows: Vec<_> = spec.windows_of(spec.pane_start(event_time_ms)).collect();
            prop_assert_eq!(windows.len() as i64, times);
            for start in &windows {
                prop_assert!(*start <= event_time_ms && event_time_ms < start + spec.size_ms());
                prop_assert_eq!(start.rem_euclid(slide_ms), 0);
            }
            prop_assert_eq!(windows[windows.len() - 1] + spec.size_ms(), spec.last_window_end(spec.pane_start(event_time_ms)));
        }
    }
}

//! One rule's state for one group key: a pure state machine over closed windows.
//!
//! ```text
//!            `needed` of the last `of` windows met
//!  Inactive ───────────────────────────────────────► Firing
//!     ▲        `clear` holds, or 5 windows without a row   │
//!     └────────────────────────────────────────────────────┘
//! ```
//!
//! - R1: a window without a row counts as "not met".
//! - R2: firing and resolved alternate, beginning with firing.
//! - R3: a series that is inactive and met nothing recently has no state at all.

use std::collections::VecDeque;

use bongsu_schemas::window::{rfc3339, rfc3339_option};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::ForWindows;

/// A firing alert resolves after so many windows without a row.
pub const ABSENT_WINDOWS_TO_RESOLVE: u32 = 5;

/// The state of a series, as `bongsu.rule-states` has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SeriesState {
    /// The last windows that `for` looks at, oldest first; the first of them met the condition.
    pub recent: VecDeque<JudgedWindow>,
    /// The alert, while it fires.
    pub firing: Option<Firing>,
}

/// A window that was judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgedWindow {
    /// Event time, inclusive.
    #[serde(with = "rfc3339")]
    pub window_start: DateTime<Utc>,
    /// Whether `when` held.
    pub met: bool,
    /// The view's values; empty without a row.
    pub values: Map<String, Value>,
    /// Earliest event in the window, where there is a row.
    #[serde(with = "rfc3339_option", default)]
    pub first_event_time: Option<DateTime<Utc>>,
}

/// An alert that fires.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Firing {
    /// The alert's id.
    pub alert_id: String,
    /// Wall clock.
    #[serde(with = "rfc3339")]
    pub fired_at: DateTime<Utc>,
    /// Earliest event of the window that fired.
    #[serde(with = "rfc3339_option", default)]
    pub first_event_time: Option<DateTime<Utc>>,
    /// Of the rule, as `service`: to resolve the alert when the rule is not configured any more.
    #[serde(default = "default_severity")]
    pub severity: u8,
    /// Whose alert it is.
    #[serde(default)]
    pub service: Option<String>,
    /// Windows without a row since the last one with a row.
    pub absent_windows: u32,
}

fn default_severity() -> u8 {
    3
}

/// What a closed window says about a series.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// The window has a row.
    Row {
        /// `when`
        met: bool,
        /// `clear`
        clear: bool,
        /// The view's values.
        values: Map<String, Value>,
        /// Earliest event.
        first_event_time: Option<DateTime<Utc>>,
    },
    /// The window has no row for the series.
    Absent,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// The alert begins; the caller names it with [`SeriesState::fire`].
    Fires,
    /// The alert ends.
    Resolves,
}

impl SeriesState {
    /// Takes the next window of the view, in the order of event time.
    pub fn step(
        &mut self,
        window_start: DateTime<Utc>,
        observation: Observation,
        needed: ForWindows,
    ) -> Option<Transition> {
        let (met, clear, absent) = match &observation {
            Observation::Row { met, clear, .. } => (*met, *clear, false),
            Observation::Absent => (false, false, true),
        };
        self.remember(window_start, observation, met, needed.of as usize);
        match &mut self.firing {
            Some(firing) => {
                firing.absent_windows = if absent { firing.absent_windows + 1 } else { 0 };
                let resolves = clear || firing.absent_windows >= ABSENT_WINDOWS_TO_RESOLVE;
                resolves.then_some(Transition::Resolves)
            }
            None => {
                let met_windows = self.recent.iter().filter(|window| window.met).count();
                (met_windows >= needed.needed as usize).then_some(Transition::Fires)
            }
        }
    }

    fn remember(&mut self, window_start: DateTime<Utc>, observation: Observation, met: bool, of: usize) {
        let (values, first_event_time) = match observation {
            Observation::Row { values, first_event_time, .. } => (values, first_event_time),
            Observation::Absent => (Map::new(), None),
        };
        self.recent.push_back(JudgedWindow { window_start, met, values, first_event_time });
        while self.recent.len() > of || self.recent.front().is_some_and(|oldest| !oldest.met) {
            self.recent.pop_front();
        }
    }

    /// Start of the first of the recent windows that met the condition: it names the alert.
    pub fn first_met_window(&self) -> Option<DateTime<Utc>> {
        self.recent.front().map(|window| window.window_start)
    }

    /// The alert begins.
    pub fn fire(
        &mut self,
        alert_id: String,
        fired_at: DateTime<Utc>,
        severity: u8,
        service: Option<String>,
    ) -> &Firing {
        let first_event_time = self.recent.iter().find_map(|window| window.first_event_time);
        self.firing.insert(Firing { alert_id, fired_at, first_event_time, severity, service, absent_windows: 0 })
    }

    /// The alert ends; gives what it was. What was met before does not count for the next one.
    pub fn resolve(&mut self) -> Option<Firing> {
        self.recent.clear();
        self.firing.take()
    }

    /// Whether there is nothing to remember (R3).
    pub fn is_trivial(&self) -> bool {
        self.recent.is_empty() && self.firing.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::time;
    use proptest::prelude::*;

    /// `x` met, `.` not met but not clear, `c` clear, `-` no row.
    fn observation(letter: char) -> Observation {
        match letter {
            '-' => Observation::Absent,
            _ => Observation::Row {
                met: letter == 'x',
                clear: letter == 'c',
                values: Map::new(),
                first_event_time: None,
            },
        }
    }

    fn play(windows: &str, needed: u32, of: u32) -> String {
        let mut state = SeriesState::default();
        let mut step = |(minute, letter): (usize, char)| {
            let transition = state.step(time(minute as i64 * 60_000), observation(letter), ForWindows { needed, of });
            match transition {
                Some(Transition::Fires) => {
                    state.fire("id".to_owned(), time(0), 3, None);
                    'F'
                }
                Some(Transition::Resolves) => {
                    state.resolve().unwrap();
                    'R'
                }
                None => '_',
            }
        };
        windows.chars().enumerate().map(&mut step).collect()
    }

    #[test]
    fn alerts_begin_and_end() {
        #[rustfmt::skip]
        let cases = [
            // name                                       windows         for     transitions
            ("one window is enough",                      "cxxcx",        (1, 1), "_F_RF"),
            ("two of three",                              "x.x",          (2, 3), "__F"),
            ("two of three, too far apart",               "x..x",         (2, 3), "____"),
            ("a missing window counts as not met",        "x-x",          (2, 3), "__F"),
            ("three of three",                            "xx-xxx",       (3, 3), "_____F"),
            ("between when and clear nothing changes",    "x...c",        (1, 1), "F___R"),
            ("five windows without a row",                "x-----",       (1, 1), "F____R"),
            ("a row starts the count again",              "x----.-----",  (1, 1), "F_________R"),
            ("a new alert needs new windows",             "xxcx.x",       (2, 3), "_FR__F"),
        ];
        for (name, windows, (needed, of), expected) in cases {
            assert_eq!(play(windows, needed, of), expected, "{name}");
        }
    }

    proptest! {
        /// Guarantees: R2 and R3.
        #[test]
        fn firing_and_resolved_alternate(windows in "[x.c-]{0,60}", needed in 1u32..4, more in 0u32..4) {
            let transitions: String = play(&windows, needed, needed + more).chars().filter(|c| *c != '_').collect();
            prop_assert!("FR".repeat(40).starts_with(&transitions));
            let quiet = format!("{windows}{}", "c".repeat(10));
            let mut state = SeriesState::default();
            for (minute, letter) in quiet.chars().enumerate() {
                match state.step(time(minute as i64 * 60_000), observation(letter), ForWindows { needed, of: needed + more }) {
                    Some(Transition::Fires) => { state.fire("id".to_owned(), time(0), 3, None); }
                    Some(Transition::Resolves) => { state.resolve(); }
                    None => {}
                }
            }
            prop_assert!(state.is_trivial());
        }
    }
}

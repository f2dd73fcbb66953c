//! One rule's state for one group key: a pure state machine over closed windows.
//!
//! ```text
//!            `needed` of the last `of` windows met           as many critical
//!  Inactive ───────────────────────────────────────► Firing ◄────────────────► Critical
//!     ▲        `clear` holds, or 5 windows without a row │   critical's `clear`    │
//!     └──────────────────────────────────────────────────┴─────────────────────────┘
//! ```
//!
//! - R1: a window without a row counts as "not met".
//! - R2: firing and resolved alternate, beginning with firing; between them only the level changes.
//! - R3: a series that is inactive and met nothing recently has no state at all.
//! - R4: an alert that fired within an open window is judged by that window and later ones, not by earlier ones that close after it.

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
    /// Whether it held with the parameters of the higher level.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub critical: bool,
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
    /// Start of the window that made it fire or become critical; none in states of older versions.
    #[serde(with = "rfc3339_option", default)]
    pub window_start: Option<DateTime<Utc>>,
    /// Whether the higher level was reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub critical: bool,
    /// Of the last record.
    #[serde(default = "first_sequence")]
    pub sequence: u32,
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

fn first_sequence() -> u32 {
    1
}

/// What a rule's conditions say of a row. A rule with one threshold is never critical.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// `when`
    pub met: bool,
    /// `clear`
    pub clear: bool,
    /// `when` with the parameters of the higher level.
    pub critical: bool,
    /// `clear` with them.
    pub critical_clear: bool,
}

/// What a closed window says about a series.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// The window has a row.
    Row {
        /// What the conditions say.
        verdict: Verdict,
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
    /// The alert is critical now, or no longer.
    ChangesLevel,
    /// The alert ends.
    Resolves,
}

/// What names an alert that begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Naming {
    /// The alert's id.
    pub alert_id: String,
    /// Wall clock.
    pub fired_at: DateTime<Utc>,
    /// Whose alert it is.
    pub service: Option<String>,
}

impl SeriesState {
    /// Takes the next closed window of the view, in the order of event time.
    pub fn step(
        &mut self,
        window_start: DateTime<Utc>,
        observation: Observation,
        needed: ForWindows,
    ) -> Option<Transition> {
        if self.changed_in().is_some_and(|changed_in| window_start < changed_in) {
            return None;
        }
        let (verdict, is_absent) = match &observation {
            Observation::Row { verdict, .. } => (*verdict, false),
            Observation::Absent => (Verdict::default(), true),
        };
        self.remember(window_start, observation, verdict, needed.of as usize);
        let turns_critical = self.count(|window| window.critical) >= needed.needed;
        let Some(firing) = &mut self.firing else {
            return (self.count(|window| window.met) >= needed.needed).then_some(Transition::Fires);
        };
        firing.absent_windows = if is_absent { firing.absent_windows + 1 } else { 0 };
        let is_over = verdict.clear && !verdict.critical;
        if is_over || firing.absent_windows >= ABSENT_WINDOWS_TO_RESOLVE {
            return Some(Transition::Resolves);
        }
        let changes = if firing.critical { verdict.critical_clear && !verdict.critical } else { turns_critical };
        changes.then(|| self.change_level(window_start))
    }

    /// Takes a row of a window that is still open, in which `when` can only become true. One window must be enough to fire.
    pub fn step_early(&mut self, window_start: DateTime<Utc>, observation: Observation) -> Option<Transition> {
        let Observation::Row { verdict, .. } = &observation else { return None };
        let verdict = *verdict;
        let is_news = match &self.firing {
            Some(firing) => verdict.critical && !firing.critical,
            None => verdict.met,
        };
        if !is_news {
            return None;
        }
        let of = self.recent.len() + 1;
        self.remember(window_start, observation, verdict, of);
        match &self.firing {
            Some(_) => Some(self.change_level(window_start)),
            None => Some(Transition::Fires),
        }
    }

    fn changed_in(&self) -> Option<DateTime<Utc>> {
        self.firing.as_ref()?.window_start
    }

    fn count(&self, counts: impl Fn(&JudgedWindow) -> bool) -> u32 {
        u32::try_from(self.recent.iter().filter(|window| counts(window)).count()).unwrap_or(u32::MAX)
    }

    fn change_level(&mut self, window_start: DateTime<Utc>) -> Transition {
        if let Some(firing) = &mut self.firing {
            firing.critical = !firing.critical;
            firing.sequence += 1;
            firing.window_start = Some(window_start);
            if !firing.critical {
                // As at the end of an alert: to be critical again takes new windows.
                self.recent.iter_mut().for_each(|window| window.critical = false);
            }
        }
        Transition::ChangesLevel
    }

    fn remember(&mut self, window_start: DateTime<Utc>, observation: Observation, verdict: Verdict, of: usize) {
        let (values, first_event_time) = match observation {
            Observation::Row { values, first_event_time, .. } => (values, first_event_time),
            Observation::Absent => (Map::new(), None),
        };
        // The same window, when it was open.
        self.recent.pop_back_if(|last| last.window_start == window_start);
        let Verdict { met, critical, .. } = verdict;
        self.recent.push_back(JudgedWindow { window_start, met, critical, values, first_event_time });
        while self.recent.len() > of || self.recent.front().is_some_and(|oldest| !oldest.met) {
            self.recent.pop_front();
        }
    }

    /// Start of the first of the recent windows that met the condition: it names the alert.
    pub fn first_met_window(&self) -> Option<DateTime<Utc>> {
        self.recent.front().map(|window| window.window_start)
    }

    /// The alert begins, with as many critical windows as make it critical at once.
    pub fn fire(&mut self, naming: Naming, needed: ForWindows) -> &mut Firing {
        let first_event_time = self.recent.iter().find_map(|window| window.first_event_time);
        let critical = self.count(|window| window.critical) >= needed.needed;
        let window_start = self.recent.back().map(|window| window.window_start);
        let Naming { alert_id, fired_at, service } = naming;
        self.firing.insert(Firing {
            alert_id,
            fired_at,
            window_start,
            critical,
            sequence: first_sequence(),
            first_event_time,
            severity: default_severity(),
            service,
            absent_windows: 0,
        })
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

    /// `X` critical, `x` met, `.` not met but not clear, `c` clear, `-` no row. What is not critical is clear of it.
    fn observation(letter: char) -> Observation {
        let verdict = Verdict {
            met: matches!(letter, 'x' | 'X'),
            clear: letter == 'c',
            critical: letter == 'X',
            critical_clear: letter != 'X',
        };
        match letter {
            '-' => Observation::Absent,
            _ => Observation::Row { verdict, values: Map::new(), first_event_time: None },
        }
    }

    fn naming() -> Naming {
        Naming { alert_id: "id".to_owned(), fired_at: time(0), service: None }
    }

    fn minute(minute: usize) -> DateTime<Utc> {
        time(minute as i64 * 60_000)
    }

    /// `F` fires, `C` becomes critical or fires so, `W` is no longer, `R` is resolved.
    fn play(windows: &str, needed: u32, of: u32) -> String {
        let needed = ForWindows { needed, of };
        let mut state = SeriesState::default();
        let mut step = |(index, letter): (usize, char)| match state.step(minute(index), observation(letter), needed) {
            Some(Transition::Fires) if state.fire(naming(), needed).critical => 'C',
            Some(Transition::Fires) => 'F',
            Some(Transition::ChangesLevel) if state.firing.as_ref().unwrap().critical => 'C',
            Some(Transition::ChangesLevel) => 'W',
            Some(Transition::Resolves) => {
                state.resolve().unwrap();
                'R'
            }
            None => '_',
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
            ("an alert becomes critical and less so",     "xXXxc",        (1, 1), "FC_WR"),
            ("it may be critical at once",                "X.c",          (1, 1), "CWR"),
            ("critical needs as many windows",            "xxXx.XXc",     (2, 3), "_F____CR"),
            ("to be critical again takes new windows",    "XxxxX",        (1, 3), "CW__C"),
            ("as many as before",                         "XXxxXX",       (2, 4), "_CW__C"),
            ("without rows it stays critical",            "X-----",       (1, 1), "C____R"),
        ];
        for (name, windows, (needed, of), expected) in cases {
            assert_eq!(play(windows, needed, of), expected, "{name}");
        }
    }

    /// Scenario: an alert fires in the open window of minute 5; those of minutes 3 and 4 close after it, then its own.
    /// Guarantees: R4, and that the window counts once.
    #[test]
    fn an_early_alert_outlives_earlier_windows() {
        let needed = ForWindows::default();
        let mut state = SeriesState::default();
        assert_eq!(state.step_early(minute(5), observation('.')), None);
        assert_eq!(state.step_early(minute(5), observation('x')), Some(Transition::Fires));
        state.fire(naming(), needed);
        assert_eq!(state.step_early(minute(5), observation('x')), None, "told once");
        assert_eq!(state.step(minute(3), observation('c'), needed), None);
        assert_eq!(state.step(minute(4), Observation::Absent, needed), None);
        assert_eq!(state.step_early(minute(5), observation('X')), Some(Transition::ChangesLevel));
        assert_eq!(state.step(minute(5), observation('X'), needed), None);
        assert_eq!(state.recent.len(), 1);
        assert_eq!(state.step(minute(6), observation('c'), needed), Some(Transition::Resolves));
        assert_eq!(state.resolve().map(|firing| firing.sequence), Some(2));
    }

    proptest! {
        /// Guarantees: R2 and R3.
        #[test]
        fn firing_and_resolved_alternate(windows in "[Xx.c-]{0,60}", needed in 1u32..4, more in 0u32..4) {
            let played = play(&format!("{windows}{}", "c".repeat(10)), needed, needed + more);
            let mut is_firing = false;
            for transition in played.chars().filter(|letter| *letter != '_') {
                prop_assert_eq!(is_firing, matches!(transition, 'R' | 'W') || (is_firing && transition == 'C'), "{}", played);
                is_firing = transition != 'R';
            }
            prop_assert!(!is_firing);
            let mut state = SeriesState::default();
            for (index, letter) in windows.chars().chain("cccccccccc".chars()).enumerate() {
                let needed = ForWindows { needed, of: needed + more };
                match state.step(minute(index), observation(letter), needed) {
                    Some(Transition::Fires) => { state.fire(naming(), needed); }
                    Some(Transition::Resolves) => { state.resolve(); }
                    Some(Transition::ChangesLevel) | None => {}
                }
            }
            prop_assert!(state.is_trivial());
        }
    }
}

//! How often a message may change: what is news goes out at once, what only goes back and forth waits. Pure.
//!
//! - U1: news never waits: an alert of a rule and key that the message did not have, a higher severity, a new name behind "taken by",
//!   the first resolution.
//! - U2: within [`Pace::per`] at most [`Pace::turns`] versions are sent that tell of nothing but alerts that were there before. The first
//!   resolution waits for nobody, but counts as one of them.
//! - U3: what waits is the newest version, so that the last state always arrives.
//!
//! The memory, [`Told`], is part of the ledger: a restart does not forget it.

use std::collections::BTreeSet;

use bongsu_schemas::alert::AlertRecord;
use bongsu_schemas::key::{key_text, stable_id};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// Series that are remembered of one message; an incident has fewer.
const MAX_SERIES: usize = 1_000;
/// Digits of a series' id. Two of one incident with the same one would make an alert look as if it had been shown.
const SERIES_DIGITS: usize = 12;

/// How often messages may go back and forth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) turns: usize,
    pub(crate) per: TimeDelta,
}

/// Three in an hour: a person who looks twice an hour sees each of them.
pub(crate) const PACE: Pace = Pace { turns: 3, per: TimeDelta::hours(1) };

/// What one version of a message tells, as far as it decides whether it is news.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Ids of its alerts' rules and keys, see [`series_of`].
    pub(crate) series: BTreeSet<String>,
    /// 1 to 5.
    pub(crate) severity: u8,
    pub(crate) acknowledged_by: Option<String>,
    pub(crate) is_resolved: bool,
}

/// What a message has told so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Told {
    /// 0 where nobody knows what was told: the message was found again after a crash, or an earlier version of Bongsu sent it.
    severity: u8,
    series: BTreeSet<String>,
    /// Series for which the thread still lacks a reply.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) owed: BTreeSet<String>,
    /// Replies in the thread.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) replies: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged_by: Option<String>,
    was_resolved: bool,
    /// When it last went back or forth: the latest [`Pace::turns`] times, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    turns: Vec<DateTime<Utc>>,
}

/// What a version is, compared to what was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// Alerts that were there before fire or end again.
    Repeat,
    /// All alerts are over for the first time.
    FirstResolution,
    /// Something that people do not know yet.
    News,
}

impl Told {
    /// Nothing is known about what was told.
    pub(crate) fn is_unknown(&self) -> bool {
        self.severity == 0
    }

    /// For serde.
    pub(crate) fn is_default(&self) -> bool {
        *self == Told::default()
    }

    /// What `state` would tell that was not told yet.
    pub(crate) fn change(&self, state: &State) -> Change {
        let is_news = self.is_unknown()
            || state.severity > self.severity
            || state.acknowledged_by != self.acknowledged_by
            || !state.series.is_subset(&self.series);
        match (is_news, state.is_resolved && !self.was_resolved) {
            (true, _) => Change::News,
            (false, true) => Change::FirstResolution,
            (false, false) => Change::Repeat,
        }
    }

    /// Series that `state` has and that were not told; none where nobody knows what was.
    pub(crate) fn unknown_series(&self, state: &State) -> BTreeSet<String> {
        if self.is_unknown() { BTreeSet::new() } else { state.series.difference(&self.series).cloned().collect() }
    }

    /// When a version that is such a change may be sent; none if at once.
    pub(crate) fn not_before(&self, change: Change, now: DateTime<Utc>, pace: Pace) -> Option<DateTime<Utc>> {
        if change != Change::Repeat || self.turns.len() < pace.turns {
            return None;
        }
        let oldest_that_counts = self.turns[self.turns.len() - pace.turns];
        // A clock that was set back must not hold a message up for longer than the pace does.
        let free = (oldest_that_counts + pace.per).min(now + pace.per);
        (free > now).then_some(free)
    }

    /// The memory after `state`, which was such a change, was sent.
    pub(crate) fn after(&self, state: &State, change: Change, now: DateTime<Utc>, pace: Pace) -> Told {
        let mut told = self.clone();
        told.severity = told.severity.max(state.severity.max(1));
        told.series.extend(state.series.iter().cloned());
        if told.series.len() > MAX_SERIES {
            told.series = state.series.clone();
        }
        told.acknowledged_by = state.acknowledged_by.clone();
        told.was_resolved |= state.is_resolved;
        if change != Change::News {
            told.turns.push(now);
            let surplus = told.turns.len().saturating_sub(pace.turns);
            told.turns.drain(..surplus);
        }
        told
    }
}

/// Id of an alert's rule and key: the same for each time that it fires.
pub(crate) fn series_of(alert: &AlertRecord) -> String {
    let mut id = stable_id(["series", &alert.rule, &key_text(&alert.key)]);
    id.truncate(SERIES_DIGITS);
    id
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use proptest::prelude::*;

    use super::*;

    fn noon() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 11, 16, 12, 0, 0).unwrap()
    }

    fn state(series: &[&str], severity: u8, is_resolved: bool) -> State {
        let series = series.iter().map(|series| (*series).to_owned()).collect();
        State { series, severity, acknowledged_by: None, is_resolved }
    }

    /// A message as a channel's worker treats it: the newest version waits until it may go out.
    struct Simulated {
        told: Told,
        waiting: Option<State>,
        shown: State,
        sent: Vec<(DateTime<Utc>, Change)>,
    }

    impl Simulated {
        fn posted(state: State) -> Simulated {
            let told = Told::default().after(&state, Change::News, noon(), PACE);
            Simulated { told, waiting: None, shown: state, sent: Vec::new() }
        }

        fn tick(&mut self, now: DateTime<Utc>) {
            let Some(state) = self.waiting.take() else { return };
            let change = self.told.change(&state);
            if self.told.not_before(change, now, PACE).is_some() {
                self.waiting = Some(state);
                return;
            }
            self.told = self.told.after(&state, change, now, PACE);
            self.sent.push((now, change));
            self.shown = state;
        }
    }

    /// Scenario: a series that crosses its threshold every other minute for an hour, and then stays quiet.
    /// Guarantees: U2: three updates in that hour, the first of them the first resolution and at once; U3: the last state arrives.
    #[test]
    fn a_series_that_flaps_for_an_hour_updates_three_times() {
        let mut message = Simulated::posted(state(&["a"], 3, false));
        for minute in 1..=60 {
            message.waiting = Some(state(&["a"], 3, minute % 2 == 1));
            message.tick(noon() + TimeDelta::minutes(minute));
        }
        assert_eq!(message.sent.len(), 3, "{:?}", message.sent);
        assert_eq!(message.sent[0], (noon() + TimeDelta::minutes(1), Change::FirstResolution));
        message.waiting = Some(state(&["a"], 3, true));
        for minute in 61..=125 {
            message.tick(noon() + TimeDelta::minutes(minute));
        }
        assert!(message.waiting.is_none() && message.shown.is_resolved, "{:?}", message.sent);
    }

    /// Scenario: versions against a message that has told of one alert of severity 3 and has used up its turns.
    /// Guarantees: U1.
    #[test]
    fn news_never_waits() {
        let mut told = Told::default().after(&state(&["a"], 3, false), Change::News, noon(), PACE);
        for _ in 0..PACE.turns {
            told = told.after(&state(&["a"], 3, true), Change::Repeat, noon(), PACE);
        }
        let taken = State { acknowledged_by: Some("me".to_owned()), ..state(&["a"], 3, false) };
        let cases = [
            ("fires again", state(&["a"], 3, false), Change::Repeat),
            ("over again", state(&["a"], 3, true), Change::Repeat),
            ("less severe", state(&["a"], 2, false), Change::Repeat),
            ("more severe", state(&["a"], 4, false), Change::News),
            ("another alert", state(&["a", "b"], 3, false), Change::News),
            ("taken", taken, Change::News),
        ];
        let soon = noon() + TimeDelta::minutes(1);
        for (name, state, expected) in cases {
            let change = told.change(&state);
            assert_eq!(change, expected, "{name}");
            let free = told.not_before(change, soon, PACE);
            assert_eq!(free, (expected == Change::Repeat).then(|| noon() + PACE.per), "{name}");
        }
        assert_eq!(told.unknown_series(&state(&["a", "b"], 3, false)), BTreeSet::from(["b".to_owned()]));
        assert_eq!(
            told.not_before(Change::Repeat, noon() - TimeDelta::days(9), PACE),
            Some(noon() - TimeDelta::days(9) + PACE.per)
        );
    }

    /// Scenario: an entry of the ledger from before there was a pace.
    /// Guarantees: it is read; the next version goes out at once, and its alerts are not taken for new ones.
    #[test]
    fn an_older_entry_is_unknown() {
        let told: Told = serde_json::from_str("{}").unwrap();
        assert_eq!(told.change(&state(&["a"], 3, false)), Change::News);
        assert!(told.unknown_series(&state(&["a"], 3, false)).is_empty());
        let known = told.after(&state(&["a"], 3, true), Change::FirstResolution, noon(), PACE);
        let read: Told = serde_json::from_str(&serde_json::to_string(&known).unwrap()).unwrap();
        assert_eq!(read, known);
    }

    proptest! {
        /// Guarantees: U2 and U3 for any sequence of versions.
        #[test]
        fn no_hour_has_more_turns_and_the_last_state_arrives(
            steps in prop::collection::vec((1i64..20, 0u8..4, 1u8..4, any::<bool>()), 1..80),
        ) {
            let mut message = Simulated::posted(state(&["0"], 1, false));
            let (mut minute, mut last) = (0, message.shown.clone());
            for (pause, series, severity, is_resolved) in steps {
                for _ in 0..pause {
                    minute += 1;
                    message.tick(noon() + TimeDelta::minutes(minute));
                }
                last = state(&["0", &series.to_string()], severity, is_resolved);
                message.waiting = Some(last.clone());
                message.tick(noon() + TimeDelta::minutes(minute));
            }
            for _ in 0..=PACE.per.num_minutes() {
                minute += 1;
                message.tick(noon() + TimeDelta::minutes(minute));
            }
            prop_assert_eq!(&message.shown, &last);
            let repeats: Vec<_> = message.sent.iter().filter(|(_, change)| *change == Change::Repeat).collect();
            for (position, (at, _)) in repeats.iter().enumerate() {
                let within = repeats[position..].iter().take_while(|(later, _)| *later < *at + PACE.per).count();
                prop_assert!(within <= PACE.turns, "{} within an hour of {at}", within);
            }
        }
    }
}

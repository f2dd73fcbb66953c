//! Who took which incident. Pure.
//!
//! - T1: each acknowledgement is applied once to the incidents as they stand, in the order of the topic, whether it comes live or is applied
//!   anew after the alerts were read again: so the sequence of an incident ends at the same number.

use std::collections::{BTreeSet, VecDeque};

use bongsu_schemas::key::stable_id;
use chrono::{DateTime, Utc};

use crate::incidents::{Correlator, IncidentChange};
use crate::slack::message::{cut, one_line};

/// Over this number, the oldest ones are forgotten; their incidents have been long before.
const MAX_ACKNOWLEDGEMENTS: usize = 10_000;
const MAX_NAME_CHARS: usize = 80;

/// All acknowledgements so far, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgements {
    given: VecDeque<Acknowledgement>,
}

/// Somebody takes an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acknowledgement {
    pub(crate) incident_id: String,
    pub(crate) by: String,
    /// Wall clock.
    at: DateTime<Utc>,
    is_applied: bool,
}

impl Acknowledgement {
    /// The id of the entry in the ledger that says that the incident was published with it.
    pub(crate) fn id(&self) -> String {
        stable_id(["acknowledged", &self.incident_id, &self.by, &self.at.to_rfc3339()])
    }
}

impl Acknowledgements {
    /// Takes the next one; it waits until it is applied. Nobody cannot take an incident.
    pub(crate) fn add(&mut self, incident_id: &str, by: &str, at: DateTime<Utc>) {
        let by = cut(&one_line(by), MAX_NAME_CHARS);
        if by.is_empty() {
            return;
        }
        self.given.push_back(Acknowledgement { incident_id: incident_id.to_owned(), by, at, is_applied: false });
        if self.given.len() > MAX_ACKNOWLEDGEMENTS {
            self.given.pop_front();
        }
    }

    /// The alerts are read from the beginning: all wait again.
    pub(crate) fn begin_anew(&mut self) {
        self.given.iter_mut().for_each(|acknowledgement| acknowledgement.is_applied = false);
    }

    /// Applies those that wait and whose incident is known.
    pub(crate) fn apply_to(&mut self, correlator: &mut Correlator) -> Vec<IncidentChange> {
        let waits = |acknowledgement: &&mut Acknowledgement| !acknowledgement.is_applied;
        let known: BTreeSet<String> =
            correlator.incidents().map(|incident| incident.record.incident_id.clone()).collect();
        let mut changes = Vec::new();
        for acknowledgement in self.given.iter_mut().filter(waits) {
            let Acknowledgement { incident_id, by, at, is_applied } = acknowledgement;
            if known.contains(incident_id) {
                *is_applied = true;
                changes.extend(correlator.acknowledge(incident_id, by, *at));
            }
        }
        changes
    }

    /// Those that have been applied.
    pub(crate) fn applied(&self) -> impl Iterator<Item = &Acknowledgement> {
        self.given.iter().filter(|acknowledgement| acknowledgement.is_applied)
    }
}

#[cfg(test)]
mod tests {
    use bongsu_schemas::alert::AlertStatus::{Firing, Resolved};

    use super::*;
    use crate::incidents::tests::alert;

    fn at(minute: i64) -> DateTime<Utc> {
        "2026-11-16T12:00:00Z".parse::<DateTime<Utc>>().unwrap() + chrono::TimeDelta::minutes(minute)
    }

    /// Scenario: an incident is taken, twice by the same person, handed over and back between its alerts; then the alerts are read again.
    /// Guarantees: T1: who took it and the sequence are the same afterwards, and nothing is applied twice.
    #[test]
    fn reading_again_ends_at_the_same_sequence() {
        let steps = [
            alert("errors", Some("order"), Firing, 1),
            alert("latency", Some("order"), Firing, 2),
            alert("errors", Some("order"), Resolved, 5),
        ];
        let mut correlator = Correlator::default();
        let mut acknowledgements = Acknowledgements::default();
        acknowledgements.add("unknown", "nobody knows", at(0));
        acknowledgements.add("unknown", " \n", at(0));
        let id = correlator.apply(&steps[0])[0].incident.record.incident_id.clone();
        let mut taken = Vec::new();
        for (minute, by) in [(1, "Kim"), (2, "Kim"), (3, "Lee\n"), (4, "Kim")] {
            acknowledgements.add(&id, by, at(minute));
            let changes = acknowledgements.apply_to(&mut correlator);
            taken.extend(changes.into_iter().map(|change| change.incident.record.acknowledged_by.clone().unwrap()));
        }
        assert_eq!(taken, ["Kim", "Lee", "Kim"]);
        correlator.apply(&steps[1]);
        correlator.apply(&steps[2]);
        let live = correlator.incidents().next().unwrap().record.clone();
        assert_eq!((live.sequence, live.acknowledged_by.as_deref()), (6, Some("Kim")));
        assert_eq!(acknowledgements.applied().count(), 4);

        let mut again = Correlator::default();
        acknowledgements.begin_anew();
        steps.iter().for_each(|step| assert_eq!(again.apply(step).len(), 1));
        assert_eq!(acknowledgements.apply_to(&mut again).len(), 3);
        assert!(acknowledgements.apply_to(&mut again).is_empty());
        let read_again = &again.incidents().next().unwrap().record;
        assert_eq!((read_again.sequence, &read_again.acknowledged_by), (live.sequence, &live.acknowledged_by));
    }

    /// Guarantees: memory is bounded, and names are.
    #[test]
    fn memory_is_bounded() {
        let mut acknowledgements = Acknowledgements::default();
        for number in 0..=MAX_ACKNOWLEDGEMENTS {
            acknowledgements.add(&number.to_string(), &"x".repeat(500), at(0));
        }
        assert_eq!(acknowledgements.given.len(), MAX_ACKNOWLEDGEMENTS);
        assert_eq!(acknowledgements.given[0].incident_id, "1");
        assert_eq!(acknowledgements.given[0].by.chars().count(), MAX_NAME_CHARS);
    }
}

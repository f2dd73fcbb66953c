//! Which incident an alert is in. In this order:
//!
//! 1. where it was published before ([`Published`]);
//! 2. *the same series*, of an incident that is open or was resolved at most 15 minutes before: a series that flaps is one incident;
//! 3. *explained*: an alert that fires, or fired within the last five minutes, explains it by its rule, or it explains one that fires;
//! 4. *the same service* (without a service: the same rule), where the times of two alerts overlap: the later one fired while the
//!    earlier one did, or its window began before the earlier one's end;
//! 5. *calls*: a firing alert of a service that calls its service or is called by it, directly or not, began at most ten minutes before
//!    or after;
//! 6. a new one.
//!
//! Two alerts that name different environments never meet. All times are event time: a replay decides as the day did.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bongsu_schemas::alert::{AlertRecord, AlertStatus, Evidence};
use bongsu_schemas::key::stable_id;
use chrono::{DateTime, TimeDelta, Utc};

use super::calls::{CallGraph, Neighbours};
use super::incident::Incident;
use super::published::Published;
use super::{IncidentChange, Transition, onset};

/// Resolved incidents that are remembered, for what re-opens them and for records that come again.
pub(super) const MAX_RESOLVED: usize = 1_000;
/// Open incidents. There are so many only if alerts do not end any more; those that changed longest ago are forgotten.
const MAX_OPEN: usize = 10_000;
/// A series that fires again this soon is one that flaps.
pub(super) const FLAPS_WITHIN: TimeDelta = TimeDelta::minutes(15);
/// A fault and its consequence begin this close to each other.
const ONSETS_WITHIN: TimeDelta = TimeDelta::minutes(10);

/// The fold's state: open incidents, and the latest resolved ones.
#[derive(Debug, Default)]
pub struct Correlator {
    pub(super) incidents: BTreeMap<String, Arc<Incident>>,
    pub(super) incident_of_alert: BTreeMap<String, String>,
    /// Incidents that were resolved, the one whose last time is longest ago first; some are open again.
    resolved: VecDeque<String>,
    open: usize,
    calls: CallGraph,
    published: Published,
}

impl Correlator {
    /// An empty state that follows what was published, and knows who calls whom.
    pub fn new(published: Published, calls: CallGraph) -> Correlator {
        Correlator { published, calls, ..Correlator::default() }
    }

    /// Who calls whom: more of it helps to decide about alerts that come later.
    pub fn calls(&mut self) -> &mut CallGraph {
        &mut self.calls
    }

    /// Takes the next record of `bongsu.alerts`.
    pub fn apply(&mut self, alert: &AlertRecord) -> Vec<IncidentChange> {
        let known = self.incident_of_alert.get(&alert.alert_id).cloned();
        let change = match (known, alert.status) {
            (Some(id), _) => self.change(&id, alert),
            (None, AlertStatus::Firing) => Some(self.fire(alert)),
            // Its firing record was deleted by retention.
            (None, AlertStatus::Resolved) => None,
        };
        change.into_iter().collect()
    }

    /// Notes who took an incident, at a time by the wall clock. Nothing for an unknown incident, and where they have it already.
    pub fn acknowledge(&mut self, incident_id: &str, by: &str, at: DateTime<Utc>) -> Option<IncidentChange> {
        let entry = self.incidents.get_mut(incident_id)?;
        if entry.record.acknowledged_by.as_deref() == Some(by) {
            return None;
        }
        Arc::make_mut(entry).acknowledge(by, at);
        Some(IncidentChange { incident: Arc::clone(entry), transition: Transition::Updated })
    }

    /// Open incidents and the latest resolved ones, by id.
    pub fn incidents(&self) -> impl Iterator<Item = &Arc<Incident>> {
        self.incidents.values()
    }

    /// Takes an alert that was not heard of before.
    fn fire(&mut self, alert: &AlertRecord) -> IncidentChange {
        let published = self.published.incident_of(&alert.alert_id).map(str::to_owned);
        let is_published = published.is_some();
        let id = published
            .or_else(|| self.choose(alert).map(str::to_owned))
            .unwrap_or_else(|| stable_id(["incident", &alert.alert_id]));
        let entry = self.incidents.entry(id.clone()).or_insert_with(|| Arc::new(Incident::new(id.clone(), alert)));
        let incident = Arc::make_mut(entry);
        let was_open = incident.is_open();
        let siblings = alert.evidence.siblings.or_else(|| self.published.siblings(&id, &alert.rule));
        let alert = &AlertRecord { evidence: Evidence { siblings, ..alert.evidence.clone() }, ..alert.clone() };
        if is_published {
            // What was known then, not what is known now: the cause that people were told of stays the cause.
            incident.learn_calls(self.published.calls(&id).cloned());
        } else if let Some(service) = alert.service.as_deref().filter(|service| incident.is_new_to_others(service)) {
            let neighbours = self.calls.neighbours(service);
            incident.learn_neighbours(service, &neighbours);
        }
        incident.fire(alert);
        let transition = if was_open { Transition::Updated } else { Transition::Opened };
        let change = IncidentChange { incident: Arc::clone(entry), transition };
        self.incident_of_alert.insert(alert.alert_id.clone(), id);
        if !was_open {
            self.open += 1;
            self.forget_stalest_open();
        }
        change
    }

    /// Takes a further record of a known alert.
    fn change(&mut self, id: &str, alert: &AlertRecord) -> Option<IncidentChange> {
        let entry = self.incidents.get_mut(id)?;
        if !entry.is_changed_by(alert) {
            return None;
        }
        let incident = Arc::make_mut(entry);
        match alert.status {
            AlertStatus::Firing => incident.update(alert),
            AlertStatus::Resolved => incident.resolve(alert),
        }
        if entry.is_open() {
            return Some(IncidentChange { incident: Arc::clone(entry), transition: Transition::Updated });
        }
        let change = IncidentChange { incident: Arc::clone(entry), transition: Transition::Resolved };
        self.open = self.open.saturating_sub(1);
        self.resolved.retain(|known| known != id);
        self.resolved.push_back(id.to_owned());
        self.forget_oldest_resolved();
        Some(change)
    }

    /// The incident that a new alert joins. Where several would take it, the choice depends on times and ids only.
    fn choose(&self, alert: &AlertRecord) -> Option<&str> {
        let fits = |incident: &&Arc<Incident>| incident.is_within_reach(alert) && incident.has_room(alert);
        let incidents: Vec<&Incident> = self.incidents.values().filter(fits).map(|incident| &**incident).collect();
        by_series(&incidents, alert)
            .or_else(|| by_explanation(&incidents, alert))
            .or_else(|| by_service(&incidents, alert))
            .or_else(|| by_calls(&incidents, alert, &self.calls))
    }

    fn forget_oldest_resolved(&mut self) {
        while self.resolved.len() > MAX_RESOLVED {
            let Some(id) = self.resolved.pop_front() else { return };
            if self.incidents.get(&id).is_some_and(|found| !found.is_open()) {
                self.forget(&id);
            }
        }
    }

    fn forget_stalest_open(&mut self) {
        if self.open <= MAX_OPEN {
            return;
        }
        let open = self.incidents.values().filter(|incident| incident.is_open());
        let stalest = open.map(|incident| (incident.changed_at(), incident.id())).min();
        if let Some(id) = stalest.map(|(_, id)| id.to_owned()) {
            self.forget(&id);
            self.open -= 1;
        }
    }

    fn forget(&mut self, id: &str) {
        if let Some(incident) = self.incidents.remove(id) {
            for alert_id in &incident.record.alert_ids {
                self.incident_of_alert.remove(alert_id);
            }
        }
    }
}

fn by_series<'a>(incidents: &[&'a Incident], alert: &AlertRecord) -> Option<&'a str> {
    let flaps = |incident: &Incident| incident.resolved_for(alert).is_none_or(|ago| ago <= FLAPS_WITHIN);
    let has = incidents.iter().filter(|incident| incident.has_series(alert) && flaps(incident));
    let latest =
        has.map(|incident| (incident.record.resolved_at.unwrap_or(DateTime::<Utc>::MAX_UTC), incident.id())).max();
    latest.map(|(_, id)| id)
}

fn by_explanation<'a>(incidents: &[&'a Incident], alert: &AlertRecord) -> Option<&'a str> {
    let nearest = incidents.iter().filter_map(|incident| Some((incident.explanation(alert)?, incident.id()))).min();
    nearest.map(|(_, id)| id)
}

fn by_service<'a>(incidents: &[&'a Incident], alert: &AlertRecord) -> Option<&'a str> {
    let latest = incidents.iter().filter_map(|incident| Some((incident.overlap(alert)?, incident.id()))).max();
    latest.map(|(_, id)| id)
}

fn by_calls<'a>(incidents: &[&'a Incident], alert: &AlertRecord, calls: &CallGraph) -> Option<&'a str> {
    let service = alert.service.as_deref()?;
    let onset = onset(alert);
    let mut near = Vec::new();
    for incident in incidents {
        let others = incident.firing_elsewhere(alert).map(|(other, since)| ((since - onset).abs(), other));
        near.extend(
            others.filter(|(apart, _)| *apart <= ONSETS_WITHIN).map(|(apart, other)| (apart, other, incident.id())),
        );
    }
    if near.is_empty() {
        // The graph is asked only where there is something to find.
        return None;
    }
    let Neighbours { callees, callers } = calls.neighbours(service);
    let connected = near.iter().filter(|(_, other, _)| callees.contains(*other) || callers.contains(*other));
    connected.min().map(|(_, _, id)| *id)
}

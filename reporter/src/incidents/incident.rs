//! An incident and its alerts: what a record changes in it, and what a new alert wants to know of it.

use std::collections::{BTreeMap, BTreeSet};

use bongsu_schemas::alert::{AlertRecord, AlertStatus};
use bongsu_schemas::incident::{IncidentRecord, IncidentStatus};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Map;

use super::calls::Neighbours;
use super::correlator::FLAPS_WITHIN;
use super::story::{Alike, LevelChange};
use super::{onset, same_environment};

/// An incident that is full takes no more alerts; the next one opens another. Bounds records and messages.
pub(super) const MAX_ALERTS: usize = 500;
/// An incident of so many services takes alerts of no others.
const MAX_SERVICES: usize = 200;
/// Pairs of services of which one reaches the other.
pub(super) const MAX_CALLS: usize = 1_000;
/// Lines of the timeline about who took it.
const MAX_TAKEN: usize = 10;
/// An alert that ended explains for so long what comes after it: the consequence may be noticed later than the cause, and end later.
const EXPLAINS_FOR: TimeDelta = TimeDelta::minutes(5);

/// An incident and its alerts.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    /// What is published.
    pub record: IncidentRecord,
    /// Its alerts, in the order in which they first fired; a series that fires again stays in its place.
    pub alerts: Vec<IncidentAlert>,
    /// Place in `alerts` of each alert id, those of earlier firings of a series as well.
    places: BTreeMap<String, usize>,
    /// Which of its services call which others, directly or not.
    pub(super) calls: BTreeSet<(String, String)>,
    /// Who took it and when, by the wall clock; the latest few.
    pub(super) taken: Vec<(DateTime<Utc>, String)>,
    /// That many alerts of one rule are one story, from when it was seen.
    pub(super) alike: Option<Alike>,
}

/// One series of alerts of an incident: a rule and a group key.
#[derive(Debug, Clone, PartialEq)]
pub struct IncidentAlert {
    /// The latest record with which it fired.
    pub firing: AlertRecord,
    /// The record that resolved it.
    pub resolved: Option<AlertRecord>,
    /// Id of the alert of this incident that explains it.
    pub explained_by: Option<String>,
    /// How many times it fired in this incident: more than once if it flaps.
    pub flaps: u32,
    /// Event time: when its condition first began to hold.
    pub onset: DateTime<Utc>,
    /// Event time: when its condition began to hold, the last time that it fired.
    pub since: DateTime<Utc>,
    /// Wall clock when it first fired.
    pub first_fired_at: DateTime<Utc>,
    /// Each severity that it has had in this incident, and the event time (end of the window) when it first had it: whoever was told of it
    /// then is told how it goes on.
    pub severities: BTreeMap<u8, DateTime<Utc>>,
    /// Event time: end of the window with which it fired the last time.
    pub(super) last_fired: DateTime<Utc>,
    /// What it said when it first fired.
    pub(super) first_summary: String,
    pub(super) level_change: Option<LevelChange>,
}

impl IncidentAlert {
    fn new(firing: &AlertRecord) -> IncidentAlert {
        let onset = onset(firing);
        IncidentAlert {
            firing: firing.clone(),
            resolved: None,
            explained_by: None,
            flaps: 1,
            onset,
            since: onset,
            first_fired_at: firing.fired_at,
            severities: BTreeMap::from([(firing.severity, firing.window_end)]),
            last_fired: firing.window_end,
            first_summary: firing.summary.clone(),
            level_change: None,
        }
    }

    /// The record that says how it is now.
    pub fn latest(&self) -> &AlertRecord {
        self.resolved.as_ref().unwrap_or(&self.firing)
    }

    /// Whether it fires.
    pub fn fires(&self) -> bool {
        self.resolved.is_none()
    }

    /// The highest severity that it has had in this incident.
    pub fn highest_severity(&self) -> u8 {
        self.severities.keys().last().copied().unwrap_or(self.firing.severity)
    }

    fn is_series_of(&self, alert: &AlertRecord) -> bool {
        self.firing.rule == alert.rule && self.firing.key == alert.key
    }

    /// Whether it can explain something at `at`, event time.
    fn explains_at(&self, at: DateTime<Utc>) -> bool {
        self.resolved.as_ref().is_none_or(|resolved| at < resolved.window_end + EXPLAINS_FOR)
    }

    /// Fires again.
    fn fire_again(&mut self, firing: &AlertRecord) {
        self.flaps = self.flaps.saturating_add(1);
        self.since = onset(firing);
        self.onset = self.onset.min(self.since);
        self.last_fired = firing.window_end;
        self.severities.entry(firing.severity).or_insert(firing.window_end);
        self.firing = firing.clone();
        self.resolved = None;
        self.explained_by = None;
    }
}

/// Whether `explained` names the rule of `cause`, and both can have one cause.
fn explains(cause: &AlertRecord, explained: &AlertRecord) -> bool {
    cause.rule != explained.rule && explained.explained_by.contains(&cause.rule) && same_environment(cause, explained)
}

/// What a new alert wants to know.
impl Incident {
    pub(super) fn id(&self) -> &str {
        &self.record.incident_id
    }

    /// Whether any of its alerts fires.
    pub fn is_open(&self) -> bool {
        self.record.status == IncidentStatus::Open
    }

    /// Wall clock when its first alert fired.
    pub fn first_fired_at(&self) -> Option<DateTime<Utc>> {
        self.alerts.iter().map(|alert| alert.first_fired_at).min()
    }

    /// Wall clock of its latest change.
    pub fn changed_at(&self) -> Option<DateTime<Utc>> {
        let at = |alert: &IncidentAlert| alert.latest().resolved_at.unwrap_or(alert.firing.fired_at);
        self.alerts.iter().map(at).max()
    }

    /// The alert that explains another one, as [`IncidentAlert::explained_by`] names it.
    pub fn cause_of(&self, alert: &IncidentAlert) -> Option<&IncidentAlert> {
        let place = self.places.get(alert.explained_by.as_ref()?)?;
        self.alerts.get(*place)
    }

    /// Whether a new alert can belong to it at all. Nearly all resolved incidents are passed over by this.
    pub(super) fn is_within_reach(&self, alert: &AlertRecord) -> bool {
        self.record.resolved_at.is_none_or(|end| alert.window_start <= end + FLAPS_WITHIN)
    }

    pub(super) fn has_room(&self, alert: &AlertRecord) -> bool {
        let services = &self.record.services;
        let has_service = |service| services.len() < MAX_SERVICES || services.contains(service);
        self.record.alert_ids.len() < MAX_ALERTS && alert.service.as_ref().is_none_or(has_service)
    }

    pub(super) fn has_series(&self, alert: &AlertRecord) -> bool {
        self.alerts.iter().any(|known| known.is_series_of(alert))
    }

    /// How long it had been resolved when `alert` fired; none if it is open.
    pub(super) fn resolved_for(&self, alert: &AlertRecord) -> Option<TimeDelta> {
        self.record.resolved_at.map(|end| alert.window_end - end)
    }

    /// How far apart the onsets of `alert` and of the nearest one are that explains it or is explained by it; none without such a one.
    pub(super) fn explanation(&self, alert: &AlertRecord) -> Option<TimeDelta> {
        let related = |known: &&IncidentAlert| {
            (explains(&known.firing, alert) && known.explains_at(alert.window_end))
                || (known.fires() && explains(alert, &known.firing))
        };
        let onset = onset(alert);
        self.alerts.iter().filter(related).map(|known| (known.since - onset).abs()).min()
    }

    /// The end of the latest alert of the same service (without one: of the same rule) that `alert` overlaps.
    pub(super) fn overlap(&self, alert: &AlertRecord) -> Option<DateTime<Utc>> {
        let is_of_subject = |known: &&IncidentAlert| {
            let known = &known.firing;
            known.service == alert.service
                && (known.service.is_some() || known.rule == alert.rule)
                && same_environment(known, alert)
        };
        let end =
            |known: &IncidentAlert| known.resolved.as_ref().map_or(DateTime::<Utc>::MAX_UTC, |end| end.window_end);
        self.alerts.iter().filter(is_of_subject).map(end).max().filter(|end| alert.window_start < *end)
    }

    /// Other services than `alert`'s that have an alert that fires, with its onset.
    pub(super) fn firing_elsewhere(&self, alert: &AlertRecord) -> impl Iterator<Item = (&str, DateTime<Utc>)> {
        let firing = self.alerts.iter().filter(|known| known.fires() && same_environment(&known.firing, alert));
        let elsewhere = firing.filter_map(|known| Some((known.firing.service.as_deref()?, known.since)));
        elsewhere.filter(|(service, _)| alert.service.as_deref() != Some(*service))
    }

    /// Whether `service` joins others here, so that it matters who calls whom.
    pub(super) fn is_new_to_others(&self, service: &str) -> bool {
        !self.record.services.is_empty() && !self.record.services.iter().any(|known| known == service)
    }

    /// Whether a record of one of its alerts is newer than what is known (I2). Of a series only the latest firing can change.
    pub(super) fn is_changed_by(&self, alert: &AlertRecord) -> bool {
        let known = self.places.get(&alert.alert_id).and_then(|place| self.alerts.get(*place));
        let is_latest = |known: &&IncidentAlert| known.fires() && known.firing.alert_id == alert.alert_id;
        known.filter(is_latest).is_some_and(|known| alert.sequence > known.firing.sequence)
    }
}

/// What a record changes.
impl Incident {
    /// An incident without alerts, which the first one opens.
    pub(super) fn new(id: String, first: &AlertRecord) -> Incident {
        let record = IncidentRecord {
            incident_id: id,
            status: IncidentStatus::Resolved,
            severity: 1,
            title: String::new(),
            opened_at: first.window_end,
            resolved_at: None,
            services: Vec::new(),
            alert_ids: Vec::new(),
            timeline: Vec::new(),
            evidence: Map::new(),
            acknowledged_by: None,
            sequence: 0,
        };
        let (alerts, places, calls) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        Incident { record, alerts, places, calls, taken: Vec::new(), alike: None }
    }

    pub(super) fn learn_calls(&mut self, calls: impl IntoIterator<Item = (String, String)>) {
        for call in calls {
            if self.calls.len() < MAX_CALLS {
                self.calls.insert(call);
            }
        }
    }

    pub(super) fn learn_neighbours(&mut self, service: &str, neighbours: &Neighbours) {
        let mut calls = Vec::new();
        for other in &self.record.services {
            if neighbours.callees.contains(other.as_str()) {
                calls.push((service.to_owned(), other.clone()));
            }
            if neighbours.callers.contains(other.as_str()) {
                calls.push((other.clone(), service.to_owned()));
            }
        }
        self.learn_calls(calls);
    }

    /// Takes an alert that it does not know.
    pub(super) fn fire(&mut self, alert: &AlertRecord) {
        if !self.is_open() {
            self.alike = None;
        }
        let place = match self.alerts.iter().position(|known| known.is_series_of(alert)) {
            Some(place) => {
                self.alerts[place].fire_again(alert);
                place
            }
            None => {
                self.alerts.push(IncidentAlert::new(alert));
                self.alerts.len() - 1
            }
        };
        self.places.insert(alert.alert_id.clone(), place);
        self.record.alert_ids.push(alert.alert_id.clone());
        self.record.status = IncidentStatus::Open;
        self.record.resolved_at = None;
        for other in 0..self.alerts.len() {
            self.explain(place, other, alert.window_end);
            self.explain(other, place, alert.window_end);
        }
        self.finish(alert);
    }

    /// Takes a newer record of an alert that goes on firing: its level changed.
    pub(super) fn update(&mut self, alert: &AlertRecord) {
        if let Some(known) = self.places.get(&alert.alert_id).and_then(|place| self.alerts.get_mut(*place)) {
            if let Some(change) = LevelChange::between(&known.firing, alert) {
                known.level_change = Some(change);
            }
            // A wall clock of the first record, by which messages are found.
            let fired_at = known.firing.fired_at;
            known.severities.entry(alert.severity).or_insert(alert.window_end);
            known.firing = AlertRecord { fired_at, ..alert.clone() };
        }
        self.finish(alert);
    }

    /// Takes the record that ends an alert.
    pub(super) fn resolve(&mut self, alert: &AlertRecord) {
        if let Some(known) = self.places.get(&alert.alert_id).and_then(|place| self.alerts.get_mut(*place)) {
            known.resolved = Some(alert.clone());
        }
        if !self.alerts.iter().any(IncidentAlert::fires) {
            self.record.status = IncidentStatus::Resolved;
            self.record.resolved_at = Some(alert.window_end);
        }
        self.finish(alert);
    }

    /// Somebody takes it.
    pub(super) fn acknowledge(&mut self, by: &str, at: DateTime<Utc>) {
        self.record.acknowledged_by = Some(by.to_owned());
        if self.taken.len() >= MAX_TAKEN {
            self.taken.remove(0);
        }
        self.taken.push((at, by.to_owned()));
        self.describe();
    }

    fn finish(&mut self, alert: &AlertRecord) {
        if alert.status == AlertStatus::Firing {
            self.record.severity = self.record.severity.max(alert.severity.clamp(1, 5));
        }
        self.review_explanations(alert.window_end);
        self.describe();
    }

    /// What goes on firing long after its explanation has ended has another cause.
    fn review_explanations(&mut self, at: DateTime<Utc>) {
        for place in 0..self.alerts.len() {
            let alert = &self.alerts[place];
            let is_over = |alert: &IncidentAlert| self.cause_of(alert).is_none_or(|cause| !cause.explains_at(at));
            if alert.fires() && alert.explained_by.is_some() && is_over(alert) {
                self.alerts[place].explained_by = None;
                for cause in 0..self.alerts.len() {
                    self.explain(place, cause, at);
                }
            }
        }
    }

    /// Marks an alert that fires and has no explanation yet, if `cause` is one. No circle arises: some alert is always unexplained.
    fn explain(&mut self, place: usize, cause: usize, at: DateTime<Utc>) {
        let (alert, by) = (&self.alerts[place], &self.alerts[cause]);
        let applies = alert.fires() && alert.explained_by.is_none() && by.explains_at(at);
        if applies && explains(&by.firing, &alert.firing) && !self.is_explained_through(cause, place) {
            self.alerts[place].explained_by = Some(by.firing.alert_id.clone());
        }
    }

    /// Whether the explanations of the alert at `from` lead to the one at `to`.
    fn is_explained_through(&self, from: usize, to: usize) -> bool {
        let explanation = |place: &usize| self.places.get(self.alerts[*place].explained_by.as_ref()?).copied();
        // As long as there is no circle, the walk ends; the bound is for the reader.
        std::iter::successors(Some(from), explanation).take(self.alerts.len()).any(|place| place == to)
    }
}

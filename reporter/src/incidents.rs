//! Incidents: which alerts belong together. A pure fold over `bongsu.alerts`, so that reading the topic again gives the same
//! incidents with the same ids.
//!
//! - I1: alerts of one service whose times overlap are one incident; alerts without a service are taken together by rule.
//! - I2: a record that was applied before changes nothing.
//! - I3: an incident is resolved when its last firing alert is; `sequence` grows by one with each change.
//!
//! The times of two alerts overlap if the later one fired while the earlier one did, or its window began before the earlier one's end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bongsu_schemas::alert::{AlertRecord, AlertStatus};
use bongsu_schemas::incident::{IncidentRecord, IncidentStatus, TimelineEntry};
use bongsu_schemas::key::stable_id;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

/// An incident that is full takes no more alerts; the next one of its service opens another. Bounds records and messages.
const MAX_ALERTS: usize = 500;
/// Lines of the story that are kept: the first ones, which tell the cause, and the latest.
const MAX_TIMELINE_HEAD: usize = 50;
const MAX_TIMELINE: usize = 200;
/// Alerts whose values are copied into the record's evidence.
const MAX_EVIDENCE: usize = 20;
/// Resolved incidents that are remembered, for late overlaps and for records that come again.
const MAX_RESOLVED: usize = 1_000;

/// An incident and its alerts.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    /// What is published.
    pub record: IncidentRecord,
    /// Its alerts, in the order in which they fired.
    pub alerts: Vec<IncidentAlert>,
}

/// One alert of an incident.
#[derive(Debug, Clone, PartialEq)]
pub struct IncidentAlert {
    /// The record that fired.
    pub firing: AlertRecord,
    /// The record that resolved it.
    pub resolved: Option<AlertRecord>,
}

/// What an alert record did to an incident.
#[derive(Debug, Clone, PartialEq)]
pub struct IncidentChange {
    /// The incident as it is now.
    pub incident: Arc<Incident>,
    /// How it changed.
    pub transition: Transition,
}

/// How an incident changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// It began, or began again because of an alert that overlaps its end.
    Opened,
    /// An alert joined it or left it.
    Updated,
    /// Its last firing alert is resolved.
    Resolved,
}

/// The fold's state: open incidents, and the latest resolved ones.
#[derive(Debug, Default)]
pub struct Correlator {
    incidents: BTreeMap<String, Arc<Incident>>,
    /// The incident that takes the next alert of a service (or, without a service, of a rule).
    current: BTreeMap<Subject, String>,
    incident_of_alert: BTreeMap<String, String>,
    /// Resolved incidents, oldest first. May name one twice that was opened again.
    resolved: VecDeque<String>,
}

/// Whose alerts are taken together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Service(String),
    Rule(String),
}

impl Subject {
    fn of(alert: &AlertRecord) -> Subject {
        match &alert.service {
            Some(service) => Subject::Service(service.clone()),
            None => Subject::Rule(alert.rule.clone()),
        }
    }
}

impl Correlator {
    /// Takes the next record of `bongsu.alerts`.
    pub fn apply(&mut self, alert: &AlertRecord) -> Vec<IncidentChange> {
        let change = match alert.status {
            AlertStatus::Firing => self.fire(alert),
            AlertStatus::Resolved => self.resolve(alert),
        };
        change.into_iter().collect()
    }

    /// Open incidents and the latest resolved ones, by id.
    pub fn incidents(&self) -> impl Iterator<Item = &Arc<Incident>> {
        self.incidents.values()
    }

    fn fire(&mut self, alert: &AlertRecord) -> Option<IncidentChange> {
        if self.incident_of_alert.contains_key(&alert.alert_id) {
            return None;
        }
        let subject = Subject::of(alert);
        let joined =
            self.current.get(&subject).filter(|id| self.incidents.get(*id).is_some_and(|found| found.takes(alert)));
        let id = joined.cloned().unwrap_or_else(|| stable_id(["incident", &alert.alert_id]));
        let entry = self.incidents.entry(id.clone()).or_insert_with(|| Arc::new(Incident::new(id.clone(), alert)));
        let incident = Arc::make_mut(entry);
        let was_open = incident.is_open();
        incident.add(alert);
        let transition = if was_open { Transition::Updated } else { Transition::Opened };
        let change = IncidentChange { incident: Arc::clone(entry), transition };
        self.incident_of_alert.insert(alert.alert_id.clone(), id.clone());
        self.current.insert(subject, id);
        Some(change)
    }

    fn resolve(&mut self, alert: &AlertRecord) -> Option<IncidentChange> {
        let id = self.incident_of_alert.get(&alert.alert_id)?;
        let entry = self.incidents.get_mut(id)?;
        if !entry.fires(&alert.alert_id) {
            return None;
        }
        let incident = Arc::make_mut(entry);
        incident.remove(alert);
        if incident.is_open() {
            return Some(IncidentChange { incident: Arc::clone(entry), transition: Transition::Updated });
        }
        let change = IncidentChange { incident: Arc::clone(entry), transition: Transition::Resolved };
        self.resolved.push_back(id.clone());
        self.forget_oldest_resolved();
        Some(change)
    }

    fn forget_oldest_resolved(&mut self) {
        while self.resolved.len() > MAX_RESOLVED {
            let Some(id) = self.resolved.pop_front() else { return };
            let opened_or_resolved_again = self.resolved.contains(&id);
            let Some(incident) = self.incidents.get(&id).filter(|found| !found.is_open() && !opened_or_resolved_again)
            else {
                continue;
            };
            for alert in &incident.alerts {
                self.incident_of_alert.remove(&alert.firing.alert_id);
                let subject = Subject::of(&alert.firing);
                if self.current.get(&subject) == Some(&id) {
                    self.current.remove(&subject);
                }
            }
            self.incidents.remove(&id);
        }
    }
}

impl IncidentAlert {
    /// The record that says how it is now.
    pub fn latest(&self) -> &AlertRecord {
        self.resolved.as_ref().unwrap_or(&self.firing)
    }
}

impl Incident {
    fn new(id: String, first: &AlertRecord) -> Incident {
        let record = IncidentRecord {
            incident_id: id,
            status: IncidentStatus::Resolved,
            severity: 1,
            title: String::new(),
            opened_at: first.window_end,
            resolved_at: None,
            services: first.service.iter().cloned().collect(),
            alert_ids: Vec::new(),
            timeline: Vec::new(),
            evidence: Map::new(),
            acknowledged_by: None,
            sequence: 0,
        };
        Incident { record, alerts: Vec::new() }
    }

    /// Whether any of its alerts fires.
    pub fn is_open(&self) -> bool {
        self.record.status == IncidentStatus::Open
    }

    /// Wall clock when its first alert fired.
    pub fn first_fired_at(&self) -> Option<DateTime<Utc>> {
        self.alerts.iter().map(|alert| alert.firing.fired_at).min()
    }

    /// Wall clock of its latest change.
    pub fn changed_at(&self) -> Option<DateTime<Utc>> {
        let at = |alert: &IncidentAlert| alert.latest().resolved_at.unwrap_or(alert.firing.fired_at);
        self.alerts.iter().map(at).max()
    }

    fn fires(&self, alert_id: &str) -> bool {
        self.alerts.iter().any(|alert| alert.firing.alert_id == alert_id && alert.resolved.is_none())
    }

    fn takes(&self, alert: &AlertRecord) -> bool {
        let overlaps = self.record.resolved_at.is_none_or(|end| alert.window_start < end);
        overlaps && self.alerts.len() < MAX_ALERTS
    }

    fn add(&mut self, alert: &AlertRecord) {
        self.tell(alert.window_end, format!("{} fires: {}", alert.rule, alert.summary));
        self.alerts.push(IncidentAlert { firing: alert.clone(), resolved: None });
        self.record.alert_ids.push(alert.alert_id.clone());
        self.record.severity = self.record.severity.max(alert.severity.clamp(1, 5));
        self.record.status = IncidentStatus::Open;
        self.record.resolved_at = None;
        self.describe();
    }

    fn remove(&mut self, alert: &AlertRecord) {
        self.tell(alert.window_end, format!("{} is resolved", alert.rule));
        let fired = self.alerts.iter_mut().find(|known| known.firing.alert_id == alert.alert_id);
        if let Some(fired) = fired {
            fired.resolved = Some(alert.clone());
        }
        if self.alerts.iter().all(|alert| alert.resolved.is_some()) {
            self.record.status = IncidentStatus::Resolved;
            self.record.resolved_at = Some(alert.window_end);
        }
        self.describe();
    }

    fn tell(&mut self, at: DateTime<Utc>, text: String) {
        if self.record.timeline.len() >= MAX_TIMELINE {
            self.record.timeline.remove(MAX_TIMELINE_HEAD);
        }
        self.record.timeline.push(TimelineEntry { at, text });
    }

    /// Brings title, evidence and sequence up to date.
    fn describe(&mut self) {
        let most_severe = self.alerts.iter().rev().max_by_key(|alert| alert.firing.severity);
        if let Some(IncidentAlert { firing, .. }) = most_severe {
            let what = if firing.summary.is_empty() { &firing.rule } else { &firing.summary };
            self.record.title = match self.alerts.len() - 1 {
                0 => what.clone(),
                others => format!("{what} (and {others} more)"),
            };
        }
        let evidence = self.alerts.iter().take(MAX_EVIDENCE).map(evidence_of).collect();
        self.record.evidence = Map::from_iter([("alerts".to_owned(), Value::Array(evidence))]);
        self.record.sequence += 1;
    }
}

fn evidence_of(alert: &IncidentAlert) -> Value {
    let AlertRecord { alert_id, rule, severity, key, values, params, summary, evidence, .. } = &alert.firing;
    json!({
        "alert_id": alert_id, "rule": rule, "severity": severity, "key": key, "values": values, "params": params,
        "summary": summary, "when": evidence.when,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use bongsu_schemas::alert::{Evidence, alert_id};
    use chrono::TimeZone;
    use proptest::prelude::*;

    use super::*;

    /// An alert of `service` whose deciding window ends `minute` minutes after noon.
    pub(crate) fn alert(rule: &str, service: Option<&str>, status: AlertStatus, minute: i64) -> AlertRecord {
        let noon = Utc.with_ymd_and_hms(2026, 11, 16, 12, 0, 0).unwrap();
        let key = Map::from_iter(service.map(|service| ("service".to_owned(), json!(service))));
        let window_end = noon + chrono::TimeDelta::minutes(minute);
        AlertRecord {
            alert_id: alert_id(rule, &key, noon),
            rule: rule.to_owned(),
            status,
            severity: 3,
            service: service.map(str::to_owned),
            key,
            values: Map::from_iter([("requests".to_owned(), json!(120)), ("errors".to_owned(), json!(12))]),
            params: BTreeMap::new(),
            window_start: window_end - chrono::TimeDelta::minutes(1),
            window_end,
            first_event_time: None,
            fired_at: window_end,
            resolved_at: (status == Resolved).then_some(window_end),
            summary: format!("{rule} summary"),
            evidence: Evidence { when: "errors > $max * requests".to_owned(), ..Evidence::default() },
            sequence: if status == Firing { 1 } else { 2 },
            reason: None,
            level: None,
            explained_by: Vec::new(),
            early: false,
        }
    }

    use AlertStatus::{Firing, Resolved};

    /// Scenario: two rules of one service overlap, another service meanwhile, then the first service again.
    /// Guarantees: I1 and I3.
    #[test]
    fn overlapping_alerts_of_a_service_are_one_incident() {
        #[rustfmt::skip]
        let steps = [
            // rule, service, status, minute -> incident, status, sequence
            ("errors",  "order", Firing,   1,  0, IncidentStatus::Open,     1),
            ("latency", "order", Firing,   2,  0, IncidentStatus::Open,     2),
            ("errors",  "pay",   Firing,   2,  1, IncidentStatus::Open,     1),
            ("errors",  "order", Resolved, 5,  0, IncidentStatus::Open,     3),
            ("latency", "order", Resolved, 9,  0, IncidentStatus::Resolved, 4),
            // Its window began before the incident's end: it overlaps.
            ("heap",    "order", Firing,   9,  0, IncidentStatus::Open,     5),
            ("heap",    "order", Resolved, 12, 0, IncidentStatus::Resolved, 6),
            // This one began afterwards.
            ("cpu",     "order", Firing,   13, 2, IncidentStatus::Open,     1),
        ];
        let mut correlator = Correlator::default();
        let mut ids: Vec<String> = Vec::new();
        for (rule, service, status, minute, expected, incident_status, sequence) in steps {
            let record = alert(rule, Some(service), status, minute);
            let changes = correlator.apply(&record);
            assert_eq!(changes.len(), 1, "{rule} {minute}");
            let incident = &changes[0].incident.record;
            if !ids.contains(&incident.incident_id) {
                ids.push(incident.incident_id.clone());
            }
            let got = ids.iter().position(|id| *id == incident.incident_id);
            assert_eq!(
                (got, incident.status, incident.sequence),
                (Some(expected), incident_status, sequence),
                "{rule} {minute}"
            );
            assert!(correlator.apply(&record).is_empty(), "I2: {rule} {minute}");
        }
        assert_eq!(correlator.incidents().count(), 3);
    }

    /// Scenario: a resolved record whose firing record was deleted by retention.
    /// Guarantees: it is passed over.
    #[test]
    fn a_resolved_record_of_an_unknown_alert_changes_nothing() {
        let mut correlator = Correlator::default();
        assert!(correlator.apply(&alert("errors", Some("order"), Resolved, 1)).is_empty());
    }

    /// Scenario: ten thousand alerts of one service, then ten thousand services that come and go.
    /// Guarantees: records stay small and memory is bounded.
    #[test]
    fn memory_is_bounded() {
        let mut correlator = Correlator::default();
        for number in 0..10_000 {
            let changes = correlator.apply(&alert(&format!("rule-{number}"), Some("order"), Firing, 1));
            let incident = &changes[0].incident;
            assert!(incident.alerts.len() <= MAX_ALERTS && incident.record.timeline.len() <= MAX_TIMELINE);
        }
        assert_eq!(correlator.incidents().count(), 10_000 / MAX_ALERTS);
        for number in 0..10_000 {
            let service = format!("service-{number}");
            correlator.apply(&alert("errors", Some(&service), Firing, 1));
            correlator.apply(&alert("errors", Some(&service), Resolved, 2));
        }
        assert_eq!(correlator.incidents().count(), 10_000 / MAX_ALERTS + MAX_RESOLVED);
        assert_eq!(correlator.incident_of_alert.len(), 10_000 + MAX_RESOLVED);
        assert_eq!(correlator.current.len(), MAX_RESOLVED + 1);
    }

    proptest! {
        /// Guarantees: whatever comes, sequences have no gaps, an incident is open exactly while one of its alerts fires, and
        /// reading all records a second time changes nothing.
        #[test]
        fn the_fold_is_consistent(steps in prop::collection::vec((0..4u8, 0..3u8, any::<bool>(), 0..30i64), 0..60)) {
            let mut correlator = Correlator::default();
            let mut sequences: BTreeMap<String, u32> = BTreeMap::new();
            for (rule, service, fires, minute) in &steps {
                let service = format!("s{service}");
                let status = if *fires { Firing } else { Resolved };
                for change in correlator.apply(&alert(&format!("r{rule}"), Some(&service), status, *minute)) {
                    let record = &change.incident.record;
                    let before = sequences.insert(record.incident_id.clone(), record.sequence).unwrap_or(0);
                    prop_assert_eq!(record.sequence, before + 1);
                    let any_fires = change.incident.alerts.iter().any(|alert| alert.resolved.is_none());
                    prop_assert_eq!(change.incident.is_open(), any_fires);
                    prop_assert_eq!(record.resolved_at.is_none(), any_fires);
                }
            }
        }
    }
}

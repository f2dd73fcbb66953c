mod cause;
mod chain;
mod words;

use std::collections::BTreeMap;

use bongsu_schemas::alert::AlertStatus::{Firing, Resolved};
use bongsu_schemas::alert::{AlertLevel, AlertStatus, Evidence, alert_id};
use bongsu_schemas::incident::IncidentStatus;
use chrono::{TimeDelta, TimeZone};
use proptest::prelude::*;
use serde_json::{Map, json};

use super::correlator::MAX_RESOLVED;
use super::incident::MAX_ALERTS;
use super::story::MAX_TIMELINE;
use super::*;

fn noon() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 16, 12, 0, 0).unwrap()
}

/// An alert of `service` whose deciding window ends `minute` minutes after noon. The same rule and service give the same id.
pub(crate) fn alert(rule: &str, service: Option<&str>, status: AlertStatus, minute: i64) -> AlertRecord {
    let key = Map::from_iter(service.map(|service| ("service".to_owned(), json!(service))));
    let window_end = noon() + TimeDelta::minutes(minute);
    AlertRecord {
        alert_id: alert_id(rule, &key, noon()),
        rule: rule.to_owned(),
        status,
        severity: 3,
        service: service.map(str::to_owned),
        key,
        values: Map::from_iter([("requests".to_owned(), json!(120)), ("errors".to_owned(), json!(12))]),
        params: BTreeMap::new(),
        window_start: window_end - TimeDelta::minutes(1),
        window_end,
        first_event_time: None,
        fired_at: window_end,
        resolved_at: (status == Resolved).then_some(window_end),
        summary: format!("{rule} summary"),
        evidence: Evidence { when: "errors > $max * requests".to_owned(), ..Evidence::default() },
        sequence: if status == Firing { 1 } else { 2 },
        reason: None,
        explained_by: Vec::new(),
        level: None,
        early: false,
    }
}

/// The beginning of an alert whose first window ends at `minute`, which is in its id.
fn fires(rule: &str, service: &str, minute: i64) -> AlertRecord {
    with_keys(alert(rule, Some(service), Firing, minute), &[])
}

/// The same alert with more group keys, and the id that follows.
fn with_keys(mut record: AlertRecord, keys: &[(&str, &str)]) -> AlertRecord {
    record.key.extend(keys.iter().map(|(name, value)| ((*name).to_owned(), json!(value))));
    record.alert_id = alert_id(&record.rule, &record.key, record.window_start);
    record
}

/// The end of an alert.
fn ends(fired: &AlertRecord, minute: i64) -> AlertRecord {
    let AlertRecord { window_start, window_end, resolved_at, .. } = alert(&fired.rule, None, Resolved, minute);
    let sequence = fired.sequence + 1;
    AlertRecord { status: Resolved, window_start, window_end, resolved_at, sequence, ..fired.clone() }
}

/// A further record of an alert that goes on firing.
fn goes_on(fired: &AlertRecord, minute: i64, sequence: u32) -> AlertRecord {
    let AlertRecord { window_start, window_end, fired_at, .. } = alert(&fired.rule, None, Firing, minute);
    AlertRecord { window_start, window_end, fired_at, sequence, ..fired.clone() }
}

fn folded(mut correlator: Correlator, records: &[AlertRecord]) -> Vec<Arc<Incident>> {
    for record in records {
        correlator.apply(record);
    }
    correlator.incidents().cloned().collect()
}

/// A correlator that knows some calls.
fn knowing(calls: &[(&str, &str)]) -> Correlator {
    let mut correlator = Correlator::default();
    for (caller, callee) in calls {
        correlator.calls().saw(caller, callee, noon());
    }
    correlator
}

/// Scenario: two rules of one service overlap, another service meanwhile, then the first service again.
/// Guarantees: I1 for one service, and I3.
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

/// Scenario: alerts without a service, of one rule and of another; alerts of one service in two environments.
/// Guarantees: without a service the rule decides; environments are kept apart, and who names none fits the first.
#[test]
fn what_has_no_service_goes_by_its_rule_and_environments_are_apart() {
    let of = |rule: &str, shop: &str| with_keys(alert(rule, None, Firing, 1), &[("shop", shop)]);
    assert_eq!(folded(Correlator::default(), &[of("orders", "a"), of("orders", "b"), of("stock", "a")]).len(), 2);
    let of = |rule: &str, environment: &str| with_keys(fires(rule, "order", 1), &[("environment", environment)]);
    let records = [of("errors", "production"), of("errors", "staging"), of("latency", "staging")];
    assert_eq!(folded(Correlator::default(), &records).len(), 2);
    assert_eq!(folded(Correlator::default(), &[records[0].clone(), fires("latency", "order", 1)]).len(), 1);
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
}

/// Scenario: a series fires seven times, each time soon after it was resolved, and once more much later; an alert of a service that flaps
/// for days.
/// Guarantees: one incident for what flaps, which counts and does not grow by a line each time; another one for the late one.
#[test]
fn a_series_that_flaps_is_one_incident() {
    let mut correlator = Correlator::default();
    let mut ids = Vec::new();
    for flap in 0..7 {
        let fired = fires("errors", "order", 5 * flap);
        ids.push(fired.alert_id.clone());
        let opened = correlator.apply(&fired);
        assert_eq!((opened.len(), opened[0].transition), (1, Transition::Opened));
        correlator.apply(&ends(&fired, 5 * flap + 2));
        assert!(correlator.apply(&fired).is_empty(), "I2");
    }
    let incidents: Vec<_> = correlator.incidents().cloned().collect();
    let [incident] = &incidents[..] else { panic!("{incidents:#?}") };
    assert_eq!((incident.alerts.len(), incident.alerts[0].flaps), (1, 7));
    assert_eq!((&incident.record.alert_ids, incident.record.sequence), (&ids, 14));
    assert_eq!(incident.first_fired_at(), Some(noon()), "messages are looked for from then on");
    let lines: Vec<&str> = incident.record.timeline.iter().map(|line| line.text.as_str()).collect();
    let expected = [
        "order: errors fires: errors summary",
        "order: errors fired 7 times until 12:30 UTC",
        "order: errors is resolved",
    ];
    assert_eq!(lines, expected);
    correlator.apply(&fires("errors", "order", 32 + 16));
    assert_eq!(correlator.incidents().count(), 2);

    let mut correlator = Correlator::default();
    for flap in 0..2_000 {
        let fired = fires("errors", "order", 5 * flap);
        let changes = correlator.apply(&fired);
        let record = &changes[0].incident.record;
        assert!(record.alert_ids.len() <= MAX_ALERTS && record.timeline.len() <= 3);
        correlator.apply(&ends(&fired, 5 * flap + 2));
    }
    assert_eq!(correlator.incidents().count(), 2_000 / MAX_ALERTS);
}

/// Scenario: an alert's level rises and falls; records that are as old as what is known, or older; the end; what comes after it.
/// Guarantees: the last word counts, an old one changes nothing, and the incident keeps the highest severity.
#[test]
fn levels_rise_and_fall() {
    let of = |minute, sequence, level, severity| {
        let first = fires("errors", "order", 1);
        AlertRecord { level: Some(level), severity, ..goes_on(&first, minute, sequence) }
    };
    let mut correlator = Correlator::default();
    let first = AlertRecord { level: Some(AlertLevel::Warn), ..fires("errors", "order", 1) };
    #[rustfmt::skip]
    let steps = [
        // record, changes something, severity of the alert, of the incident
        (first.clone(),                                   true,  3, 3),
        (of(4, 3, AlertLevel::Critical, 5),                         true,  5, 5),
        (of(3, 2, AlertLevel::Warn, 3),                             false, 5, 5),
        (of(4, 3, AlertLevel::Warn, 3),                             false, 5, 5),
        (of(6, 4, AlertLevel::Warn, 3),                             true,  3, 5),
        (AlertRecord { sequence: 4, ..ends(&first, 7) },  false, 3, 5),
        (AlertRecord { sequence: 5, ..ends(&first, 8) },  true,  3, 5),
        (of(9, 6, AlertLevel::Critical, 5),                         false, 3, 5),
    ];
    for (step, (record, changes, severity, of_incident)) in steps.into_iter().enumerate() {
        assert_eq!(!correlator.apply(&record).is_empty(), changes, "{step}");
        let incident = correlator.incidents().next().unwrap();
        assert_eq!((incident.alerts[0].firing.severity, incident.record.severity), (severity, of_incident), "{step}");
    }
    let incident = correlator.incidents().next().unwrap();
    assert_eq!((incident.is_open(), incident.alerts[0].firing.fired_at), (false, first.fired_at));
    assert_eq!(
        incident.alerts[0].severities,
        BTreeMap::from([(3, first.window_end), (5, of(4, 3, AlertLevel::Critical, 5).window_end)])
    );
    let lines: Vec<&str> = incident.record.timeline.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(
        lines,
        [
            "order: errors fires: errors summary",
            "order: errors falls to warn: errors summary",
            "order: errors is resolved"
        ]
    );
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
            let record = alert(&format!("r{rule}"), Some(&service), status, *minute);
            for change in correlator.apply(&record) {
                let record = &change.incident.record;
                let before = sequences.insert(record.incident_id.clone(), record.sequence).unwrap_or(0);
                prop_assert_eq!(record.sequence, before + 1);
                let any_fires = change.incident.alerts.iter().any(IncidentAlert::fires);
                prop_assert_eq!(change.incident.is_open(), any_fires);
                prop_assert_eq!(record.resolved_at.is_none(), any_fires);
                prop_assert!(record.timeline.is_sorted_by_key(|line| line.at));
            }
            prop_assert!(correlator.apply(&record).is_empty());
        }
    }

    /// Guarantees: services that have nothing to do with each other do not change each other's incidents, in whichever order their
    /// records are read.
    #[test]
    fn independent_services_may_interleave(
        steps in prop::collection::vec((0..3u8, 0..3u8, 0..40i64, 1..10i64), 0..30),
        order in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let mut streams = vec![Vec::new(); 3];
        for (service, rule, minute, lasts) in steps {
            let fired = fires(&format!("r{rule}"), &format!("s{service}"), minute);
            let ended = ends(&fired, minute + lasts);
            streams[usize::from(service)].extend([fired, ended]);
        }
        let one_by_one = streams.concat();
        let mut interleaved = Vec::new();
        let mut rest: Vec<_> = streams.into_iter().map(Vec::into_iter).collect();
        for index in order {
            let position = index.index(3);
            interleaved.extend(rest[position].next());
        }
        interleaved.extend(rest.into_iter().flatten());
        prop_assert_eq!(interleaved.len(), one_by_one.len());
        prop_assert_eq!(folded(Correlator::default(), &interleaved), folded(Correlator::default(), &one_by_one));
    }
}

/// Scenario: an incident is taken, taken again, handed over, resolved, and opened again; an unknown one is taken.
/// Guarantees: each change of who has it is a line and a sequence; it stays theirs.
#[test]
fn an_incident_stays_taken() {
    let mut correlator = Correlator::default();
    let opened = correlator.apply(&alert("errors", Some("order"), Firing, 1));
    let (id, at) = (opened[0].incident.record.incident_id.clone(), opened[0].incident.record.opened_at);
    assert!(correlator.acknowledge("unknown", "Kim", at).is_none());
    let change = correlator.acknowledge(&id, "Kim", at).unwrap();
    let record = &change.incident.record;
    assert_eq!(
        (record.sequence, record.acknowledged_by.as_deref(), change.transition),
        (2, Some("Kim"), Transition::Updated)
    );
    assert_eq!(record.timeline.last().map(|line| line.text.as_str()), Some("taken by Kim"));
    assert!(correlator.acknowledge(&id, "Kim", at).is_none());
    assert_eq!(correlator.acknowledge(&id, "Lee", at).unwrap().incident.record.sequence, 3);
    correlator.apply(&alert("errors", Some("order"), Resolved, 5));
    let again = correlator.apply(&alert("latency", Some("order"), Firing, 5));
    let record = &again[0].incident.record;
    assert_eq!((record.incident_id.as_str(), record.sequence), (id.as_str(), 5));
    assert_eq!((record.status, record.acknowledged_by.as_deref()), (IncidentStatus::Open, Some("Lee")));
}

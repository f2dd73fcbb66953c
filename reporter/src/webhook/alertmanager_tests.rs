use bongsu_schemas::alert::AlertStatus::{Firing, Resolved};
use chrono::TimeDelta;
use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::incidents::Correlator;
use crate::incidents::tests::alert;

fn key(pairs: &[(&str, Value)]) -> GroupKey {
    pairs.iter().map(|(name, value)| (name.to_string(), value.clone())).collect()
}

/// Scenario: an incident of two alerts, one resolved, with group keys that are no names of labels, or names of ours.
/// Guarantees: the body that Alertmanager's specification describes; nothing is lost to a collision.
#[test]
fn golden() {
    let mut errors = alert("errors", Some("order"), Firing, 1);
    errors.severity = 4;
    errors.key = key(&[
        ("service", json!("order")),
        ("severity", json!("ours")),
        ("http.route", json!("/orders/{id}")),
        ("http-route", json!(7)),
        ("environment", Value::Null),
    ]);
    errors.params = BTreeMap::from([("max".to_owned(), ParamValue::Number(0.05))]);
    let latency = alert("latency", Some("order"), Firing, 2);
    let mut correlator = Correlator::default();
    correlator.apply(&errors);
    correlator.apply(&latency);
    let incident = correlator.apply(&alert("latency", Some("order"), Resolved, 5)).remove(0).incident;

    let alerts: Vec<&IncidentAlert> = incident.alerts.iter().collect();
    let link = format!("https://b.example.com/#incident-{}", incident.record.incident_id);
    let expected = json!([
        {
            "labels": {
                "alertname": "errors",
                "severity": "critical",
                "fires": "4",
                "service": "order",
                "bongsu_alert_id": errors.alert_id,
                "severity_2": "ours",
                "http_route": "7",
                "http_route_2": "/orders/{id}",
            },
            "annotations": {
                "summary": "errors summary",
                "description": "values: errors 12, requests 120; limits: max 0.05; condition: errors > $max * requests",
                "incident": incident.record.incident_id,
            },
            "startsAt": "2026-11-16T12:00:00Z",
            "generatorURL": link,
        },
        {
            "labels": {
                "alertname": "latency",
                "severity": "warning",
                "fires": "3",
                "service": "order",
                "bongsu_alert_id": latency.alert_id,
            },
            "annotations": {
                "summary": "latency summary",
                "description": "values: errors 12, requests 120; condition: errors > $max * requests",
                "incident": incident.record.incident_id,
            },
            "startsAt": "2026-11-16T12:01:00Z",
            "endsAt": "2026-11-16T12:05:00Z",
            "generatorURL": link,
        },
    ]);
    assert_eq!(body(&incident, &alerts, Some("https://b.example.com")), expected);
    assert!(body(&incident, &alerts, None)[0].get("generatorURL").is_none());
}

/// Scenario: a producer whose clock is an hour ahead; an alert without a service, about silence.
/// Guarantees: no alert ends before it starts, which Alertmanager would refuse; a label that is not known is absent.
#[test]
fn ends_and_silence() {
    let mut firing = alert("silent", None, Firing, 1);
    (firing.values, firing.reason) = (Map::new(), Some("no_data".to_owned()));
    firing.evidence.when = String::new();
    let mut resolved = alert("silent", None, Resolved, 2);
    resolved.resolved_at = Some(firing.window_start - TimeDelta::hours(1));
    let mut correlator = Correlator::default();
    correlator.apply(&firing);
    let incident = correlator.apply(&resolved).remove(0).incident;
    let body = body(&incident, &[&incident.alerts[0]], None);
    assert_eq!(body[0]["startsAt"], body[0]["endsAt"]);
    assert_eq!(body[0]["annotations"]["description"], "no data");
    assert!(body[0]["labels"].get("service").is_none(), "{body}");
}

/// Guarantees: all five severities have a name.
#[test]
fn severities() {
    let names: Vec<&str> = (1..=5).map(severity_name).collect();
    assert_eq!(names, ["info", "info", "warning", "critical", "critical"]);
}

/// Scenario: hostile text in the key, the summary and the values.
/// Guarantees: labels and annotations are one line each, and bounded.
#[test]
fn text_from_events_is_bounded() {
    let mut firing = alert("errors", Some("order"), Firing, 1);
    let hostile = format!("a\n\u{1b}[31m\u{202e}{}", "x".repeat(100_000));
    firing.key.insert("route".to_owned(), json!(hostile));
    firing.values.insert("last".to_owned(), json!(hostile));
    firing.summary = hostile;
    let mut correlator = Correlator::default();
    let incident = correlator.apply(&firing).remove(0).incident;
    let body = body(&incident, &[&incident.alerts[0]], None);
    for part in ["labels", "annotations"] {
        for (name, value) in body[0][part].as_object().unwrap() {
            let text = value.as_str().unwrap();
            assert!(!text.contains(char::is_control) && text.chars().count() <= MAX_ANNOTATION_CHARS, "{name}");
        }
    }
}

/// Names as columns may have them, many of which become the same label.
fn column() -> impl Strategy<Value = String> {
    prop_oneof!["[ab._-]{0,3}", "[ab]_2", ".{0,6}", Just("severity".to_owned()), Just("0".to_owned())]
}

proptest! {
    /// Guarantees: whatever the columns are called, each has a label of its own with a name that Alertmanager takes, none of them one of
    /// ours; a column whose name is good keeps it; and the names do not depend on the order of the columns.
    #[test]
    fn names_of_labels(columns in prop::collection::btree_set(column(), 0..12)) {
        let own = ["alertname", "severity"];
        let of = |columns: &mut dyn Iterator<Item = &String>| {
            let key: GroupKey = columns.map(|name| (name.clone(), Value::Null)).collect();
            let names = label_names(&key, &own);
            names.into_iter().map(|(key, name)| (key.to_owned(), name)).collect::<BTreeMap<String, String>>()
        };
        let names = of(&mut columns.iter());
        let distinct: BTreeSet<&String> = names.values().collect();
        prop_assert_eq!((names.len(), distinct.len()), (columns.len(), columns.len()));
        for (column, name) in &names {
            let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            prop_assert!(begins && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{}", name);
            prop_assert!(!own.contains(&name.as_str()));
            prop_assert!(sanitised(column) != *column || own.contains(&column.as_str()) || name == column);
        }
        prop_assert_eq!(of(&mut columns.iter().rev()), names);
    }
}

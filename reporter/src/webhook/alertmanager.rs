//! Alerts as Alertmanager takes them: the body of `POST /api/v2/alerts`. Pure.
//!
//! The source is Alertmanager's OpenAPI specification, `api/v2/openapi.yaml` in github.com/prometheus/alertmanager, definition
//! `postableAlerts`. What it does not say, but the server does (`api/v2/api.go`, `postAlertsHandler`): an alert without `endsAt` is taken
//! for resolved `resolve_timeout` after it was last posted; one whose `endsAt` is before its `startsAt` is refused.
//!
//! - An alert's labels are its identity, so they are the same each time: they hold nothing that changes between firing and resolved.
//! - Names of labels are those that every version of Alertmanager takes; text from events stands in values only, bounded.

use std::collections::{BTreeMap, BTreeSet};

use bongsu_schemas::alert::AlertRecord;
use bongsu_schemas::key::GroupKey;
use bongsu_schemas::services::ParamValue;
use bongsu_schemas::window::rfc3339;
use serde_json::{Value, json};

use super::body::dashboard_link;
use crate::incidents::{Incident, IncidentAlert};
use crate::slack::message::{cut, one_line, param_text, value_text};

const MAX_NAME_CHARS: usize = 128;
const MAX_LABEL_CHARS: usize = 500;
const MAX_ANNOTATION_CHARS: usize = 2_000;
/// Values and limits named in a description.
const MAX_VALUES: usize = 20;

/// The body: the firing ones of `alerts` without `endsAt`, the resolved ones with it.
pub(crate) fn body(incident: &Incident, alerts: &[&IncidentAlert], public_url: Option<&str>) -> Value {
    let link = dashboard_link(incident, public_url);
    let postable = |alert: &&IncidentAlert| {
        let firing = &alert.firing;
        let mut postable = json!({
            "labels": labels(firing),
            "annotations": annotations(firing, incident),
            "startsAt": rfc3339::format(&firing.window_start),
        });
        if let Some(resolved) = &alert.resolved {
            // `resolved_at` is wall clock and `startsAt` is event time: producers' clocks may be ahead of ours.
            let ends_at = resolved.resolved_at.unwrap_or(resolved.window_end).max(firing.window_start);
            postable["endsAt"] = rfc3339::format(&ends_at).into();
        }
        if let Some(link) = &link {
            postable["generatorURL"] = link.as_str().into();
        }
        postable
    };
    alerts.iter().map(postable).collect()
}

/// Fires as people name them who have Alertmanager.
fn severity_name(fires: u8) -> &'static str {
    match fires {
        0..=2 => "info",
        3 => "warning",
        4.. => "critical",
    }
}

fn labels(firing: &AlertRecord) -> BTreeMap<String, String> {
    let own = [
        ("alertname", Some(firing.rule.clone())),
        ("severity", Some(severity_name(firing.severity).to_owned())),
        ("fires", Some(firing.severity.to_string())),
        ("service", firing.service.clone()),
        ("bongsu_alert_id", Some(firing.alert_id.clone())),
    ];
    let names = label_names(&firing.key, &own.each_ref().map(|(name, _)| *name));
    let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let of_key = firing.key.iter().filter_map(|(key, value)| {
        let value = (!value.is_null()).then(|| value_text(value))?;
        // The key `service` is nearly always the service.
        let is_said = key == "service" && firing.service.as_ref() == Some(&value);
        Some((names.get(key.as_str())?.clone(), value)).filter(|_| !is_said)
    });
    let bounded = |(name, value): (String, String)| (name, cut(&one_line(&value), MAX_LABEL_CHARS));
    // Alertmanager takes an empty label for an absent one.
    own.chain(of_key).map(bounded).filter(|(_, value)| !value.is_empty()).collect()
}

/// A label's name for each group key: its own where that is a name and free, else the nearest one, with a number where it is taken.
/// The order of the keys does not matter.
fn label_names<'a>(key: &'a GroupKey, own: &[&str]) -> BTreeMap<&'a str, String> {
    let mut taken: BTreeSet<String> = own.iter().map(|name| name.to_string()).collect();
    let mut names = BTreeMap::new();
    let keys: BTreeSet<&str> = key.keys().map(String::as_str).collect();
    let (good, changed): (Vec<&str>, Vec<&str>) =
        keys.into_iter().partition(|key| sanitised(key) == *key && !taken.contains(*key));
    for key in good {
        taken.insert(key.to_owned());
        names.insert(key, key.to_owned());
    }
    for key in changed {
        let base = sanitised(key);
        let mut name = base.clone();
        let mut number = 2;
        while !taken.insert(name.clone()) {
            name = format!("{base}_{number}");
            number += 1;
        }
        names.insert(key, name);
    }
    names
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`, which every version of Alertmanager takes for a label's name.
fn sanitised(key: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let mut name: String = key.chars().take(MAX_NAME_CHARS).map(allowed).collect();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        name.insert(0, '_');
    }
    name
}

fn annotations(firing: &AlertRecord, incident: &Incident) -> BTreeMap<&'static str, String> {
    let summary = if firing.summary.trim().is_empty() { &firing.rule } else { &firing.summary };
    let annotations = [
        ("summary", summary.clone()),
        ("description", description(firing)),
        ("incident", incident.record.incident_id.clone()),
    ];
    let bounded = |(name, text): (&'static str, String)| (name, cut(&one_line(&text), MAX_ANNOTATION_CHARS));
    annotations.into_iter().map(bounded).collect()
}

/// The values of the window that fired, and the limits that applied.
fn description(firing: &AlertRecord) -> String {
    let named = |name: &str, value: String| format!("{name} {}", cut(&value, 100));
    let values: Vec<String> =
        firing.values.iter().take(MAX_VALUES).map(|(name, value)| named(name, value_text(value))).collect();
    let limit = |(name, value): (&String, &ParamValue)| named(name, param_text(value));
    let limits: Vec<String> = firing.params.iter().take(MAX_VALUES).map(limit).collect();
    let mut parts = Vec::new();
    if firing.reason.as_deref() == Some("no_data") {
        parts.push("no data".to_owned());
    }
    if !values.is_empty() {
        parts.push(format!("values: {}", values.join(", ")));
    }
    if !limits.is_empty() {
        parts.push(format!("limits: {}", limits.join(", ")));
    }
    if !firing.evidence.when.trim().is_empty() {
        parts.push(format!("condition: {}", cut(&firing.evidence.when, 500)));
    }
    parts.join("; ")
}

#[cfg(test)]
#[path = "alertmanager_tests.rs"]
mod tests;

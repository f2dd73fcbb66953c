//! `bongsu explain`: why an alert fired, and who was told.

use anyhow::Context;
use bongsu_reporter::explain::{Explanation, Found, Records, explain};
use bongsu_reporter::routing::{Question, Route, route};
use bongsu_schemas::alert::{AlertRecord, AlertStatus};
use bongsu_schemas::incident::IncidentStatus;
use bongsu_schemas::window::rfc3339;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{load_config, one_or_list};
use crate::cli::Explain;
use crate::config::{printable, shown};
use crate::failure::Failure;
use crate::output::{complain_line, duration, members, print_as, table, value_text};

pub(super) async fn run(options: Explain) -> Result<(), Failure> {
    let config = load_config(&options.config.path)?;
    let (kafka, prefix) = (config.kafka.clone(), options.alert.0.clone());
    // Reading waits: a thread of its own.
    let found = tokio::task::spawn_blocking(move || explain(&kafka, &prefix)).await.context("while reading alerts")?;
    let found = found.with_context(|| format!("while asking Kafka at {}", config.kafka.brokers))?;
    let (topic, prefix) = (config.kafka.topics().alerts(), &options.alert.0);
    match found {
        Found::One(explanation) => {
            // By what fired, as it was told.
            let route = route(&config.services, config.zone, Question::of(explanation.records.first()));
            let json = as_json(&explanation, &route);
            print_as(options.format, &json, || as_text(&explanation, &route))
        }
        Found::Nothing => Err(Failure::Input(anyhow::anyhow!(
            "no alert in {topic} has an id that begins with {prefix}; alerts are kept there for 35 days (its retention.ms), and \
             `bongsu backtest` tells the ids of earlier ones, and of those that would have fired"
        ))),
        Found::Several(alerts) => {
            complain_line(&list(&alerts));
            Err(Failure::Input(anyhow::anyhow!(
                "several alerts have an id that begins with {prefix}; give more digits"
            )))
        }
    }
}

fn list(alerts: &[Records]) -> String {
    let row = |records: &Records| {
        let AlertRecord { alert_id, rule, service, fired_at, .. } = &records.last;
        let service = service.clone().unwrap_or_default();
        [alert_id.clone(), rule.clone(), service, status(&records.last).to_owned(), at(*fired_at)]
    };
    table(["ALERT_ID", "rule", "service", "status", "fired_at"], &alerts.iter().map(row).collect::<Vec<_>>())
}

fn status(alert: &AlertRecord) -> &'static str {
    match alert.status {
        AlertStatus::Firing => "firing",
        AlertStatus::Resolved => "resolved",
    }
}

fn at(time: DateTime<Utc>) -> String {
    rfc3339::format(&time)
}

/// From the end of the window that fired until the rule fired; unknown where the record of that has expired.
fn delay_ms(records: &Records) -> Option<i64> {
    let firing = records.firing.as_ref()?;
    Some((firing.fired_at - firing.window_end).num_milliseconds())
}

fn as_json(explanation: &Explanation, route: &Route<'_>) -> Value {
    let Explanation { records, incident, notifications } = explanation;
    let told = notifications.iter().map(|told| {
        json!({ "kind": told.kind, "channel": told.channel, "sequence": told.sequence, "sent_at": at(told.sent_at) })
    });
    json!({
        "alert": records.last,
        "firing": records.firing,
        "delay_ms": delay_ms(records),
        "route": {
            "owner": route.owner.map(|owner| owner.display_name()),
            "slack": one_or_list(route.channels),
            "email": route.email,
        },
        "incident": incident,
        "notifications": told.collect::<Vec<_>>(),
    })
}

fn as_text(explanation: &Explanation, route: &Route<'_>) -> String {
    let Explanation { records, .. } = explanation;
    let (first, last) = (records.first(), &records.last);
    let mut why = vec![
        ("alert", last.alert_id.clone()),
        ("summary", first.summary.clone()),
        ("status", status(last).to_owned()),
        (
            "severity",
            last.level.map_or_else(String::new, |level| format!("{} ", level.name())) + &last.severity.to_string(),
        ),
        ("service", last.service.clone().unwrap_or_else(|| "(none)".to_owned())),
        ("key", members(&last.key)),
        ("rule", format!("{} on {}", last.rule, first.evidence.view)),
    ];
    if let Some(reason) = &last.reason {
        why.push(("reason", reason.clone()));
    }
    why.extend([("when", first.evidence.when.clone()), ("clear", first.evidence.clear.clone())]);
    let sections = [pairs(&why), values(first), windows(first), pairs(&times(records)), told(explanation, route)];
    sections.into_iter().filter(|section| !section.is_empty()).collect::<Vec<_>>().join("\n")
}

/// The values that made the transition beside the parameters that applied.
fn values(alert: &AlertRecord) -> String {
    let param = |(name, value): (&String, _)| Some((format!("${name}"), serde_json::to_value(value).ok()?));
    let params: Vec<(String, Value)> = alert.params.iter().filter_map(param).collect();
    let values: Vec<_> = alert.values.iter().collect();
    let row = |row: usize| {
        let (name, value) =
            values.get(row).map(|(name, value)| ((*name).clone(), shown(&value_text(value)))).unwrap_or_default();
        let (param, threshold) =
            params.get(row).map(|(name, value)| (name.clone(), shown(&value_text(value)))).unwrap_or_default();
        [name, value, param, threshold]
    };
    let rows: Vec<_> = (0..values.len().max(params.len())).map(row).collect();
    if rows.is_empty() { String::new() } else { table(["VALUE", "", "parameter", ""], &rows) }
}

/// The windows that `for` looked at.
fn windows(alert: &AlertRecord) -> String {
    let row = |window: &bongsu_schemas::alert::EvidenceWindow| {
        let values = if window.values.is_empty() { "(no row)".to_owned() } else { members(&window.values) };
        [at(window.window_start), if window.met { "yes" } else { "no" }.to_owned(), values]
    };
    let rows: Vec<_> = alert.evidence.windows.iter().map(row).collect();
    if rows.is_empty() { String::new() } else { table(["WINDOW", "met", "values"], &rows) }
}

/// Event time and wall clock, each called what it is.
fn times(records: &Records) -> Vec<(&'static str, String)> {
    let last = &records.last;
    let mut times = Vec::new();
    if let Some(first_event_time) = last.first_event_time {
        times.push(("first event", format!("{} (event time)", at(first_event_time))));
    }
    if let Some(firing) = &records.firing {
        times.push(("window", format!("{} to {} (event time)", at(firing.window_start), at(firing.window_end))));
    }
    let delay = delay_ms(records).map(|delay_ms| chrono::TimeDelta::milliseconds(delay_ms));
    let delay = delay.map(|delay| format!(", {} after the window's end", duration(delay))).unwrap_or_default();
    times.push(("fired", format!("{}{delay}", at(last.fired_at))));
    if let Some(resolved_at) = last.resolved_at {
        let window = format!("by the window that ended at {} (event time)", at(last.window_end));
        times.push(("resolved", format!("{} {window}", at(resolved_at))));
    }
    times
}

/// Where the alert goes by the present configuration, and what was sent.
fn told(explanation: &Explanation, route: &Route<'_>) -> String {
    let mut told = vec![
        ("owner", route.owner.map_or("nobody", |owner| owner.display_name()).to_owned()),
        ("slack", if route.channels.is_empty() { "(none)".to_owned() } else { route.channels.join(", ") }),
    ];
    if !route.email.is_empty() {
        told.push(("e-mail", route.email.join(", ")));
    }
    match &explanation.incident {
        Some(incident) => {
            let status = match incident.status {
                IncidentStatus::Open => "open",
                IncidentStatus::Resolved => "resolved",
            };
            let alerts = incident.alert_ids.len();
            told.push((
                "incident",
                format!("{} ({status}, severity {}, {alerts} alerts)", incident.incident_id, incident.severity),
            ));
            told.push(("title", incident.title.clone()));
            told.extend(incident.acknowledged_by.as_ref().map(|who| ("taken by", who.clone())));
        }
        None => told.push(("incident", "none yet: the reporter has not seen the alert".to_owned())),
    }
    for entry in &explanation.notifications {
        let what = match entry.kind {
            "alert-mail" => "e-mail to",
            "webhook" => "webhook",
            _ => "message in",
        };
        told.push(("told", format!("{what} {} at {}", entry.channel, at(entry.sent_at))));
    }
    if explanation.incident.is_some() && explanation.notifications.is_empty() {
        told.push(("told", "nobody, as far as the ledger knows".to_owned()));
    }
    pairs(&told)
}

/// Names and values, one a line.
fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    pairs.iter().map(|(name, value)| format!("{name:<width$}  {}\n", printable(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(status: &str) -> AlertRecord {
        let alert = json!({
            "alert_id": "0123456789abcdef0123456789abcdef", "rule": "high-error-rate", "status": status, "severity": 4,
            "service": "shop\u{1b}[31m", "key": { "route": "/a\nfake  line", "service": "shop\u{1b}[31m" },
            "values": { "errors": 12, "requests": 40 }, "params": { "max": 0.05 },
            "window_start": "2025-06-02T00:02:00Z", "window_end": "2025-06-02T00:03:00Z",
            "first_event_time": "2025-06-02T00:00:01Z", "fired_at": "2025-06-02T00:03:37Z", "resolved_at": null,
            "summary": "30 % of requests fail",
            "evidence": { "view": "requests_1m", "when": "errors > $max * requests", "clear": "errors = 0", "windows": [
                { "window_start": "2025-06-02T00:00:00Z", "met": true, "values": { "errors": 9 } },
                { "window_start": "2025-06-02T00:01:00Z", "met": false, "values": {} },
                { "window_start": "2025-06-02T00:02:00Z", "met": true, "values": { "errors": 12 } },
            ] },
            "sequence": 1,
        });
        serde_json::from_value(alert).unwrap()
    }

    /// Scenario: an alert whose service would colour the terminal and whose key would add a line.
    /// Guarantees: the text says why, when and to whom, in lines of our own only.
    #[test]
    fn an_alert_is_explained_to_people() {
        let records = Records { firing: Some(alert("firing")), last: alert("firing") };
        let explanation = Explanation { records, incident: None, notifications: Vec::new() };
        let services = bongsu_schemas::services::Services::default();
        let text = as_text(&explanation, &route(&services, chrono_tz::Tz::UTC, Question::of(&alert("firing"))));
        #[rustfmt::skip]
        let expected = [
            "alert     0123456789abcdef0123456789abcdef",
            "summary   30 % of requests fail",
            "status    firing",
            "severity  4",
            "service   shop\\u{1b}[31m",
            "key       route=/a fake  line service=shop\\u{1b}[31m",
            "rule      high-error-rate on requests_1m",
            "when      errors > $max * requests",
            "clear     errors = 0",
            "",
            "VALUE         parameter",
            "errors    12  $max       0.05",
            "requests  40",
            "",
            "WINDOW                met  values",
            "2025-06-02T00:00:00Z  yes  errors=9",
            "2025-06-02T00:01:00Z  no   (no row)",
            "2025-06-02T00:02:00Z  yes  errors=12",
            "",
            "first event  2025-06-02T00:00:01Z (event time)",
            "window       2025-06-02T00:02:00Z to 2025-06-02T00:03:00Z (event time)",
            "fired        2025-06-02T00:03:37Z, 37s after the window's end",
            "",
            "owner     nobody",
            "slack     (none)",
            "incident  none yet: the reporter has not seen the alert",
            "",
        ];
        assert_eq!(text, expected.join("\n"));
    }

    #[test]
    fn json_has_the_records_as_they_are() {
        let records = Records { firing: None, last: alert("resolved") };
        let explanation = Explanation { records, incident: None, notifications: Vec::new() };
        let services = bongsu_schemas::services::Services::default();
        let json = as_json(&explanation, &route(&services, chrono_tz::Tz::UTC, Question::of(&alert("resolved"))));
        assert_eq!(json["alert"]["values"], json!({ "errors": 12, "requests": 40 }));
        assert_eq!((&json["firing"], &json["delay_ms"], &json["incident"]), (&Value::Null, &Value::Null, &Value::Null));
    }
}

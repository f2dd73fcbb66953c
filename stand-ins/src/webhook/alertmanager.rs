//! What Alertmanager refuses at `POST /api/v2/alerts`: its OpenAPI specification (`api/v2/openapi.yaml`, definition `postableAlerts`), and
//! what it checks besides: names of labels, at least one label, no end before the start.

use chrono::DateTime;
use serde_json::{Map, Value};

/// What is wrong with a body, if anything.
pub(super) fn check(body: &str) -> Result<(), String> {
    let body: Value = serde_json::from_str(body).map_err(|error| format!("parsing alerts body: {error}"))?;
    let alerts = body.as_array().ok_or("alerts in body must be a list")?;
    alerts.iter().enumerate().try_for_each(|(place, alert)| check_alert(alert).map_err(|why| format!("{place}.{why}")))
}

fn check_alert(alert: &Value) -> Result<(), String> {
    let labels = label_set(&alert["labels"]).ok_or("labels in body must be a mapping of texts")?;
    if labels.values().all(|value| value == "") {
        return Err("at least one label pair required".to_owned());
    }
    if !alert["annotations"].is_null() {
        label_set(&alert["annotations"]).ok_or("annotations in body must be a mapping of texts")?;
    }
    if let Some(name) = labels.keys().find(|name| !is_label_name(name)) {
        return Err(format!("invalid name {name:?}"));
    }
    let time = |name: &str| match &alert[name] {
        Value::Null => Ok(None),
        Value::String(text) => {
            DateTime::parse_from_rfc3339(text).map(Some).map_err(|error| format!("{name} in body: {error}"))
        }
        _ => Err(format!("{name} in body must be a date-time")),
    };
    match (time("startsAt")?, time("endsAt")?) {
        (Some(start), Some(end)) if end < start => Err("start time must be before end time".to_owned()),
        _ => Ok(()),
    }
}

fn label_set(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object().filter(|set| set.values().all(Value::is_string))
}

/// As all versions have it, those without UTF-8 names too.
fn is_label_name(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: bodies that Alertmanager takes, and one for each reason that it refuses.
    /// Guarantees: so does the stand-in.
    #[test]
    fn what_is_refused() {
        #[rustfmt::skip]
        let cases = [
            ("[]",                                                                                            true),
            (r#"[{"labels":{"alertname":"a"},"startsAt":"2026-11-16T12:00:00Z"}]"#,                           true),
            (r#"[{"labels":{"a":"b"},"annotations":{"c":"d"},"generatorURL":"http://x"}]"#,                   true),
            ("{}",                                                                                            false),
            ("nonsense",                                                                                      false),
            (r#"[{"labels":{}}]"#,                                                                            false),
            (r#"[{"labels":{"a":1}}]"#,                                                                       false),
            (r#"[{"labels":{"a.b":"c"}}]"#,                                                                   false),
            (r#"[{"labels":{"a":"b"},"annotations":{"c":1}}]"#,                                               false),
            (r#"[{"labels":{"a":"b"},"startsAt":"noon"}]"#,                                                   false),
            (r#"[{"labels":{"a":"b"},"startsAt":"2026-11-16T12:00:00Z","endsAt":"2026-11-16T11:59:59.9Z"}]"#, false),
        ];
        for (body, taken) in cases {
            assert_eq!(check(body).is_ok(), taken, "{body}");
        }
    }
}

//! The body of a POST with `format: bongsu`. Pure.

use bongsu_schemas::webhook::{Links, VERSION, WebhookBody};

use crate::incidents::{Incident, IncidentAlert};

/// The incident, and the latest record of each alert that the receiver asked for.
pub(crate) fn body<'a>(
    notification_id: &'a str,
    incident: &'a Incident,
    alerts: &[&'a IncidentAlert],
    public_url: Option<&str>,
) -> WebhookBody<'a> {
    WebhookBody {
        version: VERSION,
        notification_id,
        incident: &incident.record,
        alerts: alerts.iter().map(|alert| alert.latest()).collect(),
        links: Links { dashboard: dashboard_link(incident, public_url) },
    }
}

/// Where the page shows the incident.
pub(crate) fn dashboard_link(incident: &Incident, public_url: Option<&str>) -> Option<String> {
    public_url.map(|base| format!("{base}/#incident-{}", incident.record.incident_id))
}

#[cfg(test)]
mod tests {
    use bongsu_schemas::alert::AlertStatus::{Firing, Resolved};
    use serde_json::json;

    use super::*;
    use crate::incidents::Correlator;
    use crate::incidents::tests::alert;

    /// Scenario: an incident of two alerts, the first of which is resolved; one receiver asked for the first only.
    /// Guarantees: the contract's fields with the contract's names; the latest record of an alert, not each of its records.
    #[test]
    fn golden() {
        let mut correlator = Correlator::default();
        correlator.apply(&alert("errors", Some("order"), Firing, 1));
        correlator.apply(&alert("latency", Some("order"), Firing, 2));
        let resolved = alert("errors", Some("order"), Resolved, 5);
        let incident = correlator.apply(&resolved).remove(0).incident;
        let chosen = [&incident.alerts[0]];
        let value = serde_json::to_value(body("n-1", &incident, &chosen, Some("https://b.example.com"))).unwrap();
        let link = format!("https://b.example.com/#incident-{}", incident.record.incident_id);
        assert_eq!(
            value,
            json!({
                "version": 1,
                "notification_id": "n-1",
                "incident": serde_json::to_value(&incident.record).unwrap(),
                "alerts": [{
                    "alert_id": resolved.alert_id,
                    "rule": "errors",
                    "status": "resolved",
                    "severity": 3,
                    "service": "order",
                    "key": { "service": "order" },
                    "values": { "requests": 120, "errors": 12 },
                    "params": {},
                    "window_start": "2026-11-16T12:04:00Z",
                    "window_end": "2026-11-16T12:05:00Z",
                    "first_event_time": null,
                    "fired_at": "2026-11-16T12:05:00Z",
                    "resolved_at": "2026-11-16T12:05:00Z",
                    "summary": "errors summary",
                    "evidence": { "view": "", "when": "errors > $max * requests", "clear": "", "windows": [] },
                    "sequence": 2,
                }],
                "links": { "dashboard": link },
            })
        );
        assert_eq!(value["incident"]["status"], "open");
        assert_eq!(value["incident"]["sequence"], 3);
        assert_eq!(value["incident"]["alert_ids"].as_array().map(Vec::len), Some(2));
        let without = serde_json::to_value(body("n-1", &incident, &chosen, None)).unwrap();
        assert_eq!(without["links"], json!({ "dashboard": null }));
    }
}

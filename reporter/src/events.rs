//! What the reporter says while it runs: each occurrence is a log line and a metric.

use metrics::{counter, gauge};
use tracing::{debug, error, info, warn};

use crate::error::DeliveryError;
use crate::ledger::Kind;

/// A record of `bongsu.alerts` that cannot be read.
pub(crate) fn alert_unreadable(partition: i32, offset: i64, error: &serde_json::Error) {
    counter!("bongsu_reporter_alerts_unreadable_total").increment(1);
    error!(partition, offset, %error, "a record of the alerts cannot be read and is passed over");
}

/// A record of `bongsu.alerts` was taken.
pub(crate) fn alert_taken() {
    counter!("bongsu_reporter_alerts_total").increment(1);
}

/// Calls between services that are known.
pub(crate) fn calls_known(calls: usize) {
    gauge!("bongsu_reporter_calls_known").set(calls as f64);
}

/// A change of an incident was published.
pub(crate) fn incident_published(incident_id: &str, sequence: u32) {
    counter!("bongsu_reporter_incident_changes_total").increment(1);
    info!(incident_id, sequence, "incident published");
}

/// An alert that nobody can be told about.
pub(crate) fn nobody_to_tell(service: Option<&str>, incident_id: &str) {
    counter!("bongsu_reporter_unroutable_alerts_total").increment(1);
    warn!(service, incident_id, "no Slack channel is configured for an alert, neither for its service nor for \"*\"");
}

/// A notification arrived.
pub(crate) fn delivered(kind: Kind, channel: &str, id: &str) {
    counter!("bongsu_reporter_notifications_total", "kind" => kind.name()).increment(1);
    info!(kind = kind.name(), channel, id, "notification sent");
}

/// A notification did not arrive yet.
pub(crate) fn delivery_failed(kind: Kind, channel: &str, id: &str, error: &DeliveryError) {
    let reaction = match error {
        DeliveryError::RateLimited { .. } => "rate-limited",
        DeliveryError::Unreachable { .. } => "unreachable",
        DeliveryError::Refused { .. } => "refused",
    };
    counter!("bongsu_reporter_notification_failures_total", "kind" => kind.name(), "reaction" => reaction).increment(1);
    match error {
        DeliveryError::Refused { reason } => {
            error!(
                kind = kind.name(),
                channel, id, reason, "a notification is refused; it is tried again every five minutes"
            );
        }
        other => warn!(kind = kind.name(), channel, id, error = %other, "a notification could not be sent yet"),
    }
}

/// What fires was told to Alertmanager once more.
pub(crate) fn alerts_repeated(webhook: &str, alerts: usize) {
    counter!("bongsu_reporter_webhook_repeats_total", "webhook" => webhook.to_owned()).increment(1);
    debug!(webhook, alerts, "firing alerts repeated");
}

/// A notification that will not be sent.
pub(crate) fn notification_dropped(kind: Kind, channel: &str, id: &str, why: &'static str) {
    counter!("bongsu_reporter_notifications_dropped_total", "kind" => kind.name()).increment(1);
    error!(kind = kind.name(), channel, id, why, "a notification is dropped");
}

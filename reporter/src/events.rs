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
            let remedy = remedy(reason);
            error!(
                kind = kind.name(),
                channel, id, reason, remedy, "a notification is refused; it is tried again every five minutes"
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

/// What a person can do about a refusal. Slack's words begin with an error code.
fn remedy(reason: &str) -> &'static str {
    #[rustfmt::skip]
    let remedies = [
        ("channel_not_found", "create the channel or correct its name under `services`; a private channel has to invite the bot"),
        ("not_in_channel", "invite the bot to the channel, or give it the scope chat:write.public"),
        ("is_archived", "unarchive the channel, or name another one under `services`"),
        ("restricted_action", "the channel lets only some people post: allow the bot to"),
        ("missing_scope", "give the bot the scopes that docs/security.md lists, and install it again"),
        ("invalid_auth", "put a valid bot token into the variable that slack.token_env names"),
        ("not_authed", "put a valid bot token into the variable that slack.token_env names"),
        ("token_", "the token is no longer valid: put a new one into the variable that slack.token_env names"),
        ("account_inactive", "the bot was removed from the workspace: install it again"),
        ("invalid_blocks", "this is a mistake in Bongsu: please report it with this line"),
        ("msg_", "this is a mistake in Bongsu: please report it with this line"),
    ];
    let known = remedies.iter().find(|(code, _)| reason.starts_with(code));
    known.map_or("look the code up in Slack's reference of the method", |(_, remedy)| remedy)
}

/// Many new incidents of a channel share one message.
pub(crate) fn collapsed(channel: &str, digest: &str, incidents: usize) {
    counter!("bongsu_reporter_digests_total").increment(1);
    info!(channel, digest, incidents, "many incidents at once: they share one message");
}

/// Slack refused a message's blocks, and gets its text alone.
pub(crate) fn sent_plainly(kind: Kind, channel: &str, id: &str, reason: &str) {
    counter!("bongsu_reporter_plain_messages_total", "kind" => kind.name()).increment(1);
    error!(
        kind = kind.name(),
        channel,
        id,
        reason,
        remedy = remedy(reason),
        "a message's blocks are refused; its text is sent alone"
    );
}

/// Nobody can tell whether a message arrived.
pub(crate) fn history_unreadable(channel: &str, reason: &str) {
    counter!("bongsu_reporter_history_unreadable_total").increment(1);
    warn!(
        channel,
        reason,
        remedy = remedy(reason),
        "the channel's history cannot be read, so that a message may come twice (scopes channels:history and channels:read)"
    );
}

/// A notification that will not be sent.
pub(crate) fn notification_dropped(kind: Kind, channel: &str, id: &str, why: &'static str) {
    counter!("bongsu_reporter_notifications_dropped_total", "kind" => kind.name()).increment(1);
    error!(kind = kind.name(), channel, id, why, "a notification is dropped");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: the refusals that people cause say what they can do.
    #[test]
    fn refusals_have_remedies() {
        for reason in
            ["channel_not_found", "not_in_channel", "missing_scope; channels:history", "token_revoked", "msg_too_long"]
        {
            assert!(!remedy(reason).starts_with("look"), "{reason}");
        }
        assert!(remedy("something_new").starts_with("look"));
    }
}

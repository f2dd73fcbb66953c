//! What a channel is to be told about an incident: its message, and what decides when and how it is told. Pure.

use std::collections::BTreeMap;

use bongsu_schemas::key::stable_id;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use crate::incidents::{Incident, IncidentAlert};
use crate::ledger::Kind;
use crate::pacing::{State, series_of};
use crate::recent::RecentWindows;
use crate::slack::digest::Line;
use crate::slack::message::{self, Context, Message, most_important, reply_line};

/// Clocks of this machine and of Slack may differ by this much.
const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(10);
/// Alerts that can be owed a reply at one time: the latest that fire.
const MAX_JOINED: usize = 50;

/// A message that a channel is to have.
#[derive(Debug, Clone)]
pub(crate) struct Notification {
    /// Deterministic; also the `block_id` of the message's first block.
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) channel: String,
    /// A higher one replaces a lower one.
    pub(crate) sequence: u32,
    pub(crate) message: Message,
    /// It cannot have been posted before (wall clock).
    pub(crate) since: DateTime<Utc>,
    /// It may have been posted without an entry in the ledger.
    pub(crate) maybe_sent: bool,
    /// Each of its alerts names rules that explain it, and none of those has fired yet.
    pub(crate) may_be_explained: bool,
    /// What the message tells, for its pace.
    pub(crate) state: State,
    /// What stands for the message in a digest.
    pub(crate) line: Line,
    /// What a reply in its thread can say: alerts that fire, in the order in which they began.
    pub(crate) joined: Vec<Joined>,
}

/// An alert that may have to be told in the thread.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    /// See [`series_of`].
    pub(crate) series: String,
    /// The reply's notification id, if this alert is the first in it.
    pub(crate) reply_id: String,
    /// In Slack's markup.
    pub(crate) line: String,
}

/// Where and how an incident is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The notification's id, see [`id_of`].
    pub(crate) id: &'a str,
    pub(crate) channel: &'a str,
    pub(crate) owner: Option<&'a str>,
    pub(crate) zone: Tz,
    pub(crate) public_url: Option<&'a str>,
}

/// The notification id of an incident in a channel.
pub(crate) fn id_of(incident: &Incident, channel: &str) -> String {
    stable_id(["incident", &incident.record.incident_id, channel])
}

/// What a channel that is told about `alerts` of an incident is to have.
pub(crate) fn notification(
    incident: &Incident,
    alerts: &[&IncidentAlert],
    place: Place<'_>,
    recent: &mut RecentWindows,
    maybe_sent: bool,
) -> Notification {
    let Place { id, channel, owner, zone, public_url } = place;
    let record = &incident.record;
    let shown = most_important(alerts).into_iter().map(|alert| &alert.firing);
    let found: BTreeMap<_, _> = shown.map(|firing| (firing.alert_id.clone(), recent.found(firing))).collect();
    let message = message::incident(incident, alerts, Context { id, zone, public_url, owner, found: &found });
    let severity = alerts.iter().map(|alert| alert.firing.severity).max().unwrap_or(record.severity).clamp(1, 5);
    let is_resolved = !alerts.iter().any(|alert| alert.fires());
    let (since, until) = message::time_range(alerts, record.opened_at);
    let acknowledged_by = record.acknowledged_by.clone();
    let line = Line {
        incident_id: record.incident_id.clone(),
        severity,
        title: message::title(incident, alerts),
        service: alerts.iter().find_map(|alert| alert.firing.service.clone()),
        since,
        until,
        is_resolved,
        acknowledged_by: acknowledged_by.clone(),
    };
    let series = alerts.iter().map(|alert| series_of(&alert.firing)).collect();
    let state = State { series, severity, acknowledged_by, is_resolved };
    let joined = |alert: &&IncidentAlert| {
        let series = series_of(&alert.firing);
        let reply_id = stable_id(["reply", &record.incident_id, channel, &series]);
        Joined { series, reply_id, line: reply_line(alert) }
    };
    let mut firing: Vec<_> = alerts.iter().filter(|alert| alert.fires()).rev().take(MAX_JOINED).collect();
    firing.reverse();
    Notification {
        id: id.to_owned(),
        kind: Kind::Incident,
        channel: channel.to_owned(),
        sequence: record.sequence,
        message,
        since: incident.first_fired_at().unwrap_or(DateTime::UNIX_EPOCH) - CLOCK_SKEW,
        maybe_sent,
        may_be_explained: alerts
            .iter()
            .all(|alert| !alert.firing.explained_by.is_empty() && alert.explained_by.is_none()),
        state,
        line: line.bounded(),
        joined: firing.into_iter().map(joined).collect(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bongsu_schemas::alert::AlertRecord;
    use bongsu_schemas::alert::AlertStatus::{Firing, Resolved};

    use super::*;
    use crate::incidents::Correlator;
    use crate::incidents::tests::alert;

    /// The notification after the last of `records`, which are all of one incident.
    pub(crate) fn after(records: &[AlertRecord], channel: &str) -> Notification {
        let mut correlator = Correlator::default();
        let changes: Vec<_> = records.iter().flat_map(|record| correlator.apply(record)).collect();
        let incident = &changes.last().unwrap().incident;
        let alerts: Vec<_> = incident.alerts.iter().collect();
        let id = id_of(incident, channel);
        let place = Place { id: &id, channel, owner: None, zone: Tz::UTC, public_url: None };
        notification(incident, &alerts, place, &mut RecentWindows::default(), false)
    }

    /// One of that id and sequence, for queues.
    pub(crate) fn numbered(id: &str, sequence: u32) -> Notification {
        let template = after(&[alert("errors", Some("order"), Firing, 1)], "#c");
        Notification { id: id.to_owned(), sequence, ..template }
    }

    /// Scenario: an alert fires, another one joins it, both are over.
    /// Guarantees: what the pace, the digest and the thread get to see.
    #[test]
    fn a_notification_knows_what_it_tells() {
        let (errors, latency) = (alert("errors", Some("order"), Firing, 1), alert("latency", Some("order"), Firing, 2));
        let both = after(&[errors.clone(), latency.clone()], "#c");
        assert_eq!((both.state.series.len(), both.state.is_resolved, both.state.severity), (2, false, 3));
        assert_eq!(both.line.title, "order: errors summary (+1)");
        let lines: Vec<&str> = both.joined.iter().map(|joined| joined.line.as_str()).collect();
        assert_eq!(
            lines,
            ["🔥🔥🔥 Also fires: *errors* errors summary", "🔥🔥🔥 Also fires: *latency* latency summary"]
        );
        let over = [alert("errors", Some("order"), Resolved, 5), alert("latency", Some("order"), Resolved, 5)];
        let done = after(&[vec![errors, latency], over.to_vec()].concat(), "#c");
        assert!(done.state.is_resolved && done.line.is_resolved && done.joined.is_empty());
        assert_eq!((done.id, done.sequence), (both.id, 4));
    }
}

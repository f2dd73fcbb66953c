//! Who is to have which message about an incident. Pure.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};

use crate::config::Config;
use crate::events;
use crate::incidents::{Incident, IncidentAlert};
use crate::notification::{Notification, Place, id_of, notification};
use crate::recent::RecentWindows;
use crate::routing::{Question, route};

/// An incident that was over for this long before anybody could be told of it is no news: a first start is silent about the past.
const NO_NEWS_AFTER: TimeDelta = TimeDelta::hours(24);

/// Whether people want to hear of it still.
pub(crate) fn is_news(incident: &Incident, now: DateTime<Utc>) -> bool {
    incident.is_open() || incident.changed_at().is_some_and(|at| now - at < NO_NEWS_AFTER)
}

/// What an incident means for the channels of its alerts.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// What they are to have.
    pub(crate) notifications: Vec<Notification>,
    /// Channel and notification id of what was to be sent and has become needless.
    pub(crate) withdrawn: Vec<(String, String)>,
}

/// One message for each channel that is to know of an incident: of its alerts that are not muted, or of all where the channel was told
/// before, so that the message does not go on burning. Where each alert is explained by another one, the channel has nothing to do.
pub(crate) fn notifications(
    incident: &Incident,
    muted: &dyn Fn(&IncidentAlert) -> bool,
    is_told: &dyn Fn(&str) -> bool,
    config: &Config,
    recent: &mut RecentWindows,
    maybe_sent: bool,
) -> Told {
    let public_url = config.dashboard.public_url.as_ref().map(|url| url.as_str());
    let mut told = Told::default();
    for (channel, all) in by_channel(incident, config) {
        let id = id_of(incident, channel);
        let audible: Vec<&IncidentAlert> = all.iter().copied().filter(|alert| !muted(alert)).collect();
        // True of none as well.
        let nothing_to_do = audible.iter().all(|alert| alert.explained_by.is_some());
        if nothing_to_do && !is_told(&id) {
            told.withdrawn.push((channel.to_owned(), id));
            continue;
        }
        let alerts = if audible.is_empty() { all } else { audible };
        let Some(first) = alerts.first() else { continue };
        let ownership = config.services.owner_of(first.firing.service.as_deref());
        let owner = ownership.map(|ownership| ownership.owner.display_name());
        let place = Place { id: &id, channel, owner, zone: config.zone, public_url };
        told.notifications.push(notification(incident, &alerts, place, recent, maybe_sent));
    }
    told
}

/// The channels that alerts of an incident go to, each with those alerts.
fn by_channel<'a>(incident: &'a Incident, config: &'a Config) -> BTreeMap<&'a str, Vec<&'a IncidentAlert>> {
    let mut channels: BTreeMap<&str, Vec<&IncidentAlert>> = BTreeMap::new();
    for alert in &incident.alerts {
        let now = route(&config.services, config.zone, Question::of(&alert.firing));
        if now.channels.is_empty() && !now.is_nobody_on_purpose() {
            events::nobody_to_tell(now.question.service, &incident.record.incident_id);
        }
        // As it was when it first had a severity: who was told of it then is told how it goes on, and of its end.
        let before = alert.severities.iter().map(|(severity, at)| {
            let question = Question { severity: *severity, at: *at, ..now.question };
            route(&config.services, config.zone, question).channels
        });
        // A channel that is named twice is told once.
        for channel in before.chain([now.channels]).flatten().collect::<BTreeSet<_>>() {
            channels.entry(channel).or_default().push(alert);
        }
    }
    channels
}

#[cfg(test)]
#[path = "telling_tests.rs"]
mod tests;

//! All that the topics say of one alert: its records, the incident that has it, who was told. For `bongsu explain`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bongsu_schemas::alert::{AlertRecord, AlertStatus};
use bongsu_schemas::incident::IncidentRecord;
use bongsu_schemas::kafka::Kafka;
use bongsu_schemas::key::stable_id;
use chrono::{DateTime, Utc};
use rdkafka::message::Message;
use serde::Deserialize;

use crate::kafka::read_all;
use crate::ledger::{Entry, Kind};

/// So many alerts are listed where the beginning of an id fits several.
const MAX_LISTED: usize = 20;

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// No alert of that id.
    Nothing,
    /// The only one.
    One(Box<Explanation>),
    /// Several, by id; only the first ones where there are many.
    Several(Vec<Records>),
}

/// An alert and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Its own records.
    pub records: Records,
    /// The incident that has it, as it is now; none before the reporter has seen the alert.
    pub incident: Option<IncidentRecord>,
    /// Who was told of the incident, in the order in which they were.
    pub notifications: Vec<Told>,
}

/// The records of an alert.
#[derive(Debug, Clone, PartialEq)]
pub struct Records {
    /// How it began; none where that record has expired.
    pub firing: Option<AlertRecord>,
    /// The last record.
    pub last: AlertRecord,
}

impl Records {
    /// The record that says why: the first one that is there.
    pub fn first(&self) -> &AlertRecord {
        self.firing.as_ref().unwrap_or(&self.last)
    }
}

/// An entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// `incident` for a message in a channel, `alert-mail` for an e-mail.
    pub kind: &'static str,
    /// Slack channel, or the owner's name for mail.
    pub channel: String,
    /// The incident's sequence that was told last.
    pub sequence: u32,
    /// Wall clock.
    pub sent_at: DateTime<Utc>,
}

/// Looks for the alert whose id begins with `prefix`. Reads whole topics, keeps what belongs to it; blocks.
pub fn explain(kafka: &Kafka, prefix: &str) -> anyhow::Result<Found> {
    let topics = kafka.topics();
    let mut matches = Matches::new(prefix);
    read_all(kafka, &topics.alerts(), |record| matches.take(record.payload()))?;
    let mut alerts = matches.alerts.into_values();
    let (Some(records), second) = (alerts.next(), alerts.next()) else { return Ok(Found::Nothing) };
    if let Some(second) = second {
        return Ok(Found::Several([records, second].into_iter().chain(alerts).collect()));
    }
    let mut incident = None;
    read_all(kafka, &topics.incidents(), |record| {
        take_incident(&mut incident, &records.last.alert_id, record.payload())
    })?;
    let mut told = BTreeMap::new();
    if let Some(incident) = &incident {
        read_all(kafka, &topics.notifications(), |record| {
            take_told(&mut told, incident, record.key().unwrap_or_default(), record.payload());
        })?;
    }
    let mut notifications: Vec<Told> = told.into_values().collect();
    notifications.sort_by(|a, b| (a.sent_at, &a.channel).cmp(&(b.sent_at, &b.channel)));
    Ok(Found::One(Box::new(Explanation { records, incident, notifications })))
}

/// The alerts whose ids begin alike, by id. Never more than are listed.
struct Matches<'a> {
    prefix: &'a str,
    alerts: BTreeMap<String, Records>,
}

/// What of a record is read of every alert.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    alert_id: Cow<'a, str>,
}

impl<'a> Matches<'a> {
    fn new(prefix: &'a str) -> Matches<'a> {
        Matches { prefix, alerts: BTreeMap::new() }
    }

    fn take(&mut self, value: Option<&[u8]>) {
        let value = value.unwrap_or_default();
        // What cannot be read is not the alert that is looked for.
        let Ok(head) = serde_json::from_slice::<Head<'_>>(value) else { return };
        if !head.alert_id.starts_with(self.prefix) {
            return;
        }
        let Ok(record) = serde_json::from_slice::<AlertRecord>(value) else { return };
        let is_firing = record.status == AlertStatus::Firing;
        match self.alerts.get_mut(&record.alert_id) {
            Some(records) => {
                if is_firing && records.firing.is_none() {
                    records.firing = Some(record.clone());
                }
                if record.sequence >= records.last.sequence {
                    records.last = record;
                }
            }
            None => {
                let id = record.alert_id.clone();
                self.alerts.insert(id, Records { firing: is_firing.then(|| record.clone()), last: record });
                if self.alerts.len() > MAX_LISTED {
                    self.alerts.pop_last();
                }
            }
        }
    }
}

fn take_incident(found: &mut Option<IncidentRecord>, alert_id: &str, value: Option<&[u8]>) {
    let record = value.and_then(|value| serde_json::from_slice::<IncidentRecord>(value).ok());
    let Some(record) = record.filter(|record| record.alert_ids.iter().any(|id| id == alert_id)) else { return };
    // Incidents may be published again with what they were before.
    let is_newer =
        |known: &IncidentRecord| known.incident_id != record.incident_id || known.sequence <= record.sequence;
    if found.as_ref().is_none_or(is_newer) {
        *found = Some(record);
    }
}

fn take_told(told: &mut BTreeMap<String, Told>, incident: &IncidentRecord, key: &[u8], value: Option<&[u8]>) {
    let Some(value) = value else {
        told.remove(&*String::from_utf8_lossy(key));
        return;
    };
    let Ok(Entry { id, kind, channel, sequence, sent_at, .. }) = serde_json::from_slice(value) else { return };
    let is_of_incidents = matches!(kind, Kind::Incident | Kind::AlertMail | Kind::Webhook);
    if is_of_incidents && id == notification_id(kind, &incident.incident_id, &channel) {
        told.insert(id, Told { kind: kind.name(), channel, sequence, sent_at });
    }
}

/// The id of what is sent about an incident to a channel, or to an owner by mail.
fn notification_id(kind: Kind, incident_id: &str, channel: &str) -> String {
    stable_id([kind.name(), incident_id, channel])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn alert(id: &str, status: &str, sequence: u32) -> Vec<u8> {
        let alert = json!({
            "alert_id": id, "rule": "errors", "status": status, "severity": 4, "service": "shop", "key": {}, "values": {}, "params": {},
            "window_start": "2025-06-02T00:00:00Z", "window_end": "2025-06-02T00:01:00Z", "fired_at": "2025-06-02T00:01:07Z",
            "summary": "errors", "evidence": { "view": "v", "when": "a > 1", "clear": "a < 1", "windows": [] }, "sequence": sequence,
        });
        serde_json::to_vec(&alert).unwrap()
    }

    fn incident(id: &str, sequence: u32, alerts: &[&str]) -> IncidentRecord {
        let incident = json!({
            "incident_id": id, "status": "open", "severity": 4, "title": "t", "opened_at": "2025-06-02T00:01:00Z", "services": ["shop"],
            "alert_ids": alerts, "timeline": [], "sequence": sequence,
        });
        serde_json::from_value(incident).unwrap()
    }

    /// Scenario: alerts of several ids, one of which has expired in part, and records that are none.
    /// Guarantees: those whose ids begin alike are found, each with its beginning and its end.
    #[test]
    fn alerts_are_found_by_the_beginning_of_their_id() {
        let log = [
            alert("aaaaaa11", "firing", 1),
            alert("bbbbbb22", "resolved", 2),
            b"hostile \xff".to_vec(),
            alert("aaaaaa11", "resolved", 2),
            alert("aaaaaa33", "firing", 1),
        ];
        #[rustfmt::skip]
        let cases = [
            // prefix     id, and the sequences of its first and its last record
            ("aaaaaa11", "aaaaaa11 1 2"),
            ("aaaaaa",   "aaaaaa11 1 2, aaaaaa33 1 1"),
            ("bbbbbb",   "bbbbbb22 2 2"),
            ("cccccc",   ""),
        ];
        for (prefix, expected) in cases {
            let mut matches = Matches::new(prefix);
            log.iter().for_each(|value| matches.take(Some(value)));
            matches.take(None);
            let one = |(id, records): (&String, &Records)| {
                format!("{id} {} {}", records.first().sequence, records.last.sequence)
            };
            let found: Vec<_> = matches.alerts.iter().map(one).collect();
            assert_eq!(found.join(", "), expected, "{prefix}");
        }
    }

    #[test]
    fn not_more_alerts_are_kept_than_are_listed() {
        let mut matches = Matches::new("aaaa");
        for number in 0..100 {
            matches.take(Some(&alert(&format!("aaaa{number:02}"), "firing", 1)));
        }
        assert_eq!(matches.alerts.len(), MAX_LISTED);
    }

    #[test]
    fn an_incident_is_found_as_it_is_now() {
        let mut found = None;
        for record in [
            incident("i", 1, &["a"]),
            incident("other", 9, &["b"]),
            incident("i", 2, &["a", "b"]),
            incident("i", 1, &["a"]),
        ] {
            take_incident(&mut found, "a", Some(&serde_json::to_vec(&record).unwrap()));
        }
        assert_eq!(found, Some(incident("i", 2, &["a", "b"])));
    }

    /// Scenario: entries of this incident and of another one, of a report, and one that was deleted.
    /// Guarantees: only who was told of this incident is named.
    #[test]
    fn who_was_told_is_found_by_the_deterministic_ids() {
        let entry = |kind: Kind, of: &str, channel: &str| -> Value {
            json!({
                "id": notification_id(kind, of, channel), "kind": kind.name(), "channel": channel, "sequence": 3,
                "sent_at": "2025-06-02T00:02:00Z",
            })
        };
        let entries = [
            entry(Kind::Incident, "i", "#shop"),
            entry(Kind::Incident, "other", "#shop"),
            entry(Kind::AlertMail, "i", "Shop team"),
            entry(Kind::WeeklyMail, "i", "Shop team"),
            entry(Kind::Incident, "i", "#deleted"),
        ];
        let mut told = BTreeMap::new();
        let incident = incident("i", 3, &["a"]);
        for entry in &entries {
            take_told(&mut told, &incident, b"", Some(&serde_json::to_vec(entry).unwrap()));
        }
        take_told(&mut told, &incident, notification_id(Kind::Incident, "i", "#deleted").as_bytes(), None);
        let mut channels: Vec<_> = told.values().map(|told| (told.kind, told.channel.as_str())).collect();
        channels.sort_unstable();
        assert_eq!(channels, [("alert-mail", "Shop team"), ("incident", "#shop")]);
    }
}

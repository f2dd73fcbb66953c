//! What has been sent: the compacted topic `bongsu.notifications`, by notification id.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bongsu_schemas::kafka::Kafka;
use bongsu_schemas::window::rfc3339;
use chrono::{DateTime, TimeDelta, Utc};
use rdkafka::message::{BorrowedMessage, Message};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::kafka::{Producer, read_all};
use crate::pacing::Told;
use crate::slack::digest::Line;

/// Entries older than this are deleted: alerts are kept for 35 days, and a report is never sent later than that.
const KEEP: TimeDelta = TimeDelta::days(60);

/// One notification, as it was sent last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) kind: Kind,
    /// Slack channel as configured, the owner's name for mail, the webhook's name, or who took an incident.
    pub(crate) channel: String,
    /// Slack's id of the channel and name of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) channel_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ts: Option<String>,
    /// The incident's sequence that the message shows; 1 for what is sent once; 0 where the message shows none of it yet.
    pub(crate) sequence: u32,
    #[serde(with = "rfc3339")]
    pub(crate) sent_at: DateTime<Utc>,
    /// The digest's notification id, where an incident has no message of its own but a line in a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
    /// That line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<Line>,
    /// What it has told, for its pace and its thread.
    #[serde(default, skip_serializing_if = "Told::is_default")]
    pub(crate) told: Told,
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Incident,
    /// One message for many incidents.
    Digest,
    /// In the thread of an incident's message.
    Reply,
    AlertMail,
    WeeklyDigest,
    WeeklyMail,
    /// Not a message: the incident was published with who took it.
    Acknowledgement,
    Webhook,
}

impl Entry {
    /// A notification that was sent at `sent_at`.
    pub(crate) fn new(id: String, kind: Kind, channel: String, sequence: u32, sent_at: DateTime<Utc>) -> Entry {
        let (channel_id, ts, digest, line, told) = (None, None, None, None, Told::default());
        Entry { id, kind, channel, channel_id, ts, sequence, sent_at, digest, line, told }
    }
}

impl Kind {
    /// For metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Incident => "incident",
            Kind::Digest => "digest",
            Kind::Reply => "reply",
            Kind::AlertMail => "alert-mail",
            Kind::WeeklyDigest => "weekly-digest",
            Kind::WeeklyMail => "weekly-mail",
            Kind::Acknowledgement => "acknowledgement",
            Kind::Webhook => "webhook",
        }
    }
}

/// The ledger in memory and in Kafka. Clones share it.
#[derive(Clone)]
pub(crate) struct Ledger {
    topic: Arc<str>,
    /// None in tests of what stands above the ledger.
    producer: Option<Arc<Producer>>,
    // Held for a map operation only, never across an await.
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
}

impl Ledger {
    /// Reads the whole topic, and deletes what is too old to matter.
    pub(crate) async fn load(kafka: &Kafka, producer: Arc<Producer>, now: DateTime<Utc>) -> anyhow::Result<Ledger> {
        let topic = kafka.topics().notifications();
        let (kafka, name) = (kafka.clone(), topic.clone());
        let read = tokio::task::spawn_blocking(move || {
            let mut entries = BTreeMap::new();
            let each =
                |record: &BorrowedMessage<'_>| take(&mut entries, record.key().unwrap_or_default(), record.payload());
            read_all(&kafka, &name, each).map(|()| entries)
        });
        let mut entries = read.await??;
        let old: Vec<String> =
            entries.values().filter(|entry| now - entry.sent_at > KEEP).map(|entry: &Entry| entry.id.clone()).collect();
        for id in old {
            producer.send(&topic, &id, None).await?;
            entries.remove(&id);
        }
        Ok(Ledger { topic: topic.into(), producer: Some(producer), entries: Arc::new(Mutex::new(entries)) })
    }

    /// One that has only its memory.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Ledger {
        Ledger { topic: "".into(), producer: None, entries: Arc::default() }
    }

    /// As if the process had ended and read its topic again, without the entries of `lost`.
    #[cfg(test)]
    pub(crate) fn reloaded_without(&self, lost: impl Fn(&Entry) -> bool) -> Ledger {
        let entries = self
            .entries()
            .iter()
            .filter(|(_, entry)| !lost(entry))
            .map(|(id, entry)| (id.clone(), entry.clone()))
            .collect();
        Ledger { topic: "".into(), producer: None, entries: Arc::new(Mutex::new(entries)) }
    }

    /// What was sent last for a notification.
    pub(crate) fn get(&self, id: &str) -> Option<Entry> {
        self.entries().get(id).cloned()
    }

    /// The incidents that have a line in a digest.
    pub(crate) fn members(&self, digest: &str) -> Vec<Entry> {
        self.entries().values().filter(|entry| entry.digest.as_deref() == Some(digest)).cloned().collect()
    }

    /// Remembers, in this process at once and in Kafka when this returns.
    pub(crate) async fn record(&self, entry: Entry) -> anyhow::Result<()> {
        let value = serde_json::to_string(&entry)?;
        let id = entry.id.clone();
        self.entries().insert(id.clone(), entry);
        match &self.producer {
            Some(producer) => producer.send(&self.topic, &id, Some(&value)).await,
            None => Ok(()),
        }
    }

    /// As [`Ledger::record`], for several entries, in their order.
    pub(crate) async fn record_all(&self, entries: Vec<Entry>) -> anyhow::Result<()> {
        futures::future::try_join_all(entries.into_iter().map(|entry| self.record(entry))).await.map(|_| ())
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take(entries: &mut BTreeMap<String, Entry>, key: &[u8], value: Option<&[u8]>) {
    let Some(value) = value else {
        entries.remove(&*String::from_utf8_lossy(key));
        return;
    };
    match serde_json::from_slice::<Entry>(value) {
        Ok(entry) => {
            entries.insert(entry.id.clone(), entry);
        }
        Err(error) => warn!(%error, "a record of the ledger cannot be read and is passed over"),
    }
}

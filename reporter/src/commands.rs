//! `bongsu.commands`: read whole, followed on a thread of its own, and written.

use std::thread::JoinHandle;
use std::time::Duration;

use bongsu_schemas::command::Command;
use bongsu_schemas::kafka::Kafka;
use bongsu_schemas::key::stable_id;
use chrono::{DateTime, Utc};
use rdkafka::message::{BorrowedMessage, Message};
use tokio::sync::mpsc;
use tracing::warn;

use crate::follower::{Followed, Follower, StartAt};
use crate::kafka::{Producer, read_all};

/// Somebody waits for the command that is written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A command, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// Wall clock when it was written: the record's timestamp.
    pub at: DateTime<Utc>,
    /// What was asked for.
    pub command: Command,
}

/// All commands so far. An error within seconds if Kafka does not answer, or has no such topic.
pub async fn read(kafka: &Kafka) -> anyhow::Result<Vec<Given>> {
    let kafka = kafka.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut commands = Vec::new();
        read_all(&kafka, &kafka.topics().commands(), |record| commands.extend(given(record)))?;
        Ok(commands)
    });
    reading.await?
}

/// Writes commands.
pub struct Writer {
    producer: Producer,
    topic: String,
}

impl Writer {
    /// Connects when something is written.
    pub fn new(kafka: &Kafka) -> anyhow::Result<Writer> {
        Ok(Writer { producer: Producer::with_timeout(kafka, WRITE_TIMEOUT)?, topic: kafka.topics().commands() })
    }

    /// Returns when the command is acknowledged by all in-sync replicas; an error if that takes more than ten seconds.
    pub async fn write(&self, command: &Command, now: DateTime<Utc>) -> anyhow::Result<()> {
        let value = serde_json::to_string(command)?;
        self.producer.send(&self.topic, &key(command, now), Some(&value)).await
    }
}

/// The Kafka key: what ends a silence replaces it when the topic is compacted. Each acknowledgement is kept, because every one counts in an
/// incident's sequence.
fn key(command: &Command, now: DateTime<Utc>) -> String {
    match command {
        Command::Silence(silence) => silence.id.clone(),
        Command::Unsilence { id, .. } => id.clone(),
        Command::Acknowledge { incident_id, by } => stable_id(["acknowledge", incident_id, by, &now.to_rfc3339()]),
    }
}

/// Follows the topic from its beginning; the thread ends when the receiver is dropped.
pub(crate) fn follow(kafka: &Kafka) -> anyhow::Result<(mpsc::Receiver<Given>, JoinHandle<()>)> {
    let follower = Follower::new(kafka, "commands", vec![(kafka.topics().commands(), StartAt::Beginning)])?;
    let (sender, receiver) = mpsc::channel(64);
    let follow = move || {
        let is_over = || sender.is_closed();
        follower.run(is_over, |followed| {
            if let Followed::Record(message) = followed
                && let Some(given) = given(message)
            {
                // An error means that nobody listens any more, which ends the thread.
                let _ = sender.blocking_send(given);
            }
        });
    };
    Ok((receiver, std::thread::Builder::new().name("commands".to_owned()).spawn(follow)?))
}

/// A record as a command; nothing for a deleted one, and for what cannot be read.
pub(crate) fn given(record: &BorrowedMessage<'_>) -> Option<Given> {
    let parsed = serde_json::from_slice(record.payload()?);
    let command = parsed.inspect_err(|error| warn!(%error, "a command cannot be read and is passed over")).ok()?;
    let at = record.timestamp().to_millis().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    Some(Given { partition: record.partition(), offset: record.offset(), at, command })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: compaction keeps the last word on a silence, and every acknowledgement.
    #[test]
    fn keys() {
        let unsilence = Command::Unsilence { id: "a".to_owned(), by: "me".to_owned() };
        let silence = serde_json::json!({
            "command": "silence", "id": "a", "matcher": {}, "from": "2026-11-16T00:00:00Z", "until": "2026-11-17T00:00:00Z", "by": "me",
        });
        let silence: Command = serde_json::from_value(silence).unwrap();
        let (first, later) = (DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + chrono::TimeDelta::milliseconds(1));
        assert_eq!((key(&silence, first), key(&unsilence, later)), ("a".to_owned(), "a".to_owned()));
        let acknowledge = Command::Acknowledge { incident_id: "i".to_owned(), by: "me".to_owned() };
        assert_ne!(key(&acknowledge, first), key(&acknowledge, later));
    }
}

//! Follows `bongsu.commands` on a thread of its own.

use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use bongsu_schemas::command::Command;
use bongsu_schemas::kafka::Kafka;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::kafka::{read_all, reader};

const POLL: Duration = Duration::from_millis(100);
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

/// All commands so far.
pub(crate) async fn read(kafka: &Kafka) -> anyhow::Result<Vec<Command>> {
    let kafka = kafka.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut commands = Vec::new();
        read_all(&kafka, &kafka.topics().commands(), |_, value| commands.extend(value.and_then(parsed)))?;
        Ok(commands)
    });
    reading.await?
}

/// Follows the topic from its beginning; the thread ends when the receiver is dropped.
pub(crate) fn follow(kafka: &Kafka) -> anyhow::Result<(mpsc::Receiver<Command>, JoinHandle<()>)> {
    let topic = kafka.topics().commands();
    let consumer = reader(kafka, "reader")?;
    let (sender, receiver) = mpsc::channel(64);
    let thread =
        std::thread::Builder::new().name("commands".to_owned()).spawn(move || run(&consumer, &topic, &sender))?;
    Ok((receiver, thread))
}

fn run(consumer: &BaseConsumer, topic: &str, sender: &mpsc::Sender<Command>) {
    while let Err(error) = assign(consumer, topic) {
        if sender.is_closed() {
            return;
        }
        debug!(error = format!("{error:#}"), "commands cannot be read yet");
        consumer.poll(METADATA_TIMEOUT);
    }
    while !sender.is_closed() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                if let Some(command) = message.payload().and_then(parsed)
                    && sender.blocking_send(command).is_err()
                {
                    return;
                }
            }
            // librdkafka connects again by itself.
            Some(Err(error)) => debug!(%error, "commands cannot be read"),
            None => {}
        }
    }
}

fn assign(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<()> {
    let metadata = consumer.fetch_metadata(Some(topic), METADATA_TIMEOUT)?;
    let found = metadata.topics().first().filter(|found| found.error().is_none() && !found.partitions().is_empty());
    let mut assignment = TopicPartitionList::new();
    for partition in found.with_context(|| format!("there is no topic `{topic}`"))?.partitions() {
        assignment.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    Ok(consumer.assign(&assignment)?)
}

fn parsed(value: &[u8]) -> Option<Command> {
    let parsed = serde_json::from_slice(value);
    parsed.inspect_err(|error| warn!(%error, "a command cannot be read and is passed over")).ok()
}

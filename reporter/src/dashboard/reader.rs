//! Reads windows, alerts and incidents for the page, on a thread of its own and outside of any group.

use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use bongsu_schemas::kafka::Kafka;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

use super::Shared;
use crate::kafka::reader;

const POLL: Duration = Duration::from_millis(100);
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);
/// Windows read back from the end of each partition.
const WINDOWS_BACK: i64 = 1_000;
/// Records read back from the end of alerts and incidents.
const ALERTS_BACK: i64 = 5_000;

/// Starts the thread; it ends with `shared.stop`.
pub(super) fn spawn(kafka: &Kafka, shared: Shared) -> anyhow::Result<JoinHandle<()>> {
    let consumer = reader(kafka, "dashboard")?;
    let topics = kafka.topics();
    let topics = Topics { windows: topics.windows(), alerts: topics.alerts(), incidents: topics.incidents() };
    let reader = Reader { consumer, topics, shared };
    Ok(std::thread::Builder::new().name("dashboard-reader".to_owned()).spawn(move || reader.run())?)
}

struct Topics {
    windows: String,
    alerts: String,
    incidents: String,
}

struct Reader {
    consumer: BaseConsumer,
    topics: Topics,
    shared: Shared,
}

impl Reader {
    fn run(self) {
        while !self.shared.stop.is_cancelled() {
            match self.assign() {
                Ok(()) => break,
                // The topics may be created later, and the broker may be away.
                Err(error) => debug!(error = format!("{error:#}"), "the dashboard cannot read yet"),
            }
            self.consumer.poll(METADATA_TIMEOUT);
        }
        while !self.shared.stop.is_cancelled() {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => self.take(&message),
                // librdkafka connects again by itself; the pipeline's health tells of outages.
                Some(Err(error)) => debug!(%error, "the dashboard cannot read"),
                None => {}
            }
        }
    }

    /// Starts some records before the end of all partitions.
    fn assign(&self) -> anyhow::Result<()> {
        let mut assignment = TopicPartitionList::new();
        let Topics { windows, alerts, incidents } = &self.topics;
        for (topic, back) in [(windows, WINDOWS_BACK), (alerts, ALERTS_BACK), (incidents, ALERTS_BACK)] {
            let metadata = self.consumer.fetch_metadata(Some(topic), METADATA_TIMEOUT)?;
            let found =
                metadata.topics().first().filter(|found| found.error().is_none() && !found.partitions().is_empty());
            for partition in found.with_context(|| format!("there is no topic `{topic}`"))?.partitions() {
                let (first, end) = self.consumer.fetch_watermarks(topic, partition.id(), METADATA_TIMEOUT)?;
                assignment.add_partition_offset(topic, partition.id(), Offset::Offset((end - back).max(first)))?;
            }
        }
        self.consumer.assign(&assignment).map_err(KafkaError::into)
    }

    fn take(&self, message: &BorrowedMessage<'_>) {
        let Some(payload) = message.payload() else { return };
        let topic = message.topic();
        if topic == self.topics.windows {
            if let Some(window) = parsed(topic, payload) {
                self.shared.board().window(window);
            }
        } else if topic == self.topics.alerts {
            if let Some(alert) = parsed(topic, payload) {
                self.shared.board().alert(alert);
            }
        } else if let Some(incident) = parsed(topic, payload) {
            self.shared.board().incident(incident);
        }
    }
}

fn parsed<T: DeserializeOwned>(topic: &str, payload: &[u8]) -> Option<T> {
    let parsed = serde_json::from_slice(payload);
    parsed.inspect_err(|error| warn!(topic, %error, "a record cannot be shown")).ok()
}

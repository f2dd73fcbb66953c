//! Kafka as the reporter uses it: a producer whose acknowledgement can be awaited, and reading a small topic from end to end.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use bongsu_schemas::kafka::Kafka;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

/// How long a call to Kafka that waits may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// librdkafka's configuration for any client.
pub(crate) fn client_config(kafka: &Kafka) -> anyhow::Result<ClientConfig> {
    let mut config = ClientConfig::new();
    for (name, value) in kafka.client_properties(|name| std::env::var(name).ok())? {
        config.set(name, value);
    }
    Ok(config)
}

/// A producer that keeps trying until a record is acknowledged, or its time is up where it has one.
pub(crate) struct Producer {
    producer: ThreadedProducer<Acknowledge>,
}

/// Hands the outcome of a delivery to who awaits it.
struct Acknowledge;

impl ClientContext for Acknowledge {}

impl ProducerContext for Acknowledge {
    type DeliveryOpaque = Box<oneshot::Sender<Result<(), KafkaError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, awaited: Self::DeliveryOpaque) {
        let outcome = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        // Who asked may have been cancelled.
        let _ = awaited.send(outcome);
    }
}

impl Producer {
    pub(crate) fn new(kafka: &Kafka) -> anyhow::Result<Producer> {
        // A timeout of 0 is none: nothing else can be done with a record than try again.
        Producer::with_timeout(kafka, Duration::ZERO)
    }

    /// A producer for somebody who waits for the outcome: after `timeout` it is an error.
    pub(crate) fn with_timeout(kafka: &Kafka, timeout: Duration) -> anyhow::Result<Producer> {
        let mut config = client_config(kafka)?;
        config.set("enable.idempotence", "true").set("linger.ms", "0");
        config.set("message.timeout.ms", timeout.as_millis().to_string());
        let producer = config.create_with_context(Acknowledge).context("creating a Kafka producer")?;
        Ok(Producer { producer })
    }

    /// Returns when the record is acknowledged by all in-sync replicas. No value is a tombstone.
    pub(crate) async fn send(&self, topic: &str, key: &str, value: Option<&str>) -> anyhow::Result<()> {
        loop {
            let (sender, receiver) = oneshot::channel();
            let mut record = BaseRecord::with_opaque_to(topic, Box::new(sender)).key(key);
            record.payload = value;
            match self.producer.send(record) {
                Ok(()) => return receiver.await.context("the producer is gone")?.context("writing to Kafka"),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err((error, _)) => return Err(error).with_context(|| format!("writing to `{topic}`")),
            }
        }
    }
}

/// Reads a topic from its beginning to its present end. Blocks.
pub(crate) fn read_all(kafka: &Kafka, topic: &str, mut each: impl FnMut(&BorrowedMessage<'_>)) -> anyhow::Result<()> {
    let mut config = client_config(kafka)?;
    // The group is not joined; librdkafka wants a name all the same.
    config.set("group.id", kafka.group_of("reader")).set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true").set("isolation.level", "read_committed");
    let consumer: BaseConsumer = config.create().context("creating a Kafka consumer")?;
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).with_context(|| format!("asking for `{topic}`"))?;
    let found = metadata.topics().first().filter(|found| found.error().is_none() && !found.partitions().is_empty());
    let partitions = found.with_context(|| format!("there is no topic `{topic}`"))?.partitions();
    let mut assignment = TopicPartitionList::new();
    let mut unfinished: BTreeSet<i32> = BTreeSet::new();
    for partition in partitions {
        assignment.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
        unfinished.insert(partition.id());
    }
    consumer.assign(&assignment)?;
    while !unfinished.is_empty() {
        match consumer.poll(TIMEOUT) {
            Some(Ok(message)) => each(&message),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unfinished.remove(&partition);
            }
            Some(Err(error)) => return Err(error).with_context(|| format!("reading `{topic}`")),
            None => anyhow::bail!("reading `{topic}`: nothing within {TIMEOUT:?}"),
        }
    }
    Ok(())
}

//! Reads a compacted topic from its beginning: the last value of each key.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bongsu_schemas::kafka::Kafka;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::consumer::is_passing;
use super::{REQUEST_TIMEOUT, client_config};

/// Reading may take this long; longer than a dead worker's transaction can stay open.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at whether open transactions are settled.
const SETTLE_PAUSE: Duration = Duration::from_millis(20);

/// The last value of each key, by partition.
pub(crate) type LastValues = BTreeMap<i32, BTreeMap<Vec<u8>, Vec<u8>>>;

/// What is committed in partitions of a topic. What is on its way there when this is called is waited for.
pub(crate) fn read(
    kafka: &Kafka,
    topic: &str,
    partitions: &BTreeSet<i32>,
    shutdown: &CancellationToken,
) -> anyhow::Result<LastValues> {
    let committed = consumer(kafka, "read_committed")?;
    let reader = Reader { topic, committed, deadline: Instant::now() + PATIENCE, shutdown };
    // The end that includes open transactions: a commit whose offsets are visible may still be on its way in this topic. Only when all
    // before it is settled does the first end of the partition that the reader meets lie at or behind it.
    let uncommitted = consumer(kafka, "read_uncommitted")?;
    let mut list = TopicPartitionList::new();
    for number in partitions {
        let end = reader.end(&uncommitted, *number)?;
        while reader.end(&reader.committed, *number)? < end {
            std::thread::sleep(SETTLE_PAUSE);
        }
        list.add_partition_offset(topic, *number, Offset::Beginning)?;
    }
    reader.committed.assign(&list)?;
    reader.read_to_ends(partitions.clone())
}

struct Reader<'a> {
    topic: &'a str,
    committed: BaseConsumer,
    deadline: Instant,
    shutdown: &'a CancellationToken,
}

impl Reader<'_> {
    /// Next offset of a partition, as `consumer` sees it. Brokers may come and go meanwhile.
    fn end(&self, consumer: &BaseConsumer, number: i32) -> anyhow::Result<i64> {
        loop {
            self.check_patience()?;
            match consumer.fetch_watermarks(self.topic, number, REQUEST_TIMEOUT) {
                Ok((_, end)) => return Ok(end),
                Err(error) if is_passing(&error) => std::thread::sleep(SETTLE_PAUSE),
                Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", self.topic)),
            }
        }
    }

    fn read_to_ends(&self, mut unread: BTreeSet<i32>) -> anyhow::Result<LastValues> {
        let mut values = LastValues::new();
        while !unread.is_empty() {
            match self.committed.poll(Duration::from_millis(100)) {
                Some(Ok(record)) => {
                    let of_partition = values.entry(record.partition()).or_default();
                    let key = record.key().unwrap_or_default().to_vec();
                    match record.payload() {
                        Some(value) => of_partition.insert(key, value.to_vec()),
                        None => of_partition.remove(&key),
                    };
                }
                Some(Err(KafkaError::PartitionEOF(number))) => {
                    unread.remove(&number);
                }
                Some(Err(error)) if !is_passing(&error) => {
                    return Err(error).with_context(|| format!("cannot read `{}`", self.topic));
                }
                Some(Err(_)) | None => self.check_patience()?,
            }
        }
        Ok(values)
    }

    fn check_patience(&self) -> anyhow::Result<()> {
        if self.shutdown.is_cancelled() {
            bail!("asked to stop while `{}` was read", self.topic);
        }
        if Instant::now() > self.deadline {
            bail!("`{}` could not be read within {PATIENCE:?}", self.topic);
        }
        Ok(())
    }
}

fn consumer(kafka: &Kafka, isolation: &str) -> anyhow::Result<BaseConsumer> {
    let mut config = client_config(kafka)?;
    // Never joined: the partitions are assigned by hand, nothing is committed.
    config.set("group.id", kafka.group_of("reader")).set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true").set("isolation.level", isolation).set("fetch.wait.max.ms", "50");
    config.create().context("cannot create a consumer")
}

//! Reads the states of rules from their compacted topic, as of the commits whose offsets are visible.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::kafka::consumer::is_passing;
use crate::kafka::{REQUEST_TIMEOUT, client_config};
use crate::pipeline::Pipeline;
use crate::rules::engine::SeriesRecord;

/// Reading may take this long; longer than a dead worker's transaction can stay open.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at whether open transactions are settled.
const SETTLE_PAUSE: Duration = Duration::from_millis(20);

/// The last state of every series, by partition.
pub(super) fn read(
    pipeline: &Pipeline,
    partitions: &BTreeSet<i32>,
    shutdown: &CancellationToken,
) -> anyhow::Result<BTreeMap<i32, Vec<SeriesRecord>>> {
    let reader = Reader {
        topic: pipeline.names.rule_states.as_ref(),
        committed: consumer(pipeline, "read_committed")?,
        deadline: Instant::now() + PATIENCE,
        shutdown,
    };
    // The end that includes open transactions: a commit whose offsets are visible may still be on its way in this topic. Only when all
    // before it is settled does the first end of the partition that the reader meets lie at or behind it.
    let uncommitted = consumer(pipeline, "read_uncommitted")?;
    let mut list = TopicPartitionList::new();
    for number in partitions {
        let end = reader.end(&uncommitted, *number)?;
        while reader.end(&reader.committed, *number)? < end {
            std::thread::sleep(SETTLE_PAUSE);
        }
        list.add_partition_offset(reader.topic, *number, Offset::Beginning)?;
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

    fn read_to_ends(&self, mut unread: BTreeSet<i32>) -> anyhow::Result<BTreeMap<i32, Vec<SeriesRecord>>> {
        let mut states: BTreeMap<i32, BTreeMap<Vec<u8>, SeriesRecord>> = BTreeMap::new();
        while !unread.is_empty() {
            match self.committed.poll(Duration::from_millis(100)) {
                Some(Ok(record)) => {
                    let of_partition = states.entry(record.partition()).or_default();
                    let key = record.key().unwrap_or_default().to_vec();
                    match record.payload() {
                        Some(value) => {
                            let state = serde_json::from_slice(value).with_context(|| {
                                let (offset, partition) = (record.offset(), record.partition());
                                format!("offset {offset} of {}-{partition} is no rule state", self.topic)
                            })?;
                            of_partition.insert(key, state);
                        }
                        None => {
                            of_partition.remove(&key);
                        }
                    }
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
        Ok(states.into_iter().map(|(number, states)| (number, states.into_values().collect())).collect())
    }

    fn check_patience(&self) -> anyhow::Result<()> {
        if self.shutdown.is_cancelled() {
            bail!("asked to stop while the states of rules were read");
        }
        if Instant::now() > self.deadline {
            bail!("the states of rules in `{}` could not be read within {PATIENCE:?}", self.topic);
        }
        Ok(())
    }
}

fn consumer(pipeline: &Pipeline, isolation: &str) -> anyhow::Result<BaseConsumer> {
    let mut config = client_config(&pipeline.config.kafka)?;
    // Never joined: the partitions are assigned by hand, nothing is committed.
    config.set("group.id", pipeline.config.kafka.group_of("rule-states")).set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true").set("isolation.level", isolation).set("fetch.wait.max.ms", "50");
    config.create().context("cannot create a consumer")
}

//! Windows as a reader of committed records gets them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::processor::Processor;

/// Silence of this length, when windows are missing, is an error. None come while the first minute of a backlog is
/// read.
const PATIENCE: Duration = Duration::from_secs(120);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A record of a windows topic.
pub(crate) struct Arrived {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) at: Instant,
    pub(crate) value: Vec<u8>,
}

/// All records of a windows topic, as they come.
pub(crate) struct Windows {
    bootstrap: String,
    topic: String,
    consumer: BaseConsumer,
    arrived: Vec<Arrived>,
}

impl Windows {
    /// From the first record on.
    pub(crate) fn open(bootstrap: &str, topic: &str) -> anyhow::Result<Windows> {
        let consumer = consumer(bootstrap, "read_committed")?;
        let mut partitions = TopicPartitionList::new();
        for partition in partitions_of(&consumer, topic)? {
            partitions.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&partitions)?;
        Ok(Windows { bootstrap: bootstrap.to_owned(), topic: topic.to_owned(), consumer, arrived: Vec::new() })
    }

    pub(crate) fn arrived(&self) -> &[Arrived] {
        &self.arrived
    }

    /// Waits a moment for the next one. An error if nothing came and a processor has ended.
    pub(crate) fn poll(&mut self, processors: &mut [Processor]) -> anyhow::Result<Option<&Arrived>> {
        match self.consumer.poll(Duration::from_millis(20)) {
            Some(Ok(record)) => {
                let at = Instant::now();
                let value = record.payload().context("a window has no value")?.to_vec();
                self.arrived.push(Arrived { partition: record.partition(), offset: record.offset(), at, value });
                Ok(self.arrived.last())
            }
            None | Some(Err(KafkaError::PartitionEOF(_))) => {
                for processor in processors {
                    processor.check_alive()?;
                }
                Ok(None)
            }
            Some(Err(error)) => Err(error).context("reading the windows"),
        }
    }

    /// Until so many have come.
    pub(crate) fn await_count(&mut self, count: usize, processors: &mut [Processor]) -> anyhow::Result<()> {
        let mut heard = Instant::now();
        while self.arrived.len() < count {
            if self.poll(processors)?.is_some() {
                heard = Instant::now();
            }
            let so_far = self.arrived.len();
            ensure!(heard.elapsed() < PATIENCE, "{so_far} of {count} windows, and no more for {PATIENCE:?}");
        }
        Ok(())
    }

    /// For so long.
    pub(crate) fn watch_for(&mut self, time: Duration, processors: &mut [Processor]) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.poll(processors)?;
        }
        Ok(())
    }

    /// That the topic holds no more than what has come.
    pub(crate) fn check_complete(&self) -> anyhow::Result<()> {
        let (held, came) = (bongsu_testkit::read_committed(&self.bootstrap, &self.topic)?.len(), self.arrived.len());
        ensure!(held == came, "{held} windows in the end, expected {came}");
        Ok(())
    }
}

/// Where a topic ends, with all that is in open transactions.
pub(crate) struct LogEnds {
    topic: String,
    partitions: Vec<i32>,
    consumer: BaseConsumer,
}

impl LogEnds {
    pub(crate) fn open(bootstrap: &str, topic: &str) -> anyhow::Result<LogEnds> {
        let consumer = consumer(bootstrap, "read_uncommitted")?;
        let ends = LogEnds { topic: topic.to_owned(), partitions: partitions_of(&consumer, topic)?, consumer };
        // The first question takes longer, for connections are made.
        ends.now()?;
        Ok(ends)
    }

    /// The next offset of each partition.
    pub(crate) fn now(&self) -> anyhow::Result<BTreeMap<i32, i64>> {
        let end = |partition: &i32| -> anyhow::Result<(i32, i64)> {
            Ok((*partition, self.consumer.fetch_watermarks(&self.topic, *partition, REQUEST_TIMEOUT)?.1))
        };
        self.partitions.iter().map(end).collect()
    }
}

fn consumer(bootstrap: &str, isolation: &str) -> anyhow::Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        // Never joined: partitions are assigned by hand.
        .set("group.id", "bench-watch")
        .set("enable.auto.commit", "false")
        .set("isolation.level", isolation)
        .set("auto.offset.reset", "earliest")
        // What an arrival may be late by, at the most, if a commit wakes nobody.
        .set("fetch.wait.max.ms", "5")
        .create()
        .context("creating a consumer")
}

fn partitions_of(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let partitions: Vec<i32> = found.into_iter().flat_map(|found| found.partitions()).map(|found| found.id()).collect();
    ensure!(!partitions.is_empty(), "there is no topic `{topic}`");
    Ok(partitions)
}

//! Follows topics outside of any consumer group: from some place on, for as long as somebody listens. Blocks: it wants a thread of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use bongsu_schemas::kafka::Kafka;
use chrono::{TimeDelta, Utc};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::debug;

use crate::kafka::client_config;

const POLL: Duration = Duration::from_millis(100);
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

/// Where each partition of a topic is begun.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StartAt {
    Beginning,
    /// So many records before its end.
    RecordsBack(i64),
    /// With what was written within this time.
    TimeBack(TimeDelta),
}

/// What it comes upon.
pub(crate) enum Followed<'a> {
    Record(&'a BorrowedMessage<'a>),
    /// Every partition was at its end since the start. Said once, and of a single topic only: ends come without their topic's name.
    CaughtUp,
}

/// A consumer that is nobody's member.
pub(crate) struct Follower {
    /// What it reads, for the log.
    what: &'static str,
    consumer: BaseConsumer,
    topics: Vec<(String, StartAt)>,
}

impl Follower {
    pub(crate) fn new(kafka: &Kafka, what: &'static str, topics: Vec<(String, StartAt)>) -> anyhow::Result<Follower> {
        let mut config = client_config(kafka)?;
        config
            // The group is not joined; librdkafka wants a name all the same.
            .set("group.id", kafka.group_of(what))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            // It may be there before its topics are.
            .set_log_level(RDKafkaLogLevel::Error);
        let consumer = config.create().context("creating a Kafka consumer")?;
        Ok(Follower { what, consumer, topics })
    }

    /// Waits for the topics, then gives `each` what comes, until `is_over`, which is asked several times a second.
    pub(crate) fn run(self, is_over: impl Fn() -> bool, mut each: impl FnMut(Followed<'_>)) {
        let Some(mut unread) = self.wait_for_topics(&is_over) else { return };
        while !is_over() {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => each(Followed::Record(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    let is_last = unread.remove(&partition) && unread.is_empty();
                    if is_last && self.topics.len() == 1 {
                        each(Followed::CaughtUp);
                    }
                }
                None => {}
                // librdkafka connects again by itself; the pipeline's health tells of outages.
                Some(Err(error)) => debug!(what = self.what, %error, "cannot be read"),
            }
        }
    }

    /// The partitions; none if it was over before there were any.
    fn wait_for_topics(&self, is_over: &impl Fn() -> bool) -> Option<BTreeSet<i32>> {
        while !is_over() {
            match self.assign() {
                Ok(partitions) => return Some(partitions),
                // The topics may be created later, and the broker may be away.
                Err(error) => debug!(what = self.what, error = format!("{error:#}"), "cannot be read yet"),
            }
            self.consumer.poll(METADATA_TIMEOUT);
        }
        None
    }

    fn assign(&self) -> anyhow::Result<BTreeSet<i32>> {
        let mut assignment = TopicPartitionList::new();
        let mut all = BTreeSet::new();
        for (topic, start) in &self.topics {
            let metadata = self.consumer.fetch_metadata(Some(topic), METADATA_TIMEOUT)?;
            let found =
                metadata.topics().first().filter(|found| found.error().is_none() && !found.partitions().is_empty());
            for partition in found.with_context(|| format!("there is no topic `{topic}`"))?.partitions() {
                let offset = self.offset(topic, partition.id(), *start)?;
                assignment.add_partition_offset(topic, partition.id(), offset)?;
                all.insert(partition.id());
            }
        }
        self.consumer.assign(&assignment)?;
        Ok(all)
    }

    fn offset(&self, topic: &str, partition: i32, start: StartAt) -> anyhow::Result<Offset> {
        Ok(match start {
            StartAt::Beginning => Offset::Beginning,
            StartAt::RecordsBack(records) => {
                let (first, end) = self.consumer.fetch_watermarks(topic, partition, METADATA_TIMEOUT)?;
                Offset::Offset((end - records).max(first))
            }
            StartAt::TimeBack(back) => {
                let mut asked = TopicPartitionList::new();
                let since_ms = (Utc::now() - back).timestamp_millis();
                asked.add_partition_offset(topic, partition, Offset::Offset(since_ms))?;
                let answer = self.consumer.offsets_for_times(asked, METADATA_TIMEOUT)?;
                let found = answer.find_partition(topic, partition).map(|element| element.offset());
                // Without a record since then: its end.
                found.filter(|offset| matches!(offset, Offset::Offset(_))).unwrap_or(Offset::End)
            }
        })
    }
}

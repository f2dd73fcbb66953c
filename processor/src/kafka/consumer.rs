//! A consumer that writes down what rebalances did, for its owner to read between polls.
//!
//! The callback runs inside `poll` on the polling thread. It only notes what changed: committing or aborting from inside it would
//! be a second flow of control.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use bongsu_schemas::health::Health;
use bongsu_schemas::kafka::Kafka;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};

use super::{REQUEST_TIMEOUT, Replaced, client_config};
use crate::events::{Emit, Lag};
use crate::watermark::SourcePartition;

/// How often the group hears of us, and we of it.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long a question on the side may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a [`Probe`] asks.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Partitions that came and went since the last look.
#[derive(Debug, Default)]
pub(crate) struct Rebalanced {
    pub(crate) assigned: BTreeSet<SourcePartition>,
    pub(crate) revoked: BTreeSet<SourcePartition>,
}

#[derive(Debug)]
pub(crate) struct RebalanceNotes {
    flow: &'static str,
    notes: Mutex<Rebalanced>,
    /// Whether there are any; so that a look after each record costs nothing.
    any: AtomicBool,
}

impl ClientContext for RebalanceNotes {
    fn stats(&self, statistics: Statistics) {
        for (topic, found) in &statistics.topics {
            for (number, partition) in &found.partitions {
                // Of partitions that are not ours librdkafka knows no position.
                if partition.app_offset >= 0 && partition.ls_offset >= 0 {
                    let records = (partition.ls_offset - partition.app_offset).max(0);
                    Lag { flow: self.flow, topic, partition: *number, records }.emit();
                }
            }
        }
    }
}

impl ConsumerContext for RebalanceNotes {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.any.store(true, Ordering::Relaxed);
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match rebalance {
            Rebalance::Assign(list) => notes.assigned.extend(partitions_in(list)),
            Rebalance::Revoke(list) => {
                for partition in partitions_in(list) {
                    // What remains to be read is somebody else's now.
                    Lag { flow: self.flow, topic: &partition.0, partition: partition.1, records: 0 }.emit();
                    notes.assigned.remove(&partition);
                    notes.revoked.insert(partition);
                }
            }
            Rebalance::Error(error) => tracing::warn!(%error, "rebalance failed"),
        }
    }
}

/// What a poll gave.
pub(crate) enum Polled<'a> {
    Record(BorrowedMessage<'a>),
    /// Some partition of this number is at its end; librdkafka does not tell of which topic.
    End(i32),
    Nothing,
}

/// One member of a consumer group.
pub(crate) struct GroupConsumer {
    consumer: BaseConsumer<RebalanceNotes>,
    instance: String,
    topics: Vec<String>,
    /// Does not exist; see [`GroupConsumer::divide_anew`].
    nudge: String,
    is_complete: Cell<bool>,
}

impl GroupConsumer {
    /// Joins the group of `flow` as the static member `instance` and subscribes. Offsets are committed by the owner only.
    pub(crate) fn subscribe(
        kafka: &Kafka,
        flow: &'static str,
        instance: &str,
        topics: &[&str],
    ) -> anyhow::Result<GroupConsumer> {
        let context = RebalanceNotes { flow, notes: Mutex::default(), any: AtomicBool::default() };
        let consumer: BaseConsumer<RebalanceNotes> = client_config(kafka)?
            .set("group.id", kafka.group_of(flow))
            .set("group.instance.id", instance)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            // A dead process that does not come back loses its partitions after this; one that does takes them back at once.
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", HEARTBEAT.as_millis().to_string())
            .set("max.poll.interval.ms", "300000")
            // New partitions and topics are seen after this.
            .set("topic.metadata.refresh.interval.ms", "10000")
            // The default of 1000 lets a fast consumer starve for a second each time its queue was full.
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.wait.max.ms", "50")
            // What is read ahead is memory, several times the bytes of compressed records: enough to keep the aggregation busy. A
            // fetch may exceed the first by the second, of which each partition has at most the third.
            .set("queued.max.messages.kbytes", "4096")
            .set("fetch.max.bytes", "8388608")
            .set("fetch.message.max.bytes", "262144")
            // Lag is told from these.
            .set("statistics.interval.ms", "5000")
            .create_with_context(context)
            .context("cannot create a consumer")?;
        consumer.subscribe(topics).context("cannot subscribe")?;
        Ok(GroupConsumer {
            consumer,
            instance: instance.to_owned(),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            nudge: format!("{}.nudge", kafka.topic_prefix),
            is_complete: Cell::new(false),
        })
    }

    /// What a failed transaction means. A producer is fenced when its transaction took too long, which the next attempt mends, and when
    /// another process has our name. The group knows which: that process has joined it in our place.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        if !is_fenced(&error) {
            return error;
        }
        let deadline = Instant::now() + HEARTBEAT * 2;
        while Instant::now() < deadline {
            if self.is_replaced() {
                return Replaced { name: self.instance.clone() }.into();
            }
            // Whatever comes is read again, by this process or by the other.
            self.consumer.poll(Duration::from_millis(100));
        }
        error
    }

    fn is_replaced(&self) -> bool {
        let fatal = self.consumer.client().fatal_error();
        fatal.is_some_and(|(code, _)| code == RDKafkaErrorCode::FencedInstanceId)
    }

    /// Waits up to `timeout` for a record.
    pub(crate) fn poll(&self, timeout: Duration) -> anyhow::Result<Polled<'_>> {
        match self.consumer.poll(timeout) {
            None => Ok(Polled::Nothing),
            Some(Ok(record)) => Ok(Polled::Record(record)),
            Some(Err(KafkaError::PartitionEOF(partition))) => Ok(Polled::End(partition)),
            // `SourceSeen` says which topic is missing; librdkafka does not.
            Some(Err(error)) if is_missing_topic(&error) => Ok(Polled::Nothing),
            Some(Err(error)) if is_passing(&error) => {
                tracing::warn!(%error, "the consumer waits for the brokers");
                Ok(Polled::Nothing)
            }
            Some(Err(_)) if self.is_replaced() => Err(Replaced { name: self.instance.clone() }.into()),
            Some(Err(error)) => Err(error).context("cannot read from Kafka"),
        }
    }

    /// What rebalances did since the last call; none, usually. To be asked after every poll, before its record is looked at: the record
    /// may be the first of a partition that this very poll brought.
    pub(crate) fn rebalanced(&self) -> Option<Rebalanced> {
        let context = self.consumer.context();
        // Callbacks run inside `poll`, on this thread: no ordering is needed.
        if !context.any.swap(false, Ordering::Relaxed) {
            return None;
        }
        Some(std::mem::take(&mut *context.notes.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Sees to it, once, that all partitions have an owner. To be called now and then, until brokers have answered.
    fn complete(&self) {
        if self.is_complete.get() {
            return;
        }
        match self.divide_anew() {
            Ok(is_complete) => self.is_complete.set(is_complete),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "cannot tell yet whether all partitions have an owner");
            }
        }
    }

    /// Has the group divide the partitions anew if some may have no owner. A static member that comes back is handed what it had, and
    /// does not see that topics got more partitions while it was away: to librdkafka they have always been there. A partition that
    /// nobody has ever committed and that is not ours may be one of those. Another subscription makes the group divide them; so one
    /// more topic is subscribed to, which does not exist. False while nothing is ours: the group has not come to us yet.
    fn divide_anew(&self) -> anyhow::Result<bool> {
        let assigned = partitions_in(&self.consumer.assignment().context("cannot tell our partitions")?);
        if assigned.is_empty() {
            return Ok(false);
        }
        let mut others = Vec::new();
        for topic in &self.topics {
            let count = self.partition_count(topic).with_context(|| format!("cannot ask for `{topic}`"))?;
            let partitions = (0..count.unwrap_or(0)).map(|number| (topic.clone(), number));
            others.extend(partitions.filter(|partition| !assigned.contains(partition)));
        }
        let committed = self.committed(&others)?;
        let is_new = |(topic, number): &SourcePartition| {
            let element = committed.find_partition(topic, *number);
            element.is_none_or(|element| !matches!(element.offset(), Offset::Offset(_)))
        };
        if others.iter().any(is_new) {
            let topics: Vec<&str> = self.topics.iter().chain([&self.nudge]).map(String::as_str).collect();
            self.consumer.subscribe(&topics).context("cannot subscribe")?;
        }
        Ok(true)
    }

    pub(crate) fn inner(&self) -> &BaseConsumer<RebalanceNotes> {
        &self.consumer
    }

    /// Continues to read a partition at `offset`.
    pub(crate) fn seek(&self, (topic, partition): &SourcePartition, offset: i64) -> anyhow::Result<()> {
        self.consumer
            .seek(topic, *partition, Offset::Offset(offset), REQUEST_TIMEOUT)
            .with_context(|| format!("cannot seek in {topic}-{partition}"))
    }

    /// Stops reading partitions for a while.
    pub(crate) fn pause<'p>(&self, partitions: impl IntoIterator<Item = &'p SourcePartition>) -> anyhow::Result<()> {
        self.consumer.pause(&list_of(partitions)).context("cannot pause partitions")
    }

    /// Reads them on.
    pub(crate) fn resume<'p>(&self, partitions: impl IntoIterator<Item = &'p SourcePartition>) -> anyhow::Result<()> {
        self.consumer.resume(&list_of(partitions)).context("cannot resume partitions")
    }

    /// Committed offsets, with their metadata.
    pub(crate) fn committed<'p>(
        &self,
        partitions: impl IntoIterator<Item = &'p SourcePartition>,
    ) -> anyhow::Result<TopicPartitionList> {
        let list = list_of(partitions);
        self.consumer.committed_offsets(list, REQUEST_TIMEOUT).context("cannot read the committed offsets")
    }

    /// First and next offset of a partition that a reader of committed records can see.
    pub(crate) fn ends(&self, (topic, partition): &SourcePartition) -> KafkaResult<(i64, i64)> {
        self.consumer.fetch_watermarks(topic, *partition, PROBE_TIMEOUT)
    }

    /// Number of partitions of a topic; none if it does not exist. An error if no broker answers.
    pub(crate) fn partition_count(&self, topic: &str) -> KafkaResult<Option<i32>> {
        partition_count(&self.consumer, topic, PROBE_TIMEOUT)
    }

    /// The same for one of Bongsu's own topics, which must be there.
    pub(crate) fn own_partition_count(&self, topic: &str) -> anyhow::Result<i32> {
        let count = self.partition_count(topic).with_context(|| format!("cannot ask for `{topic}`"))?;
        count.with_context(|| format!("there is no topic `{topic}`; `bongsu topics --create` makes it"))
    }
}

/// Tells `/readyz` whether brokers answer, for a flow that has nothing to do and would not notice.
pub(crate) struct Probe {
    part: &'static str,
    topic: String,
    at: Instant,
}

impl Probe {
    /// Probes for `part` by asking for the metadata of `topic`.
    pub(crate) fn new(part: &'static str, topic: &str) -> Probe {
        Probe { part, topic: topic.to_owned(), at: Instant::now() }
    }

    /// To be called all the time; asks now and then.
    pub(crate) fn look(&mut self, consumer: &GroupConsumer, health: &Health) {
        consumer.complete();
        if self.at.elapsed() < PROBE_EVERY {
            return;
        }
        match consumer.partition_count(&self.topic) {
            Ok(_) => health.ready(self.part),
            Err(error) => health.not_ready(self.part, format!("no broker answers: {error}")),
        }
        self.at = Instant::now();
    }
}

/// Number of partitions of a topic; none if it does not exist. An error if no broker answers, or the topic cannot be told at present.
pub(crate) fn partition_count<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    timeout: Duration,
) -> KafkaResult<Option<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    match found.error().map(RDKafkaErrorCode::from) {
        None => Ok(i32::try_from(found.partitions().len()).ok().filter(|count| *count > 0)),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
        Some(code) => Err(KafkaError::MetadataFetch(code)),
    }
}

fn partitions_in(list: &TopicPartitionList) -> BTreeSet<SourcePartition> {
    list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
}

fn list_of<'p>(partitions: impl IntoIterator<Item = &'p SourcePartition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in partitions {
        list.add_partition(topic, *partition);
    }
    list
}

fn is_fenced(error: &anyhow::Error) -> bool {
    let fenced = [
        RDKafkaErrorCode::Fenced,
        RDKafkaErrorCode::ProducerFenced,
        RDKafkaErrorCode::InvalidProducerEpoch,
        RDKafkaErrorCode::FencedInstanceId,
    ];
    let code = error.chain().find_map(|cause| cause.downcast_ref::<KafkaError>()?.rdkafka_error_code());
    code.is_some_and(|code| fenced.contains(&code))
}

fn is_missing_topic(error: &KafkaError) -> bool {
    let missing = [RDKafkaErrorCode::UnknownTopicOrPartition, RDKafkaErrorCode::UnknownTopic];
    error.rdkafka_error_code().is_some_and(|code| missing.contains(&code))
}

/// Errors that librdkafka recovers from by itself, sooner or later.
pub(crate) fn is_passing(error: &KafkaError) -> bool {
    let passing = [
        RDKafkaErrorCode::AllBrokersDown,
        RDKafkaErrorCode::BrokerTransportFailure,
        RDKafkaErrorCode::OperationTimedOut,
        RDKafkaErrorCode::LeaderNotAvailable,
        RDKafkaErrorCode::NotLeaderForPartition,
        RDKafkaErrorCode::Resolve,
    ];
    error.rdkafka_error_code().is_some_and(|code| passing.contains(&code))
}

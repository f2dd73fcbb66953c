//! The reading half of stage 1: records into batches, and how far each partition is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use arrow::array::RecordBatch;
use bongsu_ingest::dead_letter::DeadLetter;
use bongsu_ingest::decode::{Decoder, Outcome};
use bongsu_ingest::record::RawRecord;
use chrono::Utc;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::events::{DeadLettered, Emit, Rebalanced};
use crate::kafka::consumer::{GroupConsumer, Polled};
use crate::kafka::transaction::Outgoing;
use crate::partials::Marker;
use crate::pipeline::Pipeline;
use crate::watermark::{PartitionClock, SourcePartition};

/// Bounds of an epoch: whichever comes first ends it. They bound memory and the delay of a record.
const MAX_ROWS: usize = 100_000;
const MAX_BYTES: usize = 64 * 1024 * 1024;
const MAX_WAIT: Duration = Duration::from_millis(250);
/// The clock is read once for so many records that stream in.
const CLOCK_EVERY: u32 = 64;
/// An idle partition's watermark moves on in steps of this.
const IDLE_STEP: Duration = Duration::from_secs(1);
/// How often the number of partitions of each topic is asked for.
const TOPICS_REFRESH: Duration = Duration::from_secs(10);

/// The input of one transaction.
#[derive(Debug, Default)]
pub(crate) struct Epoch {
    /// Decoded rows by table.
    pub(crate) rows: Vec<(String, RecordBatch)>,
    pub(crate) dead_letters: Vec<Outgoing>,
    pub(crate) marker: Marker,
    pub(crate) counts: Counts,
    /// First and next offset of each partition that was read.
    offsets: BTreeMap<SourcePartition, (i64, i64)>,
}

/// in = accepted + filtered + rejected.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) records: u64,
    pub(crate) events: u64,
    pub(crate) filtered: u64,
    pub(crate) rejected: u64,
}

impl Epoch {
    /// What Kafka commits: one more than the last offset read.
    pub(crate) fn next_offsets(&self) -> anyhow::Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for ((topic, partition), (_, next_offset)) in &self.offsets {
            list.add_partition_offset(topic, *partition, Offset::Offset(*next_offset))?;
        }
        Ok(list)
    }
}

/// The consumer of all source topics, with a decoder for each.
pub(crate) struct Source<'a> {
    pipeline: &'a Pipeline,
    consumer: GroupConsumer,
    /// One for each configured source, in that order.
    topics: Vec<TopicSource>,
    topics_refreshed: Option<Instant>,
    idle_step_at: Instant,
}

/// One source topic.
struct TopicSource {
    topic: String,
    decoder: Decoder,
    /// Partitions that the topic has, as far as brokers have told.
    partition_count: Option<i32>,
    /// The partitions that are ours.
    partitions: BTreeMap<i32, PartitionState>,
}

#[derive(Debug)]
struct PartitionState {
    clock: PartitionClock,
    next_offset: Option<i64>,
    /// A partition of this number was at its end after the last record.
    end_seen: bool,
    /// First and next offset of what the current epoch has of it.
    epoch: Option<(i64, i64)>,
}

impl PartitionState {
    fn new(now_ms: i64) -> PartitionState {
        PartitionState { clock: PartitionClock::new(now_ms), next_offset: None, end_seen: false, epoch: None }
    }

    fn on_record(&mut self, offset: i64, event_time_ms: Option<i64>, now_ms: i64) {
        self.clock.on_record(event_time_ms, now_ms);
        self.next_offset = Some(offset + 1);
        self.end_seen = false;
        self.epoch.get_or_insert((offset, offset + 1)).1 = offset + 1;
    }
}

impl<'a> Source<'a> {
    pub(crate) fn open(pipeline: &'a Pipeline) -> anyhow::Result<Source<'a>> {
        let config = &pipeline.config;
        let names: Vec<&str> = config.sources.iter().map(|source| source.topic.as_str()).collect();
        let group = config.kafka.group_of("stage1");
        let consumer = GroupConsumer::subscribe(&config.kafka, &group, &pipeline.identity.name, &names)?;
        let max_future_ms = config.time.max_future.millis();
        let topic = |source: &bongsu_ingest::config::Source| -> anyhow::Result<TopicSource> {
            let decoder = Decoder::new(source, &pipeline.wanted, max_future_ms).map_err(|problem| anyhow!(problem))?;
            Ok(TopicSource { topic: source.topic.clone(), decoder, partition_count: None, partitions: BTreeMap::new() })
        };
        let topics = config.sources.iter().map(topic).collect::<anyhow::Result<_>>()?;
        Ok(Source { pipeline, consumer, topics, topics_refreshed: None, idle_step_at: Instant::now() })
    }

    pub(crate) fn consumer(&self) -> &GroupConsumer {
        &self.consumer
    }

    /// How many partitions the partials topic has.
    pub(crate) fn partitions_of_partials(&self, topic: &str) -> anyhow::Result<i32> {
        let count = self.consumer.partition_count(topic);
        count.with_context(|| {
            format!("the topic `{topic}` is not there or no broker answers; `bongsu topics --create` makes it")
        })
    }

    /// Reads until the epoch is full or has waited long enough. None if there is nothing to commit, or if partitions were revoked
    /// meanwhile: what was read of all partitions is then read again.
    pub(crate) fn gather(&mut self, shutdown: &CancellationToken) -> anyhow::Result<Option<Epoch>> {
        let mut epoch = Epoch::default();
        self.fill(&mut epoch, shutdown)?;
        for topic in &mut self.topics {
            epoch.rows.extend(topic.decoder.finish()?);
        }
        let spoilt = self.rebalance()?;
        for topic in &mut self.topics {
            for (number, partition) in &mut topic.partitions {
                if let Some((first_offset, next_offset)) = partition.epoch.take() {
                    epoch.offsets.insert((topic.topic.clone(), *number), (first_offset, next_offset));
                }
            }
        }
        if spoilt {
            for (partition, (first_offset, _)) in &epoch.offsets {
                self.consumer.seek(partition, *first_offset)?;
            }
            return Ok(None);
        }
        self.find_idle();
        self.refresh_topics();
        if epoch.offsets.is_empty() && !self.idle_moves() {
            return Ok(None);
        }
        epoch.marker = self.marker();
        Ok(Some(epoch))
    }

    fn fill(&mut self, epoch: &mut Epoch, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let dead_letter_topic = self.pipeline.topics.dead_letter();
        let deadline = Instant::now() + MAX_WAIT;
        // Good enough for idleness, which is a matter of seconds; a clock reading for each record is not free.
        let now_ms = now_ms();
        let (mut rows, mut bytes, mut records, mut at) = (0, 0, 0_u32, 0);
        let mut left = MAX_WAIT;
        while rows < MAX_ROWS && bytes < MAX_BYTES && !shutdown.is_cancelled() {
            let polled = self.consumer.poll(left)?;
            // Nor for each record while they stream in.
            if records.is_multiple_of(CLOCK_EVERY) || !matches!(polled, Polled::Record(_)) {
                left = deadline.saturating_duration_since(Instant::now());
            }
            match polled {
                Polled::Record(record) => {
                    records += 1;
                    bytes += record.payload_len();
                    // Records come in runs of one topic.
                    if self.topics.get(at).is_none_or(|topic| topic.topic != record.topic()) {
                        let known = self.topics.iter().position(|topic| topic.topic == record.topic());
                        at = known.context("a record of a topic that was not subscribed")?;
                    }
                    let topic = &mut self.topics[at];
                    let outcome = decode(&mut topic.decoder, &record, &dead_letter_topic, epoch);
                    rows += outcome.rows as usize;
                    let partition =
                        topic.partitions.entry(record.partition()).or_insert_with(|| PartitionState::new(now_ms));
                    partition.on_record(record.offset(), outcome.max_event_time_ms, now_ms);
                }
                Polled::End(number) => {
                    let ended = self.topics.iter_mut().filter_map(|topic| topic.partitions.get_mut(&number));
                    ended.for_each(|partition| partition.end_seen = true);
                }
                Polled::Nothing => {}
            }
            if left.is_zero() {
                break;
            }
        }
        Ok(())
    }

    /// Takes note of rebalances. True if the epoch must not be committed, for it holds records of a partition that is somebody
    /// else's now; the partitions that stay must be read again from where the epoch began.
    fn rebalance(&mut self) -> anyhow::Result<bool> {
        let rebalanced = self.consumer.rebalanced();
        if rebalanced.is_empty() {
            return Ok(false);
        }
        Rebalanced { flow: "stage1", rebalanced: &rebalanced }.emit();
        let now_ms = now_ms();
        let mut spoilt = false;
        for topic in &mut self.topics {
            let ours = |(name, _): &&SourcePartition| *name == topic.topic;
            for (_, number) in rebalanced.revoked.iter().filter(ours) {
                let revoked = topic.partitions.remove(number);
                spoilt |= revoked.is_some_and(|partition| partition.epoch.is_some());
            }
            for (_, number) in rebalanced.assigned.iter().filter(ours) {
                topic.partitions.entry(*number).or_insert_with(|| PartitionState::new(now_ms));
            }
        }
        Ok(spoilt)
    }

    fn find_idle(&mut self) {
        let (now_ms, idle_timeout_ms) = (now_ms(), self.pipeline.config.time.idle_timeout.millis());
        for topic in &mut self.topics {
            for (number, state) in &mut topic.partitions {
                if !state.clock.is_silent(now_ms, idle_timeout_ms) {
                    continue;
                }
                // A broker that does not answer proves nothing. Control records of transactions lie behind the last record, so that
                // the end itself may never be reached by records alone.
                let at_end = self.consumer.ends(&(topic.topic.clone(), *number)).is_some_and(|(first, next)| {
                    first == next || state.end_seen || state.next_offset.is_some_and(|offset| offset >= next)
                });
                if at_end {
                    state.clock.set_idle(now_ms);
                }
            }
        }
    }

    fn refresh_topics(&mut self) {
        if self.topics_refreshed.is_some_and(|at| at.elapsed() < TOPICS_REFRESH) {
            return;
        }
        self.topics_refreshed = Some(Instant::now());
        for topic in &mut self.topics {
            topic.partition_count = self.consumer.partition_count(&topic.topic).or(topic.partition_count);
        }
    }

    fn idle_moves(&mut self) -> bool {
        let mut partitions = self.topics.iter().flat_map(|topic| topic.partitions.values());
        let any_idle = partitions.any(|partition| partition.clock.mark(0, 0).idle);
        if !any_idle || self.idle_step_at.elapsed() < IDLE_STEP {
            return false;
        }
        self.idle_step_at = Instant::now();
        true
    }

    fn marker(&self) -> Marker {
        let (now_ms, max_disorder_ms) = (now_ms(), self.pipeline.config.time.max_disorder.millis());
        let mut marker = Marker::default();
        for topic in &self.topics {
            if let Some(count) = topic.partition_count {
                marker.topics.insert(topic.topic.clone(), count);
            }
            for (number, partition) in &topic.partitions {
                marker.push((topic.topic.clone(), *number), partition.clock.mark(max_disorder_ms, now_ms));
            }
        }
        marker
    }
}

fn now_ms() -> i64 {
    Utc::now().timestamp_millis()
}

fn decode(decoder: &mut Decoder, record: &BorrowedMessage<'_>, dead_letter_topic: &str, epoch: &mut Epoch) -> Outcome {
    let headers: Vec<(&str, Option<&[u8]>)> = record
        .headers()
        .map(|headers| headers.iter().map(|header| (header.key, header.value)).collect())
        .unwrap_or_default();
    let raw = RawRecord {
        topic: record.topic(),
        partition: record.partition(),
        offset: record.offset(),
        timestamp_ms: record.timestamp().to_millis(),
        key: record.key(),
        value: record.payload(),
        headers: &headers,
    };
    let outcome = decoder.decode(&raw);
    epoch.counts.records += 1;
    epoch.counts.events += u64::from(outcome.events);
    epoch.counts.filtered += u64::from(outcome.filtered);
    for reject in &outcome.rejects {
        epoch.counts.rejected += u64::from(reject.events);
        DeadLettered { topic: raw.topic, partition: raw.partition, offset: raw.offset, reason: reject.reason }.emit();
    }
    // One dead letter for a record, however many of its events are wrong: it holds the whole record.
    if let Some(reject) = outcome.rejects.first() {
        let letter = DeadLetter::new(&raw, reject);
        epoch.dead_letters.push(Outgoing {
            topic: dead_letter_topic.to_owned(),
            partition: None,
            key: letter.key.map(<[u8]>::to_vec),
            value: letter.value.map(<[u8]>::to_vec),
            headers: letter
                .headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.map(Cow::into_owned)))
                .collect(),
        });
    }
    outcome
}

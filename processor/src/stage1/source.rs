//! The reading half of stage 1: records into batches, and how far each partition is.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
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
    decoders: Vec<Decoder>,
    decoder_of: HashMap<String, usize>,
    partitions: BTreeMap<SourcePartition, PartitionState>,
    topic_counts: BTreeMap<String, i32>,
    topics_refreshed: Option<Instant>,
    idle_step_at: Instant,
}

#[derive(Debug)]
struct PartitionState {
    clock: PartitionClock,
    next_offset: Option<i64>,
    /// A partition of this number was at its end after the last record.
    end_seen: bool,
}

impl<'a> Source<'a> {
    pub(crate) fn open(pipeline: &'a Pipeline) -> anyhow::Result<Source<'a>> {
        let config = &pipeline.config;
        let topics: Vec<&str> = config.sources.iter().map(|source| source.topic.as_str()).collect();
        let consumer = GroupConsumer::subscribe(
            &config.kafka,
            &config.kafka.group_of("stage1"),
            &pipeline.identity.name,
            &topics,
        )?;
        let max_future_ms = config.time.max_future.millis();
        let decoder =
            |source| Decoder::new(source, &pipeline.wanted, max_future_ms).map_err(|problem| anyhow!(problem));
        let decoders = config.sources.iter().map(decoder).collect::<anyhow::Result<_>>()?;
        Ok(Source {
            pipeline,
            consumer,
            decoders,
            decoder_of: topics.iter().enumerate().map(|(index, topic)| ((*topic).to_owned(), index)).collect(),
            partitions: BTreeMap::new(),
            topic_counts: BTreeMap::new(),
            topics_refreshed: None,
            idle_step_at: Instant::now(),
        })
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
        let deadline = Instant::now() + MAX_WAIT;
        let (mut rows, mut bytes) = (0, 0);
        while rows < MAX_ROWS && bytes < MAX_BYTES && !shutdown.is_cancelled() {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.consumer.poll(left)? {
                Polled::Record(record) => {
                    bytes += record.payload_len();
                    let decoder =
                        self.decoder_of.get(record.topic()).context("a record of a topic that was not subscribed")?;
                    let outcome =
                        decode(&mut self.decoders[*decoder], &record, &self.pipeline.topics.dead_letter(), &mut epoch);
                    rows += outcome.rows as usize;
                    note(&mut self.partitions, &record, &outcome, &mut epoch);
                }
                Polled::End(number) => {
                    self.partitions
                        .iter_mut()
                        .filter(|((_, n), _)| *n == number)
                        .for_each(|(_, state)| state.end_seen = true);
                }
                Polled::Nothing => {}
            }
            if left.is_zero() {
                break;
            }
        }
        for decoder in &mut self.decoders {
            epoch.rows.extend(decoder.finish()?);
        }
        if self.rebalance(&epoch)? {
            return Ok(None);
        }
        self.find_idle();
        self.refresh_topics();
        let idle_moves = self.idle_moves();
        if epoch.offsets.is_empty() && !idle_moves {
            return Ok(None);
        }
        epoch.marker = self.marker();
        Ok(Some(epoch))
    }

    /// Takes note of rebalances. True if the epoch must not be committed, for it holds records of a partition that is somebody
    /// else's now; the partitions that stay are read again from where the epoch began.
    fn rebalance(&mut self, epoch: &Epoch) -> anyhow::Result<bool> {
        let rebalanced = self.consumer.rebalanced();
        if rebalanced.is_empty() {
            return Ok(false);
        }
        Rebalanced { flow: "stage1", rebalanced: &rebalanced }.emit();
        let now_ms = now_ms();
        for partition in &rebalanced.revoked {
            self.partitions.remove(partition);
        }
        for partition in &rebalanced.assigned {
            let state = PartitionState { clock: PartitionClock::new(now_ms), next_offset: None, end_seen: false };
            self.partitions.entry(partition.clone()).or_insert(state);
        }
        let spoilt = rebalanced.revoked.iter().any(|partition| epoch.offsets.contains_key(partition));
        if spoilt {
            for (partition, (first_offset, _)) in &epoch.offsets {
                if self.partitions.contains_key(partition) {
                    self.consumer.seek(partition, *first_offset)?;
                }
            }
        }
        Ok(spoilt)
    }

    fn find_idle(&mut self) {
        let (now_ms, idle_timeout_ms) = (now_ms(), self.pipeline.config.time.idle_timeout.millis());
        for (partition, state) in &mut self.partitions {
            if !state.clock.is_silent(now_ms, idle_timeout_ms) {
                continue;
            }
            // A broker that does not answer proves nothing. Control records of transactions lie behind the last record, so that
            // the end itself may never be reached by records alone.
            let at_end = self.consumer.ends(partition).is_some_and(|(first, next)| {
                first == next || state.end_seen || state.next_offset.is_some_and(|offset| offset >= next)
            });
            if at_end {
                state.clock.set_idle(now_ms);
            }
        }
    }

    fn refresh_topics(&mut self) {
        if self.topics_refreshed.is_some_and(|at| at.elapsed() < TOPICS_REFRESH) {
            return;
        }
        self.topics_refreshed = Some(Instant::now());
        for topic in self.decoder_of.keys() {
            if let Some(count) = self.consumer.partition_count(topic) {
                self.topic_counts.insert(topic.clone(), count);
            }
        }
    }

    fn idle_moves(&mut self) -> bool {
        let any_idle = self.partitions.values().any(|state| state.clock.mark(0, 0).idle);
        if !any_idle || self.idle_step_at.elapsed() < IDLE_STEP {
            return false;
        }
        self.idle_step_at = Instant::now();
        true
    }

    fn marker(&self) -> Marker {
        let (now_ms, max_disorder_ms) = (now_ms(), self.pipeline.config.time.max_disorder.millis());
        let mut marker = Marker { topics: self.topic_counts.clone(), marks: Vec::new() };
        for (partition, state) in &self.partitions {
            marker.push(partition.clone(), state.clock.mark(max_disorder_ms, now_ms));
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

fn note(
    partitions: &mut BTreeMap<SourcePartition, PartitionState>,
    record: &BorrowedMessage<'_>,
    outcome: &Outcome,
    epoch: &mut Epoch,
) {
    let partition = (record.topic().to_owned(), record.partition());
    let (offset, now_ms) = (record.offset(), now_ms());
    let state = partitions.entry(partition.clone()).or_insert_with(|| PartitionState {
        clock: PartitionClock::new(now_ms),
        next_offset: None,
        end_seen: false,
    });
    state.clock.on_record(outcome.max_event_time_ms, now_ms);
    state.next_offset = Some(offset + 1);
    state.end_seen = false;
    epoch.offsets.entry(partition).or_insert((offset, offset + 1)).1 = offset + 1;
}

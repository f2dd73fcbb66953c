//! The reading half of stage 1: records into batches, and how far each partition is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use arrow::array::RecordBatch;
use bongsu_ingest::config::{Format, Source as SourceConfig};
use bongsu_ingest::decode::{Decoder, Outcome, Reject};
use bongsu_schemas::dead_letter::Reason;
use chrono::Utc;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::alignment::{Position, limit, may_read};
use crate::dead_letter::{dead_letter, headers_of, raw_record};
use crate::events::{
    Emit, EpochPoisoned, PartitionsPaused, PartitionsRebalanced, RecordRepeated, SourceSeen, WatermarkDelay,
};
use crate::kafka::consumer::{GroupConsumer, Polled, Rebalanced};
use crate::kafka::transaction::Outgoing;
use crate::partials::Marker;
use crate::pipeline::{Names, Pipeline};
use crate::watermark::{PartitionClock, SourcePartition};

/// Bounds of an epoch: whichever comes first ends it. They bound memory and the delay of a record.
const MAX_ROWS: usize = 100_000;
const MAX_BYTES: usize = 64 * 1024 * 1024;
const MAX_WAIT: Duration = Duration::from_millis(250);
/// The clock is read once for so many records that stream in.
const CLOCK_EVERY: u64 = 64;
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
    /// First and next offset of what it holds of each partition.
    read: BTreeMap<SourcePartition, (i64, i64)>,
    /// Latest event time of each partition, also of earlier epochs.
    latest_ms: BTreeMap<SourcePartition, i64>,
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
    /// What Kafka commits: one more than the last offset read, and the latest event time as its metadata.
    pub(crate) fn next_offsets(&self) -> anyhow::Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for ((topic, partition), (_, next_offset)) in &self.read {
            let mut element = list.add_partition(topic, *partition);
            element.set_offset(Offset::Offset(*next_offset))?;
            if let Some(latest_ms) = self.latest_ms.get(&(topic.clone(), *partition)) {
                element.set_metadata(latest_ms.to_string());
            }
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
    idle_asked_at: Instant,
    idle_moved_at: Instant,
    /// Fewer than usual while a record is looked for with which a view cannot be computed.
    max_records: u64,
    poison: Option<Poison>,
}

/// A record that goes to the dead letters although it can be decoded.
struct Poison {
    partition: SourcePartition,
    offset: i64,
    detail: String,
}

/// One source topic.
struct TopicSource {
    topic: String,
    decoder: Decoder,
    /// Only some formats do; to ask librdkafka for them costs something for each record.
    reads_headers: bool,
    /// How many partitions the topic has, 0 if there is no such topic; none before a broker has answered.
    partition_count: Option<i32>,
    /// The partitions that are ours.
    partitions: BTreeMap<i32, PartitionState>,
}

impl TopicSource {
    fn has(&self, (topic, number): &SourcePartition) -> bool {
        self.topic == *topic && self.partitions.contains_key(number)
    }
}

#[derive(Debug)]
struct PartitionState {
    clock: PartitionClock,
    next_offset: Option<i64>,
    /// A partition of this number was at its end after the last record.
    end_seen: bool,
    /// First and next offset of what the current epoch has of it.
    epoch: Option<(i64, i64)>,
    /// It is too far ahead of others.
    is_paused: bool,
    /// Latest event time that any owner of the partition has seen: where a changed view may begin.
    latest_ms: Option<i64>,
}

impl PartitionState {
    fn new(now_ms: i64) -> PartitionState {
        let clock = PartitionClock::new(now_ms);
        PartitionState { clock, next_offset: None, end_seen: false, epoch: None, is_paused: false, latest_ms: None }
    }

    fn position(&self) -> Position {
        Position { event_time_ms: self.clock.max_event_time_ms(), at_end: self.end_seen || self.clock.is_idle() }
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
        let consumer = GroupConsumer::subscribe(&config.kafka, "stage1", &pipeline.identity.name, &names)?;
        let max_future_ms = config.time.max_future.millis();
        let topic = |source: &SourceConfig| -> anyhow::Result<TopicSource> {
            let decoder = Decoder::new(source, &pipeline.wanted, max_future_ms).map_err(|problem| anyhow!(problem))?;
            let reads_headers = source.format == Format::Cloudevents;
            Ok(TopicSource {
                topic: source.topic.clone(),
                decoder,
                reads_headers,
                partition_count: None,
                partitions: BTreeMap::new(),
            })
        };
        let topics = config.sources.iter().map(topic).collect::<anyhow::Result<_>>()?;
        let now = Instant::now();
        Ok(Source {
            pipeline,
            consumer,
            topics,
            topics_refreshed: None,
            idle_asked_at: now,
            idle_moved_at: now,
            max_records: u64::MAX,
            poison: None,
        })
    }

    pub(crate) fn consumer(&self) -> &GroupConsumer {
        &self.consumer
    }

    /// Reads until the epoch is full or has waited long enough. None if there is nothing to commit, or if partitions were revoked
    /// meanwhile: what was read of all partitions is then read again.
    pub(crate) fn gather(&mut self, shutdown: &CancellationToken) -> anyhow::Result<Option<Epoch>> {
        let mut epoch = Epoch::default();
        let spoilt = self.fill(&mut epoch, shutdown)?;
        for topic in &mut self.topics {
            epoch.rows.extend(topic.decoder.finish()?);
        }
        for topic in &mut self.topics {
            for (number, partition) in &mut topic.partitions {
                if let Some(read) = partition.epoch.take() {
                    let name = (topic.topic.clone(), *number);
                    partition.latest_ms = partition.latest_ms.max(partition.clock.max_event_time_ms());
                    epoch.latest_ms.extend(partition.latest_ms.map(|latest_ms| (name.clone(), latest_ms)));
                    epoch.read.insert(name, read);
                }
            }
        }
        if spoilt {
            self.read_again(&epoch)?;
            return Ok(None);
        }
        self.find_idle();
        self.refresh_topics();
        self.align()?;
        if epoch.read.is_empty() && !self.idle_moves() {
            return Ok(None);
        }
        epoch.marker = self.marker();
        Ok(Some(epoch))
    }

    /// True if the epoch must not be committed, for it holds records of a partition that is somebody else's now.
    fn fill(&mut self, epoch: &mut Epoch, shutdown: &CancellationToken) -> anyhow::Result<bool> {
        let deadline = Instant::now() + MAX_WAIT;
        // Good enough for idleness, which is a matter of seconds; a clock reading for each record is not free.
        let now_ms = now_ms();
        let (mut rows, mut bytes, mut records, mut at, mut due) = (0, 0, 0_u64, 0, false);
        let has_room = |rows, bytes, records| rows < MAX_ROWS && bytes < MAX_BYTES && records < self.max_records;
        while !due && has_room(rows, bytes, records) && !shutdown.is_cancelled() {
            let mut polled = self.consumer.poll(Duration::ZERO)?;
            let waits = matches!(polled, Polled::Nothing);
            if waits || records.is_multiple_of(CLOCK_EVERY) {
                let left = deadline.saturating_duration_since(Instant::now());
                if waits && !left.is_zero() {
                    polled = self.consumer.poll(left)?;
                }
                // The record that is in hand is still taken.
                due = left.is_zero();
            }
            if let Some(rebalanced) = self.consumer.rebalanced()
                && rebalance(&self.consumer, &mut self.topics, &rebalanced)?
            {
                // The record in hand is read again with the others of its partition, or alone.
                if let Polled::Record(record) = &polled {
                    let topic = self.topics.iter_mut().find(|topic| topic.topic == record.topic());
                    let partition = topic.and_then(|topic| topic.partitions.get_mut(&record.partition()));
                    if let Some(partition) = partition {
                        partition.epoch.get_or_insert((record.offset(), record.offset()));
                    }
                }
                return Ok(true);
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
                    let TopicSource { decoder, reads_headers, partitions, .. } = &mut self.topics[at];
                    // A record that was fetched before its partition was revoked is somebody else's now.
                    let Some(partition) = partitions.get_mut(&record.partition()) else { continue };
                    if partition.next_offset.is_some_and(|next_offset| record.offset() < next_offset) {
                        RecordRepeated { flow: "stage1" }.emit();
                        continue;
                    }
                    let outcome = match &self.poison {
                        Some(poison) if poison.is(&record) => poison.outcome(),
                        _ => decode(decoder, *reads_headers, &record),
                    };
                    epoch.count(&self.pipeline.names, &record, &outcome);
                    rows += outcome.rows as usize;
                    partition.on_record(record.offset(), outcome.max_event_time_ms, now_ms);
                }
                Polled::End(number) => {
                    let ended = self.topics.iter_mut().filter_map(|topic| topic.partitions.get_mut(&number));
                    ended.for_each(|partition| partition.end_seen = true);
                }
                Polled::Nothing => {}
            }
        }
        Ok(false)
    }

    /// An epoch with which a view cannot be computed is read again in halves, until the record to blame is alone; that one goes to the
    /// dead letters.
    pub(crate) fn split(&mut self, epoch: &Epoch, error: &anyhow::Error) -> anyhow::Result<()> {
        EpochPoisoned { records: epoch.counts.records, error }.emit();
        match epoch.read.first_key_value() {
            Some((partition, (_, next_offset))) if epoch.counts.records == 1 => {
                let detail = format!("{error:#}");
                self.poison = Some(Poison { partition: partition.clone(), offset: next_offset - 1, detail });
            }
            _ => self.max_records = (epoch.counts.records / 2).max(1),
        }
        self.read_again(epoch)
    }

    /// The epoch is committed. While a record to blame is known and not behind us, epochs stay small: other partitions may be read first.
    pub(crate) fn committed(&mut self, epoch: &Epoch) {
        if let Some(poison) = &self.poison {
            let is_behind =
                epoch.read.get(&poison.partition).is_some_and(|(_, next_offset)| *next_offset > poison.offset);
            let is_ours = self.topics.iter().any(|topic| topic.has(&poison.partition));
            if !is_behind && is_ours {
                return;
            }
        }
        self.poison = None;
        self.max_records = self.max_records.saturating_mul(2);
    }

    /// Goes back to where the epoch began, in the partitions that are still ours. Their clocks forget what they saw: a marker ahead
    /// of the records would make those late.
    fn read_again(&mut self, epoch: &Epoch) -> anyhow::Result<()> {
        for topic in &mut self.topics {
            for (number, partition) in &mut topic.partitions {
                let name = (topic.topic.clone(), *number);
                if let Some((first_offset, _)) = epoch.read.get(&name) {
                    self.consumer.seek(&name, *first_offset)?;
                    let PartitionState { is_paused, latest_ms, .. } = *partition;
                    *partition = PartitionState { is_paused, latest_ms, ..PartitionState::new(now_ms()) };
                }
            }
        }
        Ok(())
    }

    /// Has partitions wait that are too far ahead of others, and lets them go on when the others have caught up.
    fn align(&mut self) -> anyhow::Result<()> {
        let partitions = || self.topics.iter().flat_map(|topic| topic.partitions.values());
        let max_drift_ms = self.pipeline.config.time.max_drift.millis();
        // A watermark is that much behind the latest event.
        let max_disorder_ms = self.pipeline.config.time.max_disorder.millis();
        let merged_ms = self.pipeline.merged_watermark_ms().map(|merged_ms| merged_ms.saturating_add(max_disorder_ms));
        let limit_ms = limit(partitions().map(PartitionState::position), merged_ms, max_drift_ms);
        let (mut paused, mut resumed) = (Vec::new(), Vec::new());
        for topic in &mut self.topics {
            for (number, partition) in &mut topic.partitions {
                let may_read = may_read(partition.position(), limit_ms);
                if partition.is_paused == may_read {
                    partition.is_paused = !may_read;
                    let list = if may_read { &mut resumed } else { &mut paused };
                    list.push((topic.topic.clone(), *number));
                }
            }
        }
        self.consumer.pause(&paused)?;
        self.consumer.resume(&resumed)?;
        if !paused.is_empty() {
            PartitionsPaused { partitions: paused.len() as u64, limit_ms: limit_ms.unwrap_or_default() }.emit();
        }
        Ok(())
    }

    fn find_idle(&mut self) {
        let (now_ms, idle_timeout_ms) = (now_ms(), self.pipeline.config.time.idle_timeout.millis());
        if self.idle_asked_at.elapsed() < IDLE_STEP {
            return;
        }
        self.idle_asked_at = Instant::now();
        let max_disorder_ms = self.pipeline.config.time.max_disorder.millis();
        for topic in &mut self.topics {
            for (number, state) in &mut topic.partitions {
                let watermark_ms = state.clock.mark(max_disorder_ms, now_ms).watermark_ms;
                WatermarkDelay { topic: &topic.topic, partition: *number, watermark_ms, now_ms }.emit();
                if !state.clock.is_silent(now_ms, idle_timeout_ms) {
                    continue;
                }
                // A broker that does not answer proves nothing.
                let Ok((first, next)) = self.consumer.ends(&(topic.topic.clone(), *number)) else { return };
                // Control records of transactions lie behind the last record, so that the end itself may never be reached by
                // records alone.
                if first == next || state.end_seen || state.next_offset.is_some_and(|offset| offset >= next) {
                    state.clock.set_idle(now_ms);
                }
            }
        }
    }

    fn refresh_topics(&mut self) {
        if self.topics_refreshed.is_some_and(|at| at.elapsed() < TOPICS_REFRESH) {
            return;
        }
        for topic in &mut self.topics {
            // A broker that does not answer leaves what is known, and the next epoch asks again.
            let Ok(count) = self.consumer.partition_count(&topic.topic) else { return };
            let partitions = count.unwrap_or(0);
            if topic.partition_count.replace(partitions) != Some(partitions) {
                SourceSeen { topic: &topic.topic, partitions }.emit();
            }
        }
        self.topics_refreshed = Some(Instant::now());
    }

    fn idle_moves(&mut self) -> bool {
        let mut partitions = self.topics.iter().flat_map(|topic| topic.partitions.values());
        if !partitions.any(|partition| partition.clock.is_idle()) || self.idle_moved_at.elapsed() < IDLE_STEP {
            return false;
        }
        self.idle_moved_at = Instant::now();
        true
    }

    /// How far our partitions are; nothing before the size of every source topic is known, since a topic that stage 2 has not heard of
    /// would not hold the watermark back.
    fn marker(&self) -> Marker {
        let (now_ms, max_disorder_ms) = (now_ms(), self.pipeline.config.time.max_disorder.millis());
        let mut marker = Marker::default();
        if self.topics.iter().any(|topic| topic.partition_count.is_none()) {
            return marker;
        }
        for topic in &self.topics {
            if let Some(count) = topic.partition_count.filter(|count| *count > 0) {
                marker.topics.insert(topic.topic.clone(), count);
            }
            for (number, partition) in &topic.partitions {
                marker.push((topic.topic.clone(), *number), partition.clock.mark(max_disorder_ms, now_ms));
            }
        }
        marker
    }
}

/// Takes note of a rebalance. True if it took a partition of which the current epoch has records.
fn rebalance(consumer: &GroupConsumer, topics: &mut [TopicSource], rebalanced: &Rebalanced) -> anyhow::Result<bool> {
    PartitionsRebalanced { flow: "stage1", rebalanced }.emit();
    if !rebalanced.assigned.is_disjoint(&rebalanced.revoked) {
        // Which of its records were read before and which after cannot be told any more.
        bail!("a partition left and came back at once");
    }
    // What one owner had wait must not wait for ever with the next.
    consumer.resume(&rebalanced.assigned)?;
    let latest = if rebalanced.assigned.is_empty() { BTreeMap::new() } else { latest_of(consumer, rebalanced)? };
    let now_ms = now_ms();
    let mut spoilt = false;
    for topic in topics {
        let ours = |(name, _): &&SourcePartition| *name == topic.topic;
        for (_, number) in rebalanced.revoked.iter().filter(ours) {
            let revoked = topic.partitions.remove(number);
            spoilt |= revoked.is_some_and(|partition| partition.epoch.is_some());
        }
        for (_, number) in rebalanced.assigned.iter().filter(ours) {
            let latest_ms = latest.get(&(topic.topic.clone(), *number)).copied();
            let state = || PartitionState { latest_ms, ..PartitionState::new(now_ms) };
            topic.partitions.entry(*number).or_insert_with(state);
        }
    }
    Ok(spoilt)
}

/// What the last owners of partitions committed with their offsets.
fn latest_of(consumer: &GroupConsumer, rebalanced: &Rebalanced) -> anyhow::Result<BTreeMap<SourcePartition, i64>> {
    let committed = consumer.committed(&rebalanced.assigned)?;
    let latest = committed.elements().into_iter().filter_map(|element| {
        let latest_ms = element.metadata().parse().ok()?;
        Some(((element.topic().to_owned(), element.partition()), latest_ms))
    });
    Ok(latest.collect())
}

fn now_ms() -> i64 {
    Utc::now().timestamp_millis()
}

fn decode(decoder: &mut Decoder, reads_headers: bool, record: &BorrowedMessage<'_>) -> Outcome {
    let headers = if reads_headers { headers_of(record) } else { Vec::new() };
    decoder.decode(&raw_record(record, &headers))
}

impl Poison {
    fn is(&self, record: &BorrowedMessage<'_>) -> bool {
        let (topic, partition) = &self.partition;
        self.offset == record.offset() && *partition == record.partition() && topic == record.topic()
    }

    fn outcome(&self) -> Outcome {
        let reject = Reject { reason: Reason::Poison, detail: self.detail.clone(), events: 1 };
        Outcome { events: 1, rejects: vec![reject], ..Outcome::default() }
    }
}

impl Epoch {
    fn count(&mut self, names: &Names, record: &BorrowedMessage<'_>, outcome: &Outcome) {
        self.counts.records += 1;
        self.counts.events += u64::from(outcome.events);
        self.counts.filtered += u64::from(outcome.filtered);
        self.counts.rejected += outcome.rejects.iter().map(|reject| u64::from(reject.events)).sum::<u64>();
        if let Some(reject) = outcome.rejects.first() {
            self.dead_letters.push(dead_letter(names, record, reject));
        }
    }
}

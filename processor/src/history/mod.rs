//! Closed windows as Parquet files, each row once, without transactions.
//!
//! The records of one partition of `bongsu.windows` for one view and one day form a *chain* of files: each is named after the
//! offset of its first record and says where the next one starts. A file is only ever created, never overwritten (put if absent).
//!
//! - H1: whoever writes a chain continues where its last file ends, so that no two files hold the same record, whatever crashed
//!   between writing a file and committing the offset, and whoever else believed to own the partition.

pub(crate) mod chains;
pub(crate) mod files;
pub(crate) mod place;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use bongsu_schemas::health::Health;
use bongsu_schemas::window::WindowHead;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::events::{Emit, HistorySkipped, PartitionsRebalanced, RecordRepeated};
use crate::kafka::consumer::{GroupConsumer, Polled, Probe};
use crate::pipeline::Pipeline;
use chains::{Chain, Chains};
use files::Files;

/// So much is written at once at the latest; bounds memory, of which encoding needs several times as much.
const MAX_BUFFERED_BYTES: usize = 2 * 1024 * 1024;
/// How often files past `history.keep` are looked for.
const CLEAN_EVERY: Duration = Duration::from_secs(3600);

/// Runs until shutdown; what was read by then is written.
pub(crate) fn run(pipeline: &Pipeline, health: &Health, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let kafka = &pipeline.config.kafka;
    let topic = pipeline.names.windows.as_ref();
    let consumer = GroupConsumer::subscribe(kafka, "history", &pipeline.identity.name, &[topic])?;
    let files = Files::open(&pipeline.config.history, &pipeline.published_views())?;
    let mut chains = Chains::default();
    let mut next_offsets: BTreeMap<i32, i64> = BTreeMap::new();
    let flush = pipeline.config.history.flush.duration();
    let (mut flushed_at, mut cleaned_at) = (Instant::now(), None::<Instant>);
    health.ready("history");
    let mut probe = Probe::new("history", topic);
    loop {
        probe.look(&consumer, health);
        let stopping = shutdown.is_cancelled();
        let polled = consumer.poll(Duration::from_millis(100))?;
        rebalanced(&consumer, &mut chains, &mut next_offsets);
        if let Polled::Record(record) = polled {
            let next_offset = next_offsets.entry(record.partition()).or_default();
            if record.offset() < *next_offset {
                RecordRepeated { flow: "history" }.emit();
                continue;
            }
            *next_offset = record.offset() + 1;
            let value = record.payload().unwrap_or_default();
            match serde_json::from_slice::<WindowHead<'_>>(value) {
                // Files are only ever added to: a correction has no place in them.
                Ok(head) if head.is_final && files.has_view(&head.view) => {
                    let (partition, date) = (record.partition(), head.window_start.date_naive());
                    let chain = Chain { partition, view: head.view.into_owned(), date };
                    chains.push(chain, (record.offset(), value.to_vec()));
                }
                Ok(_) => {}
                // Nothing of ours; somebody else writes to the topic.
                Err(_) => HistorySkipped { view: "", rows: 1 }.emit(),
            }
        }
        if stopping || flushed_at.elapsed() >= flush || chains.buffered_bytes() >= MAX_BUFFERED_BYTES {
            chains.flush(&files)?;
            commit(&consumer, topic, &next_offsets)?;
            flushed_at = Instant::now();
        }
        if stopping {
            return Ok(());
        }
        if cleaned_at.is_none_or(|at| at.elapsed() >= CLEAN_EVERY) {
            files.remove_expired(chrono::Utc::now().date_naive())?;
            cleaned_at = Some(Instant::now());
        }
    }
}

/// Lets go of what is not written of partitions that came or went: their next owner reads it again.
fn rebalanced(consumer: &GroupConsumer, chains: &mut Chains, next_offsets: &mut BTreeMap<i32, i64>) {
    let Some(rebalanced) = consumer.rebalanced() else { return };
    PartitionsRebalanced { flow: "history", rebalanced: &rebalanced }.emit();
    for (_, partition) in rebalanced.revoked.iter().chain(&rebalanced.assigned) {
        chains.forget(*partition);
        next_offsets.remove(partition);
    }
}

fn commit(consumer: &GroupConsumer, topic: &str, next_offsets: &BTreeMap<i32, i64>) -> anyhow::Result<()> {
    if next_offsets.is_empty() {
        return Ok(());
    }
    let mut list = TopicPartitionList::new();
    for (partition, next_offset) in next_offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*next_offset))?;
    }
    consumer.inner().commit(&list, CommitMode::Sync).context("cannot commit the offsets of the history")
}

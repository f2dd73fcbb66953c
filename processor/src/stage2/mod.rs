//! Stage 2: partial aggregates to windows and alerts. Its state is the open windows, and the log is their store.
//!
//! ```text
//! poll ─► rows ─► panes ──┐ ended ─► AggregateExec(Final) ─► windows ─► rules ─► alerts ─┐
//!     └─► markers ─► watermark ┘                                                         ├─► one transaction with the
//!             rows of closed panes ─► late ──────────────────────────────────────────────┘   low-water offsets
//! ```

mod offsets;
mod partition;
mod restore;
pub mod state;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use bongsu_schemas::health::Health;
use rdkafka::consumer::Consumer;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::events::{Emit, PartitionsRebalanced, WindowsCommitted};
use crate::kafka::consumer::{GroupConsumer, Polled, Probe};
use crate::kafka::transaction::Transactions;
use crate::pipeline::Pipeline;
use partition::Partition;

/// Bounds of an epoch: whichever comes first ends it. They bound memory and the delay of a result.
const MAX_RECORDS: usize = 2_000;
const MAX_WAIT: Duration = Duration::from_millis(100);
/// So many records of output are enough for one transaction.
const MAX_OUTPUTS: usize = 20_000;
/// Progress without any output is committed this often, so that a restart has little to read again.
const QUIET_COMMIT: Duration = Duration::from_secs(1);

/// Runs until shutdown; outputs that are due by then are committed.
pub(crate) fn run(pipeline: &Pipeline, health: &Health, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let kafka = &pipeline.config.kafka;
    let group = kafka.group_of("stage2");
    let transactions = Transactions::open(kafka, "stage2", &format!("{group}.{}", pipeline.identity.name))?;
    let topic = pipeline.topics.partials();
    let consumer = GroupConsumer::subscribe(kafka, &group, &pipeline.identity.name, &[topic.as_str()])?;
    restore::check_partition_counts(pipeline, &consumer)?;
    let mut partitions = BTreeMap::new();
    let mut committed_at = Instant::now();
    health.ready("stage2");
    let mut probe = Probe::new("stage2", &topic);
    while !shutdown.is_cancelled() {
        probe.look(&consumer, health);
        gather(pipeline, &consumer, &mut partitions, shutdown)?;
        let has_output = partitions.values().any(|partition: &Partition<'_>| partition.has_output());
        if has_output || committed_at.elapsed() >= QUIET_COMMIT {
            commit(pipeline, &consumer, &transactions, &mut partitions)?;
            committed_at = Instant::now();
        }
    }
    commit(pipeline, &consumer, &transactions, &mut partitions)
}

fn gather<'a>(
    pipeline: &'a Pipeline,
    consumer: &GroupConsumer,
    partitions: &mut BTreeMap<i32, Partition<'a>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + MAX_WAIT;
    let mut records = 0;
    while records < MAX_RECORDS && outputs(partitions) < MAX_OUTPUTS && !shutdown.is_cancelled() {
        let left = deadline.saturating_duration_since(Instant::now());
        let polled = consumer.poll(left)?;
        rebalance(pipeline, consumer, partitions, shutdown)?;
        if let Polled::Record(record) = &polled {
            records += 1;
            take(record, partitions)?;
        }
        if left.is_zero() {
            break;
        }
    }
    Ok(())
}

fn outputs(partitions: &BTreeMap<i32, Partition<'_>>) -> usize {
    partitions.values().map(Partition::outputs).sum()
}

fn take(record: &BorrowedMessage<'_>, partitions: &mut BTreeMap<i32, Partition<'_>>) -> anyhow::Result<()> {
    // A record that was fetched before its partition was revoked is somebody else's now.
    let Some(partition) = partitions.get_mut(&record.partition()) else { return Ok(()) };
    partition
        .take(record)
        .with_context(|| format!("at offset {} of {}-{}", record.offset(), record.topic(), record.partition()))
}

/// Lets go of revoked partitions with all that is not committed of them, and restores assigned ones from their last commit.
fn rebalance<'a>(
    pipeline: &'a Pipeline,
    consumer: &GroupConsumer,
    partitions: &mut BTreeMap<i32, Partition<'a>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let Some(rebalanced) = consumer.rebalanced() else { return Ok(()) };
    PartitionsRebalanced { flow: "stage2", rebalanced: &rebalanced }.emit();
    for (_, partition) in &rebalanced.revoked {
        partitions.remove(partition);
    }
    for (_, partition) in &rebalanced.assigned {
        partitions.insert(*partition, restore::partition(pipeline, consumer, *partition, shutdown)?);
    }
    Ok(())
}

fn commit(
    pipeline: &Pipeline,
    consumer: &GroupConsumer,
    transactions: &Transactions,
    partitions: &mut BTreeMap<i32, Partition<'_>>,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let topic = pipeline.topics.partials();
    let (mut offsets, mut outgoing) = (TopicPartitionList::new(), Vec::new());
    let (mut windows, mut alerts) = (0, 0);
    for (number, partition) in partitions.iter_mut() {
        let Some(progress) = partition.progress() else { continue };
        if !partition.has_output() && !partition.has_moved(&progress) {
            continue;
        }
        let mut element = offsets.add_partition(&topic, *number);
        element.set_offset(Offset::Offset(progress.low_water_offset))?;
        element.set_metadata(offsets::encode(&progress)?);
        let output = partition.take_output(progress)?;
        windows += output.windows;
        alerts += output.alerts;
        outgoing.extend(output.records);
    }
    if offsets.count() == 0 {
        return Ok(());
    }
    let group = consumer.inner().group_metadata().context("the consumer is not in its group")?;
    transactions.commit(&outgoing, &offsets, &group)?;
    WindowsCommitted {
        windows,
        alerts,
        open_panes: partitions.values().map(Partition::open_panes).sum(),
        active_series: partitions.values().map(Partition::active_series).sum(),
        closed_ms: partitions.values().map(Partition::closed_ms).filter(|ms| *ms > state::NEVER_MS).min(),
        transaction_secs: started.elapsed().as_secs_f64(),
    }
    .emit();
    Ok(())
}

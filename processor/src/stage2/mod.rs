//! Stage 2: partial aggregates to windows and alerts. Its state is the open windows, and the log is their store.
//!
//! ```text
//! poll ─► rows ─► panes ──┐ ended ─► AggregateExec(Final) ─► windows ─► rules ─► alerts ─┐
//!     └─► markers ─► watermark ┘ └─► panes of long windows ─► bongsu.panes ──────────────┼─► one transaction with the
//!             rows of closed panes ─► late, corrections ─────────────────────────────────┘   low-water offsets
//! ```

mod close;
mod groups;
mod level;
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
use crate::kafka::transactor::Transactor;
use crate::pipeline::Pipeline;
use crate::watermark::SourcePartition;
use level::Level;
use partition::Partition;

/// Bounds of an epoch: whichever comes first ends it. They bound memory and the delay of a result.
const MAX_RECORDS: usize = 2_000;
const MAX_WAIT: Duration = Duration::from_millis(100);
/// So many records of output are enough for one transaction.
const MAX_OUTPUTS: usize = 10_000;
/// Progress without any output is committed this often, so that a restart has little to read again.
const QUIET_COMMIT: Duration = Duration::from_secs(1);

/// Our partitions of both topics.
type Partitions<'a> = BTreeMap<(Level, i32), Partition<'a>>;

/// Runs until shutdown; outputs that are due by then are committed.
pub(crate) fn run(pipeline: &Pipeline, health: &Health, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let kafka = &pipeline.config.kafka;
    let transactor = Transactor::open(kafka, "stage2", &pipeline.identity.name)?;
    let topics = [pipeline.names.partials.as_ref(), pipeline.names.panes.as_ref()];
    let consumer = GroupConsumer::subscribe(kafka, "stage2", &pipeline.identity.name, &topics)?;
    let mut partitions = Partitions::new();
    let mut committed_at = Instant::now();
    pipeline.set_merged_watermark_ms(None);
    health.ready("stage2");
    let mut probe = Probe::new("stage2", &pipeline.names.partials);
    while !shutdown.is_cancelled() {
        probe.look(&consumer, health);
        gather(pipeline, &consumer, &mut partitions, shutdown)?;
        pipeline.set_merged_watermark_ms(merged_ms(&partitions));
        partitions.values_mut().try_for_each(Partition::look_into_open)?;
        let has_output = partitions.values().any(Partition::has_output);
        if has_output || committed_at.elapsed() >= QUIET_COMMIT {
            commit(pipeline, &consumer, &transactor, &mut partitions)?;
            committed_at = Instant::now();
        }
    }
    commit(pipeline, &consumer, &transactor, &mut partitions)
}

fn gather<'a>(
    pipeline: &'a Pipeline,
    consumer: &GroupConsumer,
    partitions: &mut Partitions<'a>,
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
            take(pipeline, record, partitions)?;
        }
        if left.is_zero() {
            break;
        }
    }
    Ok(())
}

/// The watermark of the sources; each of our partitions of the partials has heard of it, one sooner than the other.
fn merged_ms(partitions: &Partitions<'_>) -> Option<i64> {
    let partials = partitions.range((Level::Partials, i32::MIN)..(Level::Panes, i32::MIN));
    partials.filter_map(|(_, partition)| partition.merged_ms()).min()
}

fn outputs(partitions: &Partitions<'_>) -> usize {
    partitions.values().map(Partition::outputs).sum()
}

fn take(pipeline: &Pipeline, record: &BorrowedMessage<'_>, partitions: &mut Partitions<'_>) -> anyhow::Result<()> {
    let level = Level::of_topic(pipeline, record.topic()).context("a record of a topic that was not subscribed")?;
    // A record that was fetched before its partition was revoked is somebody else's now.
    let Some(partition) = partitions.get_mut(&(level, record.partition())) else { return Ok(()) };
    partition
        .take(record)
        .with_context(|| format!("at offset {} of {}-{}", record.offset(), record.topic(), record.partition()))
}

/// Lets go of revoked partitions with all that is not committed of them, and restores assigned ones from their last commit.
fn rebalance<'a>(
    pipeline: &'a Pipeline,
    consumer: &GroupConsumer,
    partitions: &mut Partitions<'a>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let Some(rebalanced) = consumer.rebalanced() else { return Ok(()) };
    PartitionsRebalanced { flow: "stage2", rebalanced: &rebalanced }.emit();
    let level =
        |topic: &str| Level::of_topic(pipeline, topic).context("a partition of a topic that was not subscribed");
    for (topic, number) in &rebalanced.revoked {
        partitions.remove(&(level(topic)?, *number));
    }
    if rebalanced.assigned.is_empty() {
        return Ok(());
    }
    let ours = |(topic, number): &SourcePartition| Ok((level(topic)?, *number));
    let assigned: Vec<(Level, i32)> = rebalanced.assigned.iter().map(ours).collect::<anyhow::Result<_>>()?;
    let restored = restore::partitions(pipeline, consumer, &assigned, shutdown)?;
    partitions.extend(assigned.into_iter().zip(restored));
    Ok(())
}

fn commit(
    pipeline: &Pipeline,
    consumer: &GroupConsumer,
    transactor: &Transactor,
    partitions: &mut Partitions<'_>,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let (mut offsets, mut outgoing) = (TopicPartitionList::new(), Vec::new());
    let (mut windows, mut alerts) = (0, 0);
    for ((level, number), partition) in partitions.iter_mut() {
        let Some(progress) = partition.progress() else { continue };
        if !partition.has_output() && !partition.has_moved(&progress) {
            continue;
        }
        let mut element = offsets.add_partition(level.topic(pipeline), *number);
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
    transactor.commit(outgoing, offsets, group).map_err(|error| consumer.explain(error))?;
    WindowsCommitted {
        windows,
        alerts,
        open_panes: partitions.values().map(Partition::open_panes).sum(),
        open_rows: partitions.values().map(Partition::open_rows).sum(),
        active_series: partitions.values().map(Partition::active_series).sum(),
        closed_ms: partitions.values().map(Partition::closed_ms).filter(|ms| *ms > state::NEVER_MS).min(),
        transaction_secs: started.elapsed().as_secs_f64(),
    }
    .emit();
    Ok(())
}

//! Stage 1: source topics to partial aggregates. Stateless but for the latest event time of each partition.
//!
//! ```text
//! poll ─► decode ─► AggregateExec(Partial) of each view ─► split by group key ─┐
//!  ▲         ├─► latest event time ─► marker to every partition ───────────────┼─► one transaction with the source offsets
//!  │         └─► rejects ─► dead letters ──────────────────────────────────────┘
//!  └── a partition too far ahead waits; an epoch that cannot be computed is read again in halves
//! ```

mod alignment;
mod source;

use std::time::Instant;

use anyhow::Context;
use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMillisecondType;
use bongsu_schemas::health::Health;
use bongsu_schemas::tables::EVENT_TIME;
use rdkafka::consumer::Consumer;
use tokio_util::sync::CancellationToken;

use crate::events::{Emit, EpochAggregated};
use crate::kafka::consumer::Probe;
use crate::kafka::transactor::Transactor;
use crate::partials::{marker_for, rows_for};
use crate::pipeline::Pipeline;
use crate::plan::ViewPlan;
use source::{Epoch, Source};

/// Runs until shutdown; what was read by then is committed.
pub(crate) fn run(pipeline: &Pipeline, health: &Health, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let transactor = Transactor::open(&pipeline.config.kafka, "stage1", &pipeline.identity.name)?;
    let mut source = Source::open(pipeline)?;
    let partitions = source.consumer().own_partition_count(&pipeline.names.partials)?;
    health.ready("stage1");
    let mut probe = Probe::new("stage1", &pipeline.names.partials);
    while !shutdown.is_cancelled() {
        probe.look(source.consumer(), health);
        let Some(mut epoch) = source.gather(shutdown)? else { continue };
        let started = Instant::now();
        let partials = match partials(pipeline, &epoch) {
            Ok(partials) => partials,
            Err(error) => {
                source.split(&epoch, &error)?;
                continue;
            }
        };
        let partial_rows = partials.iter().map(|(_, rows)| rows.num_rows() as u64).sum();
        let mut outgoing = std::mem::take(&mut epoch.dead_letters);
        for (view, rows) in partials {
            outgoing.extend(rows_for(&pipeline.names.partials, view, &rows, view.placement.partials)?);
        }
        outgoing.extend(marker_for(&pipeline.names.partials, &epoch.marker, partitions)?);
        let group = source.consumer().inner().group_metadata().context("the consumer is not in its group")?;
        transactor.commit(outgoing, epoch.next_offsets()?, group).map_err(|error| source.consumer().explain(error))?;
        source.committed(&epoch);
        let transaction_secs = started.elapsed().as_secs_f64();
        let counts = epoch.counts;
        EpochAggregated {
            records: counts.records,
            events: counts.events,
            filtered: counts.filtered,
            rejected: counts.rejected,
            partial_rows,
            transaction_secs,
        }
        .emit();
    }
    Ok(())
}

/// The partial aggregates of each view. An error says that some row cannot be computed.
fn partials<'a>(pipeline: &'a Pipeline, epoch: &Epoch) -> anyhow::Result<Vec<(&'a ViewPlan, RecordBatch)>> {
    let mut partials = Vec::new();
    for (table, rows) in &epoch.rows {
        for view in pipeline.views.iter().filter(|view| view.table == *table) {
            let Some(rows) = rows_of_version(view, rows)? else { continue };
            partials.push((view, view.partial(&rows)?));
        }
    }
    Ok(partials)
}

/// The rows that are in windows of this version of the view; usually all.
fn rows_of_version(view: &ViewPlan, rows: &RecordBatch) -> anyhow::Result<Option<RecordBatch>> {
    let (from_ms, until_ms) = view.placement.rows(view.window);
    if from_ms == i64::MIN && until_ms == i64::MAX {
        return Ok(Some(rows.clone()));
    }
    let times = rows.column_by_name(EVENT_TIME).context("decoded rows lack the event time")?;
    let is_inside = |time_ms: &i64| from_ms <= *time_ms && *time_ms < until_ms;
    let inside: BooleanArray = times
        .as_primitive::<TimestampMillisecondType>()
        .values()
        .iter()
        .map(|time_ms| Some(is_inside(time_ms)))
        .collect();
    Ok(match inside.true_count() {
        0 => None,
        all if all == rows.num_rows() => Some(rows.clone()),
        _ => Some(filter_record_batch(rows, &inside)?),
    })
}

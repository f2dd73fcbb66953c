//! Stage 1: source topics to partial aggregates. Stateless but for the latest event time of each partition.
//!
//! ```text
//! poll ─► decode ─► AggregateExec(Partial) of each view ─► split by group key ─┐
//!            ├─► latest event time ─► marker to every partition ───────────────┼─► one transaction with the source offsets
//!            └─► rejects ─► dead letters ──────────────────────────────────────┘
//! ```

mod source;

use std::time::Instant;

use anyhow::Context;
use bongsu_schemas::health::Health;
use rdkafka::consumer::Consumer;
use tokio_util::sync::CancellationToken;

use crate::events::{Emit, EpochAggregated};
use crate::kafka::consumer::Probe;
use crate::kafka::transaction::{Outgoing, Transactions, header};
use crate::partials::{
    HEADER_KIND, HEADER_PLAN, HEADER_VERSION, HEADER_VIEW, KIND_MARKER, KIND_ROWS, Marker, VERSION, split_rows,
};
use crate::pipeline::Pipeline;
use source::{Epoch, Source};

/// Runs until shutdown; what was read by then is committed.
pub(crate) fn run(pipeline: &Pipeline, health: &Health, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let id = format!("{}.{}", pipeline.config.kafka.group_of("stage1"), pipeline.identity.name);
    let transactions = Transactions::open(&pipeline.config.kafka, "stage1", &id)?;
    let mut source = Source::open(pipeline)?;
    let partitions = source.consumer().own_partition_count(&pipeline.topics.partials())?;
    health.ready("stage1");
    let mut probe = Probe::new("stage1", &pipeline.topics.partials());
    while !shutdown.is_cancelled() {
        probe.look(source.consumer(), health);
        let Some(mut epoch) = source.gather(shutdown)? else { continue };
        let started = Instant::now();
        let (mut outgoing, partial_rows) = partial_records(pipeline, &epoch, partitions)?;
        outgoing.extend(markers(pipeline, &epoch.marker, partitions)?);
        outgoing.append(&mut epoch.dead_letters);
        let group = source.consumer().inner().group_metadata().context("the consumer is not in its group")?;
        transactions.commit(&outgoing, &epoch.next_offsets()?, &group)?;
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

/// The records of partial aggregates, and how many rows they hold.
fn partial_records(pipeline: &Pipeline, epoch: &Epoch, partitions: i32) -> anyhow::Result<(Vec<Outgoing>, u64)> {
    let topic = pipeline.topics.partials();
    let (mut outgoing, mut partial_rows) = (Vec::new(), 0);
    for (table, rows) in &epoch.rows {
        for view in pipeline.views.iter().filter(|view| view.table == *table) {
            let partial = view.partial(rows)?;
            partial_rows += partial.num_rows() as u64;
            for record in split_rows(view, &partial, partitions)? {
                outgoing.push(Outgoing {
                    topic: topic.clone(),
                    partition: Some(record.partition),
                    key: None,
                    value: Some(record.value),
                    headers: vec![
                        header(HEADER_KIND, KIND_ROWS),
                        header(HEADER_VERSION, VERSION),
                        header(HEADER_VIEW, &view.name),
                        header(HEADER_PLAN, &view.version),
                    ],
                });
            }
        }
    }
    Ok((outgoing, partial_rows))
}

fn markers(pipeline: &Pipeline, marker: &Marker, partitions: i32) -> anyhow::Result<Vec<Outgoing>> {
    let value = marker.encode()?;
    let record = |partition| Outgoing {
        topic: pipeline.topics.partials(),
        partition: Some(partition),
        key: None,
        value: Some(value.clone()),
        headers: vec![header(HEADER_KIND, KIND_MARKER), header(HEADER_VERSION, VERSION)],
    };
    Ok((0..partitions).map(record).collect())
}

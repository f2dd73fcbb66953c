//! What stage 1 tells stage 2 in the partials, and stage 2 itself in the panes.
//!
//! Two kinds of records, told apart by the header [`HEADER_KIND`]:
//!
//! - *rows*: partial aggregates of one view as an Arrow IPC stream, all of whose group keys belong to the record's partition;
//! - *marker*: how far the source partitions are, as JSON; every marker goes to every partition.
//!
//! Invariant P2: equal group keys of a view are always in the same partition, whichever process wrote them. The hash is XXH64 over
//! Arrow's row format of the keys, which depends on neither machine nor process.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use anyhow::{Context, bail};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::DataType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::row::{RowConverter, SortField};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;

use crate::kafka::transaction::{Outgoing, header};
use crate::plan::ViewPlan;
use crate::watermark::{Mark, SourcePartition};

/// Header with [`KIND_ROWS`] or [`KIND_MARKER`].
pub const HEADER_KIND: &str = "bongsu.kind";
/// Header with the name of the view.
pub const HEADER_VIEW: &str = "bongsu.view";
/// Header with [`ViewPlan::version`].
pub const HEADER_PLAN: &str = "bongsu.plan";
/// Header with [`VERSION`].
pub const HEADER_VERSION: &str = "bongsu.version";
/// A record of partial aggregates.
pub const KIND_ROWS: &str = "rows";
/// A record of watermarks.
pub const KIND_MARKER: &str = "marker";
/// Version of this format; another one is refused.
pub const VERSION: &str = "1";

/// About how large a record of rows may become; larger ones are split. Well under Kafka's usual limit of 1 MB.
const MAX_RECORD_BYTES: usize = 512 * 1024;

/// Partial aggregates for one partition of the topic.
#[derive(Debug)]
pub struct PartialRecord {
    /// Partition that the rows belong to (P2).
    pub partition: i32,
    /// Arrow IPC stream.
    pub value: Vec<u8>,
}

/// Splits a view's partial aggregates by the partitions of the topic.
pub fn split_rows(view: &ViewPlan, rows: &RecordBatch, partitions: i32) -> anyhow::Result<Vec<PartialRecord>> {
    let mut rows_of = vec![Vec::new(); partitions.max(1) as usize];
    for (row, partition) in partition_of_rows(view, rows, partitions)?.into_iter().enumerate() {
        rows_of[partition as usize].push(row as u32);
    }
    let bytes_per_row = rows.get_array_memory_size() / rows.num_rows().max(1) + 1;
    let rows_per_record = (MAX_RECORD_BYTES / bytes_per_row).max(1);
    let mut records = Vec::new();
    for (partition, rows_here) in rows_of.iter().enumerate() {
        for chunk in rows_here.chunks(rows_per_record) {
            let chunk = compact(&take_record_batch(rows, &UInt32Array::from(chunk.to_vec()))?)?;
            push_records(partition as i32, &chunk, &mut records)?;
        }
    }
    Ok(records)
}

/// Rows differ in size, so that a record may still be too large: then each half is a record of its own.
fn push_records(partition: i32, rows: &RecordBatch, records: &mut Vec<PartialRecord>) -> anyhow::Result<()> {
    let value = encode_rows(rows)?;
    if value.len() > MAX_RECORD_BYTES && rows.num_rows() > 1 {
        let half = rows.num_rows() / 2;
        for (from, count) in [(0, half), (half, rows.num_rows() - half)] {
            push_records(partition, &compact(&rows.slice(from, count))?, records)?;
        }
        return Ok(());
    }
    records.push(PartialRecord { partition, value });
    Ok(())
}

fn partition_of_rows(view: &ViewPlan, rows: &RecordBatch, partitions: i32) -> anyhow::Result<Vec<i32>> {
    if partitions <= 1 {
        return Ok(vec![0; rows.num_rows()]);
    }
    Ok(key_hashes(view, rows)?.into_iter().map(|hash| (hash % partitions as u64) as i32).collect())
}

/// A hash of the group key of each row, the same on every machine.
pub(crate) fn key_hashes(view: &ViewPlan, rows: &RecordBatch) -> anyhow::Result<Vec<u64>> {
    let keys = &rows.columns()[1..=view.partial_keys];
    if keys.is_empty() {
        return Ok(vec![0; rows.num_rows()]);
    }
    let fields = keys.iter().map(|key| SortField::new(key.data_type().clone())).collect();
    let keys = RowConverter::new(fields)?.convert_columns(keys)?;
    Ok(keys.iter().map(|key| XxHash64::oneshot(0, key.as_ref())).collect())
}

/// Views keep the text of all rows that were ever beside them alive; a record must hold its own rows' only.
fn compact(rows: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let own = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => column.clone(),
        }
    };
    Ok(RecordBatch::try_new(rows.schema(), rows.columns().iter().map(own).collect())?)
}

fn encode_rows(rows: &RecordBatch) -> anyhow::Result<Vec<u8>> {
    let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref())?;
    writer.write(rows)?;
    writer.finish()?;
    Ok(writer.into_inner()?)
}

/// Reads a record of rows. They must have the view's partial schema.
pub fn decode_rows(view: &ViewPlan, value: &[u8]) -> anyhow::Result<RecordBatch> {
    let mut reader = StreamReader::try_new(Cursor::new(value), None).context("the record is no Arrow IPC stream")?;
    let rows = reader.next().context("the record holds no batch")??;
    if rows.num_columns() != view.partial_schema.fields().len() {
        bail!(
            "the record has {} columns, the view's partials have {}",
            rows.num_columns(),
            view.partial_schema.fields().len()
        );
    }
    Ok(RecordBatch::try_new(view.partial_schema.clone(), rows.columns().to_vec())?)
}

/// Partial aggregates as records for `topic`, which is the partials or the panes.
pub(crate) fn rows_for(
    topic: &Arc<str>,
    view: &ViewPlan,
    rows: &RecordBatch,
    partitions: i32,
) -> anyhow::Result<Vec<Outgoing>> {
    let headers = vec![
        header(HEADER_KIND, KIND_ROWS),
        header(HEADER_VERSION, VERSION),
        header(HEADER_VIEW, &view.name),
        header(HEADER_PLAN, &view.version),
    ];
    let outgoing = |record: PartialRecord| Outgoing {
        topic: topic.clone(),
        partition: Some(record.partition),
        key: None,
        value: Some(record.value),
        headers: headers.clone(),
    };
    Ok(split_rows(view, rows, partitions)?.into_iter().map(outgoing).collect())
}

/// A marker as records for `topic`, one for each of its partitions.
pub(crate) fn marker_for(topic: &Arc<str>, marker: &Marker, partitions: i32) -> anyhow::Result<Vec<Outgoing>> {
    let value = marker.encode()?;
    let record = |partition| Outgoing {
        topic: topic.clone(),
        partition: Some(partition),
        key: None,
        value: Some(value.clone()),
        headers: vec![header(HEADER_KIND, KIND_MARKER), header(HEADER_VERSION, VERSION)],
    };
    Ok((0..partitions).map(record).collect())
}

/// How far source partitions are, on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Number of partitions of each source topic.
    pub topics: BTreeMap<String, i32>,
    /// Source partitions of the worker that wrote the marker.
    pub marks: Vec<MarkerEntry>,
}

/// One source partition: topic, partition, watermark (epoch milliseconds), how long it has been idle (milliseconds).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkerEntry(pub String, pub i32, pub Option<i64>, pub Option<i64>);

impl Marker {
    /// Adds a partition.
    pub fn push(&mut self, (topic, partition): SourcePartition, mark: Mark) {
        self.marks.push(MarkerEntry(topic, partition, mark.watermark_ms, mark.idle_for_ms));
    }

    /// The partitions and their marks.
    pub fn marks(&self) -> impl Iterator<Item = (SourcePartition, Mark)> {
        self.marks.iter().map(|MarkerEntry(topic, partition, watermark_ms, idle_for_ms)| {
            ((topic.clone(), *partition), Mark { watermark_ms: *watermark_ms, idle_for_ms: *idle_for_ms })
        })
    }

    /// The record's value.
    pub fn encode(&self) -> anyhow::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads a record's value.
    pub fn decode(value: &[u8]) -> anyhow::Result<Marker> {
        serde_json::from_slice(value).context("the record is no marker")
    }
}

#[cfg(test)]
mod tests;

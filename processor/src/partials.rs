//! What stage 1 tells stage 2 in the partials, and stage 2 itself in the panes.
//!
//! Two kinds of records, told apart by the header [`HEADER_KIND`]:
//!
//! - *rows*: partial aggregates of one view as one Arrow IPC message, all of whose group keys belong to the record's partition. Its
//!   schema is not in it, since the view's version says it: with many partitions schemas were a third of all bytes;
//! - *marker*: how far the source partitions are, as JSON; every marker goes to every partition.
//!
//! Invariant P2: equal group keys of a view are always in the same partition, whichever process wrote them. The hash is XXH64 over
//! Arrow's row format of the keys, which depends on neither machine nor process.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::buffer::Buffer;
use arrow::compute::take_record_batch;
use arrow::datatypes::DataType;
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions, write_message};
use arrow::ipc::{MetadataVersion, root_as_message};
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
pub const VERSION: &str = "2";

/// About how large a record of rows may become; larger ones are split. Well under Kafka's usual limit of 1 MB.
const MAX_RECORD_BYTES: usize = 512 * 1024;

/// Partial aggregates for one partition of the topic.
#[derive(Debug)]
pub struct PartialRecord {
    /// Partition that the rows belong to (P2).
    pub partition: i32,
    /// Arrow IPC message.
    pub value: Vec<u8>,
}

/// Splits a view's partial aggregates by the partitions of the topic.
pub fn split_rows(view: &ViewPlan, rows: &RecordBatch, partitions: i32) -> anyhow::Result<Vec<PartialRecord>> {
    let mut rows_of = vec![Vec::new(); partitions.max(1) as usize];
    for (row, partition) in partition_of_rows(view, rows, partitions)?.into_iter().enumerate() {
        rows_of[partition as usize].push(row as u32);
    }
    let mut records = Vec::new();
    for (partition, rows_here) in (0..).zip(rows_of) {
        if !rows_here.is_empty() {
            let rows_here = take_record_batch(rows, &UInt32Array::from(rows_here))?;
            push_records(partition, &rows_here, &mut records)?;
        }
    }
    Ok(records)
}

/// How large a record becomes is known when it is encoded: one that is too large becomes several. Rows differ in size, so that one of
/// those may still be too large.
fn push_records(partition: i32, rows: &RecordBatch, records: &mut Vec<PartialRecord>) -> anyhow::Result<()> {
    let value = encode_rows(&compact(rows)?)?;
    if value.len() <= MAX_RECORD_BYTES || rows.num_rows() == 1 {
        records.push(PartialRecord { partition, value });
        return Ok(());
    }
    let parts = value.len().div_ceil(MAX_RECORD_BYTES).min(rows.num_rows());
    drop(value);
    let rows_per_part = rows.num_rows().div_ceil(parts);
    for from in (0..rows.num_rows()).step_by(rows_per_part) {
        push_records(partition, &rows.slice(from, rows_per_part.min(rows.num_rows() - from)), records)?;
    }
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

/// Buffers in a message start at multiples of this, as views of texts must. Arrow's default of 64 pads thirty small buffers with a
/// kilobyte of nothing.
const ALIGNMENT_BYTES: usize = 16;

fn encode_rows(rows: &RecordBatch) -> anyhow::Result<Vec<u8>> {
    let options = IpcWriteOptions::try_new(ALIGNMENT_BYTES, false, MetadataVersion::V5)?;
    // No column of partials is a dictionary.
    let mut dictionaries = DictionaryTracker::new(true);
    let generator = IpcDataGenerator::default();
    let (_, encoded) = generator.encode(rows, &mut dictionaries, &options, &mut IpcWriteContext::default())?;
    let mut value = Vec::with_capacity(encoded.ipc_message.len() + encoded.arrow_data.len() + ALIGNMENT_BYTES);
    write_message(&mut value, encoded, &options)?;
    Ok(value)
}

/// Reads a record of rows. They must have the view's partial schema.
pub fn decode_rows(view: &ViewPlan, value: &[u8]) -> anyhow::Result<RecordBatch> {
    // A marker of four bytes, the length of the metadata in four, the metadata, the body.
    let (frame, rest) = value.split_at_checked(8).context("the record is no Arrow IPC message")?;
    let length = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]);
    let (metadata, body) = rest.split_at_checked(length as usize).context("the record is no Arrow IPC message")?;
    let message = root_as_message(metadata).map_err(|error| anyhow!("the record is no Arrow IPC message: {error}"))?;
    let batch = message.header_as_record_batch().context("the record holds no batch")?;
    let schema = view.partial_schema.clone();
    let rows = read_record_batch(&Buffer::from(body), batch, schema, &HashMap::new(), None, &message.version());
    rows.context("the record does not fit the view")
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

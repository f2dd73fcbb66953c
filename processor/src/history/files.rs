//! Parquet files in an object store.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use bongsu_schemas::history::{History, NEXT_OFFSET_METADATA, date_folder, file_name, view_folder};
use bongsu_schemas::tables::event_time_type;
use chrono::NaiveDate;
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::properties::WriterProperties;

use super::chains::{Chain, Put, Row, Store};
use super::place::{Place, date_of};
use crate::events::{Emit, HistorySkipped, HistoryWritten};
use crate::plan::ViewPlan;

/// See the module.
pub(crate) struct Files {
    place: Place,
    keep: chrono::Duration,
    schemas: BTreeMap<String, SchemaRef>,
}

impl Files {
    pub(crate) fn open(history: &History, views: &[&ViewPlan]) -> anyhow::Result<Files> {
        Ok(Files {
            place: Place::open(history)?,
            keep: chrono::Duration::from_std(history.keep.duration())?,
            schemas: views.iter().map(|view| (view.name.clone(), record_schema(view))).collect(),
        })
    }

    /// Whether the view is configured; windows of others cannot be typed.
    pub(crate) fn has_view(&self, view: &str) -> bool {
        self.schemas.contains_key(view)
    }

    /// Deletes what is older than `history.keep`.
    pub(crate) fn remove_expired(&self, today: NaiveDate) -> anyhow::Result<()> {
        for view in self.schemas.keys() {
            for file in self.place.list(&view_folder(view))? {
                if date_of(&file.location).is_some_and(|date| today - date > self.keep) {
                    self.place.delete(&file.location)?;
                }
            }
        }
        Ok(())
    }

    fn next_offset_of(&self, path: &Path) -> anyhow::Result<i64> {
        let next_offset = |metadata: &ParquetMetaData| -> Option<i64> {
            let entries = metadata.file_metadata().key_value_metadata()?;
            entries.iter().find(|entry| entry.key == NEXT_OFFSET_METADATA)?.value.as_ref()?.parse().ok()
        };
        let answers = self.place.metadata(std::slice::from_ref(path), next_offset)?;
        let answer = answers.into_iter().next().flatten();
        answer.with_context(|| format!("`{path}` does not say where the next file starts"))
    }
}

impl Store for Files {
    fn end_of(&self, chain: &Chain) -> anyhow::Result<Option<i64>> {
        let own = format!("p{}-", chain.partition);
        let files = self.place.list(&date_folder(&chain.view, chain.date))?;
        let mine = files
            .into_iter()
            .map(|file| file.location)
            .filter(|path| path.filename().is_some_and(|name| name.starts_with(&own)));
        mine.max_by_key(|path| path.filename().map(str::to_owned)).map(|last| self.next_offset_of(&last)).transpose()
    }

    fn put(&self, chain: &Chain, rows: &[Row]) -> anyhow::Result<Put> {
        let (Some((first_offset, _)), Some((last_offset, _))) = (rows.first(), rows.last()) else {
            return Ok(Put::Created);
        };
        let name = format!("{}/{}", date_folder(&chain.view, chain.date), file_name(chain.partition, *first_offset));
        let path = self.place.path(&name);
        let schema = self.schemas.get(&chain.view).context("the view is not configured")?;
        let windows = read_fitting(schema, rows)?;
        let (rows_written, skipped) = (windows.num_rows(), rows.len() - windows.num_rows());
        if skipped > 0 {
            HistorySkipped { view: &chain.view, rows: skipped }.emit();
        }
        let bytes = encode(&windows, last_offset + 1).with_context(|| format!("cannot encode `{path}`"))?;
        if !self.place.create(&path, bytes)? {
            return Ok(Put::Exists { next_offset: self.next_offset_of(&path)? });
        }
        HistoryWritten { path: path.as_ref(), rows: rows_written }.emit();
        Ok(Put::Created)
    }
}

/// The record of a window as Arrow reads it: the group keys and the values are objects of their own. Text is plain UTF-8, which
/// every reader of Parquet knows.
fn record_schema(view: &ViewPlan) -> SchemaRef {
    let column = |index: &usize| {
        let field = view.result_schema.field(*index);
        let data_type = match field.data_type() {
            known @ (DataType::Boolean | DataType::Timestamp(..)) => known.clone(),
            number if number.is_integer() || number.is_floating() => number.clone(),
            // Whatever else a view computes is text in its window record.
            _ => DataType::Utf8,
        };
        Field::new(field.name(), data_type, true)
    };
    let mut fields: Vec<_> =
        ["window_start", "window_end"].map(|name| Field::new(name, event_time_type(), false)).into();
    for (name, columns) in [("key", &view.keys), ("values", &view.values)] {
        if !columns.is_empty() {
            fields.push(Field::new_struct(name, columns.iter().map(column).collect::<Vec<_>>(), true));
        }
    }
    Arc::new(Schema::new(fields))
}

/// The columns of a file: the window, the group keys, the values, side by side.
fn flat(records: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in records.schema().fields().iter().zip(records.columns()) {
        match column.as_struct_opt() {
            Some(object) => {
                fields.extend(object.fields().iter().cloned());
                columns.extend(object.columns().iter().cloned());
            }
            None => {
                fields.push(field.clone());
                columns.push(column.clone());
            }
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The records that fit the view's present columns. A column may have had another type when an older version of the view wrote it.
fn read_fitting(schema: &SchemaRef, rows: &[Row]) -> anyhow::Result<RecordBatch> {
    if let Ok(windows) = read(schema, rows) {
        return Ok(windows);
    }
    let fitting: Vec<Row> =
        rows.iter().filter(|row| read(schema, std::slice::from_ref(row)).is_ok()).cloned().collect();
    read(schema, &fitting)
}

fn read(schema: &SchemaRef, rows: &[Row]) -> anyhow::Result<RecordBatch> {
    let mut decoder = ReaderBuilder::new(schema.clone())
        .with_batch_size(rows.len().max(1))
        .with_coerce_primitive(true)
        .build_decoder()?;
    for (_, record) in rows {
        decoder.decode(record)?;
    }
    flat(&decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(schema.clone())))
}

fn encode(windows: &RecordBatch, next_offset: i64) -> anyhow::Result<Vec<u8>> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_key_value_metadata(Some(vec![KeyValue::new(NEXT_OFFSET_METADATA.to_owned(), next_offset.to_string())]))
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, windows.schema(), Some(properties))?;
    writer.write(windows)?;
    writer.close()?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;

    use super::*;

    /// Scenario: windows of a view, one of them from a time when one of its columns was a text.
    /// Guarantees: it is left out, the others are read, and their key and values stand side by side.
    #[test]
    fn windows_that_do_not_fit_are_left_out() {
        let key = Field::new_struct("key", vec![Field::new("service", DataType::Utf8, true)], true);
        let values = Field::new_struct("values", vec![Field::new("errors", DataType::Int64, true)], true);
        let schema = Arc::new(Schema::new(vec![Field::new("window_start", event_time_type(), false), key, values]));
        let record = |service: &str, errors: &str| -> Vec<u8> {
            let text = format!(
                r#"{{"view":"v","window_start":"2025-06-02T00:00:00Z","key":{{"service":{service}}},"values":{{"errors":{errors}}},"final":true}}"#
            );
            text.into_bytes()
        };
        let rows = [(7, record("\"a\"", "1")), (8, record("\"b\"", "\"many\"")), (9, record("null", "null"))];
        let windows = read_fitting(&schema, &rows).unwrap();
        let printed = pretty_format_batches(&[windows]).unwrap().to_string();
        let expected = "\
+----------------------+---------+--------+
| window_start         | service | errors |
+----------------------+---------+--------+
| 2025-06-02T00:00:00Z | a       | 1      |
| 2025-06-02T00:00:00Z |         |        |
+----------------------+---------+--------+";
        assert_eq!(printed, expected);
    }
}

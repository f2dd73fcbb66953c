//! Rows of the history as results of a view, as if stage 2 had just computed them. Pure.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, ensure};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, take_record_batch};
use arrow::datatypes::{DataType, TimestampMillisecondType};
use bongsu_schemas::tables::event_time_type;

use crate::plan::ViewPlan;

/// Rows of a file, by the end of their window.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) by_end: BTreeMap<i64, RecordBatch>,
    /// Rows of windows that the view does not have any more.
    pub(super) misfits: u64,
}

/// The rows whose windows end in `ends` as results of `plan`, of whose columns the history has the visible ones; of one service where the
/// view tells them apart.
pub(super) fn results(
    plan: &ViewPlan,
    rows: &RecordBatch,
    ends: &Range<i64>,
    service: Option<&str>,
) -> anyhow::Result<Rows> {
    let bounds = ["window_start", "window_end"].map(|name| column(rows, name, &event_time_type()));
    for (name, bound) in ["window_start", "window_end"].iter().zip(&bounds) {
        ensure!(bound.null_count() == 0, "a file of the history lacks `{name}` in some row");
    }
    let [starts, window_ends] = &bounds;
    let starts = starts.as_primitive_opt::<TimestampMillisecondType>().context("`window_start` is no time")?;
    let window_ends = window_ends.as_primitive_opt::<TimestampMillisecondType>().context("`window_end` is no time")?;
    let services =
        service.filter(|_| has_key(plan, "service")).map(|name| (name, column(rows, "service", &DataType::Utf8)));

    let mut picked: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    let mut misfits = 0;
    for (row, (start_ms, end_ms)) in starts.values().iter().zip(window_ends.values()).enumerate() {
        if !ends.contains(end_ms) {
            continue;
        }
        if let Some((name, services)) = &services {
            let services = services.as_string::<i32>();
            if services.is_null(row) || services.value(row) != *name {
                continue;
            }
        }
        let window = plan.window;
        if window.pane_start(*end_ms) != *end_ms || window.window_start(*end_ms) != *start_ms {
            misfits += 1;
            continue;
        }
        picked.entry(*end_ms).or_default().push(u32::try_from(row)?);
    }
    if picked.is_empty() {
        return Ok(Rows { by_end: BTreeMap::new(), misfits });
    }
    let columns = plan.result_schema.fields().iter().map(|field| column(rows, field.name(), field.data_type()));
    let all = RecordBatch::try_new(plan.result_schema.clone(), columns.collect())?;
    let pick = |(end_ms, rows): (i64, Vec<u32>)| Ok((end_ms, take_record_batch(&all, &UInt32Array::from(rows))?));
    Ok(Rows { by_end: picked.into_iter().map(pick).collect::<anyhow::Result<_>>()?, misfits })
}

/// A column of the history in the type that the view gives it today; null where it is missing or cannot be converted.
fn column(rows: &RecordBatch, name: &str, data_type: &DataType) -> ArrayRef {
    let nulls = || new_null_array(data_type, rows.num_rows());
    let Some(column) = rows.column_by_name(name) else { return nulls() };
    if column.data_type() == data_type {
        return Arc::clone(column);
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    cast_with_options(column, data_type, &options).unwrap_or_else(|_| nulls())
}

fn has_key(plan: &ViewPlan, name: &str) -> bool {
    plan.keys.iter().any(|key| plan.result_schema.field(*key).name() == name)
}

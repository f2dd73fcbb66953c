//! The limit on how many groups a pane keeps apart: a label that turns out to be unique for each event must not fill the memory.
//!
//! The first groups of a pane keep their names; what comes after them is counted under [`OTHER`]. Which they are is a function of the
//! log alone: a restart reads a pane from its first record and decides alike.
//!
//! - G1: no event is lost to the limit: a group that is not kept apart is in `__other__`, of its service where that is configured.

use std::collections::HashSet;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StringViewArray};
use arrow::compute::{cast, filter_record_batch, not};
use arrow::datatypes::DataType;
use bongsu_schemas::key::OTHER;
use bongsu_schemas::services::Services;
use datafusion::common::ScalarValue;

use crate::partials::key_hashes;
use crate::plan::ViewPlan;

/// The groups that a pane keeps apart, by hash. Two groups of one hash count as one here, and nowhere else.
#[derive(Debug)]
pub(crate) struct GroupSet {
    hashes: HashSet<u64>,
    limit: usize,
}

impl GroupSet {
    /// Those of a pane's rows so far, and room up to `limit`.
    pub(crate) fn of(view: &ViewPlan, rows: &[RecordBatch], limit: usize) -> anyhow::Result<GroupSet> {
        let mut hashes = HashSet::new();
        for batch in rows {
            hashes.extend(key_hashes(view, batch)?);
        }
        Ok(GroupSet { hashes, limit })
    }

    /// The rows of groups that are kept apart, and the others.
    pub(crate) fn split(&mut self, view: &ViewPlan, rows: &RecordBatch) -> anyhow::Result<(RecordBatch, RecordBatch)> {
        let is_other = is_other(view, rows)?;
        let mut kept = Vec::with_capacity(rows.num_rows());
        for (row, hash) in key_hashes(view, rows)?.into_iter().enumerate() {
            let is_kept = is_other[row] || self.hashes.contains(&hash);
            if !is_kept && self.hashes.len() < self.limit {
                self.hashes.insert(hash);
                kept.push(true);
            } else {
                kept.push(is_kept);
            }
        }
        let kept = BooleanArray::from(kept);
        Ok((filter_record_batch(rows, &kept)?, filter_record_batch(rows, &not(&kept)?)?))
    }
}

/// Whether the view has a key that can be called [`OTHER`]. Groups of numbers alone are not limited.
pub(crate) fn has_text_key(view: &ViewPlan) -> bool {
    text_keys(view) > 0
}

fn text_keys(view: &ViewPlan) -> usize {
    let keys = view.partial_schema.fields().iter().skip(1).take(view.partial_keys);
    keys.filter(|field| field.data_type().is_string()).count()
}

/// Whether a row stands for other groups already.
fn is_other(view: &ViewPlan, rows: &RecordBatch) -> anyhow::Result<Vec<bool>> {
    let mut is_other = vec![false; rows.num_rows()];
    for key in &rows.columns()[1..=view.partial_keys] {
        if key.data_type().is_string() {
            for (other, text) in is_other.iter_mut().zip(texts(key)?.iter()) {
                *other |= text == Some(OTHER);
            }
        }
    }
    Ok(is_other)
}

fn texts(column: &ArrayRef) -> anyhow::Result<StringViewArray> {
    Ok(cast(column, &DataType::Utf8View)?.as_string_view().clone())
}

/// The same rows under the name of [`OTHER`], merged. A configured service keeps its name, for its owner shall hear of it, where another
/// key says that these are others.
pub(crate) fn into_other(view: &ViewPlan, rows: &RecordBatch, services: &Services) -> anyhow::Result<RecordBatch> {
    let can_keep_service = text_keys(view) > 1;
    let mut columns = rows.columns().to_vec();
    for (index, column) in columns.iter_mut().enumerate().skip(1).take(view.partial_keys) {
        let field = view.partial_schema.field(index);
        *column = other_key(column, can_keep_service && field.name() == "service", field.is_nullable(), services)?;
    }
    view.reduce(vec![RecordBatch::try_new(view.partial_schema.clone(), columns)?])
}

fn other_key(column: &ArrayRef, is_service: bool, is_nullable: bool, services: &Services) -> anyhow::Result<ArrayRef> {
    Ok(match column.data_type() {
        text if text.is_string() => {
            let name = |text: Option<&str>| match text {
                Some(service) if is_service && services.0.contains_key(service) => service.to_owned(),
                _ => OTHER.to_owned(),
            };
            let names: StringViewArray = texts(column)?.iter().map(|text| Some(name(text))).collect();
            cast(&names, text)?
        }
        other if is_nullable => ScalarValue::try_from(other)?.to_array_of_size(column.len())?,
        other => ScalarValue::new_default(other)?.to_array_of_size(column.len())?,
    })
}

//! What closed windows and late rows become: records for the topics that others read.

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use bongsu_schemas::dead_letter::{HEADER_DETAIL, HEADER_REASON, HEADER_TOPIC, Reason};
use bongsu_schemas::window::{WindowRecord, rfc3339};
use serde_json::json;

use super::state::EndedWindow;
use crate::kafka::transaction::{Outgoing, header};
use crate::pipeline::Names;
use crate::plan::{ViewPlan, events};
use crate::results::{RowObject, row_object, time};

/// Results of a window, and the groups of which they cannot be computed.
pub(crate) struct Finished {
    pub(crate) results: RecordBatch,
    pub(crate) poisoned: Vec<Poisoned>,
}

/// A group whose partials are there and whose result is an error; it must not hold up the others.
pub(crate) struct Poisoned {
    rows: RecordBatch,
    problem: String,
}

/// The last aggregation of a window. Where it fails, its groups are tried by halves until the bad ones stand alone.
pub(crate) fn finish(plan: &ViewPlan, window: &EndedWindow, rows: &[RecordBatch]) -> anyhow::Result<Finished> {
    if let Ok(results) = plan.finish(window.start_ms, rows) {
        return Ok(Finished { results, poisoned: Vec::new() });
    }
    let in_window = rows.iter().map(|rows| plan.in_pane(window.start_ms, rows)).collect::<anyhow::Result<_>>()?;
    let groups = plan.reduce(in_window)?;
    let (mut good, mut poisoned) = (Vec::new(), Vec::new());
    finish_halves(plan, window, groups, &mut good, &mut poisoned);
    Ok(Finished { results: concat_batches(&plan.result_schema, &good)?, poisoned })
}

fn finish_halves(
    plan: &ViewPlan,
    window: &EndedWindow,
    groups: RecordBatch,
    good: &mut Vec<RecordBatch>,
    poisoned: &mut Vec<Poisoned>,
) {
    match plan.finish(window.start_ms, std::slice::from_ref(&groups)) {
        Ok(results) => good.push(results),
        Err(error) if groups.num_rows() <= 1 => {
            poisoned.push(Poisoned { rows: groups, problem: format!("{error:#}") });
        }
        Err(_) => {
            let half = groups.num_rows() / 2;
            finish_halves(plan, window, groups.slice(0, half), good, poisoned);
            finish_halves(plan, window, groups.slice(half, groups.num_rows() - half), good, poisoned);
        }
    }
}

/// Records of `bongsu.windows`. A correction has a sequence.
pub(crate) fn window_records(
    names: &Names,
    plan: &ViewPlan,
    window: &EndedWindow,
    results: &RecordBatch,
    sequence: Option<i64>,
) -> anyhow::Result<Vec<Outgoing>> {
    let record = |row| {
        let key = RowObject { batch: results, columns: &plan.keys_by_name, row };
        let record = WindowRecord {
            view: plan.name.as_str(),
            window_start: time(window.start_ms),
            window_end: time(window.end_ms),
            key,
            values: RowObject { batch: results, columns: &plan.values, row },
            is_final: sequence.is_none(),
            sequence,
        };
        Ok(Outgoing::keyed(&names.windows, serde_json::to_string(&key)?, serde_json::to_vec(&record)?))
    };
    (0..results.num_rows()).map(record).collect()
}

/// Records of `bongsu.late`: what late rows alone would have contributed to the last window of their pane.
pub(crate) fn late_records(
    names: &Names,
    plan: &ViewPlan,
    window: &EndedWindow,
    results: &RecordBatch,
) -> anyhow::Result<Vec<Outgoing>> {
    let record = |row| {
        let key = RowObject { batch: results, columns: &plan.keys_by_name, row };
        let value = json!({
            "view": plan.name,
            "window_start": rfc3339::format(&time(window.start_ms)),
            "window_end": rfc3339::format(&time(window.end_ms)),
            "key": row_object(results, &plan.keys, row),
            "values": row_object(results, &plan.values, row),
            "events": events(&results.slice(row, 1)),
        });
        Ok(Outgoing::keyed(&names.late, serde_json::to_string(&key)?, serde_json::to_vec(&value)?))
    };
    (0..results.num_rows()).map(record).collect()
}

/// Records of `bongsu.dead-letter` for groups without a result: their partials, as JSON for people.
pub(crate) fn poisoned_records(
    names: &Names,
    plan: &ViewPlan,
    window: &EndedWindow,
    poisoned: &[Poisoned],
) -> anyhow::Result<Vec<Outgoing>> {
    let record = |group: &Poisoned| {
        let columns: Vec<usize> = (0..=plan.partial_keys).collect();
        let key = row_object(&group.rows, &columns[1..], 0);
        let value = json!({
            "view": plan.name,
            "window_start": rfc3339::format(&time(window.start_ms)),
            "window_end": rfc3339::format(&time(window.end_ms)),
            "key": key,
        });
        let mut record = Outgoing::keyed(&names.dead_letter, plan.name.clone(), serde_json::to_vec(&value)?);
        record.headers = vec![
            header(HEADER_TOPIC, &names.partials),
            header(HEADER_REASON, Reason::Poison.name()),
            header(HEADER_DETAIL, &group.problem),
        ];
        Ok(record)
    };
    poisoned.iter().map(record).collect::<anyhow::Result<_>>().context("cannot write a dead letter")
}

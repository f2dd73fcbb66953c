//! One partition of the partials: its open windows, its rules' states, and what it has to say with the next commit.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampMillisecondType;
use bongsu_schemas::key::key_text;
use bongsu_schemas::window::{WindowRecord, rfc3339};
use chrono::Utc;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use serde_json::json;

use super::state::{EndedWindow, OpenWindows, Progress};
use crate::events::{Emit, LateRows, UnknownPartials};
use crate::kafka::transaction::Outgoing;
use crate::partials::{
    HEADER_KIND, HEADER_PLAN, HEADER_VERSION, HEADER_VIEW, KIND_MARKER, KIND_ROWS, Marker, VERSION, decode_rows,
};
use crate::pipeline::Pipeline;
use crate::plan::{ViewPlan, events};
use crate::results::{row_object, time};
use crate::rules::engine::{Changes, ClosedWindow, RuleEngine, SeriesRecord};

/// So many batches of a pane are merged into one; bounds memory by the number of groups, not of records.
const REDUCE_AT: usize = 64;

/// See the module.
pub(crate) struct Partition<'a> {
    pipeline: &'a Pipeline,
    number: i32,
    open: OpenWindows<RecordBatch>,
    rules: RuleEngine,
    output: Output,
    committed: Progress,
}

/// What goes into the next transaction.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) records: Vec<Outgoing>,
    /// New states of series by Kafka key: only the last of each is written.
    states: BTreeMap<String, Option<SeriesRecord>>,
    pub(crate) windows: u64,
    pub(crate) alerts: u64,
}

impl<'a> Partition<'a> {
    /// The state as of `progress`, with the rule states that were committed with it.
    pub(crate) fn new(pipeline: &'a Pipeline, number: i32, progress: Progress, rules: RuleEngine) -> Partition<'a> {
        let windows = pipeline.views.iter().map(|view| view.window).collect();
        let lateness_ms = pipeline.config.time.allowed_lateness.millis();
        let open = OpenWindows::restore(windows, lateness_ms, progress.clone());
        Partition { pipeline, number, open, rules, output: Output::default(), committed: progress }
    }

    /// Takes the next record of the partition.
    pub(crate) fn take(&mut self, record: &BorrowedMessage<'_>) -> anyhow::Result<()> {
        let header = |name: &str| -> Option<&str> {
            let headers = record.headers()?;
            let value = headers.iter().find(|header| header.key == name)?.value?;
            std::str::from_utf8(value).ok()
        };
        let version = header(HEADER_VERSION).unwrap_or_default();
        ensure!(
            version == VERSION,
            "the partials have version `{version}`, this program knows {VERSION}; let the version that wrote them drain the topic first"
        );
        let value = record.payload().context("a partial record has no value")?;
        let offset = record.offset();
        match header(HEADER_KIND) {
            Some(KIND_ROWS) => {
                let view_name = header(HEADER_VIEW).unwrap_or_default();
                let is_ours =
                    |view: &&ViewPlan| view.name == view_name && Some(view.version.as_str()) == header(HEADER_PLAN);
                match self.pipeline.views.iter().enumerate().find(|(_, view)| is_ours(view)) {
                    Some((index, view)) => self.take_rows(offset, index, view, &decode_rows(view, value)?)?,
                    None => UnknownPartials { view: view_name, offset }.emit(),
                }
            }
            Some(KIND_MARKER) => self.take_marker(offset, &Marker::decode(value)?)?,
            other => anyhow::bail!("a partial record has the kind {other:?}"),
        }
        self.open.advance_past(offset);
        Ok(())
    }

    fn take_rows(&mut self, offset: i64, index: usize, view: &ViewPlan, rows: &RecordBatch) -> anyhow::Result<()> {
        for (pane_start_ms, rows) in by_pane(rows)? {
            let pane = (index, pane_start_ms);
            if let Some(late) = self.open.rows(offset, pane, rows) {
                self.publish_late(view, pane_start_ms, late)?;
            } else if self.open.pane_rows(pane).len() >= REDUCE_AT {
                self.open.replace_rows(pane, |batches| view.reduce(batches.to_vec()))?;
            }
        }
        Ok(())
    }

    fn take_marker(&mut self, offset: i64, marker: &Marker) -> anyhow::Result<()> {
        let closed_before_ms = self.open.closed_ms();
        let ended = self.open.marker(offset, marker);
        if self.open.closed_ms() == closed_before_ms {
            return Ok(());
        }
        let mut changes = Changes::default();
        for window in &ended {
            self.close(window, &mut changes)?;
        }
        self.rules.time_passed(&self.pipeline.views, self.open.closed_ms(), Utc::now(), &mut changes);
        self.open.forget_closed();
        for alert in &changes.alerts {
            self.output.alerts += 1;
            let record =
                Outgoing::keyed(&self.pipeline.topics.alerts(), key_text(&alert.key), serde_json::to_vec(alert)?);
            self.output.records.push(record);
        }
        self.output.states.extend(changes.states);
        Ok(())
    }

    fn close(&mut self, window: &EndedWindow, changes: &mut Changes) -> anyhow::Result<()> {
        let pipeline = self.pipeline;
        let plan = &pipeline.views[window.view];
        let batches: Vec<RecordBatch> = self.open.rows_of(window).into_iter().cloned().collect();
        let results = plan.finish(window.start_ms, &batches)?;
        let topic = pipeline.topics.windows();
        for row in 0..results.num_rows() {
            let record = WindowRecord {
                view: plan.name.clone(),
                window_start: time(window.start_ms),
                window_end: time(window.end_ms),
                key: row_object(&results, &plan.keys, row),
                values: row_object(&results, &plan.values, row),
                is_final: true,
            };
            self.output.records.push(Outgoing::keyed(&topic, key_text(&record.key), serde_json::to_vec(&record)?));
        }
        self.output.windows += results.num_rows() as u64;
        let closed = ClosedWindow {
            view: window.view,
            plan,
            start_ms: window.start_ms,
            end_ms: window.end_ms,
            results: &results,
        };
        self.rules.window_closed(closed, Utc::now(), changes)
    }

    /// What late rows alone would have contributed to the last window of their pane.
    fn publish_late(&mut self, view: &ViewPlan, pane_start_ms: i64, rows: RecordBatch) -> anyhow::Result<()> {
        let results = view.finish(pane_start_ms, &[rows])?;
        let late =
            LateRows { view: &view.name, events: events(&results), pane_start_ms, closed_ms: self.open.closed_ms() };
        late.emit();
        for row in 0..results.num_rows() {
            let key = row_object(&results, &view.keys, row);
            let value = json!({
                "view": view.name,
                "window_start": rfc3339::format(&time(pane_start_ms)),
                "window_end": rfc3339::format(&time(view.window.last_window_end(pane_start_ms))),
                "key": key,
                "values": row_object(&results, &view.values, row),
                "events": events(&results.slice(row, 1)),
            });
            self.output.records.push(Outgoing::keyed(
                &self.pipeline.topics.late(),
                key_text(&key),
                serde_json::to_vec(&value)?,
            ));
        }
        Ok(())
    }

    /// Whether a transaction is due.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.records.is_empty() || !self.output.states.is_empty()
    }

    /// Records that wait for the transaction.
    pub(crate) fn outputs(&self) -> usize {
        self.output.records.len() + self.output.states.len()
    }

    /// Whether there is progress to commit.
    pub(crate) fn has_moved(&self, progress: &Progress) -> bool {
        progress.processed_to > self.committed.processed_to
    }

    /// What a commit would say; none while a restart has not caught up.
    pub(crate) fn progress(&self) -> Option<Progress> {
        self.open.progress()
    }

    /// Hands the output over to the transaction that commits `progress`.
    pub(crate) fn take_output(&mut self, progress: Progress) -> anyhow::Result<Output> {
        self.committed = progress;
        let mut output = std::mem::take(&mut self.output);
        let topic = self.pipeline.topics.rule_states();
        for (key, record) in std::mem::take(&mut output.states) {
            let value = record.map(|record| serde_json::to_vec(&record)).transpose()?;
            let (partition, key) = (Some(self.number), Some(key.into_bytes()));
            output.records.push(Outgoing { topic: topic.clone(), partition, key, value, headers: Vec::new() });
        }
        Ok(output)
    }

    pub(crate) fn open_panes(&self) -> usize {
        self.open.open_panes()
    }

    pub(crate) fn active_series(&self) -> usize {
        self.rules.active_series()
    }

    pub(crate) fn closed_ms(&self) -> i64 {
        self.open.closed_ms()
    }
}

/// Rows by the pane that they belong to; usually there is one.
fn by_pane(rows: &RecordBatch) -> anyhow::Result<Vec<(i64, RecordBatch)>> {
    let panes = rows.column(0).as_primitive::<TimestampMillisecondType>().values();
    let mut rows_of: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for (row, pane_start_ms) in panes.iter().enumerate() {
        rows_of.entry(*pane_start_ms).or_default().push(row as u32);
    }
    if let Some((pane_start_ms, _)) = rows_of.first_key_value().filter(|_| rows_of.len() == 1) {
        return Ok(vec![(*pane_start_ms, rows.clone())]);
    }
    let pick =
        |(pane_start_ms, rows_here)| Ok((pane_start_ms, take_record_batch(rows, &UInt32Array::from(rows_here))?));
    rows_of.into_iter().map(pick).collect()
}

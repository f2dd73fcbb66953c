//! One partition of the partials or of the panes: its open windows, its rules' states, and what it has to say with the next commit.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, anyhow, ensure};
use arrow::array::{AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::TimestampMillisecondType;
use bongsu_ingest::decode::Reject;
use bongsu_schemas::dead_letter::Reason;
use bongsu_schemas::key::key_text;
use chrono::Utc;
use rdkafka::message::{BorrowedMessage, Headers, Message};

use super::close::{Finished, Poisoned, finish, late_records, poisoned_records, window_records};
use super::groups::{GroupSet, has_text_key, into_other};
use super::level::{Level, closed_marker};
use super::state::{EndedWindow, OpenWindows, PaneId, Progress, ViewWindows};
use crate::dead_letter::dead_letter;
use crate::events::{
    Emit, GroupsOverflowed, LateRows, PoisonedGroups, RecordRepeated, UnknownPartials, WindowsCorrected,
};
use crate::kafka::transaction::Outgoing;
use crate::partials::{
    HEADER_KIND, HEADER_PLAN, HEADER_VERSION, HEADER_VIEW, KIND_MARKER, KIND_ROWS, Marker, VERSION, decode_rows,
    key_hashes, marker_for, rows_for,
};
use crate::pipeline::Pipeline;
use crate::plan::{ViewPlan, events};
use crate::rules::engine::{Changes, ClosedWindow, RuleEngine, SeriesRecord};
use crate::window::WindowSpec;

/// So few batches of a pane are not worth merging.
const MERGE_FROM: usize = 64;
/// So many are merged in any case: each has buffers of its own.
const MERGE_AT: usize = 512;

/// See the module.
pub(crate) struct Partition<'a> {
    pipeline: &'a Pipeline,
    level: Level,
    /// Number of partitions of the panes.
    panes: i32,
    number: i32,
    open: OpenWindows<RecordBatch>,
    /// Of panes that have reached the limit of groups.
    group_sets: BTreeMap<PaneId, GroupSet>,
    /// Hashes of the groups whose late rows are in a pane and not published yet.
    corrected_groups: BTreeMap<PaneId, HashSet<u64>>,
    /// Hashes of the groups of open windows that have grown since rules last looked, where some rule need not wait for the end.
    grown_groups: BTreeMap<PaneId, HashSet<u64>>,
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
    pub(crate) fn new(
        pipeline: &'a Pipeline,
        level: Level,
        panes: i32,
        number: i32,
        progress: Progress,
        rules: RuleEngine,
    ) -> Partition<'a> {
        let windows = |view| ViewWindows { spec: level.window(view), corrections_ms: level.corrections_ms(view) };
        let windows = pipeline.views.iter().map(windows).collect();
        let open = OpenWindows::restore(windows, level.lateness_ms(pipeline), progress.clone());
        Partition {
            pipeline,
            level,
            panes,
            number,
            open,
            group_sets: BTreeMap::new(),
            corrected_groups: BTreeMap::new(),
            grown_groups: BTreeMap::new(),
            rules,
            output: Output::default(),
            committed: progress,
        }
    }

    /// Takes the next record of the partition.
    pub(crate) fn take(&mut self, record: &BorrowedMessage<'_>) -> anyhow::Result<()> {
        if record.offset() < self.open.next_offset() {
            RecordRepeated { flow: "stage2" }.emit();
            return Ok(());
        }
        let header = |name: &str| -> Option<&str> {
            let headers = record.headers()?;
            let value = headers.iter().find(|header| header.key == name)?.value?;
            std::str::from_utf8(value).ok()
        };
        // One without a version is none of ours, and is rejected below.
        let version = header(HEADER_VERSION).unwrap_or(VERSION);
        ensure!(
            version == VERSION,
            "the partials have version `{version}`, this program knows {VERSION}; let the version that wrote them drain the topic first"
        );
        let value = record.payload().unwrap_or_default();
        let offset = record.offset();
        match header(HEADER_KIND) {
            Some(KIND_ROWS) => {
                let view_name = header(HEADER_VIEW).unwrap_or_default();
                let is_ours =
                    |view: &&ViewPlan| view.name == view_name && Some(view.version.as_str()) == header(HEADER_PLAN);
                match self.pipeline.views.iter().enumerate().find(|(_, view)| is_ours(view)) {
                    Some((index, view)) => match decode_rows(view, value) {
                        Ok(rows) => self.take_rows(offset, index, view, &rows)?,
                        Err(error) => self.reject(record, &error),
                    },
                    None => UnknownPartials { view: view_name, offset }.emit(),
                }
            }
            Some(KIND_MARKER) => match Marker::decode(value) {
                Ok(marker) => self.take_marker(offset, &marker)?,
                Err(error) => self.reject(record, &error),
            },
            other => self.reject(record, &anyhow!("a partial record has the kind {other:?}")),
        }
        self.open.advance_past(offset);
        Ok(())
    }

    /// A record that no version of ours has written: somebody else writes to our topic, or the disk of a broker is broken.
    fn reject(&mut self, record: &BorrowedMessage<'_>, error: &anyhow::Error) {
        if !self.open.is_replayed(record.offset()) {
            let reject = Reject { reason: Reason::Malformed, detail: format!("{error:#}"), events: 1 };
            self.output.records.push(dead_letter(&self.pipeline.names, record, &reject));
        }
    }

    fn take_rows(&mut self, offset: i64, index: usize, view: &ViewPlan, rows: &RecordBatch) -> anyhow::Result<()> {
        for (pane_start_ms, rows) in by_pane(self.level.window(view), view, rows)? {
            let pane = (index, pane_start_ms);
            let rows = self.limit_groups(offset, view, pane, rows)?;
            let taken = self.open.rows(offset, pane, rows.clone());
            if self.open.is_corrected(pane) {
                self.corrected_groups.entry(pane).or_default().extend(key_hashes(view, &rows)?);
            }
            match taken {
                Some(late) => self.late(pane, view, &late)?,
                None if self.rules.looks_into_open(index) && !self.open.is_replayed(offset) => {
                    self.grown_groups.entry(pane).or_default().extend(key_hashes(view, &rows)?);
                }
                None => {}
            }
            if is_worth_merging(self.open.pane_rows(pane)) {
                self.open.replace_rows(pane, |batches| view.reduce(batches.to_vec()))?;
            }
        }
        Ok(())
    }

    /// The rows that the pane has room for; the rest goes on as `__other__` (G1).
    fn limit_groups(
        &mut self,
        offset: i64,
        view: &ViewPlan,
        pane: PaneId,
        rows: RecordBatch,
    ) -> anyhow::Result<RecordBatch> {
        let limit = self.level.max_groups(view);
        if !self.group_sets.contains_key(&pane) {
            // Rows are at least as many as groups, and far easier to count.
            let held: usize = self.open.pane_rows(pane).iter().map(RecordBatch::num_rows).sum();
            if held + rows.num_rows() <= limit || !has_text_key(view) {
                return Ok(rows);
            }
            let groups = GroupSet::of(view, self.open.pane_rows(pane), limit)?;
            self.group_sets.insert(pane, groups);
        }
        let groups = self.group_sets.get_mut(&pane).context("the pane's groups are known")?;
        let (kept, others) = groups.split(view, &rows)?;
        if others.num_rows() > 0 && !self.open.is_replayed(offset) {
            GroupsOverflowed { view: &view.name, groups: others.num_rows() as u64, limit: view.max_groups }.emit();
            let other = into_other(view, &others, &self.pipeline.config.services)?;
            self.send_to_panes(view, &other)?;
        }
        Ok(kept)
    }

    fn send_to_panes(&mut self, view: &ViewPlan, rows: &RecordBatch) -> anyhow::Result<()> {
        let records = rows_for(&self.pipeline.names.panes, view, rows, view.placement.panes)?;
        self.output.records.extend(records);
        Ok(())
    }

    /// Rows of a pane that has closed. A long window that is rolled up from it may still be open.
    fn late(&mut self, (index, pane_start_ms): PaneId, view: &ViewPlan, rows: &RecordBatch) -> anyhow::Result<()> {
        if view.is_presence {
            // The watched view tells of them.
            return Ok(());
        }
        if self.level == Level::Partials && view.is_rolled_up() {
            let long_end_ms = view.window.last_window_end(view.window.pane_start(pane_start_ms));
            if long_end_ms + view.corrections_ms > self.open.closed_ms() {
                return self.send_to_panes(view, rows);
            }
        }
        let pane_start_of_view_ms = view.window.pane_start(pane_start_ms);
        if !view.placement.has_window(pane_start_of_view_ms) {
            // Another version of the view has it, too.
            return Ok(());
        }
        let end_ms = view.window.last_window_end(pane_start_of_view_ms);
        let window = EndedWindow { end_ms, view: index, start_ms: pane_start_of_view_ms };
        let Finished { results, poisoned } = finish(view, &window, std::slice::from_ref(rows))?;
        let closed_ms = self.open.closed_ms();
        LateRows { view: &view.name, events: events(&results), pane_start_ms, closed_ms }.emit();
        self.output.records.extend(late_records(&self.pipeline.names, view, &window, &results)?);
        self.reject_groups(view, &window, &poisoned)
    }

    fn reject_groups(&mut self, view: &ViewPlan, window: &EndedWindow, poisoned: &[Poisoned]) -> anyhow::Result<()> {
        if !poisoned.is_empty() {
            PoisonedGroups { view: &view.name, groups: poisoned.len() as u64 }.emit();
            self.output.records.extend(poisoned_records(&self.pipeline.names, view, window, poisoned)?);
        }
        Ok(())
    }

    fn take_marker(&mut self, offset: i64, marker: &Marker) -> anyhow::Result<()> {
        // Before time goes on: it may end the time in which they can be made.
        self.publish_corrections()?;
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
        let open = &self.open;
        self.group_sets.retain(|pane, _| !open.pane_rows(*pane).is_empty());
        self.tell(changes)
    }

    /// Has rules look into windows that are still open, where that can tell them something. On a backlog it cannot help anybody.
    pub(crate) fn look_into_open(&mut self) -> anyhow::Result<()> {
        const LIVE_MS: i64 = 60_000;
        let pipeline = self.pipeline;
        let (now, mut changes) = (Utc::now(), Changes::default());
        for (pane, groups) in std::mem::take(&mut self.grown_groups) {
            let (index, start_ms) = pane;
            let plan = &pipeline.views[index];
            let end_ms = plan.window.last_window_end(start_ms);
            let patience_ms = self.level.lateness_ms(pipeline) + LIVE_MS;
            let is_live = now.timestamp_millis() < end_ms + patience_ms;
            if !is_live || end_ms <= self.open.closed_ms() || !plan.placement.has_window(start_ms) {
                continue;
            }
            let rows = self.open.pane_rows(pane).iter().map(|rows| of_groups(plan, rows, &groups));
            let rows = rows.collect::<anyhow::Result<Vec<_>>>()?;
            // What cannot be computed is told when the window closes.
            let Ok(results) = plan.finish(start_ms, &rows) else { continue };
            let window = ClosedWindow { view: index, plan, start_ms, end_ms, results: &results };
            self.rules.window_grew(window, now, &mut changes)?;
        }
        self.tell(changes)
    }

    /// Puts what rules have to say into the next transaction.
    fn tell(&mut self, changes: Changes) -> anyhow::Result<()> {
        for alert in &changes.alerts {
            self.output.alerts += 1;
            let record = Outgoing::keyed(&self.pipeline.names.alerts, key_text(&alert.key), serde_json::to_vec(alert)?);
            self.output.records.push(record);
        }
        self.output.states.extend(changes.states);
        Ok(())
    }

    fn close(&mut self, window: &EndedWindow, changes: &mut Changes) -> anyhow::Result<()> {
        let pipeline = self.pipeline;
        let plan = &pipeline.views[window.view];
        let rows: Vec<RecordBatch> = self.open.rows_of(window).into_iter().cloned().collect();
        if self.level == Level::Partials && plan.is_rolled_up() {
            return self.send_to_panes(plan, &plan.reduce(rows)?);
        }
        if !plan.placement.has_window(window.start_ms) {
            // Another version of the view has the whole of it (E1).
            return Ok(());
        }
        let results = if plan.is_presence {
            finish(plan, window, &rows)?.results
        } else {
            self.publish(plan, window, &rows, None)?
        };
        let closed = ClosedWindow {
            view: window.view,
            plan,
            start_ms: window.start_ms,
            end_ms: window.end_ms,
            results: &results,
        };
        self.rules.window_closed(closed, Utc::now(), changes)
    }

    /// Publishes closed windows that late rows have changed: the groups that those rows belong to. Rules judge a window once.
    fn publish_corrections(&mut self) -> anyhow::Result<()> {
        let pipeline = self.pipeline;
        let corrected_groups = std::mem::take(&mut self.corrected_groups);
        for window in self.open.take_corrected() {
            let plan = &pipeline.views[window.view];
            if !plan.placement.has_window(window.start_ms) {
                continue;
            }
            let panes = corrected_groups.range((window.view, window.start_ms)..(window.view, window.end_ms));
            let groups: HashSet<u64> = panes.flat_map(|(_, groups)| groups).copied().collect();
            let rows = self.open.rows_of(&window).into_iter().map(|rows| of_groups(plan, rows, &groups));
            let rows = rows.collect::<anyhow::Result<Vec<_>>>()?;
            let results = self.publish(plan, &window, &rows, Some(self.open.next_offset()))?;
            WindowsCorrected { view: &plan.name, windows: results.num_rows() as u64 }.emit();
        }
        Ok(())
    }

    fn publish(
        &mut self,
        plan: &ViewPlan,
        window: &EndedWindow,
        rows: &[RecordBatch],
        sequence: Option<i64>,
    ) -> anyhow::Result<RecordBatch> {
        let names = &self.pipeline.names;
        let Finished { results, poisoned } = finish(plan, window, rows)?;
        self.output.records.extend(window_records(names, plan, window, &results, sequence)?);
        self.output.windows += results.num_rows() as u64;
        self.reject_groups(plan, window, &poisoned)?;
        Ok(results)
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
        self.publish_corrections()?;
        self.tell_panes(progress.closed_ms)?;
        self.committed = progress;
        let mut output = std::mem::take(&mut self.output);
        for (key, record) in std::mem::take(&mut output.states) {
            let value = record.map(|record| serde_json::to_vec(&record)).transpose()?;
            let topic = self.pipeline.names.rule_states.clone();
            let (partition, key) = (Some(self.number), Some(key.into_bytes()));
            output.records.push(Outgoing { topic, partition, key, value, headers: Vec::new() });
        }
        Ok(output)
    }

    /// After the panes that have closed, that they have (P5). What was told before follows from what was committed.
    fn tell_panes(&mut self, closed_ms: i64) -> anyhow::Result<()> {
        if self.level == Level::Partials
            && let Some(marker) = closed_marker(self.pipeline, self.number, self.committed.closed_ms, closed_ms)
        {
            self.output.records.extend(marker_for(&self.pipeline.names.panes, &marker, self.panes)?);
        }
        Ok(())
    }

    /// The watermark over all source partitions, as far as this one has heard of it.
    pub(crate) fn merged_ms(&self) -> Option<i64> {
        self.open.merged_ms()
    }

    pub(crate) fn open_panes(&self) -> usize {
        self.open.open_panes()
    }

    /// Rows that are kept: at least as many as groups of panes.
    pub(crate) fn open_rows(&self) -> usize {
        self.open.all_rows().map(RecordBatch::num_rows).sum()
    }

    pub(crate) fn active_series(&self) -> usize {
        self.rules.active_series()
    }

    pub(crate) fn closed_ms(&self) -> i64 {
        self.open.closed_ms()
    }
}

/// The rows of some groups, given by their hashes.
fn of_groups(plan: &ViewPlan, rows: &RecordBatch, groups: &HashSet<u64>) -> anyhow::Result<RecordBatch> {
    let is_one: BooleanArray = key_hashes(plan, rows)?.iter().map(|hash| Some(groups.contains(hash))).collect();
    Ok(filter_record_batch(rows, &is_one)?)
}

/// Batches of a pane are merged when they hold as many rows as what was merged before: then each row is read about twice in all, and
/// memory is bounded by the number of groups.
fn is_worth_merging(batches: &[RecordBatch]) -> bool {
    let (merged, since) = batches.split_first().map_or((0, batches), |(first, since)| (first.num_rows(), since));
    let is_many = batches.len() >= MERGE_FROM && since.iter().map(RecordBatch::num_rows).sum::<usize>() >= merged;
    is_many || batches.len() >= MERGE_AT
}

/// Rows by the pane that they belong to; usually there is one. Rows of closed panes become rows of the pane that those are rolled up
/// into.
fn by_pane(spec: WindowSpec, view: &ViewPlan, rows: &RecordBatch) -> anyhow::Result<Vec<(i64, RecordBatch)>> {
    let panes = rows.column(0).as_primitive::<TimestampMillisecondType>().values();
    let mut rows_of: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for (row, start_ms) in panes.iter().enumerate() {
        rows_of.entry(spec.pane_start(*start_ms)).or_default().push(row as u32);
    }
    let is_single = rows_of.len() == 1;
    let pick = |(pane_start_ms, rows_here): (i64, Vec<u32>)| {
        let picked = if is_single { rows.clone() } else { take_record_batch(rows, &UInt32Array::from(rows_here))? };
        // Rows of partials say so themselves.
        let picked = if view.is_rolled_up() { view.in_pane(pane_start_ms, &picked)? } else { picked };
        Ok((pane_start_ms, picked))
    };
    rows_of.into_iter().map(pick).collect()
}

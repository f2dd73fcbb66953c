//! The windows of one view in the order of their end, from the files of the history.
//!
//! The files of a day are as many as there were flushes, each with a few windows: what its footer says of `window_end` tells when it is
//! needed. Days follow one another, since a view's windows end in the order in which they start.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use bongsu_schemas::history::date_folder;
use chrono::NaiveDate;
use object_store::path::Path;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use super::rows::{Rows, results};
use crate::history::place::Place;
use crate::plan::ViewPlan;
use crate::results::time;

/// See the module.
pub(super) struct ViewWindows<'a> {
    place: &'a Place,
    plan: &'a ViewPlan,
    /// Windows that end elsewhere are not wanted.
    ends: Range<i64>,
    service: Option<&'a str>,
    /// Days that have not been looked at.
    dates: VecDeque<NaiveDate>,
    /// Files of the present day, by the end of their first window.
    unread: VecDeque<(i64, Path)>,
    /// Rows that were read, by the end of their window.
    loaded: BTreeMap<i64, Vec<RecordBatch>>,
    misfits: u64,
}

impl<'a> ViewWindows<'a> {
    /// The windows that end in `ends`; of one service, where the view tells them apart.
    pub(super) fn open(
        place: &'a Place,
        plan: &'a ViewPlan,
        ends: Range<i64>,
        service: Option<&'a str>,
    ) -> anyhow::Result<ViewWindows<'a>> {
        let window = plan.window;
        // Windows end where panes end.
        let first_end_ms = window.pane_end(window.pane_start(ends.start - 1));
        let first_date = time(window.window_start(first_end_ms)).date_naive();
        let last_date = time(ends.end).date_naive();
        let dates = place.dates(&plan.name)?;
        let dates = dates.into_iter().filter(|date| (first_date..=last_date).contains(date)).collect();
        let (unread, loaded) = (VecDeque::new(), BTreeMap::new());
        Ok(ViewWindows { place, plan, ends, service, dates, unread, loaded, misfits: 0 })
    }

    /// The end of the next window; none after the last one.
    pub(super) fn next_end_ms(&mut self) -> anyhow::Result<Option<i64>> {
        loop {
            let loaded_ms = self.loaded.first_key_value().map(|(end_ms, _)| *end_ms);
            match (loaded_ms, self.unread.front()) {
                (None, None) => match self.dates.pop_front() {
                    Some(date) => self.look_at(date)?,
                    None => return Ok(None),
                },
                (Some(end_ms), None) => return Ok(Some(end_ms)),
                (Some(end_ms), Some((unread_ms, _))) if end_ms < *unread_ms => return Ok(Some(end_ms)),
                (_, Some((unread_ms, _))) => {
                    let until_ms = *unread_ms;
                    self.load(until_ms)?;
                }
            }
        }
    }

    /// The rows of the window that ends at `end_ms`, which was the next one.
    pub(super) fn take(&mut self, end_ms: i64) -> anyhow::Result<RecordBatch> {
        let rows = self.loaded.remove(&end_ms).unwrap_or_default();
        Ok(concat_batches(&self.plan.result_schema, &rows)?)
    }

    /// So many rows were of windows that the view does not have any more.
    pub(super) fn misfits(&self) -> u64 {
        self.misfits
    }

    /// Finds out which files of a day are needed, and when.
    fn look_at(&mut self, date: NaiveDate) -> anyhow::Result<()> {
        let files = self.place.list(&date_folder(&self.plan.name, date))?;
        let paths: Vec<Path> = files.into_iter().map(|file| file.location).filter(is_parquet).collect();
        let ends = self.place.metadata(&paths, ends_of)?;
        let mut unread = Vec::new();
        for (path, ends) in paths.into_iter().zip(ends) {
            // A file that does not say is read first of all.
            let (first_ms, last_ms) = ends.unwrap_or((i64::MIN, i64::MAX));
            if first_ms < self.ends.end && last_ms >= self.ends.start {
                unread.push((first_ms, path));
            }
        }
        unread.sort();
        self.unread = unread.into();
        Ok(())
    }

    /// Reads the files whose first window ends at `until_ms` or earlier.
    fn load(&mut self, until_ms: i64) -> anyhow::Result<()> {
        let count = self.unread.partition_point(|(first_ms, _)| *first_ms <= until_ms);
        let paths: Vec<Path> = self.unread.drain(..count).map(|(_, path)| path).collect();
        for (path, batches) in paths.iter().zip(self.place.rows(&paths)?) {
            for batch in batches {
                let rows = results(self.plan, &batch, &self.ends, self.service);
                let Rows { by_end, misfits } = rows.with_context(|| format!("cannot use `{path}`"))?;
                self.misfits += misfits;
                for (end_ms, rows) in by_end {
                    self.loaded.entry(end_ms).or_default().push(rows);
                }
            }
        }
        Ok(())
    }
}

/// The end of the last window before `until_ms` that a view has in the history, as far as the last file of each partition tells;
/// `until_ms` if there are later days. None without history.
pub(super) fn last_end_ms(place: &Place, view: &str, until_ms: i64) -> anyhow::Result<Option<i64>> {
    let Some(date) = place.dates(view)?.pop_last() else { return Ok(None) };
    if date > time(until_ms).date_naive() {
        return Ok(Some(until_ms));
    }
    let mut last_of: BTreeMap<String, Path> = BTreeMap::new();
    for path in place.list(&date_folder(view, date))?.into_iter().map(|file| file.location).filter(is_parquet) {
        let partition = path.filename().and_then(|name| name.split('-').next()).unwrap_or_default().to_owned();
        // Within a partition names sort as offsets do.
        let known = last_of.entry(partition).or_insert_with(|| path.clone());
        if *known < path {
            *known = path;
        }
    }
    let paths: Vec<Path> = last_of.into_values().collect();
    let ends = place.metadata(&paths, ends_of)?;
    Ok(ends.into_iter().flatten().map(|(_, last_ms)| last_ms.min(until_ms)).max())
}

fn is_parquet(path: &Path) -> bool {
    path.extension() == Some("parquet")
}

/// The first and the last `window_end` of a file, if its footer says.
fn ends_of(metadata: &ParquetMetaData) -> Option<(i64, i64)> {
    let mut ends: Option<(i64, i64)> = None;
    for group in metadata.row_groups() {
        let column = group.columns().iter().find(|column| column.column_path().string() == "window_end")?;
        let Some(Statistics::Int64(statistics)) = column.statistics() else { return None };
        let (first_ms, last_ms) = (*statistics.min_opt()?, *statistics.max_opt()?);
        ends = Some(ends.map_or((first_ms, last_ms), |(first, last)| (first.min(first_ms), last.max(last_ms))));
    }
    ends
}

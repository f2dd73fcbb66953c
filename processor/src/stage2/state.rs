//! The open windows of one partition of the partials, or of the panes: pure, a function of the log alone.
//!
//! This is the model of `docs/decisions/001-the-log-is-the-state.md`: rows go into panes until the last window that holds the pane
//! has closed; a marker moves the merged watermark and closes what has ended.
//!
//! - P1: what is committed together becomes visible together: outputs, the low-water offset and its metadata.
//! - P3: the low-water offset is the first offset of the oldest pane that is still needed; from there, after a crash, the state is
//!   rebuilt. Between it and `processed_to` rows of closed panes are skipped in silence, for they are in a committed result or were
//!   counted late; markers are ignored and nothing closes.
//! - P4: a pane is needed while one of its windows is open, or can still be corrected.

use std::collections::{BTreeMap, BTreeSet};

use crate::partials::Marker;
use crate::watermark::Watermarks;
use crate::window::WindowSpec;

/// Open windows of one partition. `T` is what rows of a pane are kept as.
#[derive(Debug)]
pub struct OpenWindows<T> {
    windows: Vec<ViewWindows>,
    lateness_ms: i64,
    watermarks: Watermarks,
    /// Windows that end here or earlier are closed.
    closed_ms: i64,
    next_offset: i64,
    processed_to: i64,
    panes: BTreeMap<PaneId, Pane<T>>,
    /// Panes that got rows after one of their windows had closed.
    corrected: BTreeSet<PaneId>,
}

/// The windows of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewWindows {
    /// When they start and end.
    pub spec: WindowSpec,
    /// How long they can be corrected after they have closed; 0 for not at all.
    pub corrections_ms: i64,
}

/// A pane of a view: index of the view, start in epoch milliseconds.
pub type PaneId = (usize, i64);

#[derive(Debug)]
struct Pane<T> {
    first_offset: i64,
    rows: Vec<T>,
}

/// What a commit says of a partition besides its outputs; all that a restart needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Where a restart begins to read (P3).
    pub low_water_offset: i64,
    /// Everything before this offset has had its effect.
    pub processed_to: i64,
    /// Windows that end here or earlier are closed.
    pub closed_ms: i64,
    /// The watermark of every source partition.
    pub watermarks: Watermarks,
}

/// Nothing has closed yet.
pub const NEVER_MS: i64 = i64::MIN / 4;

impl Default for Progress {
    /// A partition of which nothing was read yet.
    fn default() -> Progress {
        Progress { low_water_offset: 0, processed_to: 0, closed_ms: NEVER_MS, watermarks: Watermarks::default() }
    }
}

/// A window that has ended: hand its panes to the view's last aggregation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndedWindow {
    /// Epoch milliseconds, exclusive. First, so that windows close in the order of event time.
    pub end_ms: i64,
    /// Index of the view.
    pub view: usize,
    /// Epoch milliseconds, inclusive.
    pub start_ms: i64,
}

impl<T> OpenWindows<T> {
    /// The state after a commit; `windows` are those of the views, by index.
    pub fn restore(windows: Vec<ViewWindows>, lateness_ms: i64, progress: Progress) -> OpenWindows<T> {
        OpenWindows {
            windows,
            lateness_ms,
            watermarks: progress.watermarks,
            closed_ms: progress.closed_ms,
            next_offset: progress.low_water_offset,
            processed_to: progress.processed_to,
            panes: BTreeMap::new(),
            corrected: BTreeSet::new(),
        }
    }

    /// Rows of one pane. Gives them back if they are late and have not been counted as such before.
    pub fn rows(&mut self, offset: i64, pane: PaneId, rows: T) -> Option<T>
    where
        T: Clone,
    {
        let (view, pane_start_ms) = pane;
        let ViewWindows { spec, corrections_ms } = self.windows[view];
        let last_end_ms = spec.last_window_end(pane_start_ms);
        let is_replayed = self.is_replayed(offset);
        let late = (last_end_ms <= self.closed_ms && !is_replayed).then(|| rows.clone());
        if last_end_ms + corrections_ms > self.closed_ms {
            let has_closed_window = spec.pane_end(pane_start_ms) <= self.closed_ms;
            if corrections_ms > 0 && has_closed_window && !is_replayed {
                self.corrected.insert(pane);
            }
            let pane = self.panes.entry(pane).or_insert_with(|| Pane { first_offset: offset, rows: Vec::new() });
            pane.rows.push(rows);
        }
        late
    }

    /// Whether a closed window of the pane has changed since [`OpenWindows::take_corrected`].
    pub fn is_corrected(&self, pane: PaneId) -> bool {
        self.corrected.contains(&pane)
    }

    /// The closed windows that have changed since the last call and can still be corrected.
    pub fn take_corrected(&mut self) -> Vec<EndedWindow> {
        let mut changed = Vec::new();
        for (view, pane_start_ms) in std::mem::take(&mut self.corrected) {
            let ViewWindows { spec, corrections_ms } = self.windows[view];
            // The panes of earlier windows are gone.
            let ends = spec.window_ends(pane_start_ms, self.closed_ms - corrections_ms, self.closed_ms);
            changed.extend(ends.map(|end_ms| EndedWindow { end_ms, view, start_ms: spec.window_start(end_ms) }));
        }
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    /// A marker. Gives the windows that ended with it, in the order in which they close; nothing closes while replaying.
    pub fn marker(&mut self, offset: i64, marker: &Marker) -> Vec<EndedWindow> {
        if self.is_replayed(offset) {
            return Vec::new();
        }
        for (topic, partitions) in &marker.topics {
            self.watermarks.know_topic(topic, *partitions);
        }
        for (partition, mark) in marker.marks() {
            self.watermarks.advance(partition, mark);
        }
        let Some(merged_ms) = self.watermarks.merged_ms() else { return Vec::new() };
        let closed_ms = merged_ms - self.lateness_ms;
        if closed_ms <= self.closed_ms {
            return Vec::new();
        }
        let ended = self.ended_between(self.closed_ms, closed_ms);
        self.closed_ms = closed_ms;
        ended
    }

    /// The record at `offset` has been taken.
    pub fn advance_past(&mut self, offset: i64) {
        self.next_offset = offset + 1;
    }

    /// Where the partition is read on.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Whether what the record says had its effect before the restart.
    pub fn is_replayed(&self, offset: i64) -> bool {
        offset < self.processed_to
    }

    fn ended_between(&self, from_ms: i64, to_ms: i64) -> Vec<EndedWindow> {
        let windows = self.panes.keys().flat_map(|&(view, pane_start_ms)| {
            let spec = self.windows[view].spec;
            let ends = spec.window_ends(pane_start_ms, from_ms, to_ms);
            ends.map(move |end_ms| EndedWindow { end_ms, view, start_ms: spec.window_start(end_ms) })
        });
        let mut ended: Vec<_> = windows.collect();
        ended.sort_unstable();
        ended.dedup();
        ended
    }

    /// The rows of a window's panes.
    pub fn rows_of(&self, window: &EndedWindow) -> Vec<&T> {
        let panes = self.panes.range((window.view, window.start_ms)..(window.view, window.end_ms));
        panes.flat_map(|(_, pane)| &pane.rows).collect()
    }

    /// Lets go of the panes that are not needed any more (P4). Those of corrections that were not taken are lost with them.
    pub fn forget_closed(&mut self) {
        let (windows, closed_ms) = (&self.windows, self.closed_ms);
        self.panes.retain(|(view, start_ms), _| {
            let ViewWindows { spec, corrections_ms } = windows[*view];
            spec.last_window_end(*start_ms) + corrections_ms > closed_ms
        });
    }

    /// Replaces a pane's rows by `merge` of them.
    pub fn replace_rows<E>(&mut self, pane: PaneId, merge: impl FnOnce(&[T]) -> Result<T, E>) -> Result<(), E> {
        if let Some(pane) = self.panes.get_mut(&pane) {
            pane.rows = vec![merge(&pane.rows)?];
        }
        Ok(())
    }

    /// The rows of a pane.
    pub fn pane_rows(&self, pane: PaneId) -> &[T] {
        self.panes.get(&pane).map_or(&[], |pane| &pane.rows)
    }

    /// Number of panes that are kept.
    pub fn open_panes(&self) -> usize {
        self.panes.len()
    }

    /// What is kept of all panes.
    pub fn all_rows(&self) -> impl Iterator<Item = &T> {
        self.panes.values().flat_map(|pane| &pane.rows)
    }

    /// Windows that end here or earlier are closed.
    pub fn closed_ms(&self) -> i64 {
        self.closed_ms
    }

    /// The watermark over all source partitions.
    pub fn merged_ms(&self) -> Option<i64> {
        self.watermarks.merged_ms()
    }

    /// What to commit; none while a restart has not caught up, for outputs before that are committed already.
    pub fn progress(&self) -> Option<Progress> {
        if self.next_offset < self.processed_to {
            return None;
        }
        let oldest = self.panes.values().map(|pane| pane.first_offset).min();
        Some(Progress {
            low_water_offset: oldest.unwrap_or(self.next_offset),
            processed_to: self.next_offset,
            closed_ms: self.closed_ms,
            watermarks: self.watermarks.clone(),
        })
    }
}

#[cfg(test)]
mod tests;

//! A changed view begins with a window of its own, and its old version ends with one: pure decisions, and the topic that holds them.
//!
//! ```text
//!            old version: windows that start before `from` ──► | ◄── new version: windows that start at `from` or later
//! event time ─────────────────────────────┬────────────────────┴──────────────────────────►
//!                        latest event seen │ from: the next start of a window
//! ```
//!
//! The eras of each view are in `bongsu.views`, a compacted topic. A process that starts with another view than the last one writes a new
//! era; stage 1 aggregates each row by the version, or versions, whose windows it is in, and stage 2 closes each window by the version
//! in whose era it starts. A change of the number of partitions is a change of version, too: it decides where a group's rows go.
//!
//! - E1: every window is computed by one version, from all its rows.

mod topic;

pub(crate) use topic::agree;

use bongsu_schemas::duration::Span;
use bongsu_schemas::key::stable_id;
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::config::View;
use crate::plan::{Tables, ViewPlan};
use crate::window::WindowSpec;

/// The most versions of a view that are kept in mind. Older ones are not drained.
const MAX_ERAS: usize = 8;

/// A version of a view and the windows that it computes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Era {
    /// Of the plan, as placed.
    version: String,
    sql: String,
    max_groups: u32,
    corrections_ms: u64,
    zone: String,
    /// Number of partitions of the partials and of the panes.
    partials: i32,
    panes: i32,
    /// Start of the first window, epoch milliseconds; none for a version that has seen all events.
    from_ms: Option<i64>,
}

/// Where the rows of a plan go, and which windows are its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Number of partitions of the partials.
    pub partials: i32,
    /// Number of partitions of the panes.
    pub panes: i32,
    /// Start of the first window, epoch milliseconds.
    pub from_ms: i64,
    /// Windows that start at this time or later are computed by the next version.
    pub until_ms: i64,
}

impl Placement {
    /// Of a view that has never had another version.
    pub const fn only(partials: i32, panes: i32) -> Placement {
        Placement { partials, panes, from_ms: i64::MIN, until_ms: i64::MAX }
    }

    /// Whether a window is computed by this version.
    pub fn has_window(&self, start_ms: i64) -> bool {
        self.from_ms <= start_ms && start_ms < self.until_ms
    }

    /// The event times of the rows that are in its windows: inclusive and exclusive.
    pub fn rows(&self, window: WindowSpec) -> (i64, i64) {
        let until_ms = match self.until_ms {
            i64::MAX => i64::MAX,
            // The last window starts with the last pane before.
            until_ms => window.last_window_end(window.pane_start(until_ms - 1)),
        };
        (self.from_ms, until_ms)
    }
}

/// The eras of a view as they are from now on: those that are known, and one for the present plan if it is another.
///
/// `latest_ms` is the latest event that was aggregated by any process; none if nothing was aggregated yet.
fn extended(
    known: &[Era],
    view: &View,
    zone: Tz,
    plan: &ViewPlan,
    counts: (i32, i32),
    latest_ms: Option<i64>,
) -> Vec<Era> {
    let mut eras = known.to_vec();
    let version = version_of(plan, counts);
    if eras.last().is_some_and(|era| era.version == version) {
        return eras;
    }
    let from_ms = latest_ms.map(|latest_ms| plan.window.pane_end(plan.window.pane_start(latest_ms)));
    // Versions that have not begun leave no trace; none has where nothing was aggregated.
    while eras.last().is_some_and(|era| from_ms.is_none_or(|from_ms| era.from_ms.is_some_and(|began| began >= from_ms)))
    {
        eras.pop();
    }
    if eras.last().is_none_or(|era| era.version != version) {
        eras.push(Era {
            version,
            sql: view.sql.clone(),
            max_groups: view.max_groups,
            corrections_ms: plan.corrections_ms.unsigned_abs(),
            zone: zone.name().to_owned(),
            partials: counts.0,
            panes: counts.1,
            from_ms,
        });
    }
    let forgotten = eras.len().saturating_sub(MAX_ERAS);
    eras.split_off(forgotten)
}

/// The plan of the last era, and those of earlier ones as far as they can still be made.
fn placed(eras: &[Era], name: &str, plan: &ViewPlan, tables: &Tables) -> (ViewPlan, Vec<ViewPlan>) {
    let placement = |index: usize| Placement {
        partials: eras[index].partials,
        panes: eras[index].panes,
        from_ms: eras[index].from_ms.unwrap_or(i64::MIN),
        until_ms: eras.get(index + 1).and_then(|next| next.from_ms).unwrap_or(i64::MAX),
    };
    let last = eras.len().saturating_sub(1);
    let mut earlier = Vec::new();
    for (index, era) in eras.iter().enumerate().take(last) {
        let view = View {
            name: name.to_owned(),
            sql: era.sql.clone(),
            max_groups: era.max_groups,
            corrections: Some(Span::from_millis(era.corrections_ms)),
        };
        let replanned = era.zone.parse().ok().and_then(|zone| ViewPlan::new(&view, tables, zone).ok());
        // A table may have other columns by now.
        if let Some(plan) = replanned.filter(|plan| version_of(plan, (era.partials, era.panes)) == era.version) {
            earlier.push(plan.placed(era.version.clone(), placement(index)));
        }
    }
    (plan.clone().placed(eras[last].version.clone(), placement(last)), earlier)
}

fn version_of(plan: &ViewPlan, (partials, panes): (i32, i32)) -> String {
    let id = stable_id([plan.version.as_str(), &partials.to_string(), &panes.to_string()]);
    id[..16].to_owned()
}

#[cfg(test)]
mod tests;

//! Stage 2 reads two topics with the same code: the partials, and the closed panes that it writes itself.
//!
//! ```text
//! partials ─► short windows ─────────────────────────► results
//!    └──────► panes of long windows ─► bongsu.panes ─► long windows ─► results
//!    └──────► groups past the limit ────┘    └───────► the groups `__other__`
//! ```
//!
//! - P5: a pane record comes before the marker that closes its window, as a partial does. A partition of the partials tells every
//!   partition of the panes how far it has closed, so that nothing that it sends is ever late for want of patience. What a partition of
//!   the panes sends to another, groups past the limit of a long window, may be: it is counted late then.

use bongsu_schemas::key::{GroupKey, OTHER};
use serde_json::Value;

use crate::partials::{Marker, MarkerEntry};
use crate::pipeline::Pipeline;
use crate::plan::ViewPlan;
use crate::window::WindowSpec;

/// Which of the two topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Partials,
    Panes,
}

/// Rolled-up windows wait for at most this much of event time longer than they must.
const MARKER_STEP_MS: i64 = 1_000;

impl Level {
    pub(crate) fn of_topic(pipeline: &Pipeline, topic: &str) -> Option<Level> {
        [Level::Partials, Level::Panes].into_iter().find(|level| level.topic(pipeline) == topic)
    }

    pub(crate) fn topic(self, pipeline: &Pipeline) -> &str {
        match self {
            Level::Partials => &pipeline.names.partials,
            Level::Panes => &pipeline.names.panes,
        }
    }

    /// The windows of a view that close at this level.
    pub(crate) fn window(self, view: &ViewPlan) -> WindowSpec {
        match self {
            Level::Partials => view.partial_window,
            Level::Panes => view.window,
        }
    }

    /// How long those can be corrected.
    pub(crate) fn corrections_ms(self, view: &ViewPlan) -> i64 {
        // What comes late for a pane goes on to its long window while that is open; its results are corrected, not the pane.
        if self == Level::Partials && view.is_rolled_up() { 0 } else { view.corrections_ms }
    }

    /// How long windows stay open after the watermark has passed. Panes have been waited for already.
    pub(crate) fn lateness_ms(self, pipeline: &Pipeline) -> i64 {
        match self {
            Level::Partials => pipeline.config.time.allowed_lateness.millis(),
            Level::Panes => 0,
        }
    }

    /// Whether the watermark waits for the partitions of this topic.
    pub(crate) fn waits_for(self, pipeline: &Pipeline, topic: &str) -> bool {
        match self {
            Level::Partials => pipeline.is_source(topic),
            Level::Panes => topic == pipeline.names.partials.as_ref(),
        }
    }

    /// Whether the series of a rule over this view and with this key is judged here.
    pub(crate) fn judges(self, view: &ViewPlan, key: &GroupKey) -> bool {
        let is_other = key.values().any(|value| matches!(value, Value::String(text) if text == OTHER));
        let judge = if view.is_rolled_up() || is_other { Level::Panes } else { Level::Partials };
        self == judge
    }

    /// A partition's share of the groups that a view keeps apart.
    pub(crate) fn max_groups(self, view: &ViewPlan) -> usize {
        let partitions = match self {
            Level::Partials => view.placement.partials,
            Level::Panes => view.placement.panes,
        };
        view.max_groups.div_ceil(usize::try_from(partitions).unwrap_or(1).max(1))
    }
}

/// What partition `number` of the partials tells all partitions of the panes when it has closed `closed_ms`; nothing if it has told
/// almost the same before.
pub(crate) fn closed_marker(pipeline: &Pipeline, number: i32, told_ms: i64, closed_ms: i64) -> Option<Marker> {
    if told_ms.div_euclid(MARKER_STEP_MS) >= closed_ms.div_euclid(MARKER_STEP_MS) {
        return None;
    }
    let topic = pipeline.names.partials.to_string();
    let mark = MarkerEntry(topic.clone(), number, Some(closed_ms), None);
    Some(Marker { topics: [(topic, pipeline.partials_partitions())].into(), marks: vec![mark] })
}

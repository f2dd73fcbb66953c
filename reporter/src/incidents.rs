//! Incidents: which alerts belong together. A pure fold over `bongsu.alerts`, so that reading the topic again gives the same
//! incidents with the same ids.
//!
//! ```text
//! alert ─► published before? ─► the same series? ─► explained? ─► the same service? ─► a caller or callee? ─► a new incident
//!               └───────────────────┴───────────────────┴───────────────┴─────────────────────┴─► joins that incident
//! ```
//!
//! - I1: alerts of one cause are one incident: see `correlator` for what that means.
//! - I2: a record that was applied before changes nothing.
//! - I3: an incident is resolved when its last firing alert is; `sequence` grows by one with each change.
//! - I4: which incident an alert is in never changes once it was published, whatever is known of calls.
//!
//! In reading order: `correlator` decides, `incident` applies what was decided, `story` puts it into words, `calls` is who calls
//! whom, `published` is what was said before.

mod calls;
mod correlator;
mod incident;
mod published;
mod story;

use std::sync::Arc;

use bongsu_schemas::alert::AlertRecord;
use chrono::{DateTime, Utc};

pub use self::calls::CallGraph;
pub use self::correlator::Correlator;
pub use self::incident::{Incident, IncidentAlert};
pub use self::published::Published;

/// What an alert record did to an incident.
#[derive(Debug, Clone, PartialEq)]
pub struct IncidentChange {
    /// The incident as it is now.
    pub incident: Arc<Incident>,
    /// How it changed.
    pub transition: Transition,
}

/// How an incident changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// It began, or began again because of an alert that belongs to it.
    Opened,
    /// An alert joined it, changed or left it.
    Updated,
    /// Its last firing alert is resolved.
    Resolved,
}

/// Event time at which the condition of a firing record began to hold: long before it fired where `for` wants several windows.
pub fn onset(firing: &AlertRecord) -> DateTime<Utc> {
    let met = firing.evidence.windows.iter().filter(|window| window.met).map(|window| window.window_start);
    met.min().unwrap_or(firing.window_start)
}

/// Whether two alerts can have one cause as far as their environments tell. One that does not say fits any.
fn same_environment(one: &AlertRecord, other: &AlertRecord) -> bool {
    match (one.environment(), other.environment()) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}

#[cfg(test)]
pub(crate) mod tests;

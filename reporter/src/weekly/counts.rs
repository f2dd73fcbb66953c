//! What history says about a week, before it is judged.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

/// Counts of a week, the week before, and what was there earlier.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Counts {
    /// One for each service and kind of exception that was ever seen.
    pub(crate) groups: Vec<GroupCounts>,
    /// By service.
    pub(crate) services: BTreeMap<String, ServiceCounts>,
    /// The first window that history has; none where it is empty.
    pub(crate) known_since: Option<DateTime<Utc>>,
}

/// Counts of one service in the week.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ServiceCounts {
    /// Exceptions on each of the seven days.
    pub(crate) days: [u64; 7],
    /// Requests, where any are known.
    pub(crate) requests: Option<u64>,
}

/// Counts of one kind of exception of one service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupCounts {
    pub(crate) service: String,
    pub(crate) fingerprint: String,
    pub(crate) exception_type: String,
    pub(crate) message: String,
    pub(crate) first_frame: Option<String>,
    /// In the week.
    pub(crate) count: u64,
    /// In the week before.
    pub(crate) previous_count: u64,
    /// Start of the last window before the week that has it.
    pub(crate) last_before: Option<DateTime<Utc>>,
    /// Start of the first window of the week that has it.
    pub(crate) first_in_week: Option<DateTime<Utc>>,
    /// First occurrence that history has.
    pub(crate) first_seen: DateTime<Utc>,
    /// Last occurrence before the week's end.
    pub(crate) last_seen: DateTime<Utc>,
}

impl Counts {
    /// History has a window that starts at `at`.
    pub(crate) fn know_since(&mut self, at: DateTime<Utc>) {
        self.known_since = Some(self.known_since.map_or(at, |known| known.min(at)));
    }
}

//! What a weekly report says, from counts per day and week. Pure.

use bongsu_schemas::window::rfc3339;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::week::Week;

/// The report of one week.
#[derive(Debug, Clone, PartialEq)]
pub struct WeeklyReport {
    /// Which week.
    pub week: Week,
    /// One for every service that threw, or that requests are known of; by name.
    pub services: Vec<ServiceReport>,
}

/// One service's week.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceReport {
    /// The service.
    pub service: String,
    /// Its owner's name; `nobody` without one.
    pub owner: String,
    /// Exceptions in the week.
    pub total: u64,
    /// Exceptions in the week before.
    pub previous_total: u64,
    /// Requests in the week, where any are known.
    pub requests: Option<u64>,
    /// Hours that the week had (167 to 169).
    pub hours: u32,
    /// Exceptions on each day of the week.
    pub days: [u64; 7],
    /// Kinds of exceptions: what needs attention first, then by count.
    pub groups: Vec<Group>,
}

/// One kind of exception.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its identity.
    pub fingerprint: String,
    /// How it developed.
    pub state: GroupState,
    /// The exception's type.
    pub exception_type: String,
    /// An example of its message.
    pub message: String,
    /// The first stack frame of the service's own code, where known.
    pub first_frame: Option<String>,
    /// Occurrences in the week.
    pub count: u64,
    /// Occurrences in the week before.
    pub previous_count: u64,
    /// First occurrence known from history.
    pub first_seen: DateTime<Utc>,
    /// Last occurrence before the week's end.
    pub last_seen: DateTime<Utc>,
}

/// How a kind of exception developed. In the order in which a report lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupState {
    /// Never seen before this week.
    New,
    /// Back after at least 14 days of silence.
    Regressed,
    /// Far more often than in the week before.
    Escalating,
    /// As before.
    Ongoing,
    /// Seen in the week before, not in this one.
    Gone,
}

impl GroupState {
    /// The state's name in reports and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            GroupState::New => "new",
            GroupState::Regressed => "regressed",
            GroupState::Escalating => "escalating",
            GroupState::Ongoing => "ongoing",
            GroupState::Gone => "gone",
        }
    }
}

impl ServiceReport {
    /// Exceptions per 1,000 requests, where requests are known.
    pub fn rate_per_1000(&self) -> Option<f64> {
        let requests = self.requests.filter(|requests| *requests > 0)?;
        Some(1000.0 * self.total as f64 / requests as f64)
    }

    /// Exceptions per hour of the week.
    pub fn rate_per_hour(&self) -> f64 {
        self.total as f64 / f64::from(self.hours.max(1))
    }
}

impl WeeklyReport {
    /// The contract of `bongsu report --format json`.
    pub fn to_json(&self) -> Value {
        let group = |group: &Group| {
            json!({
                "fingerprint": group.fingerprint,
                "state": group.state.name(),
                "type": group.exception_type,
                "message": group.message,
                "first_frame": group.first_frame,
                "count": group.count,
                "previous_count": group.previous_count,
                "first_seen": rfc3339::format(&group.first_seen),
                "last_seen": rfc3339::format(&group.last_seen),
            })
        };
        let service = |service: &ServiceReport| {
            json!({
                "service": service.service,
                "owner": service.owner,
                "total": service.total,
                "previous_total": service.previous_total,
                "rate_per_1000": service.rate_per_1000(),
                "groups": service.groups.iter().map(group).collect::<Vec<_>>(),
            })
        };
        json!({
            "week": self.week.to_string(),
            "services": self.services.iter().map(service).collect::<Vec<_>>(),
        })
    }
}

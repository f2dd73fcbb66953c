//! Incidents: alerts that belong together, as `bongsu.incidents` has them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::window::{rfc3339, rfc3339_option};

/// Whether any of its alerts still fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IncidentStatus {
    /// At least one alert fires.
    Open,
    /// All alerts are resolved.
    Resolved,
}

/// The state of an incident after a change; a later record of the same id replaces it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentRecord {
    /// Hash of the first alert's id.
    pub incident_id: String,
    /// Open or resolved.
    pub status: IncidentStatus,
    /// The highest severity of its alerts so far, 1 to 5 fires.
    pub severity: u8,
    /// One line for people.
    pub title: String,
    /// Event time: `window_end` of the alert that opened it.
    #[serde(with = "rfc3339")]
    pub opened_at: DateTime<Utc>,
    /// Event time: `window_end` of the alert that ended it.
    #[serde(with = "rfc3339_option", default)]
    pub resolved_at: Option<DateTime<Utc>>,
    /// Affected services, the first one the likely cause.
    pub services: Vec<String>,
    /// Its alerts, in the order in which they were read: each firing of a series that flaps.
    pub alert_ids: Vec<String>,
    /// What happened, by event time.
    pub timeline: Vec<TimelineEntry>,
    /// What was collected about it: `alerts`, the `cause` (service, rule, alert_id), and the `calls` among its services, caller and callee.
    #[serde(default)]
    pub evidence: Map<String, Value>,
    /// Who took it.
    #[serde(default)]
    pub acknowledged_by: Option<String>,
    /// Grows with each change.
    pub sequence: u32,
}

/// One line of an incident's story.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// Event time; wall clock for what people did.
    #[serde(with = "rfc3339")]
    pub at: DateTime<Utc>,
    /// What happened.
    pub text: String,
}

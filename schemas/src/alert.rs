//! Alerts: one record in `bongsu.alerts` for each transition of a rule's state for one group key.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::key::{GroupKey, key_text, stable_id};
use crate::services::ParamValue;
use crate::window::{rfc3339, rfc3339_option};

/// Whether the alert began or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertStatus {
    /// The condition holds, often enough for `for`.
    Firing,
    /// `clear` holds, or the series has had no row for five windows.
    Resolved,
}

/// How far a rule with two thresholds has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertLevel {
    /// The lower one.
    Warn,
    /// The higher one.
    Critical,
}

impl AlertLevel {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            AlertLevel::Warn => "warn",
            AlertLevel::Critical => "critical",
        }
    }
}

/// A transition of an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertRecord {
    /// See [`alert_id`]. The same for the firing and the resolved record of one alert.
    pub alert_id: String,
    /// Name of the rule.
    pub rule: String,
    /// Began or ended.
    pub status: AlertStatus,
    /// 1 to 5 fires.
    pub severity: u8,
    /// Of a rule with two thresholds: which of them was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<AlertLevel>,
    /// The service that it concerns; absent for a view without a service.
    pub service: Option<String>,
    /// The group keys of the view.
    pub key: GroupKey,
    /// The view's values in the window that made the transition; empty for no data.
    pub values: Map<String, Value>,
    /// The parameters that applied.
    pub params: BTreeMap<String, ParamValue>,
    /// Event time: start of the window that made the transition.
    #[serde(with = "rfc3339")]
    pub window_start: DateTime<Utc>,
    /// Event time: end of the window that made the transition.
    #[serde(with = "rfc3339")]
    pub window_end: DateTime<Utc>,
    /// Event time of the first event in the window that fired.
    #[serde(with = "rfc3339_option", default)]
    pub first_event_time: Option<DateTime<Utc>>,
    /// Wall clock when the rule fired; the resolved record repeats it.
    #[serde(with = "rfc3339")]
    pub fired_at: DateTime<Utc>,
    /// Wall clock when it was resolved; absent while firing.
    #[serde(with = "rfc3339_option", default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<DateTime<Utc>>,
    /// One line for people.
    pub summary: String,
    /// Why it fired.
    pub evidence: Evidence,
    /// 1 when it fires, one more with each record: another level while it fires, and its end.
    pub sequence: u32,
    /// `no_data` for an alert about silence; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Rules whose alerts explain this one, as its own rule says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub explained_by: Vec<String>,
    /// The window was still open: its values could only grow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub early: bool,
}

impl AlertRecord {
    /// Its group key `environment`, where the view has one.
    pub fn environment(&self) -> Option<&str> {
        self.key.get("environment").and_then(Value::as_str)
    }
}

/// The reason of an alert about silence.
pub const NO_DATA: &str = "no_data";

/// What made a rule fire.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The view that the rule reads.
    pub view: String,
    /// The rule's condition, as written.
    pub when: String,
    /// The condition that ends the alert, as written.
    pub clear: String,
    /// The last windows that `for` looked at, oldest first.
    pub windows: Vec<EvidenceWindow>,
    /// How the other rows of the service did; absent where that was not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub siblings: Option<Siblings>,
}

/// Of the rows of the same service (and environment) in the window that fired, how many met the condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Siblings {
    /// Rows that met it, the alert's own among them.
    pub met: u32,
    /// Rows there were.
    pub of: u32,
}

/// One window that counted for `for`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvidenceWindow {
    /// Event time, inclusive.
    #[serde(with = "rfc3339")]
    pub window_start: DateTime<Utc>,
    /// Whether the condition held.
    pub met: bool,
    /// The view's values; empty where the window had no row.
    pub values: Map<String, Value>,
}

/// A hash of rule, group key and start of the first window that counted, so that the same partials log gives the same id.
pub fn alert_id(rule: &str, key: &GroupKey, first_window_start: DateTime<Utc>) -> String {
    stable_id([rule, &key_text(key), &rfc3339::format(&first_window_start)])
}

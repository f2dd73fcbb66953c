//! Events as producers write them: one JSON object per Kafka message, or an array of them.
//!
//! These types are for producers in Rust and for the JSON Schema files in `schemas/json/`. The decoder does not go through them:
//! it reads only the fields that some view names, straight into Arrow columns.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, schema_for};
use serde::{Deserialize, Serialize};

use crate::tables::Table;

/// When something happened: milliseconds since the epoch, or RFC 3339 text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Time {
    /// Milliseconds since 1970-01-01T00:00:00Z
    EpochMillis(i64),
    /// RFC 3339, such as `2026-11-23T09:00:00.250Z` or `2026-11-23T18:00:00+09:00`
    Rfc3339(String),
}

/// A request that a service answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// When the request began.
    pub ts: Time,
    /// The service that answered.
    pub service: String,
    /// The route's template, such as `/orders/{id}`; not the URL.
    pub route: String,
    /// HTTP status code.
    pub status: i64,
    /// How long the answer took.
    pub duration_ms: f64,
    /// HTTP method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Such as `production` or `staging`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Kubernetes pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Container in the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Type of the error that ended the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// SQL rows read for this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db_rows: Option<i64>,
    /// SQL statements sent for this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db_calls: Option<i64>,
    /// W3C trace id, 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// W3C span id, 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// Span id of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
}

/// A step of a transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Span {
    /// When the span began.
    pub ts: Time,
    /// The service that did the work.
    pub service: String,
    /// W3C trace id, 32 hexadecimal digits.
    pub trace_id: String,
    /// W3C span id, 16 hexadecimal digits.
    pub span_id: String,
    /// What was done.
    pub name: String,
    /// How long it took.
    pub duration_ms: f64,
    /// Span id of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    /// `server`, `client`, `internal`, `producer` or `consumer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `ok` or `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The service that was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_service: Option<String>,
    /// Such as `production` or `staging`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Kubernetes pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Anything else, as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// An exception that a service reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Exception {
    /// When it was thrown.
    pub ts: Time,
    /// The service that threw it.
    pub service: String,
    /// Type, such as `java.lang.IllegalStateException`.
    #[serde(rename = "type")]
    pub exception_type: String,
    /// Its message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Stack trace as text, causes included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stacktrace: Option<String>,
    /// Such as `production` or `staging`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Kubernetes pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Container in the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Route of the request that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// W3C trace id, 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Whether the service coped with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled: Option<bool>,
}

/// One point of a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metric {
    /// When it was measured.
    pub ts: Time,
    /// The service that it is about.
    pub service: String,
    /// OpenTelemetry's name, such as `container.memory.working_set`.
    pub name: String,
    /// The measurement.
    pub value: f64,
    /// Such as `production` or `staging`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Kubernetes pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Container in the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// UCUM unit, such as `By`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The most that `value` may be, in the same unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// Anything else, as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// A business event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When it happened.
    pub ts: Time,
    /// The service that it happened in.
    pub service: String,
    /// What happened, such as `order` or `payment`.
    pub event: String,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Amount of money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<f64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Anything else, as text; `issuer` for payments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// How a business event ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It worked.
    Success,
    /// It did not.
    Failure,
}

/// The JSON Schema of a table's native events, as `schemas/json/<table>.json` has it.
pub fn json_schema(table: Table) -> Schema {
    match table {
        Table::Requests => schema_for!(Request),
        Table::Spans => schema_for!(Span),
        Table::Exceptions => schema_for!(Exception),
        Table::Metrics => schema_for!(Metric),
        Table::Events => schema_for!(Event),
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;
    use crate::tables::{EVENT_TIME, Presence};

    /// `BONGSU_UPDATE=1 cargo test` rewrites the files.
    #[test]
    fn the_json_schema_files_are_current() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("json");
        for table in Table::ALL {
            let path = folder.join(format!("{}.json", table.name()));
            let current = serde_json::to_string_pretty(&json_schema(table)).unwrap() + "\n";
            if env::var_os("BONGSU_UPDATE").is_some() {
                fs::create_dir_all(&folder).unwrap();
                fs::write(&path, &current).unwrap();
            }
            let written = fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(written, current, "{} is stale: run the tests with BONGSU_UPDATE=1", path.display());
        }
    }

    #[test]
    fn producers_types_and_tables_agree() {
        for table in Table::ALL {
            let schema = serde_json::to_value(json_schema(table)).unwrap();
            let required: Vec<_> = schema["required"].as_array().unwrap().iter().filter_map(|v| v.as_str()).collect();
            for column in table.columns() {
                let field = if column.name == EVENT_TIME { "ts" } else { &column.name };
                let has_field = schema["properties"].get(field).is_some();
                assert_eq!(has_field, column.presence != Presence::Derived, "{}.{field}", table.name());
                assert_eq!(
                    required.contains(&field),
                    column.presence == Presence::Required,
                    "{}.{field}",
                    table.name()
                );
            }
            assert_eq!(schema["properties"].get("attributes").is_some(), table.has_attributes(), "{}", table.name());
        }
    }
}

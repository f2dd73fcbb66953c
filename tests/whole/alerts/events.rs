//! Events as the services of a shop write them.

use bongsu_schemas::tables::Table;
use serde_json::{Value, json};

use crate::support::START_MS;

pub(super) const MINUTE_MS: i64 = 60_000;

/// Nobody is ever told of it.
pub(super) const INNOCENT: &str = "innocent";

/// When a minute of a scenario begins.
pub(super) const fn at(minute: i64) -> i64 {
    START_MS + minute * MINUTE_MS
}

/// One event for the topic of its table.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) table: Table,
    pub(super) time_ms: i64,
    value: Value,
}

impl Event {
    /// `fields` lacks the time only.
    pub(super) fn new(table: Table, time_ms: i64, mut fields: Value) -> Event {
        fields["ts"] = time_ms.into();
        Event { table, time_ms, value: fields }
    }

    pub(super) fn json(&self) -> String {
        self.value.to_string()
    }
}

/// A request that was answered within 20 ms, or failed.
pub(super) fn request(time_ms: i64, service: &str, route: &str, is_error: bool) -> Event {
    timed_request(time_ms, service, route, is_error, 20.0)
}

pub(super) fn timed_request(time_ms: i64, service: &str, route: &str, is_error: bool, duration_ms: f64) -> Event {
    let status = if is_error { 500 } else { 200 };
    let fields = json!({ "service": service, "route": route, "status": status, "duration_ms": duration_ms });
    Event::new(Table::Requests, time_ms, fields)
}

/// An event of a service that nobody is ever told of.
pub(super) fn innocent(table: Table, time_ms: i64) -> Event {
    let fields = match table {
        Table::Requests => return request(time_ms, INNOCENT, "/", false),
        Table::Spans => json!({
            "service": INNOCENT, "trace_id": trace_id(1), "span_id": "00000000000000aa", "name": "tick", "duration_ms": 1.0,
        }),
        Table::Exceptions => json!({ "service": INNOCENT, "type": "java.io.IOException", "message": "closed" }),
        Table::Metrics => json!({ "service": INNOCENT, "name": "jvm.cpu.count", "value": 2.0 }),
        Table::Events => json!({ "service": INNOCENT, "event": "login", "outcome": "success" }),
    };
    Event::new(table, time_ms, fields)
}

/// A trace id of W3C's form.
pub(super) fn trace_id(number: u64) -> String {
    format!("{:032x}", u128::from(number) + 1)
}

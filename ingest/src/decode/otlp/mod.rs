//! OpenTelemetry traces, metrics and logs, as the Collector's Kafka exporter writes them.
//!
//! ```text
//! TracesData ─► ResourceSpans ─► ScopeSpans ─► Span ─► requests (server spans), spans, exceptions (events `exception`)
//! MetricsData ─► ...                           Metric ─► points ─► metrics
//! LogsData ─► ...                              LogRecord ─► exceptions (those with `exception.type`)
//! ```
//!
//! The three payloads have the same outer layout, and the same field numbers as the `Export...ServiceRequest` messages. JSON is
//! rewritten as protobuf first, so that there is one mapping only.
//!
//! The frame (everything above spans, metrics and log records) is checked before the first row is appended: a record that
//! breaks off gives no rows, so that sending it again repeats none.

use bongsu_schemas::{dead_letter::Reason, tables::Table};

use super::{
    Events, Reject, Wanted,
    rows::Rows,
    wire::{Fields, Wire, WireError},
};
use crate::config::{Signal, Source, TableDef};

mod attributes;
mod columns;
mod exceptions;
mod json;
mod logs;
mod metrics;
mod resource;
mod traces;

use columns::Output;
use resource::{Resource, ResourceKeys};

/// Number of the field that holds the repeated resource entries, in all payloads.
const RESOURCE_ENTRIES: u32 = 1;
/// Number of the field that holds the resource, in all resource entries.
const RESOURCE: u32 = 1;
/// Number of the field that holds the scope entries, in all resource entries.
const SCOPE_ENTRIES: u32 = 2;
/// Number of the field that holds the spans, metrics or log records, in all scope entries.
const ITEMS: u32 = 2;

/// Decodes one topic's payloads.
pub(super) struct OtlpDecoder {
    signal: Option<Signal>,
    resource_keys: ResourceKeys,
    traces: traces::Traces,
    exceptions: exceptions::Exceptions,
    metrics: metrics::Metrics,
}

impl OtlpDecoder {
    pub(super) fn new(source: &Source, tables: &[TableDef], wanted: &Wanted) -> OtlpDecoder {
        let mut resource_keys = ResourceKeys::new();
        let mut span_keys = traces::keys();
        let db_rows = source.db_rows.as_deref().map(|key| span_keys.slot(key));
        let mut point_keys = attributes::Keys::default();
        let mut output = |table: Table, keys: &mut attributes::Keys| {
            let is_filled = tables.iter().any(|known| known.name == table.name());
            let columns = wanted.get(table.name()).filter(|_| is_filled)?;
            Some(Output::new(table, columns, keys, &mut resource_keys.keys))
        };
        let requests = output(Table::Requests, &mut span_keys);
        let spans = output(Table::Spans, &mut span_keys);
        let exceptions = output(Table::Exceptions, &mut attributes::Keys::default());
        let metrics = output(Table::Metrics, &mut point_keys);
        OtlpDecoder {
            signal: source.signal,
            resource_keys,
            traces: traces::Traces { keys: span_keys, db_rows, requests, spans },
            exceptions: exceptions::Exceptions::new(exceptions),
            metrics: metrics::Metrics { keys: point_keys, output: metrics },
        }
    }

    /// Decodes `TracesData`, `MetricsData` or `LogsData` in protobuf.
    pub(super) fn decode_proto(&mut self, value: &[u8], events: &mut Events<'_>) -> Result<(), Reject> {
        let frame = Frame::check(value).map_err(|error| malformed("the record", error))?;
        if frame.entries == 0 && !value.is_empty() {
            return Err(Reject::one(Reason::Malformed, "no OpenTelemetry payload: there is no resource entry in it"));
        }
        let Some(first) = frame.first_item else { return Ok(()) };
        let signal = match self.signal {
            Some(signal) => signal,
            None => recognise(first).map_err(|error| malformed("the first entry", error))?,
        };
        self.walk(value, signal, events).map_err(|error| malformed("the record", error))
    }

    /// Decodes the same payloads in OTLP's JSON.
    pub(super) fn decode_json(&mut self, value: &[u8], events: &mut Events<'_>) -> Result<(), Reject> {
        let payload = json::to_proto(value)
            .map_err(|error| Reject::one(Reason::Malformed, format!("not OpenTelemetry's JSON: {error}")))?;
        let Some((signal, proto)) = payload else {
            let detail = "no OpenTelemetry payload: none of `resourceSpans`, `resourceMetrics`, `resourceLogs`";
            return Err(Reject::one(Reason::Malformed, detail));
        };
        self.walk(&proto, signal, events).map_err(|error| malformed("the record", error))
    }

    /// Goes from entry to entry. What is wrong inside of a span, metric or log record concerns that one only.
    fn walk(&mut self, value: &[u8], signal: Signal, events: &mut Events<'_>) -> Result<(), WireError> {
        let mut traces = traces::RecordScratch::default();
        let mut metrics = Vec::new();
        each(value, RESOURCE_ENTRIES, |entry| {
            let resource = match Resource::read(entry, &self.resource_keys) {
                Ok(resource) => resource,
                Err(error) => {
                    events.reject(Reject { events: items(entry)?, ..malformed("a resource", error) });
                    return Ok(());
                }
            };
            each(entry, SCOPE_ENTRIES, |scope| {
                each(scope, ITEMS, |item| {
                    match signal {
                        Signal::Traces => {
                            let record = traces::Record { value, resource_keys: &self.resource_keys };
                            self.traces.take(item, &resource, &record, &mut traces, &mut self.exceptions, events);
                        }
                        Signal::Metrics => self.metrics.take(item, &resource, &mut metrics, events),
                        Signal::Logs => self.exceptions.take_log_record(item, &resource, events),
                    }
                    Ok(())
                })
            })
        })
    }

    pub(super) fn pending_rows(&self) -> usize {
        let outputs = [&self.traces.requests, &self.traces.spans, &self.exceptions.output, &self.metrics.output];
        outputs.into_iter().flatten().map(|output| output.rows.len()).sum()
    }

    pub(super) fn each_table(&mut self, mut visit: impl FnMut(&mut Rows)) {
        let outputs =
            [&mut self.traces.requests, &mut self.traces.spans, &mut self.exceptions.output, &mut self.metrics.output];
        outputs.into_iter().flatten().for_each(|output| visit(&mut output.rows));
    }
}

/// Calls `visit` for each embedded message of that field number.
fn each<'a>(
    message: &'a [u8],
    number: u32,
    mut visit: impl FnMut(&'a [u8]) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut fields = Fields::new(message);
    while let Some((found, value)) = fields.next()? {
        if let (true, Wire::Bytes(embedded)) = (found == number, value) {
            visit(embedded)?;
        }
    }
    Ok(())
}

/// How many spans, metrics or log records a resource entry has; one at least, or its fault would go uncounted.
fn items(entry: &[u8]) -> Result<u32, WireError> {
    let mut count = 0;
    each(entry, SCOPE_ENTRIES, |scope| {
        each(scope, ITEMS, |_| {
            count += 1;
            Ok(())
        })
    })?;
    Ok(count.max(1))
}

/// What stands in a record, seen from outside.
#[derive(Default)]
struct Frame<'a> {
    entries: usize,
    first_item: Option<&'a [u8]>,
}

impl<'a> Frame<'a> {
    fn check(value: &'a [u8]) -> Result<Frame<'a>, WireError> {
        let mut frame = Frame::default();
        each(value, RESOURCE_ENTRIES, |entry| {
            frame.entries += 1;
            each(entry, SCOPE_ENTRIES, |scope| {
                each(scope, ITEMS, |item| {
                    frame.first_item.get_or_insert(item);
                    Ok(())
                })
            })
        })?;
        Ok(frame)
    }
}

/// Tells a span, a metric and a log record apart by fields that only one of them has with that wire type.
fn recognise(item: &[u8]) -> Result<Signal, WireError> {
    let mut fields = Fields::new(item);
    let (mut has_text_1, mut has_span_id) = (false, false);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            // Start and end time of a span; a metric has a message at 7, a log record 32 bits at 8.
            (7 | 8, Wire::Fixed64(_)) => return Ok(Signal::Traces),
            // Time, severity and observed time of a log record.
            (1 | 11, Wire::Fixed64(_)) | (2, Wire::Varint(_)) => return Ok(Signal::Logs),
            (1, Wire::Bytes(_)) => has_text_1 = true,
            (2, Wire::Bytes(id)) => has_span_id = id.len() == 8,
            _ => {}
        }
    }
    Ok(match (has_text_1, has_span_id) {
        (true, true) => Signal::Traces,
        (true, false) => Signal::Metrics,
        (false, _) => Signal::Logs,
    })
}

fn malformed(what: &str, error: WireError) -> Reject {
    Reject::one(Reason::Malformed, format!("not protobuf: {what} {error}"))
}

/// OTLP counts nanoseconds; 0 stands for "not known".
fn millis(nanos: u64) -> Option<i64> {
    (nanos != 0).then_some((nanos / 1_000_000) as i64)
}

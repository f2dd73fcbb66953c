//! Spans: all of them to `spans`, server spans to `requests`, their exception events to `exceptions`.
//!
//! The event time of a span is its start. A request's route is `http.route`, else the span's name, which OpenTelemetry keeps free
//! of ids; its status is the HTTP status code, else 500 for a failed span and 200 for any other.
//!
//! `peer_service`, the service that was called, is only of client and producer spans: on a server span the same attributes name the
//! caller, or the server itself. It is the first of `service.peer.name` and `peer.service`, which hold a name; `server.address` and
//! `net.peer.name`, a host, of which a Kubernetes service's name is the first label; `rpc.service`.

use std::{borrow::Cow, collections::HashMap};

use bongsu_schemas::dead_letter::Reason;

use super::{
    super::{
        Events, Reject,
        rows::Value,
        wire::{Fields, Wire, WireError},
    },
    ITEMS, RESOURCE_ENTRIES, SCOPE_ENTRIES,
    attributes::{Attribute, Keys, text},
    columns::{OtlpColumn, Output},
    each,
    exceptions::{Exceptions, Report},
    malformed, millis,
    resource::{Resource, ResourceKeys},
};

const KIND_SERVER: u64 = 2;
const KIND_CLIENT: u64 = 3;
const KIND_PRODUCER: u64 = 4;
const STATUS_ERROR: u64 = 2;

/// Slots of the span attributes that columns are made of.
const ROUTE: usize = 0;
const STATUS: usize = 1;
const STATUS_OLD: usize = 2;
const METHOD: usize = 3;
const METHOD_OLD: usize = 4;
const ERROR_TYPE: usize = 5;
const PEER_NAME: usize = 6;
const PEER_SERVICE: usize = 7;
const SERVER_ADDRESS: usize = 8;
const SERVER_ADDRESS_OLD: usize = 9;
const RPC_SERVICE: usize = 10;

/// The keys of those slots.
pub(super) fn keys() -> Keys {
    Keys::of(&[
        "http.route",
        "http.response.status_code",
        "http.status_code",
        "http.request.method",
        "http.method",
        "error.type",
        "service.peer.name",
        "peer.service",
        "server.address",
        "net.peer.name",
        "rpc.service",
    ])
}

pub(super) struct Traces {
    pub(super) keys: Keys,
    /// Slot of the configured attribute that holds the number of SQL rows.
    pub(super) db_rows: Option<usize>,
    pub(super) requests: Option<Output>,
    pub(super) spans: Option<Output>,
}

/// The record around a span.
pub(super) struct Record<'a, 'k> {
    pub(super) value: &'a [u8],
    pub(super) resource_keys: &'k ResourceKeys,
}

/// Memory that is used again from span to span of one record.
#[derive(Default)]
pub(super) struct RecordScratch<'a> {
    attributes: Vec<Attribute<'a>>,
    span_events: Vec<&'a [u8]>,
    /// Routes of the record's server spans; collected at the first exception that needs one.
    routes: Option<Routes<'a>>,
}

/// By trace id and service.
type Routes<'a> = HashMap<(&'a [u8], Cow<'a, str>), Cow<'a, str>>;

#[derive(Debug, Default)]
struct Span<'a> {
    trace_id: &'a [u8],
    span_id: &'a [u8],
    parent_span_id: &'a [u8],
    name: Cow<'a, str>,
    kind: u64,
    start_nanos: u64,
    end_nanos: u64,
    status: u64,
}

impl Traces {
    pub(super) fn take<'a>(
        &mut self,
        bytes: &'a [u8],
        resource: &Resource<'a>,
        record: &Record<'a, '_>,
        scratch: &mut RecordScratch<'a>,
        exceptions: &mut Exceptions,
        events: &mut Events<'_>,
    ) {
        scratch.attributes.clear();
        scratch.attributes.resize(self.keys.len(), Attribute::Absent);
        scratch.span_events.clear();
        let span = match Span::read(bytes, &self.keys, &mut scratch.attributes, &mut scratch.span_events) {
            Ok(span) => span,
            Err(error) => return events.reject(malformed("a span", error)),
        };
        match span.check(events) {
            Ok(event_time_ms) => {
                let rows = self.push(&span, event_time_ms, resource, &scratch.attributes);
                events.accept(event_time_ms, rows);
            }
            Err(reject) => events.reject(reject),
        }
        if exceptions.output.is_some() {
            for index in 0..scratch.span_events.len() {
                self.take_event(scratch.span_events[index], &span, resource, record, scratch, exceptions, events);
            }
        }
    }

    /// Appends the rows of a span; how many those were.
    fn push(&mut self, span: &Span<'_>, event_time_ms: i64, resource: &Resource<'_>, own: &[Attribute<'_>]) -> u32 {
        let mut rows = 0;
        if let (Some(output), true) = (&mut self.requests, span.kind == KIND_SERVER) {
            let columns = &output.columns;
            let ids = span.ids(columns);
            output.rows.push(|index| match columns[index] {
                OtlpColumn::Route => Value::Text(own[ROUTE].as_text().unwrap_or(&span.name)),
                OtlpColumn::Status => Value::Integer(span.http_status(own)),
                OtlpColumn::Method => Value::text(own[METHOD].as_text().or(own[METHOD_OLD].as_text())),
                OtlpColumn::ErrorType => Value::text(own[ERROR_TYPE].as_text()),
                OtlpColumn::DbRows => {
                    let rows = self.db_rows.and_then(|slot| own[slot].as_integer());
                    rows.map_or(Value::Null, Value::Integer)
                }
                column => span.value(column, event_time_ms, &ids).unwrap_or_else(|| column.common(resource, own)),
            });
            rows += 1;
        }
        if let Some(output) = &mut self.spans {
            let columns = &output.columns;
            let ids = span.ids(columns);
            output.rows.push(|index| match columns[index] {
                OtlpColumn::Name => Value::Text(&span.name),
                OtlpColumn::Kind => Value::text(span.kind_name()),
                OtlpColumn::Status => Value::Text(if span.status == STATUS_ERROR { "error" } else { "ok" }),
                OtlpColumn::PeerService => Value::text(span.peer_service(own)),
                column => span.value(column, event_time_ms, &ids).unwrap_or_else(|| column.common(resource, own)),
            });
            rows += 1;
        }
        rows
    }

    /// Takes a span's event, if it is an exception.
    #[allow(clippy::too_many_arguments, reason = "what surrounds the event, each borrowed for another lifetime")]
    fn take_event<'a>(
        &self,
        event: &'a [u8],
        span: &Span<'a>,
        resource: &Resource<'a>,
        record: &Record<'a, '_>,
        scratch: &mut RecordScratch<'a>,
        exceptions: &mut Exceptions,
        events: &mut Events<'_>,
    ) {
        let mut attributes = exceptions.no_attributes();
        let time_nanos = match read_exception(event, &exceptions.keys, &mut attributes) {
            Ok(Some(time_nanos)) => time_nanos,
            Ok(None) => return,
            Err(error) => return events.reject(malformed("an event of a span", error)),
        };
        let Some(event_time_ms) = millis(time_nanos).or(millis(span.start_nanos)) else {
            return events.reject(Reject::one(Reason::BadTime, "an exception of a span has no time"));
        };
        if let Err(reject) = events.check_time(event_time_ms) {
            return events.reject(reject);
        }
        let mut route = None;
        if exceptions.wants_route {
            route = match scratch.attributes[ROUTE].as_text() {
                Some(route) => Some(route),
                None => {
                    let routes = scratch.routes.get_or_insert_with(|| self.routes(record));
                    routes.get(&(span.trace_id, Cow::Borrowed(resource.service()))).map(Cow::as_ref)
                }
            };
        }
        exceptions.push(&Report { event_time_ms, trace_id: span.trace_id, route }, &attributes, resource, events);
    }

    /// The routes of the record's server spans. What cannot be read has no route here, and is rejected in its turn.
    fn routes<'a>(&self, record: &Record<'a, '_>) -> Routes<'a> {
        let mut routes = Routes::new();
        let mut attributes = Vec::new();
        let walked = each(record.value, RESOURCE_ENTRIES, |entry| {
            let resource = Resource::read(entry, record.resource_keys)?;
            each(entry, SCOPE_ENTRIES, |scope| {
                each(scope, ITEMS, |bytes| {
                    attributes.clear();
                    attributes.resize(self.keys.len(), Attribute::Absent);
                    let Ok(span) = Span::read(bytes, &self.keys, &mut attributes, &mut Vec::new()) else {
                        return Ok(());
                    };
                    if span.kind == KIND_SERVER {
                        let route = attributes[ROUTE].as_text().map_or(span.name, |route| Cow::Owned(route.to_owned()));
                        routes.entry((span.trace_id, Cow::Owned(resource.service().to_owned()))).or_insert(route);
                    }
                    Ok(())
                })
            })
        });
        // The frame was checked before.
        debug_assert!(walked.is_ok());
        routes
    }
}

impl<'a> Span<'a> {
    fn read(
        bytes: &'a [u8],
        keys: &Keys,
        attributes: &mut [Attribute<'a>],
        span_events: &mut Vec<&'a [u8]>,
    ) -> Result<Span<'a>, WireError> {
        let mut span = Span::default();
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (9, Wire::Bytes(key_value)) => keys.read(key_value, attributes)?,
                (1, Wire::Bytes(id)) => span.trace_id = id,
                (2, Wire::Bytes(id)) => span.span_id = id,
                (4, Wire::Bytes(id)) => span.parent_span_id = id,
                (5, Wire::Bytes(name)) => span.name = text(name),
                (6, Wire::Varint(kind)) => span.kind = kind,
                (7, Wire::Fixed64(nanos)) => span.start_nanos = nanos,
                (8, Wire::Fixed64(nanos)) => span.end_nanos = nanos,
                (11, Wire::Bytes(event)) => span_events.push(event),
                (15, Wire::Bytes(status)) => {
                    let mut fields = Fields::new(status);
                    while let Some((number, value)) = fields.next()? {
                        if let (3, Wire::Varint(code)) = (number, value) {
                            span.status = code;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(span)
    }

    /// The event time, if the span is complete.
    fn check(&self, events: &Events<'_>) -> Result<i64, Reject> {
        if self.trace_id.len() != 16 || self.span_id.len() != 8 {
            return Err(Reject::one(Reason::MissingField, "a span has no valid trace id and span id"));
        }
        let event_time_ms = millis(self.start_nanos)
            .ok_or_else(|| Reject::one(Reason::BadTime, format!("span `{}` has no start time", self.name)))?;
        events.check_time(event_time_ms).map(|()| event_time_ms)
    }

    fn http_status(&self, own: &[Attribute<'_>]) -> i64 {
        let told = own[STATUS].as_integer().or_else(|| own[STATUS_OLD].as_integer());
        told.unwrap_or(if self.status == STATUS_ERROR { 500 } else { 200 })
    }

    fn peer_service<'v>(&self, own: &'v [Attribute<'_>]) -> Option<&'v str> {
        if self.kind != KIND_CLIENT && self.kind != KIND_PRODUCER {
            return None;
        }
        let text = |slots: &[usize]| slots.iter().find_map(|slot| own[*slot].as_text());
        let host = || text(&[SERVER_ADDRESS, SERVER_ADDRESS_OLD]).map(kubernetes_service);
        text(&[PEER_NAME, PEER_SERVICE]).or_else(host).or_else(|| text(&[RPC_SERVICE]))
    }

    fn kind_name(&self) -> Option<&'static str> {
        match self.kind {
            1 => Some("internal"),
            2 => Some("server"),
            3 => Some("client"),
            4 => Some("producer"),
            5 => Some("consumer"),
            _ => None,
        }
    }

    /// The ids in hexadecimal, as far as a column wants them.
    fn ids(&self, columns: &[OtlpColumn]) -> Ids {
        let hex = |column, id| if columns.contains(&column) { Hex::of(id) } else { Hex::default() };
        Ids {
            trace_id: hex(OtlpColumn::TraceId, self.trace_id),
            span_id: hex(OtlpColumn::SpanId, self.span_id),
            parent_span_id: hex(OtlpColumn::ParentSpanId, self.parent_span_id),
        }
    }

    /// The columns that `requests` and `spans` have in common; `None` for any other.
    fn value<'v>(&self, column: OtlpColumn, event_time_ms: i64, ids: &'v Ids) -> Option<Value<'v>> {
        Some(match column {
            OtlpColumn::EventTime => Value::Integer(event_time_ms),
            OtlpColumn::DurationMs => Value::Float(self.end_nanos.saturating_sub(self.start_nanos) as f64 / 1e6),
            OtlpColumn::TraceId => Value::text(ids.trace_id.as_text()),
            OtlpColumn::SpanId => Value::text(ids.span_id.as_text()),
            OtlpColumn::ParentSpanId => Value::text(ids.parent_span_id.as_text()),
            _ => return None,
        })
    }
}

/// The service's name in `payment.shop.svc.cluster.local` and its shorter forms with `svc`; any other host as it is.
fn kubernetes_service(host: &str) -> &str {
    let mut labels = host.split('.');
    match (labels.next(), labels.next(), labels.next()) {
        (Some(service), Some(_namespace), Some("svc")) if !service.is_empty() => service,
        _ => host,
    }
}

/// The time of a span's event that is an exception, and its attributes.
fn read_exception<'a>(
    event: &'a [u8],
    keys: &Keys,
    attributes: &mut [Attribute<'a>],
) -> Result<Option<u64>, WireError> {
    let (mut time_nanos, mut is_exception) = (0, false);
    let mut fields = Fields::new(event);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Wire::Fixed64(nanos)) => time_nanos = nanos,
            (2, Wire::Bytes(name)) => is_exception = name == b"exception",
            (3, Wire::Bytes(key_value)) => keys.read(key_value, attributes)?,
            _ => {}
        }
    }
    Ok(is_exception.then_some(time_nanos))
}

struct Ids {
    trace_id: Hex,
    span_id: Hex,
    parent_span_id: Hex,
}

/// An id in lower-case hexadecimal.
#[derive(Default)]
pub(super) struct Hex {
    digits: [u8; 32],
    len: usize,
}

impl Hex {
    /// Ids have 8 or 16 bytes; any other length is no id.
    pub(super) fn of(id: &[u8]) -> Hex {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = Hex::default();
        if id.len() == 8 || id.len() == 16 {
            for (pair, byte) in hex.digits.chunks_exact_mut(2).zip(id) {
                pair[0] = DIGITS[usize::from(byte >> 4)];
                pair[1] = DIGITS[usize::from(byte & 15)];
            }
            hex.len = 2 * id.len();
        }
        hex
    }

    /// `None` where there is no id.
    pub(super) fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.digits[..self.len]).ok().filter(|text| !text.is_empty())
    }
}

//! The backlog of spans: what the agent in a Java service sent, with other services, routes, ids and times.

use std::path::Path;
use std::{fs, iter};

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, Status, TracesData};
use prost::Message as _;
use rdkafka::producer::BaseProducer;

use crate::counts::{By, Counts};
use crate::producer::{backlog_config, flush, send};
use crate::random::Random;
use crate::request::{Request, SERVICES};
use crate::workload::{CLOSING_AFTER_MS, MINUTE_MS, PARTITIONS, SPAN_MS, start_before};

/// Services that send spans, and the routes of each.
const SENDERS: usize = 50;
const ROUTES: u64 = 8;
/// Services in one record: what a collector batches.
const PER_RECORD: usize = 5;
/// Different records. Each service is in several.
const TEMPLATES: usize = 40;
/// One service's share of a record in so many keeps the capture's failures and exceptions.
const FAILING: u64 = 10;
/// The capture's JVM had run out of memory and took seconds for everything. Divided by this, its times fit into the
/// disorder that the configuration allows.
const HURRY: u64 = 16;
const DISORDER_MS: u64 = 3_000;
const NANOS_PER_MS: u64 = 1_000_000;

/// How many spans, and when.
pub(crate) struct Spans {
    templates: Vec<Template>,
    closing: ResourceSpans,
    per_record: u64,
    records: u64,
    start_ms: i64,
}

/// What was written.
pub(crate) struct Written {
    /// Server spans by window.
    pub(crate) requests: Counts,
    pub(crate) bytes: u64,
}

/// A record, and for each of its resources how it is now. It is used again and again, with other ids and times.
struct Template {
    data: TracesData,
    states: Vec<State>,
}

#[derive(Default)]
struct State {
    /// What its first span's time is.
    at_nanos: u64,
    /// The groups of its server spans, in their order.
    groups: Vec<usize>,
}

impl Spans {
    /// At least one record's worth, whose times are before `now`.
    pub(crate) fn ending_before(now: DateTime<Utc>, spans: u64) -> anyhow::Result<Spans> {
        let captured = captured()?;
        let mut random = Random::new(2029);
        let templates: Vec<Template> =
            (0..TEMPLATES).map(|number| Template::new(&captured, number, &mut random)).collect();
        let per_record = templates[0].data.resource_spans.iter().map(span_count).sum::<usize>() as u64;
        let records = (spans / per_record).max(1);
        Ok(Spans { templates, closing: captured, per_record, records, start_ms: start_before(now) })
    }

    /// Without the closing ones.
    pub(crate) fn spans(&self) -> u64 {
        self.records * self.per_record
    }

    /// Records in the topic, with one in each partition that closes all windows before it.
    pub(crate) fn records(&self) -> u64 {
        self.records + PARTITIONS as u64
    }

    pub(crate) fn write(mut self, bootstrap: &str, topic: &str) -> anyhow::Result<Written> {
        let producer: BaseProducer = backlog_config(bootstrap).create()?;
        let mut random = Random::new(2030);
        let mut written = Written { requests: Counts::new(By::ServiceAndRoute, MINUTE_MS), bytes: 0 };
        let (mut value, disorder_ms) = (Vec::new(), DISORDER_MS as i64);
        for index in 0..self.records {
            let passed_ms = (index as i64 * (SPAN_MS - disorder_ms)) / self.records as i64;
            let in_order_ms = self.start_ms + disorder_ms + passed_ms;
            let Template { data, states } = &mut self.templates[index as usize % TEMPLATES];
            for (spans, state) in data.resource_spans.iter_mut().zip(states) {
                let at_ms = in_order_ms as u64 - random.below(DISORDER_MS);
                state.advance(spans, at_ms * NANOS_PER_MS, random.bits(), &mut written.requests);
            }
            value.clear();
            data.encode(&mut value)?;
            written.bytes += value.len() as u64;
            send(&producer, topic, random.partition(), in_order_ms, &value)?;
        }
        self.write_closing(&producer, topic)?;
        flush(&producer)?;
        Ok(written)
    }

    /// Spans of clients only: they are in no window, but event time goes on with them.
    fn write_closing(&mut self, producer: &BaseProducer, topic: &str) -> anyhow::Result<()> {
        let time_ms = self.start_ms + SPAN_MS + CLOSING_AFTER_MS;
        for span in spans_of(&mut self.closing) {
            span.kind = SpanKind::Client as i32;
            span.start_time_unix_nano = time_ms as u64 * NANOS_PER_MS;
            span.end_time_unix_nano = span.start_time_unix_nano;
            span.events.clear();
        }
        let value = TracesData { resource_spans: vec![self.closing.clone()] }.encode_to_vec();
        (0..PARTITIONS).try_for_each(|partition| send(producer, topic, partition, time_ms, &value))
    }
}

impl Template {
    fn new(captured: &ResourceSpans, number: usize, random: &mut Random) -> Template {
        let mut template = Template { data: TracesData::default(), states: Vec::new() };
        for index in 0..PER_RECORD {
            let mut spans = captured.clone();
            let state = State::prepare(&mut spans, (number * PER_RECORD + index) % SENDERS, random);
            template.data.resource_spans.push(spans);
            template.states.push(state);
        }
        template
    }
}

impl State {
    /// Makes of a copy of the capture what a service sends.
    fn prepare(copy: &mut ResourceSpans, service: usize, random: &mut Random) -> State {
        if let Some(resource) = &mut copy.resource {
            set(&mut resource.attributes, "service.name", Value::StringValue(Request::service(service)));
        }
        // Twice as many spans, of other traces.
        let twin = random.bits();
        for scope in &mut copy.scope_spans {
            let twins: Vec<Span> = scope.spans.iter().map(|span| with_other_ids(span.clone(), twin)).collect();
            scope.spans.extend(twins);
        }
        let first_nanos = spans_of(copy).map(|span| span.start_time_unix_nano).min().unwrap_or_default();
        let mut state = State::default();
        let fails = random.below(FAILING) == 0;
        for span in spans_of(copy) {
            let duration_nanos = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
            span.start_time_unix_nano = (span.start_time_unix_nano - first_nanos) / HURRY;
            span.end_time_unix_nano = span.start_time_unix_nano + duration_nanos / HURRY;
            if !fails {
                mend(span);
            }
            if span.kind == SpanKind::Server as i32 {
                let group = service + SERVICES * random.below(ROUTES) as usize;
                set(&mut span.attributes, "http.route", Value::StringValue(Request::route(group)));
                state.groups.push(group);
            }
        }
        state
    }

    /// Moves all spans to another time, makes other traces of them, and counts the server's.
    fn advance(&mut self, spans: &mut ResourceSpans, at_nanos: u64, ids: u64, requests: &mut Counts) {
        let shift = at_nanos.wrapping_sub(self.at_nanos);
        self.at_nanos = at_nanos;
        let mut groups = self.groups.iter();
        for span in spans_of(spans) {
            span.start_time_unix_nano = span.start_time_unix_nano.wrapping_add(shift);
            span.end_time_unix_nano = span.end_time_unix_nano.wrapping_add(shift);
            for event in &mut span.events {
                event.time_unix_nano = span.end_time_unix_nano;
            }
            change_ids(span, ids);
            if span.kind == SpanKind::Server as i32
                && let Some(group) = groups.next()
            {
                requests.add(*group, (span.start_time_unix_nano / NANOS_PER_MS) as i64);
            }
        }
    }
}

/// The spans of the captured service that sent the most.
fn captured() -> anyhow::Result<ResourceSpans> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ingest/tests/fixtures/spans-out-of-memory.binpb");
    let value = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let data = TracesData::decode(value.as_slice())?;
    let captured = data.resource_spans.into_iter().max_by_key(span_count).context("nothing was captured")?;
    let mut spans = captured.scope_spans.iter().flat_map(|scope| &scope.spans);
    ensure!(spans.any(|span| span.kind == SpanKind::Server as i32), "no request was captured");
    Ok(captured)
}

fn span_count(spans: &ResourceSpans) -> usize {
    spans.scope_spans.iter().map(|scope| scope.spans.len()).sum()
}

fn spans_of(spans: &mut ResourceSpans) -> impl Iterator<Item = &mut Span> {
    spans.scope_spans.iter_mut().flat_map(|scope| &mut scope.spans)
}

fn set(attributes: &mut [KeyValue], key: &str, value: Value) {
    if let Some(attribute) = attributes.iter_mut().find(|attribute| attribute.key == key) {
        attribute.value = Some(AnyValue { value: Some(value) });
    }
}

/// Takes away what failed.
fn mend(span: &mut Span) {
    span.events.clear();
    span.status = Some(Status::default());
    span.attributes.retain(|attribute| attribute.key != "error.type");
    set(&mut span.attributes, "http.response.status_code", Value::IntValue(200));
}

fn with_other_ids(mut span: Span, ids: u64) -> Span {
    change_ids(&mut span, ids);
    span
}

/// Applied alike to all spans of a trace, it leaves equal ids equal: who is whose parent stays as it was.
fn change_ids(span: &mut Span, ids: u64) {
    let bytes = ids.to_le_bytes();
    for id in [&mut span.trace_id, &mut span.span_id, &mut span.parent_span_id] {
        for (byte, change) in id.iter_mut().zip(iter::repeat(bytes).flatten()) {
            *byte ^= change;
        }
    }
}

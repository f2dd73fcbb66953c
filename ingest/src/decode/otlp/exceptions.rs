//! Rows of `exceptions`, from span events and log records.

use super::{
    super::{
        Events,
        derived::{Derived, Reported},
        rows::Value,
    },
    attributes::{Attribute, Keys},
    columns::{OtlpColumn, Output},
    resource::Resource,
    traces::Hex,
};
use crate::fingerprint;

/// Slots of the attributes of an exception.
pub(super) const TYPE: usize = 0;
const MESSAGE: usize = 1;
const STACKTRACE: usize = 2;
const SLOTS: usize = 3;

pub(super) struct Exceptions {
    pub(super) keys: Keys,
    pub(super) output: Option<Output>,
    derives: bool,
    /// Whether the route is read, which may take a second look at the record.
    pub(super) wants_route: bool,
}

/// What the surroundings say about an exception.
pub(super) struct Report<'a> {
    pub(super) event_time_ms: i64,
    pub(super) trace_id: &'a [u8],
    pub(super) route: Option<&'a str>,
}

impl Exceptions {
    pub(super) fn new(output: Option<Output>) -> Exceptions {
        let wants = |wanted: fn(OtlpColumn) -> bool| output.as_ref().is_some_and(|output| output.wants(wanted));
        Exceptions {
            keys: Keys::of(&["exception.type", "exception.message", "exception.stacktrace"]),
            derives: wants(|column| matches!(column, OtlpColumn::Derived(_))),
            wants_route: wants(|column| column == OtlpColumn::Route),
            output,
        }
    }

    pub(super) fn no_attributes<'a>(&self) -> [Attribute<'a>; SLOTS] {
        [Attribute::Absent, Attribute::Absent, Attribute::Absent]
    }

    /// Appends the row of an exception whose time has been checked.
    pub(super) fn push(
        &mut self,
        report: &Report<'_>,
        attributes: &[Attribute<'_>; SLOTS],
        resource: &Resource<'_>,
        events: &mut Events<'_>,
    ) {
        let Some(output) = &mut self.output else { return events.accept(report.event_time_ms, 0) };
        let (message, stacktrace) = (attributes[MESSAGE].as_text(), attributes[STACKTRACE].as_text());
        // OpenTelemetry allows an exception without a type; its stack trace then begins with it.
        let exception_type = attributes[TYPE].as_text().or_else(|| stacktrace.and_then(fingerprint::outer_type));
        let exception_type = exception_type.unwrap_or("unknown");
        let trace_id = Hex::of(report.trace_id);
        let derived = self.derives.then(|| {
            let reported = Reported {
                service: resource.service(),
                exception_type,
                message,
                stacktrace,
                trace_id: trace_id.as_text(),
                index: events.next_index(),
            };
            Derived::of(&reported, &events.record)
        });
        let columns = &output.columns;
        output.rows.push(|index| match (columns[index], &derived) {
            (OtlpColumn::EventTime, _) => Value::Integer(report.event_time_ms),
            (OtlpColumn::Type, _) => Value::Text(exception_type),
            (OtlpColumn::Message, _) => Value::text(message),
            (OtlpColumn::Stacktrace, _) => Value::text(stacktrace),
            (OtlpColumn::Route, _) => Value::text(report.route),
            (OtlpColumn::TraceId, _) => Value::text(trace_id.as_text()),
            (OtlpColumn::Derived(column), Some(derived)) => derived.value(column),
            (column, _) => column.common(resource, &[]),
        });
        events.accept(report.event_time_ms, 1);
    }
}

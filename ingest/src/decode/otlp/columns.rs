//! Where the value of each wanted column comes from.

use bongsu_schemas::tables::{Column, Table};

use super::{
    super::{
        derived::DerivedColumn,
        rows::{Rows, Value},
    },
    attributes::{Attribute, Keys},
    resource::Resource,
};

/// A wanted table.
pub(super) struct Output {
    pub(super) rows: Rows,
    pub(super) columns: Vec<OtlpColumn>,
}

/// The source of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OtlpColumn {
    EventTime,
    Service,
    Environment,
    Pod,
    Container,
    TraceId,
    SpanId,
    ParentSpanId,
    Name,
    DurationMs,
    Kind,
    /// Of a request: the status code. Of a span: `ok` or `error`.
    Status,
    PeerService,
    Route,
    Method,
    ErrorType,
    DbRows,
    Type,
    Message,
    Stacktrace,
    Value,
    Unit,
    Derived(DerivedColumn),
    /// Slots among the item's own attributes, and among the resource's.
    Attribute {
        own: usize,
        resource: usize,
    },
    /// OpenTelemetry does not say.
    Null,
}

impl Output {
    pub(super) fn new(table: Table, wanted: &[Column], own: &mut Keys, resource: &mut Keys) -> Output {
        let columns = wanted.iter().map(|column| OtlpColumn::of(column, own, resource)).collect();
        Output { rows: Rows::new(table.name(), wanted), columns }
    }

    pub(super) fn wants(&self, wanted: impl Fn(OtlpColumn) -> bool) -> bool {
        self.columns.iter().any(|column| wanted(*column))
    }
}

impl OtlpColumn {
    fn of(column: &Column, own: &mut Keys, resource: &mut Keys) -> OtlpColumn {
        if let Some(key) = column.attribute_key() {
            return OtlpColumn::Attribute { own: own.slot(key), resource: resource.slot(key) };
        }
        if let Some(derived) = DerivedColumn::of(column) {
            return OtlpColumn::Derived(derived);
        }
        match column.name.as_str() {
            "event_time" => OtlpColumn::EventTime,
            "service" => OtlpColumn::Service,
            "environment" => OtlpColumn::Environment,
            "pod" => OtlpColumn::Pod,
            "container" => OtlpColumn::Container,
            "trace_id" => OtlpColumn::TraceId,
            "span_id" => OtlpColumn::SpanId,
            "parent_span_id" => OtlpColumn::ParentSpanId,
            "name" => OtlpColumn::Name,
            "duration_ms" => OtlpColumn::DurationMs,
            "kind" => OtlpColumn::Kind,
            "status" => OtlpColumn::Status,
            "peer_service" => OtlpColumn::PeerService,
            "route" => OtlpColumn::Route,
            "method" => OtlpColumn::Method,
            "error_type" => OtlpColumn::ErrorType,
            "db_rows" => OtlpColumn::DbRows,
            "type" => OtlpColumn::Type,
            "message" => OtlpColumn::Message,
            "stacktrace" => OtlpColumn::Stacktrace,
            "value" => OtlpColumn::Value,
            "unit" => OtlpColumn::Unit,
            _ => OtlpColumn::Null,
        }
    }

    /// The columns that all items have: those of the resource, and attributes.
    pub(super) fn common<'v>(self, resource: &'v Resource<'_>, own: &'v [Attribute<'_>]) -> Value<'v> {
        match self {
            OtlpColumn::Service => Value::Text(resource.service()),
            OtlpColumn::Environment => Value::text(resource.environment()),
            OtlpColumn::Pod => Value::text(resource.pod()),
            OtlpColumn::Container => Value::text(resource.container()),
            OtlpColumn::Attribute { own: slot, resource: outer } => match own.get(slot) {
                None | Some(Attribute::Absent) => resource.attributes[outer].value(),
                Some(attribute) => attribute.value(),
            },
            _ => Value::Null,
        }
    }
}

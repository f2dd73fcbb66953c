//! The tables that sources are decoded into and that views read, as Arrow schemas.
//!
//! Every table has `event_time` (milliseconds, UTC) first. Attributes are not a map column: a view that says
//! `attributes['issuer']` reads the column `attributes.issuer`, which the decoder fills for exactly the attributes that some
//! view names. What no view reads is never parsed.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Name of the event time column that every table has.
pub const EVENT_TIME: &str = "event_time";

/// Prefix of the columns that hold one attribute each.
pub const ATTRIBUTE_PREFIX: &str = "attributes.";

/// Arrow type of [`EVENT_TIME`], of `window_start` and of `window_end`.
pub fn event_time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// A built-in table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// One row per request that a service answered.
    Requests,
    /// One row per span.
    Spans,
    /// One row per reported exception.
    Exceptions,
    /// One row per metric point.
    Metrics,
    /// One row per business event (`order`, `payment`, ...).
    Events,
}

impl Table {
    /// All tables, in the order of the documentation.
    pub const ALL: [Table; 5] = [Table::Requests, Table::Spans, Table::Exceptions, Table::Metrics, Table::Events];

    /// The name used in SQL and in `sources[].table`.
    pub fn name(self) -> &'static str {
        match self {
            Table::Requests => "requests",
            Table::Spans => "spans",
            Table::Exceptions => "exceptions",
            Table::Metrics => "metrics",
            Table::Events => "events",
        }
    }

    /// The table of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Table> {
        Table::ALL.into_iter().find(|table| table.name() == name)
    }

    /// Whether `attributes['...']` can be read from this table.
    pub fn has_attributes(self) -> bool {
        matches!(self, Table::Spans | Table::Metrics | Table::Events)
    }

    /// The columns; `event_time` first. Attribute columns are not among them.
    pub fn columns(self) -> Vec<Column> {
        use ColumnType::{Boolean, Float, Integer, Text};
        let mut columns = vec![Column::required(EVENT_TIME, ColumnType::Time), Column::required("service", Text)];
        columns.extend(match self {
            Table::Requests => vec![
                Column::required("route", Text),
                Column::required("status", Integer),
                Column::required("duration_ms", Float),
                Column::optional("method", Text),
                Column::optional("environment", Text),
                Column::optional("pod", Text),
                Column::optional("container", Text),
                Column::optional("error_type", Text),
                Column::optional("db_rows", Integer),
                Column::optional("db_calls", Integer),
                Column::optional("trace_id", Text),
                Column::optional("span_id", Text),
                Column::optional("parent_span_id", Text),
            ],
            Table::Spans => vec![
                Column::required("trace_id", Text),
                Column::required("span_id", Text),
                Column::required("name", Text),
                Column::required("duration_ms", Float),
                Column::optional("parent_span_id", Text),
                Column::optional("kind", Text),
                Column::optional("status", Text),
                Column::optional("peer_service", Text),
                Column::optional("environment", Text),
                Column::optional("pod", Text),
            ],
            Table::Exceptions => vec![
                Column::required("type", Text),
                Column::optional("message", Text),
                Column::optional("stacktrace", Text),
                Column::optional("environment", Text),
                Column::optional("pod", Text),
                Column::optional("container", Text),
                Column::optional("route", Text),
                Column::optional("trace_id", Text),
                Column::optional("handled", Boolean),
                Column::derived("fingerprint", Text),
                Column::derived("root_type", Text),
                Column::derived("first_frame", Text),
                Column::derived("occurrence", Text),
            ],
            Table::Metrics => vec![
                Column::required("name", Text),
                Column::required("value", Float),
                Column::optional("environment", Text),
                Column::optional("pod", Text),
                Column::optional("container", Text),
                Column::optional("unit", Text),
                Column::optional("limit", Float),
            ],
            Table::Events => vec![
                Column::required("event", Text),
                Column::optional("outcome", Text),
                Column::optional("amount", Float),
                Column::optional("reason", Text),
            ],
        });
        columns
    }

    /// The Arrow schema of [`Table::columns`].
    pub fn schema(self) -> SchemaRef {
        schema_of(&self.columns())
    }
}

/// Where a column's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// A producer must send it; an event without it is a dead letter.
    Required,
    /// Null when a producer does not send it.
    Optional,
    /// Computed by the decoder from other fields; never read from the wire.
    Derived,
}

/// The types that a column can have; Arrow and SQL follow from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// Milliseconds since the epoch, UTC.
    Time,
    /// UTF-8 text (Arrow `Utf8View`).
    Text,
    /// 64-bit signed integer.
    Integer,
    /// 64-bit float.
    Float,
    /// True or false.
    Boolean,
}

impl ColumnType {
    /// The Arrow type.
    pub fn arrow(self) -> DataType {
        match self {
            ColumnType::Time => event_time_type(),
            ColumnType::Text => DataType::Utf8View,
            ColumnType::Integer => DataType::Int64,
            ColumnType::Float => DataType::Float64,
            ColumnType::Boolean => DataType::Boolean,
        }
    }

    /// The name used in configuration: `time`, `text`, `integer`, `float` or `boolean`.
    pub fn name(self) -> &'static str {
        match self {
            ColumnType::Time => "time",
            ColumnType::Text => "text",
            ColumnType::Integer => "integer",
            ColumnType::Float => "float",
            ColumnType::Boolean => "boolean",
        }
    }
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Column {
    /// Name in SQL; for a built-in table also the JSON field, except `event_time`, which is `ts` on the wire.
    pub name: String,
    /// Type of the values.
    pub column_type: ColumnType,
    /// Whether an event may lack it.
    pub presence: Presence,
}

impl Column {
    /// A column that every event must have.
    pub fn required(name: impl Into<String>, column_type: ColumnType) -> Column {
        Column { name: name.into(), column_type, presence: Presence::Required }
    }

    /// A column that is null where an event lacks it.
    pub fn optional(name: impl Into<String>, column_type: ColumnType) -> Column {
        Column { name: name.into(), column_type, presence: Presence::Optional }
    }

    /// A column that the decoder computes.
    pub fn derived(name: impl Into<String>, column_type: ColumnType) -> Column {
        Column { name: name.into(), column_type, presence: Presence::Derived }
    }

    /// The text column that holds attribute `key`.
    pub fn attribute(key: &str) -> Column {
        Column::optional(format!("{ATTRIBUTE_PREFIX}{key}"), ColumnType::Text)
    }

    /// The attribute's key, if this is an attribute column.
    pub fn attribute_key(&self) -> Option<&str> {
        self.name.strip_prefix(ATTRIBUTE_PREFIX)
    }
}

/// The Arrow schema of some columns, in their order.
pub fn schema_of(columns: &[Column]) -> SchemaRef {
    let field =
        |column: &Column| Field::new(&column.name, column.column_type.arrow(), column.presence != Presence::Required);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_starts_with_event_time_and_has_unique_names() {
        for table in Table::ALL {
            let schema = table.schema();
            assert_eq!(schema.field(0).name(), EVENT_TIME, "{}", table.name());
            let mut names: Vec<_> = schema.fields().iter().map(|field| field.name().clone()).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), schema.fields().len(), "{}", table.name());
            assert_eq!(Table::from_name(table.name()), Some(table));
        }
    }
}

//! `sources`: which topics are read, what is in them, and which tables they fill.

use std::collections::BTreeMap;

use bongsu_schemas::tables::{ATTRIBUTE_PREFIX, Column, ColumnType, EVENT_TIME, Table};
use schemars::JsonSchema;
use serde::Deserialize;

/// The field that holds the event time of native JSON events, unless `time_field` says otherwise.
pub const DEFAULT_TIME_FIELD: &str = "ts";

/// A topic and how its records become rows.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Kafka topic.
    pub topic: String,
    /// What the records' values are.
    pub format: Format,
    /// For `json`: the table that the events go to; a built-in one (`requests`, `spans`, `exceptions`, `metrics`, `events`), or any
    /// other name together with `columns`.
    #[serde(default)]
    pub table: Option<String>,
    /// For `json` with a table of one's own: its columns, which are fields of the JSON object. Each may be absent or null.
    #[serde(default)]
    pub columns: BTreeMap<String, FieldType>,
    /// For `json`: the field that holds the event time (epoch milliseconds or RFC 3339). Default `ts`.
    #[serde(default)]
    pub time_field: Option<String>,
    /// For `otlp_proto` and `otlp_json`: the attribute of a server span that says how many SQL rows the request read. It fills
    /// `requests.db_rows`; OpenTelemetry has no name for it.
    #[serde(default)]
    pub db_rows: Option<String>,
    /// For `otlp_proto` and `otlp_json`: what the topic holds. Default: recognised in each record.
    #[serde(default)]
    pub signal: Option<Signal>,
}

/// What a record's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// A JSON object, or an array of them.
    Json,
    /// OpenTelemetry traces, metrics or logs in protobuf, as the Collector's Kafka exporter writes them by default.
    OtlpProto,
    /// The same in JSON.
    OtlpJson,
    /// CloudEvents, structured or in the Kafka binding's binary mode.
    Cloudevents,
}

/// The type of a declared column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// A string.
    Text,
    /// A number without a fraction.
    Integer,
    /// A number.
    Float,
    /// `true` or `false`.
    Boolean,
    /// Epoch milliseconds or RFC 3339.
    Time,
}

/// A kind of OpenTelemetry payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// Spans.
    Traces,
    /// Metric points.
    Metrics,
    /// Log records.
    Logs,
}

/// A table that a source fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDef {
    /// Name in SQL.
    pub name: String,
    /// All columns, `event_time` first. Attributes are not among them.
    pub columns: Vec<Column>,
    /// Whether `attributes['...']` can be read.
    pub has_attributes: bool,
}

impl Source {
    /// A source with nothing but a topic and a format.
    pub fn new(topic: impl Into<String>, format: Format) -> Source {
        let topic = topic.into();
        Source { topic, format, table: None, columns: BTreeMap::new(), time_field: None, db_rows: None, signal: None }
    }

    /// A JSON topic that fills `table`.
    pub fn json(topic: impl Into<String>, table: impl Into<String>) -> Source {
        Source { table: Some(table.into()), ..Source::new(topic, Format::Json) }
    }

    /// The JSON field that holds the event time.
    pub fn time_field(&self) -> &str {
        self.time_field.as_deref().unwrap_or(DEFAULT_TIME_FIELD)
    }

    /// The tables that this source fills, or what is wrong with it. The text begins with the key in question.
    pub fn tables(&self) -> Result<Vec<TableDef>, String> {
        if self.topic.is_empty() {
            return Err("`topic` is empty".into());
        }
        match self.format {
            Format::Json => {
                self.refuse(&[("db_rows", self.db_rows.is_some()), ("signal", self.signal.is_some())])?;
                Ok(vec![self.json_table()?])
            }
            Format::OtlpProto | Format::OtlpJson => {
                self.refuse(&self.json_only_keys())?;
                if self.db_rows.as_deref() == Some("") {
                    return Err("`db_rows` is empty: give the name of a span attribute".into());
                }
                let tables = match self.signal {
                    None => vec![Table::Requests, Table::Spans, Table::Exceptions, Table::Metrics],
                    Some(Signal::Traces) => vec![Table::Requests, Table::Spans, Table::Exceptions],
                    Some(Signal::Metrics) => vec![Table::Metrics],
                    Some(Signal::Logs) => vec![Table::Exceptions],
                };
                Ok(tables.into_iter().map(built_in).collect())
            }
            Format::Cloudevents => {
                self.refuse(&self.json_only_keys())?;
                self.refuse(&[("db_rows", self.db_rows.is_some()), ("signal", self.signal.is_some())])?;
                Ok(vec![built_in(Table::Events)])
            }
        }
    }

    fn json_only_keys(&self) -> [(&'static str, bool); 3] {
        [
            ("table", self.table.is_some()),
            ("columns", !self.columns.is_empty()),
            ("time_field", self.time_field.is_some()),
        ]
    }

    fn refuse(&self, keys: &[(&'static str, bool)]) -> Result<(), String> {
        match keys.iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(format!("`{key}` has no meaning for format `{}`", self.format.name())),
            None => Ok(()),
        }
    }

    fn json_table(&self) -> Result<TableDef, String> {
        if self.time_field.as_deref() == Some("") {
            return Err("`time_field` is empty".into());
        }
        let names = || Table::ALL.map(Table::name).join(", ");
        let Some(name) = &self.table else {
            return Err(format!(
                "`table` is missing: format `json` needs one of {}, or another name with `columns`",
                names()
            ));
        };
        if let Some(table) = Table::from_name(name) {
            if !self.columns.is_empty() {
                return Err(format!("`columns` of the built-in table `{name}` are fixed: give the table another name"));
            }
            return Ok(built_in(table));
        }
        let is_identifier = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !is_identifier {
            return Err(format!("`table` must be of lower-case letters, digits and `_`, got `{name}`"));
        }
        if self.columns.is_empty() {
            return Err(format!("`columns` are missing: `{name}` is not one of {}", names()));
        }
        let mut columns = vec![Column::required(EVENT_TIME, ColumnType::Time)];
        for (column, field_type) in &self.columns {
            if column == EVENT_TIME || column == self.time_field() {
                return Err(format!(
                    "`columns.{column}` is the event time already: leave it out and read `{EVENT_TIME}`"
                ));
            }
            if column.is_empty() || column.starts_with(ATTRIBUTE_PREFIX) {
                return Err(format!("`columns.{column}` is not a usable name"));
            }
            if column == "service" && *field_type != FieldType::Text {
                return Err("`columns.service` must be text: it says whose the event is".into());
            }
            columns.push(Column::optional(column, field_type.column_type()));
        }
        Ok(TableDef { name: name.clone(), columns, has_attributes: false })
    }
}

impl Format {
    /// The name used in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::OtlpProto => "otlp_proto",
            Format::OtlpJson => "otlp_json",
            Format::Cloudevents => "cloudevents",
        }
    }
}

impl FieldType {
    /// The column type that it stands for.
    pub fn column_type(self) -> ColumnType {
        match self {
            FieldType::Text => ColumnType::Text,
            FieldType::Integer => ColumnType::Integer,
            FieldType::Float => ColumnType::Float,
            FieldType::Boolean => ColumnType::Boolean,
            FieldType::Time => ColumnType::Time,
        }
    }
}

fn built_in(table: Table) -> TableDef {
    TableDef { name: table.name().into(), columns: table.columns(), has_attributes: table.has_attributes() }
}

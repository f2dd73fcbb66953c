//! The pending rows of one table, in Arrow builders.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringViewBuilder,
        TimestampMillisecondBuilder,
    },
    datatypes::SchemaRef,
    error::ArrowError,
};
use bongsu_schemas::tables::{Column, ColumnType, schema_of};

/// Longer texts are cut in columns. Group keys and least values travel in the records of partials, windows and alerts, which Kafka
/// limits: a dozen such texts, each six times as long where JSON has to escape all of it, stay below one megabyte.
pub const MAX_TEXT_BYTES: usize = 8 * 1024;

/// A value on its way into a column, borrowed from the record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Text(&'a str),
    /// Also a time, in epoch milliseconds.
    Integer(i64),
    Float(f64),
    Boolean(bool),
}

impl<'a> Value<'a> {
    pub(crate) fn text(text: Option<&'a str>) -> Value<'a> {
        text.map_or(Value::Null, Value::Text)
    }
}

/// The wanted columns of one table.
pub(crate) struct Rows {
    table: String,
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    len: usize,
    /// Texts that were cut since [`Rows::take_cut`].
    cut: u32,
}

enum ColumnBuilder {
    Time(TimestampMillisecondBuilder),
    Text(StringViewBuilder),
    Integer(Int64Builder),
    Float(Float64Builder),
    Boolean(BooleanBuilder),
}

impl Rows {
    pub(crate) fn new(table: &str, columns: &[Column]) -> Rows {
        Rows {
            table: table.to_owned(),
            schema: schema_of(columns),
            columns: columns.iter().map(ColumnBuilder::new).collect(),
            len: 0,
            cut: 0,
        }
    }

    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends one row: `value` is asked once for each column, by its index.
    pub(crate) fn push<'a>(&mut self, mut value: impl FnMut(usize) -> Value<'a>) {
        for (index, column) in self.columns.iter_mut().enumerate() {
            let mut value = value(index);
            if let Value::Text(text) = &mut value
                && text.len() > MAX_TEXT_BYTES
            {
                *text = &text[..text.floor_char_boundary(MAX_TEXT_BYTES)];
                self.cut += 1;
            }
            column.push(value);
        }
        self.len += 1;
    }

    /// How many texts were cut since the last call.
    pub(crate) fn take_cut(&mut self) -> u32 {
        std::mem::take(&mut self.cut)
    }

    pub(crate) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        self.len = 0;
        let arrays = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        RecordBatch::try_new(self.schema.clone(), arrays)
    }
}

impl ColumnBuilder {
    fn new(column: &Column) -> ColumnBuilder {
        match column.column_type {
            ColumnType::Time => ColumnBuilder::Time(TimestampMillisecondBuilder::new().with_timezone("UTC")),
            ColumnType::Text if is_mostly_unique(&column.name) => ColumnBuilder::Text(StringViewBuilder::new()),
            ColumnType::Text => ColumnBuilder::Text(StringViewBuilder::new().with_deduplicate_strings()),
            ColumnType::Integer => ColumnBuilder::Integer(Int64Builder::new()),
            ColumnType::Float => ColumnBuilder::Float(Float64Builder::new()),
            ColumnType::Boolean => ColumnBuilder::Boolean(BooleanBuilder::new()),
        }
    }

    /// A value of another type than the column's is a bug of ours; it becomes null, which `finish` reports for required columns.
    #[inline]
    fn push(&mut self, value: Value<'_>) {
        match (self, value) {
            (ColumnBuilder::Time(builder), Value::Integer(value)) => builder.append_value(value),
            (ColumnBuilder::Text(builder), Value::Text(value)) => builder.append_value(value),
            // Attributes that are not strings are kept by their text.
            (ColumnBuilder::Text(builder), Value::Integer(value)) => builder.append_value(value.to_string()),
            (ColumnBuilder::Text(builder), Value::Float(value)) => builder.append_value(value.to_string()),
            (ColumnBuilder::Text(builder), Value::Boolean(value)) => builder.append_value(value.to_string()),
            (ColumnBuilder::Integer(builder), Value::Integer(value)) => builder.append_value(value),
            (ColumnBuilder::Float(builder), Value::Float(value)) => builder.append_value(value),
            (ColumnBuilder::Boolean(builder), Value::Boolean(value)) => builder.append_value(value),
            (ColumnBuilder::Time(builder), _) => builder.append_null(),
            (ColumnBuilder::Text(builder), Value::Null) => builder.append_null(),
            (ColumnBuilder::Integer(builder), _) => builder.append_null(),
            (ColumnBuilder::Float(builder), _) => builder.append_null(),
            (ColumnBuilder::Boolean(builder), _) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            ColumnBuilder::Time(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Text(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Integer(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Float(builder) => Arc::new(builder.finish()),
            ColumnBuilder::Boolean(builder) => Arc::new(builder.finish()),
        }
    }
}

/// Looking for a repetition costs a hash per string, which columns of ids never get back.
fn is_mostly_unique(column: &str) -> bool {
    matches!(column, "span_id" | "parent_span_id" | "occurrence")
}

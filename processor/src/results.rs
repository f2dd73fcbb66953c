//! Rows of results as JSON, for records in Kafka and for templates.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMillisecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::array_value_to_string;
use bongsu_schemas::window::rfc3339;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

/// Some columns of a row as a JSON object.
pub fn row_object(batch: &RecordBatch, columns: &[usize], row: usize) -> Map<String, Value> {
    let schema = batch.schema_ref();
    columns.iter().map(|column| (schema.field(*column).name().clone(), value(batch.column(*column), row))).collect()
}

/// One value as JSON. Numbers that JSON lacks (NaN, infinities) are null; times are RFC 3339; types without a JSON form are text.
pub fn value(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float32 => f64::from(array.as_primitive::<Float32Type>().value(row)).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
        DataType::Utf8View => array.as_string_view().value(row).into(),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            let time = time(array.as_primitive::<TimestampMillisecondType>().value(row));
            rfc3339::format(&time).into()
        }
        _ => array_value_to_string(array, row).map_or(Value::Null, Value::from),
    }
}

/// Epoch milliseconds as a time; the decoder admits none outside of what a time can be.
pub fn time(epoch_ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(epoch_ms).unwrap_or_default()
}

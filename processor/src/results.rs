//! Rows of results as JSON, for records in Kafka and for templates.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMillisecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::array_value_to_string;
use bongsu_schemas::window::rfc3339;
use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// Some columns of a row as a JSON object.
pub fn row_object(batch: &RecordBatch, columns: &[usize], row: usize) -> Map<String, Value> {
    let schema = batch.schema_ref();
    columns.iter().map(|column| (schema.field(*column).name().clone(), value(batch.column(*column), row))).collect()
}

/// The same for a record that is only written: no object is built on the way.
#[derive(Debug, Clone, Copy)]
pub struct RowObject<'a> {
    /// Rows of results.
    pub batch: &'a RecordBatch,
    /// The object's members, in this order.
    pub columns: &'a [usize],
    /// Index of the row.
    pub row: usize,
}

impl Serialize for RowObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let schema = self.batch.schema_ref();
        serializer.collect_map(self.columns.iter().map(|column| {
            let array = self.batch.column(*column).as_ref();
            (schema.field(*column).name(), Cell { array, row: self.row })
        }))
    }
}

/// One value as JSON. Numbers that JSON lacks (NaN, infinities) are null; times are RFC 3339; types without a JSON form are text.
pub fn value(array: &dyn Array, row: usize) -> Value {
    serde_json::to_value(Cell { array, row }).unwrap_or_default()
}

/// One value of a column.
struct Cell<'a> {
    array: &'a dyn Array,
    row: usize,
}

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Cell { array, row } = *self;
        if array.is_null(row) {
            return serializer.serialize_unit();
        }
        match array.data_type() {
            // An array of this type says of no row that it is null.
            DataType::Null => serializer.serialize_unit(),
            DataType::Boolean => serializer.serialize_bool(array.as_boolean().value(row)),
            DataType::Int8 => serializer.serialize_i8(array.as_primitive::<Int8Type>().value(row)),
            DataType::Int16 => serializer.serialize_i16(array.as_primitive::<Int16Type>().value(row)),
            DataType::Int32 => serializer.serialize_i32(array.as_primitive::<Int32Type>().value(row)),
            DataType::Int64 => serializer.serialize_i64(array.as_primitive::<Int64Type>().value(row)),
            DataType::UInt8 => serializer.serialize_u8(array.as_primitive::<UInt8Type>().value(row)),
            DataType::UInt16 => serializer.serialize_u16(array.as_primitive::<UInt16Type>().value(row)),
            DataType::UInt32 => serializer.serialize_u32(array.as_primitive::<UInt32Type>().value(row)),
            DataType::UInt64 => serializer.serialize_u64(array.as_primitive::<UInt64Type>().value(row)),
            DataType::Float32 => serializer.serialize_f64(array.as_primitive::<Float32Type>().value(row).into()),
            DataType::Float64 => serializer.serialize_f64(array.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8 => serializer.serialize_str(array.as_string::<i32>().value(row)),
            DataType::LargeUtf8 => serializer.serialize_str(array.as_string::<i64>().value(row)),
            DataType::Utf8View => serializer.serialize_str(array.as_string_view().value(row)),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                let time = time(array.as_primitive::<TimestampMillisecondType>().value(row));
                serializer.serialize_str(&rfc3339::format(&time))
            }
            _ => match array_value_to_string(array, row) {
                Ok(text) => serializer.serialize_str(&text),
                Err(_) => serializer.serialize_unit(),
            },
        }
    }
}

/// Epoch milliseconds as a time; the decoder admits none outside of what a time can be.
pub fn time(epoch_ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(epoch_ms).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int16Array,
        Int32Array, Int64Array, LargeStringArray, ListArray, NullArray, StringArray, StringViewArray,
        TimestampMillisecondArray, TimestampNanosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn every_type_has_a_json_form() {
        let decimal = Decimal128Array::from(vec![1_250]).with_precision_and_scale(9, 2).unwrap();
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1), None])]);
        #[rustfmt::skip]
        let cases: Vec<(ArrayRef, Value)> = vec![
            (Arc::new(BooleanArray::from(vec![true])),                                  json!(true)),
            (Arc::new(Int8Array::from(vec![i8::MIN])),                                  json!(i8::MIN)),
            (Arc::new(Int16Array::from(vec![i16::MIN])),                                json!(i16::MIN)),
            (Arc::new(Int32Array::from(vec![i32::MIN])),                                json!(i32::MIN)),
            (Arc::new(Int64Array::from(vec![i64::MIN])),                                json!(i64::MIN)),
            (Arc::new(UInt8Array::from(vec![u8::MAX])),                                 json!(u8::MAX)),
            (Arc::new(UInt16Array::from(vec![u16::MAX])),                               json!(u16::MAX)),
            (Arc::new(UInt32Array::from(vec![u32::MAX])),                               json!(u32::MAX)),
            (Arc::new(UInt64Array::from(vec![u64::MAX])),                               json!(u64::MAX)),
            (Arc::new(Float32Array::from(vec![0.5])),                                   json!(0.5)),
            (Arc::new(Float64Array::from(vec![-0.1])),                                  json!(-0.1)),
            (Arc::new(Float64Array::from(vec![f64::NAN])),                              Value::Null),
            (Arc::new(Float64Array::from(vec![f64::INFINITY])),                         Value::Null),
            (Arc::new(Float64Array::from(vec![f64::NEG_INFINITY])),                     Value::Null),
            (Arc::new(Float32Array::from(vec![f32::NAN])),                              Value::Null),
            (Arc::new(Float32Array::from(vec![f32::INFINITY])),                         Value::Null),
            (Arc::new(StringArray::from(vec!["a\"b"])),                                 json!("a\"b")),
            (Arc::new(LargeStringArray::from(vec!["é"])),                               json!("é")),
            (Arc::new(StringViewArray::from(vec![""])),                                 json!("")),
            (Arc::new(TimestampMillisecondArray::from(vec![0]).with_timezone("UTC")),   json!("1970-01-01T00:00:00Z")),
            (Arc::new(TimestampMillisecondArray::from(vec![-1])),                       json!("1969-12-31T23:59:59.999Z")),
            (Arc::new(TimestampNanosecondArray::from(vec![1_500_000_000])),             json!("1970-01-01T00:00:01.500")),
            (Arc::new(Date32Array::from(vec![31])),                                     json!("1970-02-01")),
            (Arc::new(decimal),                                                         json!("12.50")),
            (Arc::new(list),                                                            json!("[1, ]")),
            (Arc::new(NullArray::new(1)),                                               Value::Null),
            (Arc::new(Int64Array::from(vec![None])),                                    Value::Null),
            (Arc::new(StringViewArray::new_null(1)),                                    Value::Null),
        ];
        for (array, expected) in cases {
            assert_eq!(value(&array, 0), expected, "{:?}", array.data_type());
        }
    }

    #[test]
    fn a_row_is_an_object_of_the_columns_asked_for() {
        let columns: [(&str, ArrayRef); 3] = [
            ("service", Arc::new(StringArray::from(vec!["a", "b"]))),
            ("errors", Arc::new(Int64Array::from(vec![Some(1), None]))),
            ("hidden", Arc::new(Int64Array::from(vec![1, 2]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        assert_eq!(Value::from(row_object(&batch, &[0, 1], 0)), json!({ "service": "a", "errors": 1 }));
        assert_eq!(Value::from(row_object(&batch, &[0, 1], 1)), json!({ "service": "b", "errors": null }));
        let written = |row| serde_json::to_string(&RowObject { batch: &batch, columns: &[1, 0], row }).unwrap();
        assert_eq!(written(0), r#"{"errors":1,"service":"a"}"#);
        assert_eq!(written(1), r#"{"errors":null,"service":"b"}"#);
    }
}

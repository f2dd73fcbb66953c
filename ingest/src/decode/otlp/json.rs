//! OTLP's JSON, rewritten as the protobuf that the rest of this module reads.
//!
//! Only the fields that the mapping looks at are rewritten, in one pass and without a tree. The serde types of
//! `opentelemetry-proto` were tried first: they refuse a whole record for one field that the Collector leaves out, such as an
//! entity without `descriptionKeys` or an empty array.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};

use crate::config::Signal;

/// A field: name in JSON, number in protobuf, and how its value is written.
struct Field(&'static str, u32, Kind);

#[derive(Clone, Copy)]
enum Kind {
    /// An object, or an array of them for a repeated field.
    Message(&'static [Field]),
    Text,
    /// Trace and span ids, which OTLP writes in hexadecimal.
    Hex,
    /// 64 bits as they are; JSON holds them as text, since its numbers have 53.
    Fixed64,
    Sfixed64,
    Double,
    Varint,
    Boolean,
}

use Kind::{Boolean, Double, Fixed64, Hex, Message, Sfixed64, Text, Varint};

const ANY_VALUE: &[Field] = &[
    Field("stringValue", 1, Text),
    Field("boolValue", 2, Boolean),
    Field("intValue", 3, Varint),
    Field("doubleValue", 4, Double),
];
const KEY_VALUE: &[Field] = &[Field("key", 1, Text), Field("value", 2, Message(ANY_VALUE))];
const RESOURCE: &[Field] = &[Field("attributes", 1, Message(KEY_VALUE))];

const RESOURCE_SPANS: &[Field] =
    &[Field("resource", 1, Message(RESOURCE)), Field("scopeSpans", 2, Message(SCOPE_SPANS))];
const SCOPE_SPANS: &[Field] = &[Field("spans", 2, Message(SPAN))];
const SPAN: &[Field] = &[
    Field("traceId", 1, Hex),
    Field("spanId", 2, Hex),
    Field("parentSpanId", 4, Hex),
    Field("name", 5, Text),
    Field("kind", 6, Varint),
    Field("startTimeUnixNano", 7, Fixed64),
    Field("endTimeUnixNano", 8, Fixed64),
    Field("attributes", 9, Message(KEY_VALUE)),
    Field("events", 11, Message(SPAN_EVENT)),
    Field("status", 15, Message(&[Field("code", 3, Varint)])),
];
const SPAN_EVENT: &[Field] =
    &[Field("timeUnixNano", 1, Fixed64), Field("name", 2, Text), Field("attributes", 3, Message(KEY_VALUE))];

const RESOURCE_LOGS: &[Field] = &[Field("resource", 1, Message(RESOURCE)), Field("scopeLogs", 2, Message(SCOPE_LOGS))];
const SCOPE_LOGS: &[Field] = &[Field("logRecords", 2, Message(LOG_RECORD))];
const LOG_RECORD: &[Field] = &[
    Field("timeUnixNano", 1, Fixed64),
    Field("severityNumber", 2, Varint),
    Field("attributes", 6, Message(KEY_VALUE)),
    Field("traceId", 9, Hex),
    Field("observedTimeUnixNano", 11, Fixed64),
];

const RESOURCE_METRICS: &[Field] =
    &[Field("resource", 1, Message(RESOURCE)), Field("scopeMetrics", 2, Message(SCOPE_METRICS))];
const SCOPE_METRICS: &[Field] = &[Field("metrics", 2, Message(METRIC))];
const METRIC: &[Field] = &[
    Field("name", 1, Text),
    Field("unit", 3, Text),
    Field("gauge", 5, Message(&[Field("dataPoints", 1, Message(NUMBER_POINT))])),
    Field("sum", 7, Message(&[Field("dataPoints", 1, Message(NUMBER_POINT))])),
    Field("histogram", 9, Message(&[Field("dataPoints", 1, Message(HISTOGRAM_POINT))])),
    Field("exponentialHistogram", 10, Message(&[Field("dataPoints", 1, Message(EXPONENTIAL_POINT))])),
    Field("summary", 11, Message(&[Field("dataPoints", 1, Message(SUMMARY_POINT))])),
];
const NUMBER_POINT: &[Field] = &[
    Field("timeUnixNano", 3, Fixed64),
    Field("asDouble", 4, Double),
    Field("asInt", 6, Sfixed64),
    Field("attributes", 7, Message(KEY_VALUE)),
    Field("flags", 8, Varint),
];
const HISTOGRAM_POINT: &[Field] = &[
    Field("timeUnixNano", 3, Fixed64),
    Field("sum", 5, Double),
    Field("attributes", 9, Message(KEY_VALUE)),
    Field("flags", 10, Varint),
];
const EXPONENTIAL_POINT: &[Field] = &[
    Field("attributes", 1, Message(KEY_VALUE)),
    Field("timeUnixNano", 3, Fixed64),
    Field("sum", 5, Double),
    Field("flags", 10, Varint),
];
const SUMMARY_POINT: &[Field] = &[
    Field("timeUnixNano", 3, Fixed64),
    Field("sum", 5, Double),
    Field("attributes", 7, Message(KEY_VALUE)),
    Field("flags", 8, Varint),
];

/// A payload in protobuf, and what it holds; `None` where it holds nothing of OpenTelemetry's.
pub(super) fn to_proto(value: &[u8]) -> Result<Option<(Signal, Vec<u8>)>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(value);
    let payload = deserializer.deserialize_map(Payload)?;
    deserializer.end()?;
    Ok(payload)
}

struct Payload;

impl<'de> Visitor<'de> for Payload {
    type Value = Option<(Signal, Vec<u8>)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with `resourceSpans`, `resourceMetrics` or `resourceLogs`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut payload = None;
        while let Some(name) = map.next_key::<String>()? {
            let (signal, fields) = match name.as_str() {
                "resourceSpans" => (Signal::Traces, RESOURCE_SPANS),
                "resourceMetrics" => (Signal::Metrics, RESOURCE_METRICS),
                "resourceLogs" => (Signal::Logs, RESOURCE_LOGS),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let mut proto = Vec::new();
            map.next_value_seed(Writer { number: super::RESOURCE_ENTRIES, kind: Message(fields), out: &mut proto })?;
            payload = Some((signal, proto));
        }
        Ok(payload)
    }
}

/// Appends one value as a field of protobuf.
struct Writer<'o> {
    number: u32,
    kind: Kind,
    out: &'o mut Vec<u8>,
}

/// Lengths are written in this many bytes, so that they can be filled in afterwards.
const LENGTH_BYTES: usize = 5;

impl Writer<'_> {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn key(&mut self, wire_type: u8) {
        self.varint(u64::from(self.number) << 3 | u64::from(wire_type));
    }

    fn fixed64(&mut self, bits: u64) {
        self.key(1);
        self.out.extend(bits.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.key(2);
        self.varint(bytes.len() as u64);
        self.out.extend(bytes);
    }

    /// Writes a number, however it was spelled.
    fn integer(&mut self, bits: u64, as_float: f64) -> bool {
        match self.kind {
            Fixed64 | Sfixed64 => self.fixed64(bits),
            Double => self.fixed64(as_float.to_bits()),
            Varint => {
                self.key(0);
                self.varint(bits);
            }
            Message(_) | Text | Hex | Boolean => return false,
        }
        true
    }

    fn text(&mut self, text: &str) -> bool {
        match self.kind {
            Text => self.bytes(text.as_bytes()),
            Hex => match decode_hex(text) {
                Some(bytes) => self.bytes(&bytes),
                None => return false,
            },
            Double => match text.parse::<f64>() {
                Ok(value) => self.fixed64(value.to_bits()),
                Err(_) => return false,
            },
            Fixed64 => return text.parse::<u64>().is_ok_and(|value| self.integer(value, 0.0)),
            Sfixed64 | Varint => return text.parse::<i64>().is_ok_and(|value| self.integer(value as u64, 0.0)),
            Message(_) | Boolean => return false,
        }
        true
    }

    fn done<E: Error>(&self, is_written: bool, found: Unexpected<'_>) -> Result<(), E> {
        if is_written { Ok(()) } else { Err(E::invalid_type(found, self)) }
    }
}

impl<'de> DeserializeSeed<'de> for Writer<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Writer<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.kind {
            Message(_) => "an object, or an array of objects",
            Text => "a string",
            Hex => "hexadecimal digits",
            Fixed64 | Sfixed64 | Double | Varint => "a number",
            Boolean => "true or false",
        })
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<(), E> {
        if let Boolean = self.kind {
            self.key(0);
            self.out.push(u8::from(value));
            return Ok(());
        }
        self.done(false, Unexpected::Bool(value))
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<(), E> {
        let is_written = self.integer(value, value as f64);
        self.done(is_written, Unexpected::Unsigned(value))
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<(), E> {
        let is_written = self.integer(value as u64, value as f64);
        self.done(is_written, Unexpected::Signed(value))
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<(), E> {
        if let Double = self.kind {
            self.fixed64(value.to_bits());
            return Ok(());
        }
        self.done(false, Unexpected::Float(value))
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        let is_written = self.text(text);
        // The text itself may be anybody's secret: it does not belong into a detail.
        self.done(is_written, Unexpected::Other("another text"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Message(_) = self.kind else { return Err(A::Error::invalid_type(Unexpected::Seq, &self)) };
        loop {
            let element = Writer { number: self.number, kind: self.kind, out: self.out };
            if seq.next_element_seed(element)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let Message(fields) = self.kind else { return Err(A::Error::invalid_type(Unexpected::Map, &self)) };
        self.key(2);
        let start = self.out.len() + LENGTH_BYTES;
        self.out.resize(start, 0);
        while let Some(found) = map.next_key_seed(Name(fields))? {
            match found {
                Some(Field(_, number, kind)) => {
                    map.next_value_seed(Writer { number: *number, kind: *kind, out: self.out })?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        // A record has 23 bits of length at most, so that five times seven are enough.
        let length = self.out.len() - start;
        for (index, byte) in self.out[start - LENGTH_BYTES..start].iter_mut().enumerate() {
            let has_more = index + 1 < LENGTH_BYTES;
            *byte = (length >> (7 * index)) as u8 & 0x7f | if has_more { 0x80 } else { 0 };
        }
        Ok(())
    }
}

/// Looks up a field by its JSON name.
struct Name(&'static [Field]);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static Field>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|Field(known, ..)| *known == name))
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

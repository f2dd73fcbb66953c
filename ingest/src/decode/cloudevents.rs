//! CloudEvents 1.0 to `events`.
//!
//! Structured: the value is the whole event in JSON, or an array of them. Binary: the headers `ce_type`, `ce_source`, `ce_time`
//! hold the context and the value is the data. `event` is the type; `service` is `data.service`, else the last segment of the
//! source; `ts` is the time, else the record's timestamp; `outcome`, `amount` and `reason` are fields of the data; an attribute
//! is a field of `data.attributes`, else of the data.

use bongsu_schemas::{
    dead_letter::Reason,
    tables::{Column, Table},
};
use serde_json::{Map, Value as Json};

use super::{
    Events, Reject, Wanted,
    rows::{Rows, Value},
    time,
};
use crate::record::RawRecord;

pub(super) struct CloudEventsDecoder {
    columns: Vec<Column>,
    /// `None` where no view reads `events`.
    pub(super) rows: Option<Rows>,
}

/// The parts of an event that columns are made of.
struct CloudEvent<'a> {
    event_type: &'a str,
    source: &'a str,
    time: Option<&'a str>,
    data: Option<&'a Map<String, Json>>,
}

impl CloudEventsDecoder {
    pub(super) fn new(wanted: &Wanted) -> CloudEventsDecoder {
        let columns = wanted.get(Table::Events.name()).cloned();
        let rows = columns.as_ref().map(|columns| Rows::new(Table::Events.name(), columns));
        CloudEventsDecoder { columns: columns.unwrap_or_default(), rows }
    }

    pub(super) fn decode(&mut self, value: &[u8], events: &mut Events<'_>) -> Result<(), Reject> {
        let json = |bytes: &[u8]| {
            serde_json::from_slice::<Json>(bytes)
                .map_err(|error| Reject::one(Reason::Malformed, format!("not JSON: {error}")))
        };
        if is_binary(&events.record) {
            // Data of another kind than a JSON object has no fields to offer; the event counts all the same.
            let data = if value.is_empty() { Json::Null } else { json(value)? };
            let event = CloudEvent {
                event_type: text_header(&events.record, "ce_type")?.unwrap_or_default(),
                source: text_header(&events.record, "ce_source")?.unwrap_or_default(),
                time: text_header(&events.record, "ce_time")?,
                data: data.as_object(),
            };
            self.take(&event, events);
            return Ok(());
        }
        match json(value)? {
            Json::Array(elements) => elements.iter().for_each(|element| self.take_structured(element, events)),
            element => self.take_structured(&element, events),
        }
        Ok(())
    }

    fn take_structured(&mut self, element: &Json, events: &mut Events<'_>) {
        match CloudEvent::structured(element) {
            Ok(event) => self.take(&event, events),
            Err(reject) => events.reject(reject),
        }
    }

    fn take(&mut self, event: &CloudEvent<'_>, events: &mut Events<'_>) {
        match self.push(event, events) {
            Ok(event_time_ms) => events.accept(event_time_ms, u32::from(self.rows.is_some())),
            Err(reject) => events.reject(reject),
        }
    }

    /// Checks an event and appends its row; its event time.
    fn push(&mut self, event: &CloudEvent<'_>, events: &Events<'_>) -> Result<i64, Reject> {
        let event_time_ms = match event.time {
            Some(text) => time::parse(text)
                .ok_or_else(|| Reject::one(Reason::BadTime, "`time` must be RFC 3339, found another text"))?,
            None => events
                .record
                .timestamp_ms
                .ok_or_else(|| Reject::one(Reason::BadTime, "neither `time` nor a timestamp of the record"))?,
        };
        events.check_time(event_time_ms)?;
        if event.event_type.is_empty() {
            return Err(Reject::one(Reason::MissingField, "`type` is missing"));
        }
        let service = event.service()?;
        let outcome = event.text("outcome")?;
        let reason = event.text("reason")?;
        let amount = match event.field("amount") {
            None | Some(Json::Null) => Value::Null,
            Some(Json::Number(number)) => number.as_f64().map_or(Value::Null, Value::Float),
            Some(_) => return Err(wrong("amount", "a number")),
        };
        let columns = &self.columns;
        if let Some(rows) = &mut self.rows {
            rows.push(|index| match (columns[index].name.as_str(), columns[index].attribute_key()) {
                (_, Some(key)) => event.attribute(key),
                ("event_time", _) => Value::Integer(event_time_ms),
                ("service", _) => Value::Text(service),
                ("event", _) => Value::Text(event.event_type),
                ("outcome", _) => Value::text(outcome),
                ("amount", _) => amount,
                ("reason", _) => Value::text(reason),
                _ => Value::Null,
            });
        }
        Ok(event_time_ms)
    }
}

impl<'a> CloudEvent<'a> {
    fn structured(element: &'a Json) -> Result<CloudEvent<'a>, Reject> {
        let object = element.as_object().ok_or_else(|| Reject::one(Reason::Malformed, "a CloudEvent is no object"))?;
        let text = |name: &str| match object.get(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(Reject::one(Reason::WrongType, format!("`{name}` must be a string"))),
        };
        Ok(CloudEvent {
            event_type: text("type")?.unwrap_or_default(),
            source: text("source")?.unwrap_or_default(),
            time: text("time")?,
            data: object.get("data").and_then(Json::as_object),
        })
    }

    fn service(&self) -> Result<&'a str, Reject> {
        let last_segment = self.source.trim_end_matches('/').rsplit('/').next();
        let service = self.text("service")?.or(last_segment).filter(|service| !service.is_empty());
        service.ok_or_else(|| Reject::one(Reason::MissingField, "neither `source` nor `data.service` names a service"))
    }

    fn field(&self, name: &str) -> Option<&'a Json> {
        self.data.and_then(|data| data.get(name))
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>, Reject> {
        match self.field(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(name, "a string")),
        }
    }

    fn attribute(&self, key: &str) -> Value<'a> {
        let nested = self.field("attributes").and_then(|attributes| attributes.get(key));
        match nested.or_else(|| self.field(key)) {
            Some(Json::String(text)) => Value::Text(text),
            Some(Json::Bool(value)) => Value::Boolean(*value),
            Some(Json::Number(number)) => match number.as_i64() {
                Some(value) => Value::Integer(value),
                None => number.as_f64().map_or(Value::Null, Value::Float),
            },
            _ => Value::Null,
        }
    }
}

fn wrong(field: &str, expected: &str) -> Reject {
    Reject::one(Reason::WrongType, format!("`data.{field}` must be {expected}"))
}

/// The Kafka binding: a structured event says so in its content type, a binary one has its type in a header.
fn is_binary(record: &RawRecord<'_>) -> bool {
    let is_structured =
        record.header("content-type").is_some_and(|content_type| content_type.starts_with(b"application/cloudevents"));
    !is_structured && record.header("ce_type").is_some()
}

fn text_header<'a>(record: &RawRecord<'a>, name: &str) -> Result<Option<&'a str>, Reject> {
    let text = record.header(name).map(std::str::from_utf8).transpose();
    text.map_err(|_| Reject::one(Reason::Malformed, format!("header `{name}` is not UTF-8")))
}

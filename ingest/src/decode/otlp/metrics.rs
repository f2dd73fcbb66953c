//! Metric points.
//!
//! A gauge's or sum's point gives its value as it stands; sums are usually cumulative. The point of a histogram or summary gives
//! one row, whose value is the sum of what was observed. Points that say that nothing was recorded are filtered.

use bongsu_schemas::dead_letter::Reason;

use super::{
    super::{
        Events, Reject,
        rows::Value,
        wire::{Fields, Wire, WireError},
    },
    attributes::{Attribute, Keys, text},
    columns::{OtlpColumn, Output},
    each, malformed, millis,
    resource::Resource,
};

/// `DataPointFlags.NO_RECORDED_VALUE_MASK`.
const NO_RECORDED_VALUE: u64 = 1;

/// The kinds of metrics, by the number of their field in `Metric`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Gauges and sums, whose points have the same layout.
    Number,
    Histogram,
    ExponentialHistogram,
    Summary,
}

pub(super) struct Metrics {
    pub(super) keys: Keys,
    pub(super) output: Option<Output>,
}

#[derive(Default)]
struct Point {
    time_nanos: u64,
    value: Option<f64>,
    flags: u64,
}

impl Metrics {
    /// Takes all points of a `Metric`. `scratch` keeps its memory from metric to metric.
    pub(super) fn take<'a>(
        &mut self,
        metric: &'a [u8],
        resource: &Resource<'a>,
        scratch: &mut Vec<Attribute<'a>>,
        events: &mut Events<'_>,
    ) {
        if let Err(error) = self.take_points(metric, resource, scratch, events) {
            events.reject(malformed("a metric", error));
        }
    }

    fn take_points<'a>(
        &mut self,
        metric: &'a [u8],
        resource: &Resource<'a>,
        scratch: &mut Vec<Attribute<'a>>,
        events: &mut Events<'_>,
    ) -> Result<(), WireError> {
        let (mut name, mut unit, mut data) = (&b""[..], &b""[..], None);
        let mut fields = Fields::new(metric);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Wire::Bytes(bytes)) => name = bytes,
                (3, Wire::Bytes(bytes)) => unit = bytes,
                (5 | 7, Wire::Bytes(bytes)) => data = Some((Kind::Number, bytes)),
                (9, Wire::Bytes(bytes)) => data = Some((Kind::Histogram, bytes)),
                (10, Wire::Bytes(bytes)) => data = Some((Kind::ExponentialHistogram, bytes)),
                (11, Wire::Bytes(bytes)) => data = Some((Kind::Summary, bytes)),
                _ => {}
            }
        }
        let Some((kind, data)) = data else { return Ok(()) };
        let (name, unit) = (text(name), text(unit));
        each(data, 1, |bytes| {
            scratch.clear();
            scratch.resize(self.keys.len(), Attribute::Absent);
            match Point::read(bytes, kind, &self.keys, scratch) {
                Ok(point) => self.take_point(&point, &name, &unit, resource, scratch, events),
                Err(error) => events.reject(malformed("a metric point", error)),
            }
            Ok(())
        })
    }

    fn take_point(
        &mut self,
        point: &Point,
        name: &str,
        unit: &str,
        resource: &Resource<'_>,
        attributes: &[Attribute<'_>],
        events: &mut Events<'_>,
    ) {
        if name.is_empty() {
            return events.reject(Reject::one(Reason::MissingField, "a metric has no name"));
        }
        let Some(event_time_ms) = millis(point.time_nanos) else {
            return events.reject(Reject::one(Reason::BadTime, format!("a point of metric `{name}` has no time")));
        };
        if let Err(reject) = events.check_time(event_time_ms) {
            return events.reject(reject);
        }
        let value = point.value.filter(|_| point.flags & NO_RECORDED_VALUE == 0);
        let (Some(output), Some(value)) = (&mut self.output, value) else {
            return events.accept(event_time_ms, 0);
        };
        let columns = &output.columns;
        output.rows.push(|index| match columns[index] {
            OtlpColumn::EventTime => Value::Integer(event_time_ms),
            OtlpColumn::Name => Value::Text(name),
            OtlpColumn::Value => Value::Float(value),
            OtlpColumn::Unit if unit.is_empty() => Value::Null,
            OtlpColumn::Unit => Value::Text(unit),
            column => column.common(resource, attributes),
        });
        events.accept(event_time_ms, 1);
    }
}

impl Point {
    fn read<'a>(
        bytes: &'a [u8],
        kind: Kind,
        keys: &Keys,
        attributes: &mut [Attribute<'a>],
    ) -> Result<Point, WireError> {
        let (attributes_number, flags_number) = match kind {
            Kind::Number | Kind::Summary => (7, 8),
            Kind::Histogram => (9, 10),
            Kind::ExponentialHistogram => (1, 10),
        };
        let mut point = Point::default();
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            match (kind, number, value) {
                (_, 3, Wire::Fixed64(nanos)) => point.time_nanos = nanos,
                (Kind::Number, 4, Wire::Fixed64(bits)) => point.value = Some(f64::from_bits(bits)),
                (Kind::Number, 6, Wire::Fixed64(bits)) => point.value = Some(bits as i64 as f64),
                (Kind::Histogram | Kind::ExponentialHistogram | Kind::Summary, 5, Wire::Fixed64(bits)) => {
                    point.value = Some(f64::from_bits(bits));
                }
                (_, number, Wire::Varint(flags)) if number == flags_number => point.flags = flags,
                (_, number, Wire::Bytes(key_value)) if number == attributes_number && keys.len() > 0 => {
                    keys.read(key_value, attributes)?;
                }
                _ => {}
            }
        }
        Ok(point)
    }
}

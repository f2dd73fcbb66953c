//! Log records: those that report an exception.

use bongsu_schemas::dead_letter::Reason;

use super::{
    super::{
        Events, Reject,
        wire::{Fields, Wire, WireError},
    },
    attributes::Attribute,
    exceptions::{Exceptions, Report, TYPE},
    malformed, millis,
    resource::Resource,
};

#[derive(Default)]
struct LogRecord<'a> {
    time_nanos: u64,
    observed_nanos: u64,
    trace_id: &'a [u8],
}

impl Exceptions {
    /// Takes a `LogRecord`. One without `exception.type` is filtered: no table holds plain log lines.
    pub(super) fn take_log_record<'a>(&mut self, log: &'a [u8], resource: &Resource<'a>, events: &mut Events<'_>) {
        let mut attributes = self.no_attributes();
        let record = match self.read(log, &mut attributes) {
            Ok(record) => record,
            Err(error) => return events.reject(malformed("a log record", error)),
        };
        let time_ms = millis(record.time_nanos).or(millis(record.observed_nanos));
        let Some(event_time_ms) = time_ms.or(events.record.timestamp_ms) else {
            return match attributes[TYPE].as_text() {
                Some(_) => events.reject(Reject::one(Reason::BadTime, "a log record has no time")),
                None => events.filter(),
            };
        };
        if let Err(reject) = events.check_time(event_time_ms) {
            return events.reject(reject);
        }
        if attributes[TYPE].as_text().is_none() {
            return events.accept(event_time_ms, 0);
        }
        // A log record does not know the route; the spans of its trace report the same failure with it.
        let report = Report { event_time_ms, trace_id: record.trace_id, route: None };
        self.push(&report, &attributes, resource, events);
    }

    fn read<'a>(&self, log: &'a [u8], attributes: &mut [Attribute<'a>]) -> Result<LogRecord<'a>, WireError> {
        let mut record = LogRecord::default();
        let mut fields = Fields::new(log);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Wire::Fixed64(nanos)) => record.time_nanos = nanos,
                (11, Wire::Fixed64(nanos)) => record.observed_nanos = nanos,
                (9, Wire::Bytes(id)) => record.trace_id = id,
                (6, Wire::Bytes(key_value)) => self.keys.read(key_value, attributes)?,
                _ => {}
            }
        }
        Ok(record)
    }
}

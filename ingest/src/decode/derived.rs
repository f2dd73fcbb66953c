//! The columns of `exceptions` that no producer sends.

use bongsu_schemas::tables::{Column, Presence};

use super::rows::Value;
use crate::{
    fingerprint::{self, Analysis},
    record::RawRecord,
};

/// A derived column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DerivedColumn {
    Fingerprint,
    RootType,
    FirstFrame,
    Occurrence,
}

impl DerivedColumn {
    /// The derived column behind a column of `exceptions`, if it is one.
    pub(crate) fn of(column: &Column) -> Option<DerivedColumn> {
        match column.name.as_str() {
            _ if column.presence != Presence::Derived => None,
            "fingerprint" => Some(DerivedColumn::Fingerprint),
            "root_type" => Some(DerivedColumn::RootType),
            "first_frame" => Some(DerivedColumn::FirstFrame),
            "occurrence" => Some(DerivedColumn::Occurrence),
            _ => None,
        }
    }
}

/// What derived columns are computed from.
pub(crate) struct Reported<'a> {
    pub(crate) service: &'a str,
    pub(crate) exception_type: &'a str,
    pub(crate) message: Option<&'a str>,
    pub(crate) stacktrace: Option<&'a str>,
    pub(crate) trace_id: Option<&'a str>,
    /// Position of the event in its record.
    pub(crate) index: u32,
}

/// The values of the derived columns of one exception.
pub(crate) struct Derived {
    analysis: Analysis,
    occurrence: String,
}

impl Derived {
    pub(crate) fn of(reported: &Reported<'_>, record: &RawRecord<'_>) -> Derived {
        let analysis = fingerprint::analyse(reported.exception_type, reported.message, reported.stacktrace);
        // One failure is reported by many spans and log records of a trace: they are one occurrence. Without a trace, each
        // report stands for itself.
        let occurrence = match reported.trace_id.filter(|trace_id| !trace_id.is_empty()) {
            Some(trace_id) => format!("{trace_id}/{}/{}", reported.service, analysis.root_type),
            None => format!("{}-{}-{}-{}", record.topic, record.partition, record.offset, reported.index),
        };
        Derived { analysis, occurrence }
    }

    pub(crate) fn value(&self, column: DerivedColumn) -> Value<'_> {
        match column {
            DerivedColumn::Fingerprint => Value::Text(&self.analysis.fingerprint),
            DerivedColumn::RootType => Value::Text(&self.analysis.root_type),
            DerivedColumn::FirstFrame => self.analysis.first_frame.as_deref().map_or(Value::Null, Value::Text),
            DerivedColumn::Occurrence => Value::Text(&self.occurrence),
        }
    }
}

//! Event times as they stand on the wire.

use chrono::{DateTime, SecondsFormat, Utc};

/// 0001-01-01T00:00:00Z, in epoch milliseconds.
const EARLIEST_MS: i64 = -62_135_596_800_000;
/// 9999-12-31T23:59:59.999Z.
const LATEST_MS: i64 = 253_402_300_799_999;

/// Whether RFC 3339 can spell the time; results and alerts will have to.
pub(crate) fn is_representable(time_ms: i64) -> bool {
    (EARLIEST_MS..=LATEST_MS).contains(&time_ms)
}

/// Epoch milliseconds of RFC 3339 text; fractions of a millisecond are cut off.
pub(crate) fn parse(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_millis())
}

/// RFC 3339 in UTC, or the number where that is impossible.
pub(crate) fn text(time_ms: i64) -> String {
    match DateTime::<Utc>::from_timestamp_millis(time_ms) {
        Some(time) if is_representable(time_ms) => time.to_rfc3339_opts(SecondsFormat::Millis, true),
        _ => time_ms.to_string(),
    }
}

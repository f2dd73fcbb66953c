//! Records that could not be used, as they stand in `bongsu.dead-letter`: original key and value, and these headers.

/// Topic that the record came from.
pub const HEADER_TOPIC: &str = "bongsu.topic";
/// Partition that the record came from.
pub const HEADER_PARTITION: &str = "bongsu.partition";
/// Offset that the record had.
pub const HEADER_OFFSET: &str = "bongsu.offset";
/// Timestamp that the record had, in epoch milliseconds.
pub const HEADER_TIMESTAMP: &str = "bongsu.timestamp";
/// A [`Reason`].
pub const HEADER_REASON: &str = "bongsu.reason";
/// What exactly was wrong, for people.
pub const HEADER_DETAIL: &str = "bongsu.detail";
/// Present (the original size in bytes) where the value is only the beginning of the original.
pub const HEADER_TRUNCATED: &str = "bongsu.truncated";

/// Longer values are cut to this many bytes.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;

/// Why a record is a dead letter. A closed list, so that it can be a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The value was null.
    Null,
    /// The bytes are not of the declared format at all.
    Malformed,
    /// A required field is missing.
    MissingField,
    /// A field has a type that its column cannot take.
    WrongType,
    /// The event time cannot be read or lies outside of what can be represented.
    BadTime,
    /// The event time is later than the record's own timestamp by more than `time.max_future`.
    Future,
    /// The record is larger than the decoder takes.
    TooLarge,
    /// The record can be read, but a view cannot be computed with it.
    Poison,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 8] = [
        Reason::Null,
        Reason::Malformed,
        Reason::MissingField,
        Reason::WrongType,
        Reason::BadTime,
        Reason::Future,
        Reason::TooLarge,
        Reason::Poison,
    ];

    /// The header's value.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Null => "null",
            Reason::Malformed => "malformed",
            Reason::MissingField => "missing_field",
            Reason::WrongType => "wrong_type",
            Reason::BadTime => "bad_time",
            Reason::Future => "future",
            Reason::TooLarge => "too_large",
            Reason::Poison => "poison",
        }
    }
}

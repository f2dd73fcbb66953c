//! A Kafka record as decoders see it, borrowed from the consumer.

/// One record. Nothing in it is trusted.
#[derive(Debug, Clone, Copy)]
pub struct RawRecord<'a> {
    /// Topic that it was read from.
    pub topic: &'a str,
    /// Partition that it was read from.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
    /// The record's own timestamp, epoch milliseconds.
    pub timestamp_ms: Option<i64>,
    /// Key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is Kafka's null value.
    pub value: Option<&'a [u8]>,
    /// Headers, in their order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl<'a> RawRecord<'a> {
    /// The value of the first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).and_then(|(_, value)| *value)
    }
}

//! Dead letters: a record that could not be used, with its origin and the reason in headers.

use std::borrow::Cow;

use bongsu_schemas::dead_letter::{
    HEADER_DETAIL, HEADER_OFFSET, HEADER_PARTITION, HEADER_REASON, HEADER_TIMESTAMP, HEADER_TOPIC, HEADER_TRUNCATED,
    MAX_VALUE_BYTES,
};

use crate::{decode::Reject, record::RawRecord};

/// The prefix of our own headers.
const PREFIX: &str = "bongsu.";

/// Original headers are kept up to this many bytes together; whoever sends more is up to no good.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// A record for `bongsu.dead-letter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// The original key.
    pub key: Option<&'a [u8]>,
    /// The original value, or its first [`MAX_VALUE_BYTES`] bytes.
    pub value: Option<&'a [u8]>,
    /// The original headers, then ours.
    pub headers: Vec<(&'a str, Option<Cow<'a, [u8]>>)>,
}

impl<'a> DeadLetter<'a> {
    /// The dead letter of a record, for one of its rejects.
    pub fn new(record: &RawRecord<'a>, reject: &Reject) -> DeadLetter<'a> {
        let mut header_bytes = 0;
        // Not those that begin with our prefix: a dead letter of a dead letter tells its own story.
        let kept = record.headers.iter().filter(|(name, _)| !name.starts_with(PREFIX)).take_while(|(name, value)| {
            header_bytes += name.len() + value.map_or(0, <[u8]>::len);
            header_bytes <= MAX_HEADER_BYTES
        });
        let mut headers: Vec<_> = kept.map(|(name, value)| (*name, value.map(Cow::Borrowed))).collect();
        let owned = |text: String| Some(Cow::Owned(text.into_bytes()));
        headers.extend([
            (HEADER_TOPIC, Some(Cow::Borrowed(record.topic.as_bytes()))),
            (HEADER_PARTITION, owned(record.partition.to_string())),
            (HEADER_OFFSET, owned(record.offset.to_string())),
        ]);
        if let Some(timestamp_ms) = record.timestamp_ms {
            headers.push((HEADER_TIMESTAMP, owned(timestamp_ms.to_string())));
        }
        headers.push((HEADER_REASON, Some(Cow::Borrowed(reject.reason.name().as_bytes()))));
        headers.push((HEADER_DETAIL, owned(reject.detail.clone())));
        let mut value = record.value;
        if let Some(original) = record.value.filter(|value| value.len() > MAX_VALUE_BYTES) {
            value = original.get(..MAX_VALUE_BYTES);
            headers.push((HEADER_TRUNCATED, owned(original.len().to_string())));
        }
        DeadLetter { key: record.key, value, headers }
    }
}

#[cfg(test)]
mod tests {
    use bongsu_schemas::dead_letter::Reason;

    use super::*;

    fn text<'l>(letter: &'l DeadLetter<'_>, name: &str) -> Option<&'l str> {
        let (_, value) = letter.headers.iter().find(|(header, _)| *header == name)?;
        value.as_deref().map(|value| std::str::from_utf8(value).unwrap())
    }

    #[test]
    fn origin_and_reason_stand_in_the_headers_and_the_value_is_cut() {
        let value = vec![b'x'; MAX_VALUE_BYTES + 1];
        let headers: &[(&str, Option<&[u8]>)] = &[("ce_type", Some(b"order")), ("bongsu.reason", Some(b"forged"))];
        let record = RawRecord {
            topic: "shop.requests",
            partition: 2,
            offset: 40,
            timestamp_ms: Some(1_000),
            key: Some(b"order-api"),
            value: Some(&value),
            headers,
        };
        let reject = Reject { reason: Reason::Malformed, detail: "not JSON".into(), events: 1 };
        let letter = DeadLetter::new(&record, &reject);
        assert_eq!(letter.key, Some(&b"order-api"[..]));
        assert_eq!(letter.value.unwrap().len(), MAX_VALUE_BYTES);
        let expected = [
            ("ce_type", "order"),
            (HEADER_TOPIC, "shop.requests"),
            (HEADER_PARTITION, "2"),
            (HEADER_OFFSET, "40"),
            (HEADER_TIMESTAMP, "1000"),
            (HEADER_REASON, "malformed"),
            (HEADER_DETAIL, "not JSON"),
            (HEADER_TRUNCATED, "65537"),
        ];
        assert_eq!(letter.headers.len(), expected.len());
        for (name, value) in expected {
            assert_eq!(text(&letter, name), Some(value), "{name}");
        }
        let null = DeadLetter::new(&RawRecord { value: None, timestamp_ms: None, ..record }, &reject);
        assert_eq!((null.value, text(&null, HEADER_TIMESTAMP), text(&null, HEADER_TRUNCATED)), (None, None, None));
    }
}

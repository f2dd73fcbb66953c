//! Records that could not be used, on their way to the dead letters.

use std::borrow::Cow;

use bongsu_ingest::dead_letter::DeadLetter;
use bongsu_ingest::decode::Reject;
use bongsu_ingest::record::RawRecord;
use rdkafka::message::{BorrowedMessage, Headers, Message};

use crate::events::{DeadLettered, Emit};
use crate::kafka::transaction::Outgoing;
use crate::pipeline::Names;

/// The dead letter of a record, counted.
pub(crate) fn dead_letter(names: &Names, record: &BorrowedMessage<'_>, reject: &Reject) -> Outgoing {
    let headers = headers_of(record);
    let raw = raw_record(record, &headers);
    DeadLettered { topic: raw.topic, partition: raw.partition, offset: raw.offset, reject }.emit();
    let letter = DeadLetter::new(&raw, reject);
    let owned = |(name, value): (&str, Option<Cow<'_, [u8]>>)| (name.to_owned(), value.map(Cow::into_owned));
    Outgoing {
        topic: names.dead_letter.clone(),
        partition: None,
        key: letter.key.map(<[u8]>::to_vec),
        value: letter.value.map(<[u8]>::to_vec),
        headers: letter.headers.into_iter().map(owned).collect(),
    }
}

/// A record as decoders take it.
pub(crate) fn raw_record<'a>(
    record: &'a BorrowedMessage<'_>,
    headers: &'a [(&'a str, Option<&'a [u8]>)],
) -> RawRecord<'a> {
    RawRecord {
        topic: record.topic(),
        partition: record.partition(),
        offset: record.offset(),
        timestamp_ms: record.timestamp().to_millis(),
        key: record.key(),
        value: record.payload(),
        headers,
    }
}

/// A record's headers. To ask librdkafka for them costs something for each record.
pub(crate) fn headers_of<'a>(record: &'a BorrowedMessage<'_>) -> Vec<(&'a str, Option<&'a [u8]>)> {
    let headers = record.headers().into_iter().flat_map(|headers| headers.iter());
    headers.map(|header| (header.key, header.value)).collect()
}

//! Writing and reading topics, synchronously and all at once: for tests and benchmarks.

use std::{
    collections::BTreeMap,
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};

/// Patience with brokers: others take over from a dead one once its session has expired, after nine seconds.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Patience with one attempt, of which there can be several.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Until all replicas that are needed have the records: some of them may be starting.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// A record to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Decides the partition where none is given.
    pub key: Option<Vec<u8>>,
    /// The payload; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Kafka's own timestamp; `None` is now.
    pub timestamp_ms: Option<i64>,
}

impl<K: Into<Vec<u8>>, V: Into<Vec<u8>>> From<(K, V, i64)> for Record {
    fn from((key, value, timestamp_ms): (K, V, i64)) -> Record {
        Record { key: Some(key.into()), value: Some(value.into()), timestamp_ms: Some(timestamp_ms) }
    }
}

impl<K: Into<Vec<u8>>, V: Into<Vec<u8>>> From<(K, V)> for Record {
    fn from((key, value): (K, V)) -> Record {
        Record { key: Some(key.into()), value: Some(value.into()), timestamp_ms: None }
    }
}

impl From<Vec<u8>> for Record {
    fn from(value: Vec<u8>) -> Record {
        Record { key: None, value: Some(value), timestamp_ms: None }
    }
}

impl From<String> for Record {
    fn from(value: String) -> Record {
        Record::from(value.into_bytes())
    }
}

impl From<&str> for Record {
    fn from(value: &str) -> Record {
        Record::from(value.as_bytes().to_vec())
    }
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Partition that it is in.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Kafka's timestamp.
    pub timestamp_ms: Option<i64>,
    /// Key, if it has one.
    pub key: Option<Vec<u8>>,
    /// Payload; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers by name; of several with one name, the last.
    pub headers: BTreeMap<String, Vec<u8>>,
}

impl Message {
    /// The value as JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        let value = self.value.as_deref().context("the record has no value")?;
        serde_json::from_slice(value).with_context(|| format!("not JSON: {}", String::from_utf8_lossy(value)))
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    fn read(message: &BorrowedMessage<'_>) -> Message {
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        Message {
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect(),
        }
    }
}

/// Writes records to one partition, or to all of them by key, and returns how many when the broker has them all.
pub fn produce<R: Into<Record>>(
    bootstrap: &str,
    topic: &str,
    partition: Option<i32>,
    records: impl IntoIterator<Item = R>,
) -> anyhow::Result<u64> {
    let producer: BaseProducer<Deliveries> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        // That is, `acks=all`, and as many retries as fit into `message.timeout.ms`, without doubles.
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .set("message.max.bytes", "4000000")
        .set("queue.buffering.max.messages", "200000")
        .create_with_context(Deliveries::default())?;
    let mut count = 0;
    for record in records {
        let record: Record = record.into();
        let mut outgoing: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
        outgoing.key = record.key.as_deref();
        outgoing.payload = record.value.as_deref();
        outgoing.partition = partition;
        outgoing.timestamp = record.timestamp_ms;
        loop {
            match producer.send(outgoing) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    producer.poll(Duration::from_millis(10));
                    outgoing = returned;
                }
                Err((error, _)) => return Err(error).with_context(|| format!("writing to `{topic}`")),
            }
        }
        count += 1;
    }
    producer.flush(DELIVERY_TIMEOUT).with_context(|| format!("writing to `{topic}`"))?;
    match producer.context().failure.get() {
        Some(error) => Err(error.clone()).with_context(|| format!("writing to `{topic}`")),
        None => Ok(count),
    }
}

/// Why the first record failed that did not arrive: a flush is content once each record has arrived or failed.
#[derive(Default)]
struct Deliveries {
    failure: OnceLock<KafkaError>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            // One reason is enough.
            let _ = self.failure.set(error.clone());
        }
    }
}

/// Reads a topic from its beginning, committed records only, until `until` is content with what was read; an error after `deadline`.
pub fn consume_committed(
    bootstrap: &str,
    topic: &str,
    mut until: impl FnMut(&[Message]) -> bool,
    deadline: Duration,
) -> anyhow::Result<Vec<Message>> {
    let (consumer, _) = patiently(|| consumer(bootstrap, topic))?;
    let deadline_at = Instant::now() + deadline;
    let mut messages = Vec::new();
    // Judged whenever the log is drained for the moment, not for each record: `until` may be expensive.
    let mut judged = None;
    loop {
        let wait = if judged == Some(messages.len()) { Duration::from_millis(50) } else { Duration::ZERO };
        match consumer.poll(wait) {
            Some(Ok(message)) => messages.push(Message::read(&message)),
            Some(Err(error)) if !is_passing(&error) => return Err(error).with_context(|| format!("reading `{topic}`")),
            Some(Err(_)) | None => {
                if judged != Some(messages.len()) {
                    judged = Some(messages.len());
                    if until(&messages) {
                        return Ok(messages);
                    }
                }
                if Instant::now() > deadline_at {
                    bail!(
                        "{deadline:?} passed: read {} records of `{topic}`, the last {:?}",
                        messages.len(),
                        messages.last()
                    );
                }
            }
        }
    }
}

/// Reads all committed records that a topic holds at this moment.
pub fn read_committed(bootstrap: &str, topic: &str) -> anyhow::Result<Vec<Message>> {
    let (consumer, mut unfinished) = patiently(|| consumer(bootstrap, topic))?;
    let deadline = Instant::now() + TIMEOUT;
    let mut messages = Vec::new();
    while !unfinished.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => messages.push(Message::read(&message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => unfinished.retain(|open| *open != partition),
            Some(Err(error)) if !is_passing(&error) => return Err(error).with_context(|| format!("reading `{topic}`")),
            _ if Instant::now() > deadline => {
                bail!("partitions {unfinished:?} of `{topic}` could not be read to the end")
            }
            _ => {}
        }
    }
    Ok(messages)
}

/// The next offset of every partition.
pub fn end_offsets(bootstrap: &str, topic: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
    // A new consumer for each attempt: the last one may go on asking a leader that is dead.
    patiently(|| {
        let (consumer, partitions) = consumer(bootstrap, topic)?;
        let end = |partition| Ok((partition, consumer.fetch_watermarks(topic, partition, ATTEMPT_TIMEOUT)?.1));
        partitions.into_iter().map(end).collect()
    })
}

/// Asks again while brokers that are away are the reason for having no answer.
fn patiently<T>(mut ask: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match ask() {
            Err(error) if error.downcast_ref::<KafkaError>().is_some_and(is_passing) && Instant::now() < deadline => {}
            outcome => return outcome,
        }
    }
}

/// A consumer of every partition from its beginning, and the partitions.
fn consumer(bootstrap: &str, topic: &str) -> anyhow::Result<(BaseConsumer, Vec<i32>)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        // Never joined: partitions are assigned by hand, nothing is committed.
        .set("group.id", "bongsu-testkit")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "earliest")
        .set("fetch.wait.max.ms", "50")
        .set("reconnect.backoff.max.ms", "500")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), ATTEMPT_TIMEOUT).context("asking for metadata")?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let partitions: Vec<i32> =
        found.into_iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect();
    if partitions.is_empty() {
        bail!("there is no topic `{topic}`");
    }
    let mut assignment = TopicPartitionList::new();
    for partition in &partitions {
        assignment.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    Ok((consumer, partitions))
}

/// Whether reading goes on by itself: the end of a partition, or a broker that is away for the moment.
fn is_passing(error: &KafkaError) -> bool {
    match error {
        KafkaError::PartitionEOF(_) => true,
        error => matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::OperationTimedOut
                    | RDKafkaErrorCode::LeaderNotAvailable
                    | RDKafkaErrorCode::NotLeaderForPartition
                    | RDKafkaErrorCode::OffsetNotAvailable
            )
        ),
    }
}

//! `bongsu replay`: a captured file into a topic.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use bongsu_ingest::okr::{OkrError, OkrReader};
use bongsu_schemas::kafka::Kafka;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::load_config;
use crate::cli::{Partitioning, Replay, Shift};
use crate::failure::Failure;
use crate::kafka::client_config;
use crate::output::print_as;

/// The longest line that is read as one event; Kafka takes none of this size.
const MAX_LINE_BYTES: u64 = 16 * 1024 * 1024;

/// How long Kafka is asked at the start.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long is waited for acknowledgements after an interruption.
const DRAIN: Duration = Duration::from_secs(4);

/// A record to produce.
#[derive(Debug, Default)]
struct Record {
    captured_topic: Option<String>,
    partition: Option<i32>,
    timestamp_ms: Option<i64>,
    key: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    value: Option<Vec<u8>>,
}

type Records = Box<dyn Iterator<Item = anyhow::Result<Record>> + Send>;

pub(super) async fn run(options: Replay, shutdown: CancellationToken) -> Result<(), Failure> {
    if !(options.pace >= 0.0 && options.pace.is_finite()) {
        return Err(Failure::Usage("--pace is 0 or a positive number".to_owned()));
    }
    let kafka = match &options.brokers {
        Some(brokers) => brokers_only(brokers)?,
        None => load_config(&options.config.path)?.kafka,
    };
    let (format, topic) = (options.format, options.topic.clone());
    // Reading, pacing and librdkafka's queue all wait: a thread of its own.
    let produced = tokio::task::spawn_blocking(move || produce(&options, &kafka, &shutdown));
    let Produced { records, bytes } = produced.await.context("while producing")??;
    let json = json!({ "topic": topic, "records": records, "bytes": bytes });
    print_as(format, &json, || format!("{records} records ({bytes} bytes) produced to {topic}"))
}

fn brokers_only(brokers: &str) -> Result<Kafka, Failure> {
    let kafka = serde_json::from_value(json!({ "brokers": brokers }));
    kafka.map_err(|error| Failure::Usage(format!("--brokers: {error}")))
}

struct Produced {
    records: u64,
    bytes: u64,
}

fn produce(options: &Replay, kafka: &Kafka, shutdown: &CancellationToken) -> Result<Produced, Failure> {
    let records = open(&options.input, options).map_err(Failure::Input)?;
    let mut client = client_config(kafka)?;
    client.set("enable.idempotence", "true").set("message.max.bytes", "67108864").set("linger.ms", "5");
    let producer: BaseProducer<Deliveries> =
        client.create_with_context(Deliveries::default()).context("while making a Kafka producer")?;
    let partitions = partition_count(&producer, &options.topic)?;
    let mut clock = Clock::new(options.shift, options.pace);
    let mut broken = None;
    for record in records {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                broken = Some(error);
                break;
            }
        };
        let other_topic = |topic: &String| !options.only.contains(topic);
        if !options.only.is_empty() && record.captured_topic.as_ref().is_some_and(other_topic) {
            continue;
        }
        clock.wait_for(record.timestamp_ms, &producer, shutdown);
        if shutdown.is_cancelled() || producer.context().failed() {
            break;
        }
        let timestamp_ms = record.timestamp_ms.map(|timestamp_ms| clock.shifted(timestamp_ms));
        let partition = record.partition.filter(|_| options.partition == Partitioning::Keep);
        let partition = partition.map(|partition| partition.rem_euclid(partitions));
        send(&producer, &options.topic, record, partition, timestamp_ms, shutdown)?;
    }
    drain(&producer, shutdown);
    let deliveries = producer.context();
    if let Some(error) = deliveries.first_error() {
        return Err(Failure::Runtime(anyhow!(error).context(format!("while producing to {}", options.topic))));
    }
    if let Some(error) = broken {
        let after = format!("after {} records had been produced", deliveries.records.load(Ordering::Relaxed));
        return Err(Failure::Input(error.context(after)));
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Produced { records: count(&deliveries.records), bytes: count(&deliveries.bytes) })
}

fn partition_count(producer: &BaseProducer<Deliveries>, topic: &str) -> Result<i32, Failure> {
    let metadata =
        producer.client().fetch_metadata(Some(topic), TIMEOUT).context("while asking Kafka for the topic")?;
    let found = metadata.topics().iter().find(|found| found.name() == topic).map(|found| found.partitions().len());
    match found.and_then(|partitions| i32::try_from(partitions).ok()) {
        Some(partitions) if partitions > 0 => Ok(partitions),
        _ => Err(Failure::Input(anyhow!("there is no topic `{topic}` on this Kafka; create it first"))),
    }
}

/// Hands a record to librdkafka, waiting for room in its queue.
fn send(
    producer: &BaseProducer<Deliveries>,
    topic: &str,
    record: Record,
    partition: Option<i32>,
    timestamp_ms: Option<i64>,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    let headers =
        record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), |headers, (key, value)| {
            headers.insert(Header { key, value: value.as_deref() })
        });
    let mut message: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic);
    message.partition = partition;
    message.timestamp = timestamp_ms;
    message.key = record.key.as_deref();
    message.payload = record.value.as_deref();
    message.headers = (!record.headers.is_empty()).then_some(headers);
    loop {
        message = match producer.send(message) {
            Ok(()) => break,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if !shutdown.is_cancelled() => {
                producer.poll(Duration::from_millis(50));
                back
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => break,
            Err((error, _)) => {
                return Err(Failure::Runtime(anyhow!(error).context(format!("while producing to {topic}"))));
            }
        };
    }
    producer.poll(Duration::ZERO);
    Ok(())
}

/// Waits for acknowledgements: all of them, or for a bounded time after an interruption.
fn drain(producer: &BaseProducer<Deliveries>, shutdown: &CancellationToken) {
    let mut deadline = None;
    while producer.in_flight_count() > 0 {
        if shutdown.is_cancelled() && Instant::now() > *deadline.get_or_insert_with(|| Instant::now() + DRAIN) {
            return;
        }
        producer.poll(Duration::from_millis(50));
    }
}

/// What became of the records. Counted when Kafka has acknowledged them.
#[derive(Default)]
struct Deliveries {
    records: AtomicU64,
    bytes: AtomicU64,
    // Held for an assignment only.
    first_error: Mutex<Option<KafkaError>>,
}

impl Deliveries {
    fn first_error(&self) -> Option<KafkaError> {
        self.first_error.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn failed(&self) -> bool {
        self.first_error().is_some()
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => {
                self.records.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(message.payload_len() as u64, Ordering::Relaxed);
            }
            Err((error, _)) => {
                let mut first = self.first_error.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                first.get_or_insert_with(|| error.clone());
            }
        }
    }
}

/// Moves record timestamps, and holds records back until they are due.
struct Clock {
    shift: Option<Shift>,
    pace: f64,
    start: Option<(i64, i64, Instant)>,
}

impl Clock {
    fn new(shift: Option<Shift>, pace: f64) -> Clock {
        Clock { shift, pace, start: None }
    }

    /// Waits until a record is due; the first one always is.
    fn wait_for(
        &mut self,
        timestamp_ms: Option<i64>,
        producer: &BaseProducer<Deliveries>,
        shutdown: &CancellationToken,
    ) {
        let Some(timestamp_ms) = timestamp_ms else { return };
        let now_ms = || chrono::Utc::now().timestamp_millis();
        let (first_ms, _, started) = *self.start.get_or_insert_with(|| (timestamp_ms, now_ms(), Instant::now()));
        if self.pace == 0.0 {
            return;
        }
        let since_first_ms = timestamp_ms.saturating_sub(first_ms).max(0) as f64;
        let wait = Duration::try_from_secs_f64(since_first_ms / 1000.0 / self.pace).unwrap_or(Duration::MAX);
        while let Some(left) = wait.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
            if shutdown.is_cancelled() {
                return;
            }
            producer.poll(left.min(Duration::from_millis(50)));
        }
    }

    /// The timestamp that a record gets.
    fn shifted(&self, timestamp_ms: i64) -> i64 {
        match (self.shift, self.start) {
            (Some(Shift::Millis(millis)), _) => timestamp_ms.saturating_add(millis),
            (Some(Shift::Now), Some((first_ms, now_ms, _))) => timestamp_ms.saturating_add(now_ms - first_ms),
            _ => timestamp_ms,
        }
    }
}

/// The file's records, whatever its format.
fn open(path: &Path, options: &Replay) -> anyhow::Result<Records> {
    let what = || format!("while reading {}", path.display());
    match OkrReader::open(path) {
        Ok(records) => Ok(Box::new(records.map(|record| {
            let record = record?;
            Ok(Record {
                captured_topic: Some(record.topic),
                partition: Some(record.partition),
                timestamp_ms: Some(record.timestamp_ms),
                key: record.key,
                headers: record.headers,
                value: record.value,
            })
        }))),
        Err(OkrError::NotOkr) => {
            if options.shift.is_some() || options.pace != 0.0 || !options.only.is_empty() {
                return Err(anyhow!(
                    "--shift, --pace and --only need a capture (OKR1); lines have no timestamp and no topic"
                ))
                .with_context(what);
            }
            Ok(Box::new(lines(path).with_context(what)?))
        }
        Err(error) => Err(anyhow::Error::new(error)).with_context(what),
    }
}

/// One record a line, plain or zstd; empty lines are left out.
fn lines(path: &Path) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Record>> + Send + use<>> {
    const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let mut file = BufReader::new(File::open(path)?);
    let is_compressed = file.fill_buf()?.starts_with(&ZSTD_MAGIC);
    let mut input: Box<dyn BufRead + Send> = match is_compressed {
        true => Box::new(BufReader::new(zstd::Decoder::with_buffer(file)?)),
        false => Box::new(file),
    };
    let mut number = 0u64;
    let next = move || -> anyhow::Result<Option<Record>> {
        loop {
            number += 1;
            let mut line = Vec::new();
            let read = input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(None);
            }
            if line.last() != Some(&b'\n') && read as u64 == MAX_LINE_BYTES {
                return Err(anyhow!("line {number} is longer than {MAX_LINE_BYTES} bytes"));
            }
            let line = line.trim_ascii();
            if !line.is_empty() {
                return Ok(Some(Record { value: Some(line.to_vec()), ..Record::default() }));
            }
        }
    };
    let mut next = next;
    let mut is_done = false;
    Ok(std::iter::from_fn(move || {
        if is_done {
            return None;
        }
        let record = next().transpose();
        is_done = !matches!(record, Some(Ok(_)));
        record
    }))
}

//! Sending events from Rust agents: bounded, idempotent, and never in the way of the service that it reports on.
//!
//! ```no_run
//! use std::time::Duration;
//! use bongsu_ingest::producer::{EventProducer, Options};
//! use bongsu_schemas::native::{Request, Time};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let producer = EventProducer::new(&Options::new("localhost:9092"))?;
//! # let request = Request { ts: Time::EpochMillis(0), service: "order-api".into(), route: "/orders/{id}".into(), status: 200,
//! #     duration_ms: 12.5, method: None, environment: None, pod: None, container: None, error_type: None, db_rows: None,
//! #     db_calls: None, trace_id: None, span_id: None, parent_span_id: None };
//! if producer.try_send("shop.requests", &request).is_err() {
//!     // The queue is full: the event is dropped and counted, and the request is answered all the same.
//! }
//! producer.shutdown(Duration::from_secs(5))?;
//! # Ok(())
//! # }
//! ```

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bongsu_schemas::native::{Event, Exception, Metric, Request, Span};
use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer},
};
use serde::Serialize;

/// How the producer is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// `bootstrap.servers`.
    pub brokers: String,
    /// Compression of batches.
    pub compression: Compression,
    /// Events that may wait for Kafka.
    pub max_queued_messages: u32,
    /// Memory that they may take, in bytes; librdkafka counts in KiB.
    pub max_queued_bytes: u64,
    /// How long an event may wait for others to share its batch.
    pub linger: Duration,
    /// After this long, an event that could not be delivered is given up and counted.
    pub delivery_timeout: Duration,
    /// Further librdkafka properties, such as `security.protocol`. They cannot weaken delivery: `acks` stays `all`.
    pub properties: BTreeMap<String, String>,
}

/// How batches are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Little CPU.
    Lz4,
    /// Fewer bytes.
    Zstd,
}

impl Options {
    /// Sensible values for an agent: 100,000 events or 32 MiB may wait, 20 ms linger, 2 minutes until an event is given up.
    pub fn new(brokers: impl Into<String>) -> Options {
        Options {
            brokers: brokers.into(),
            compression: Compression::Lz4,
            max_queued_messages: 100_000,
            max_queued_bytes: 32 * 1024 * 1024,
            linger: Duration::from_millis(20),
            delivery_timeout: Duration::from_secs(120),
            properties: BTreeMap::new(),
        }
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        for (key, value) in &self.properties {
            client.set(key, value);
        }
        let compression = match self.compression {
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        };
        client
            .set("bootstrap.servers", &self.brokers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.codec", compression)
            .set("queue.buffering.max.messages", self.max_queued_messages.max(1).to_string())
            .set("queue.buffering.max.kbytes", (self.max_queued_bytes / 1024).max(1).to_string())
            .set("linger.ms", self.linger.as_millis().to_string())
            .set("delivery.timeout.ms", self.delivery_timeout.as_millis().to_string());
        client
    }
}

/// An event that a producer can send: a row of one of the built-in tables.
pub trait NativeEvent: Serialize + sealed::Sealed {
    /// The service that it is about; the key of the Kafka message.
    fn service(&self) -> &str;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! native_events {
    ($($event:ty),*) => {
        $(
            impl sealed::Sealed for $event {}
            impl NativeEvent for $event {
                fn service(&self) -> &str {
                    &self.service
                }
            }
        )*
    };
}

native_events!(Request, Span, Exception, Metric, Event);

/// What has become of the events so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Taken into the queue.
    pub queued: u64,
    /// Acknowledged by all in-sync replicas.
    pub delivered: u64,
    /// Given up after `delivery_timeout`, or refused by the broker.
    pub failed: u64,
    /// Refused because the queue was full, even after waiting.
    pub dropped: u64,
}

/// The producer cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the producer: {0}")]
pub struct SetupError(#[from] KafkaError);

/// An event was not taken. What the caller can do differs: wait, or fix the event or the set-up.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// As many events wait as may; this one is counted as dropped.
    #[error("the queue is full")]
    Full,
    /// The event cannot be written as JSON.
    #[error("the event cannot be written as JSON: {0}")]
    Unserialisable(#[from] serde_json::Error),
    /// librdkafka refused it for another reason, such as a message that is too large.
    #[error("the event was refused: {0}")]
    Refused(KafkaError),
}

/// Events were still waiting when the deadline came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{waiting} events were not delivered before the deadline")]
pub struct Unflushed {
    /// How many.
    pub waiting: u64,
}

/// Sends events. Cheap to share behind an [`Arc`]; a thread of librdkafka's does the work.
pub struct EventProducer {
    producer: ThreadedProducer<Deliveries, NoCustomPartitioner>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    queued: AtomicU64,
    delivered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    /// Guards nothing but the wait for room in the queue.
    gate: Mutex<()>,
    room: Condvar,
}

/// Hears about each message from librdkafka.
struct Deliveries(Arc<State>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.0.delivered } else { &self.0.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        self.0.room.notify_all();
    }
}

/// A delivery may be reported between a look at the queue and the wait for room; so no wait is longer than this.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

impl EventProducer {
    /// A producer. Kafka need not be there yet: events wait for it.
    ///
    /// # Errors
    /// Where a property is wrong.
    pub fn new(options: &Options) -> Result<EventProducer, SetupError> {
        let state = Arc::new(State::default());
        let producer = options.client().create_with_context(Deliveries(state.clone()))?;
        Ok(EventProducer { producer, state })
    }

    /// Queues an event, or returns at once with [`SendError::Full`].
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn try_send<E: NativeEvent>(&self, topic: &str, event: &E) -> Result<(), SendError> {
        self.send(topic, event, Duration::ZERO)
    }

    /// Queues an event; while the queue is full, waits for room, up to `patience`. Blocks: not for async code.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send<E: NativeEvent>(&self, topic: &str, event: &E, patience: Duration) -> Result<(), SendError> {
        let value = serde_json::to_vec(event)?;
        let deadline = Instant::now() + patience;
        loop {
            match self.producer.send(BaseRecord::to(topic).key(event.service()).payload(&value)) {
                Ok(()) => {
                    self.state.queued.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        self.state.dropped.fetch_add(1, Ordering::Relaxed);
                        return Err(SendError::Full);
                    }
                    let gate = self.state.gate.lock().unwrap_or_else(PoisonError::into_inner);
                    drop(self.state.room.wait_timeout(gate, left.min(LONGEST_WAIT)));
                }
                Err((error, _)) => return Err(SendError::Refused(error)),
            }
        }
    }

    /// Waits until all queued events are delivered or given up, up to `patience`.
    ///
    /// # Errors
    /// Where some are still waiting.
    pub fn flush(&self, patience: Duration) -> Result<(), Unflushed> {
        match self.producer.flush(patience) {
            Ok(()) => Ok(()),
            Err(_) => Err(Unflushed { waiting: u64::try_from(self.producer.in_flight_count()).unwrap_or_default() }),
        }
    }

    /// Flushes and ends. Dropping a producer without this gives up what still waits.
    ///
    /// # Errors
    /// Where some events are still waiting; they are lost.
    pub fn shutdown(self, patience: Duration) -> Result<Counts, Unflushed> {
        self.flush(patience)?;
        Ok(self.counts())
    }

    /// What has become of the events so far.
    pub fn counts(&self) -> Counts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            queued: count(&self.state.queued),
            delivered: count(&self.state.delivered),
            failed: count(&self.state.failed),
            dropped: count(&self.state.dropped),
        }
    }
}

//! A live stream of requests at a constant rate, up to [`DISORDER_MS`] out of order, from a thread of its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use chrono::Utc;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message};

use crate::counts::{By, Counts};
use crate::producer::live_config;
use crate::random::Random;
use crate::request::Templates;
use crate::workload::PARTITIONS;

pub(crate) const EVENTS_PER_SEC: u64 = 20_000;
pub(crate) const DISORDER_MS: u64 = 200;

/// Between two handfuls of events.
const TICK: Duration = Duration::from_millis(2);
/// A queue that stays full for so long, or a flush that takes so long, is an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a stream is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) topic: &'static str,
    /// The windows that it is counted by.
    pub(crate) by: By,
    pub(crate) window_ms: i64,
    /// Event time is so far behind the clock.
    pub(crate) behind_ms: i64,
    /// It ends by itself after this.
    pub(crate) at_most: Duration,
}

/// What a stream was.
pub(crate) struct Produced {
    pub(crate) counts: Counts,
    pub(crate) acknowledged: Arc<Acknowledged>,
    /// Event time when it began and when it ended; no event is later.
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
}

/// A running stream. Dropping it ends it.
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<Produced>>>,
}

impl Stream {
    pub(crate) fn start(bootstrap: &str, plan: Plan) -> anyhow::Result<Stream> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, bootstrap) = (stop.clone(), bootstrap.to_owned());
        let thread = thread::Builder::new()
            .name("bench-stream".to_owned())
            .spawn(move || produce(&bootstrap, &plan, &stopped))
            .context("starting the stream's thread")?;
        Ok(Stream { stop, thread: Some(thread) })
    }

    /// Ends the stream, and returns when the broker has all of it.
    pub(crate) fn finish(mut self) -> anyhow::Result<Produced> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the stream has ended before")?;
        thread.join().map_err(|_| anyhow!("the stream's thread panicked"))?
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Whoever drops it has another error to tell of.
            let _ = thread.join();
        }
    }
}

fn produce(bootstrap: &str, plan: &Plan, stop: &AtomicBool) -> anyhow::Result<Produced> {
    let producer: ThreadedProducer<Acknowledged> =
        live_config(bootstrap).create_with_context(Acknowledged::default())?;
    let acknowledged = producer.context().clone();
    let (mut templates, mut random) = (Templates::new()?, Random::new(2028));
    let mut counts = Counts::new(plan.by, plan.window_ms);
    let started = Instant::now();
    let from_ms = Utc::now().timestamp_millis() - plan.behind_ms;
    let (mut sent, mut to_ms) = (0, from_ms);
    while !stop.load(Ordering::Relaxed) && started.elapsed() < plan.at_most {
        // Not the clock on the wall, which somebody may set back: what came then would be late.
        let elapsed = started.elapsed();
        to_ms = from_ms + elapsed.as_millis() as i64;
        let due = elapsed.as_micros() as u64 * EVENTS_PER_SEC / 1_000_000;
        for _ in sent..due {
            let time_ms = to_ms - random.below(DISORDER_MS) as i64;
            let (group, json) = templates.at(time_ms);
            send(&producer, plan.topic, random.partition(), time_ms, json)?;
            counts.add(group, time_ms);
        }
        sent = due;
        thread::sleep(TICK);
    }
    producer.flush(PATIENCE).context("writing the stream")?;
    let failed = acknowledged.failed.load(Ordering::Relaxed);
    ensure!(failed == 0, "the broker did not take {failed} events of the stream");
    Ok(Produced { counts, acknowledged, from_ms, to_ms })
}

/// Waits while the queue is full.
fn send(
    producer: &ThreadedProducer<Acknowledged>,
    topic: &str,
    partition: i32,
    time_ms: i64,
    json: &[u8],
) -> anyhow::Result<()> {
    let record = BaseRecord::<(), [u8], usize>::with_opaque_to(topic, time_ms as usize);
    let mut record = record.partition(partition).timestamp(time_ms).payload(json);
    let mut full_since = None;
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                let since: &mut Instant = full_since.get_or_insert_with(Instant::now);
                ensure!(since.elapsed() < PATIENCE, "the broker has taken no events for {PATIENCE:?}");
                thread::sleep(TICK);
                record = returned;
            }
            Err((error, _)) => return Err(error).context("writing the stream"),
        }
    }
}

/// When the broker acknowledged how far event time is in each partition.
pub(crate) struct Acknowledged {
    /// For each partition the latest event time so far, and since when; both ascend.
    partitions: Mutex<Vec<Vec<(i64, Instant)>>>,
    failed: AtomicU64,
}

impl Default for Acknowledged {
    fn default() -> Acknowledged {
        let partitions = Mutex::new(vec![Vec::new(); PARTITIONS as usize]);
        Acknowledged { partitions, failed: AtomicU64::new(0) }
    }
}

impl Acknowledged {
    /// Since when every partition has an event of `time_ms` or later.
    pub(crate) fn passed(&self, time_ms: i64) -> Option<Instant> {
        let partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |log: &Vec<(i64, Instant)>| -> Option<Instant> {
            let first = log.partition_point(|(latest_ms, _)| *latest_ms < time_ms);
            log.get(first).map(|(_, at)| *at)
        };
        partitions.iter().map(since).collect::<Option<Vec<Instant>>>()?.into_iter().max()
    }
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    /// The event time.
    type DeliveryOpaque = usize;

    fn delivery(&self, outcome: &DeliveryResult<'_>, time_ms: usize) {
        let Ok(record) = outcome else {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let time_ms = time_ms as i64;
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let log = &mut partitions[record.partition() as usize];
        if log.last().is_none_or(|(latest_ms, _)| *latest_ms < time_ms) {
            log.push((time_ms, Instant::now()));
        }
    }
}

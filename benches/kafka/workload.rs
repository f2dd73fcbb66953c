//! The events: the same each time but for their date, so that their times are in the past whenever the benchmark runs.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::recount::Recount;

pub(crate) const TOPIC: &str = "shop.requests";
pub(crate) const PARTITIONS: i32 = 4;
pub(crate) const MINUTE_MS: i64 = 60_000;

/// Bytes of one event.
pub(crate) const EVENT_BYTES: usize = 215;
pub(crate) const SERVICES: usize = 200;
pub(crate) const ROUTES: usize = 20;
const GROUPS: usize = SERVICES * ROUTES;

const SPAN_MS: i64 = 20 * MINUTE_MS;
const DISORDER_MS: u64 = 5_000;
/// The closing events are later than all others by more than windows stay open.
const CLOSING_AFTER_MS: i64 = 30 * MINUTE_MS;

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) time_ms: i64,
    pub(crate) group: usize,
    pub(crate) status: u16,
    /// Durations are multiples of a quarter of a millisecond, so that sums are exact in any order.
    pub(crate) quarter_ms: u32,
}

impl Request {
    /// The name of a group's service.
    pub(crate) fn service(group: usize) -> String {
        format!("service-{:03}", group % SERVICES)
    }

    /// The name of a group's route.
    pub(crate) fn route(group: usize) -> String {
        format!("/api/orders-{:02}/{{id}}", group / SERVICES)
    }

    pub(crate) fn duration_ms(&self) -> f64 {
        f64::from(self.quarter_ms) / 4.0
    }

    /// Writes the event as JSON of [`EVENT_BYTES`]; the length of `trace_id` makes up for that of the numbers.
    fn write_json(&self, trace: u64, json: &mut Vec<u8>) -> std::io::Result<()> {
        json.clear();
        let (service, route, time_ms) = (Request::service(self.group), Request::route(self.group), self.time_ms);
        let (status, duration_ms) = (self.status, self.duration_ms());
        write!(
            json,
            r#"{{"ts":{time_ms},"service":"{service}","route":"{route}","status":{status},"duration_ms":{duration_ms},"method":"GET","environment":"production","pod":"{service}-7d9f8b6c5-x2x4z","trace_id":""#
        )?;
        let digits = EVENT_BYTES.saturating_sub(json.len() + 2);
        write!(json, r#"{trace:0digits$x}"}}"#)
    }
}

/// How many events, and when.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) events: u64,
    start_ms: i64,
}

impl Workload {
    /// Events whose times, the closing ones' too, are before `now`.
    pub(crate) fn ending_before(now: DateTime<Utc>, events: u64) -> Workload {
        let start_ms = now.timestamp_millis() - SPAN_MS - CLOSING_AFTER_MS - MINUTE_MS;
        Workload { events, start_ms: start_ms - start_ms.rem_euclid(MINUTE_MS) }
    }

    /// Records in the topic: the events, and one in each partition that closes all windows before it.
    pub(crate) fn records(&self) -> u64 {
        self.events + PARTITIONS as u64
    }

    pub(crate) fn minutes(&self) -> i64 {
        SPAN_MS / MINUTE_MS
    }

    /// Writes all records as services do: in batches, compressed with lz4. Gives what the windows must say.
    pub(crate) fn write(&self, bootstrap: &str) -> anyhow::Result<Recount> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "50")
            .set("queue.buffering.max.messages", "200000")
            .create()?;
        let (mut random, zipf) = (Random(2026), Zipf::new());
        let mut recount = Recount::default();
        let mut json = Vec::with_capacity(EVENT_BYTES);
        for index in 0..self.events {
            let request = self.request(index, &mut random, &zipf);
            recount.add(&request);
            // 12 hexadecimal digits or fewer fit whatever the duration's length.
            request.write_json(random.next() >> 16, &mut json)?;
            anyhow::ensure!(json.len() == EVENT_BYTES, "an event has {} bytes: {request:?}", json.len());
            send(&producer, random.below(PARTITIONS as u64) as i32, request.time_ms, &json)?;
        }
        let time_ms = self.start_ms + SPAN_MS + CLOSING_AFTER_MS;
        for partition in 0..PARTITIONS {
            Request { time_ms, group: 0, status: 200, quarter_ms: 4 }.write_json(0, &mut json)?;
            send(&producer, partition, time_ms, &json)?;
        }
        producer.flush(Duration::from_secs(60)).context("writing the events")?;
        Ok(recount)
    }

    fn request(&self, index: u64, random: &mut Random, zipf: &Zipf) -> Request {
        let disorder_ms = DISORDER_MS as i64;
        let in_order_ms = disorder_ms + (index as i64 * (SPAN_MS - disorder_ms)) / self.events as i64;
        // Most are quick, some slow, as latencies are: exponential about 100 ms.
        let quarter_ms = (8.0 - 400.0 * (1.0 - random.fraction()).ln()) as u32;
        Request {
            time_ms: self.start_ms + in_order_ms - random.below(DISORDER_MS) as i64,
            group: zipf.group(random.fraction()),
            status: [200, 200, 200, 200, 200, 201, 302, 404, 500, 503][random.below(10) as usize],
            quarter_ms,
        }
    }
}

fn send(producer: &BaseProducer, partition: i32, time_ms: i64, json: &[u8]) -> anyhow::Result<()> {
    let mut record = BaseRecord::<(), [u8]>::to(TOPIC).partition(partition).timestamp(time_ms).payload(json);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                producer.poll(Duration::from_millis(10));
                record = returned;
            }
            Err((error, _)) => return Err(error).context("writing the events"),
        }
    }
}

/// Groups by popularity: the n-th most popular is chosen with a probability proportional to 1/n.
struct Zipf {
    cumulated: Vec<f64>,
}

impl Zipf {
    fn new() -> Zipf {
        let weights = (1..=GROUPS).scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        });
        Zipf { cumulated: weights.collect() }
    }

    fn group(&self, fraction: f64) -> usize {
        // Has no factor in common with the number of groups: spreads popular ones over services and routes.
        const STRIDE: usize = 2659;
        let total = self.cumulated[GROUPS - 1];
        let rank = self.cumulated.partition_point(|sum| *sum <= fraction * total).min(GROUPS - 1);
        rank * STRIDE % GROUPS
    }
}

/// Numbers that look random and are the same each time (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound
    }

    /// At least 0, less than 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

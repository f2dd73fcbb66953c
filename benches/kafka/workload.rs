//! The backlog of requests: the same each time but for its date, so that its times are in the past whenever the
//! benchmark runs.

use std::env;

use anyhow::bail;
use bongsu_testkit::Broker;
use chrono::{DateTime, Utc};
use rdkafka::producer::BaseProducer;

use crate::producer::{flush, send};
use crate::random::{Random, Zipf};
use crate::recount::Recount;
use crate::request::{EVENT_BYTES, Request};

pub(crate) const TOPIC: &str = "shop.requests";
pub(crate) const PARTITIONS: i32 = 4;
pub(crate) const MINUTE_MS: i64 = 60_000;

/// Event time of a backlog.
pub(crate) const SPAN_MS: i64 = 20 * MINUTE_MS;
/// The closing events are later than all others by more than windows stay open.
pub(crate) const CLOSING_AFTER_MS: i64 = 30 * MINUTE_MS;
const DISORDER_MS: u64 = 5_000;

const DEFAULT_EVENTS: u64 = 3_000_000;

/// Creates a source topic.
pub(crate) fn create_topic(broker: &Broker, topic: &str) -> anyhow::Result<()> {
    // Event times, and with them record times, are hours old: nothing may expire while it is measured.
    broker.create_topic_with(topic, PARTITIONS, &[("retention.ms", "-1"), ("compression.type", "lz4")])
}

/// How many events or spans a backlog is to have.
pub(crate) fn events() -> anyhow::Result<u64> {
    setting("BONGSU_BENCH_EVENTS", DEFAULT_EVENTS)
}

/// A number above zero from the environment.
pub(crate) fn setting(variable: &str, default: u64) -> anyhow::Result<u64> {
    let Ok(text) = env::var(variable) else { return Ok(default) };
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => bail!("{variable} is no number above zero: `{text}`"),
    }
}

/// The first time of a backlog whose times, the closing ones' too, are before `now`. A whole minute.
pub(crate) fn start_before(now: DateTime<Utc>) -> i64 {
    let start_ms = now.timestamp_millis() - SPAN_MS - CLOSING_AFTER_MS - MINUTE_MS;
    start_ms - start_ms.rem_euclid(MINUTE_MS)
}

/// One event in each partition that closes all windows which end well before it. It is in none of them, and its own
/// stays open.
pub(crate) fn close_windows(producer: &BaseProducer, topic: &str, time_ms: i64) -> anyhow::Result<()> {
    let mut json = Vec::with_capacity(EVENT_BYTES);
    for partition in 0..PARTITIONS {
        Request { time_ms, group: 0, status: 200, quarter_ms: 4 }.write_json(0, &mut json)?;
        send(producer, topic, partition, time_ms, &json)?;
    }
    flush(producer)
}

/// How many events, and when.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) events: u64,
    start_ms: i64,
}

impl Workload {
    pub(crate) fn ending_before(now: DateTime<Utc>, events: u64) -> Workload {
        Workload { events, start_ms: start_before(now) }
    }

    /// Records in the topic: the events, and one in each partition that closes all windows before it.
    pub(crate) fn records(&self) -> u64 {
        self.events + PARTITIONS as u64
    }

    /// Writes all records. Gives what the windows must say.
    pub(crate) fn write(&self, producer: &BaseProducer, topic: &str) -> anyhow::Result<Recount> {
        let (mut random, zipf) = (Random::new(2026), Zipf::new());
        let mut recount = Recount::default();
        let mut json = Vec::with_capacity(EVENT_BYTES);
        let disorder_ms = DISORDER_MS as i64;
        for index in 0..self.events {
            let passed_ms = (index as i64 * (SPAN_MS - disorder_ms)) / self.events as i64;
            let in_order_ms = self.start_ms + disorder_ms + passed_ms;
            let request = Request::random(in_order_ms, DISORDER_MS, &mut random, &zipf);
            recount.add(&request);
            request.write_json(random.bits() >> 16, &mut json)?;
            send(producer, topic, random.partition(), request.time_ms, &json)?;
        }
        close_windows(producer, topic, self.start_ms + SPAN_MS + CLOSING_AFTER_MS)?;
        Ok(recount)
    }
}

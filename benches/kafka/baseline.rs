//! The ceiling: consumers that do nothing, or nothing but parse.

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message};
use serde::Deserialize;

use crate::measure::{Sample, cpu_secs, peak_rss_mib};
use crate::workload::TOPIC;

/// Silence of this length is an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is done with each record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    Count,
    SerdeJson,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Work::Count => "count",
            Work::SerdeJson => "serde-json",
        })
    }
}

/// What a program would read that has this one purpose.
#[derive(Deserialize)]
#[allow(dead_code)] // a black box looks at them
struct Borrowed<'a> {
    ts: i64,
    service: &'a str,
    route: &'a str,
    status: i64,
    duration_ms: f64,
}

/// Reads `records` records from the beginning. Measured from the first on: connecting and joining the group are the warm-up.
pub(crate) fn consume(work: Work, bootstrap: &str, group: &str, records: u64) -> anyhow::Result<Sample> {
    let consumer = consumer(bootstrap, group)?;
    consumer.subscribe(&[TOPIC])?;
    let own = std::process::id();
    let mut first = None;
    let (mut seen, mut bytes) = (0, 0);
    let mut heard = Instant::now();
    while seen < records {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                if first.is_none() {
                    first = Some((Instant::now(), cpu_secs(own)?));
                }
                let value = record.payload().context("a record has no value")?;
                match work {
                    Work::Count => bytes += value.len(),
                    Work::SerdeJson => {
                        black_box(serde_json::from_slice::<Borrowed<'_>>(value)?);
                    }
                }
                seen += 1;
                if seen % 4096 == 0 {
                    heard = Instant::now();
                }
            }
            None | Some(Err(KafkaError::PartitionEOF(_))) if heard.elapsed() < PATIENCE => {}
            None | Some(Err(KafkaError::PartitionEOF(_))) => {
                bail!("nothing came for {PATIENCE:?} after {seen} records")
            }
            Some(Err(error)) => return Err(error).context("reading the events"),
        }
    }
    black_box(bytes);
    let (started, warm_up_cpu_secs) = first.context("there was no record")?;
    Ok(Sample {
        events: records,
        cpu_secs: cpu_secs(own)? - warm_up_cpu_secs,
        warm_up_cpu_secs,
        wall_secs: started.elapsed().as_secs_f64(),
        peak_rss_mib: peak_rss_mib(own)?,
    })
}

/// With the processor's own settings.
fn consumer(bootstrap: &str, group: &str) -> anyhow::Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("session.timeout.ms", "10000")
        .set("heartbeat.interval.ms", "2000")
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.wait.max.ms", "50")
        .set("queued.max.messages.kbytes", "32768")
        .create()
        .context("creating a consumer")
}

//! The ceiling: consumers that do nothing, or nothing but parse. Each runs in a process of its own.

use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fmt};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message};
use serde::Deserialize;

use crate::measure::{Meter, Sample};

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

/// One pass over a topic.
#[derive(Debug, Clone, Args)]
pub(crate) struct Reading {
    pub(crate) work: Work,
    pub(crate) bootstrap: String,
    pub(crate) topic: String,
    pub(crate) group: String,
    pub(crate) records: u64,
}

impl Reading {
    /// Starts this benchmark again as the consumer, and waits for what it prints.
    pub(crate) fn measure_in_child(&self) -> anyhow::Result<Sample> {
        let Reading { work, bootstrap, topic, group, records } = self;
        let output = Command::new(env::current_exe()?)
            .args(["consume", &work.to_string(), bootstrap, topic, group, &records.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("starting the benchmark's consumer")?;
        ensure!(output.status.success(), "the consumer `{work}` failed");
        serde_json::from_slice(&output.stdout).context("reading the consumer's sample")
    }

    /// Reads the records from the beginning. Measured from the first on: connecting and joining the group are the
    /// warm-up.
    pub(crate) fn measure(&self) -> anyhow::Result<Sample> {
        let consumer = self.consumer()?;
        consumer.subscribe(&[self.topic.as_str()])?;
        let mut meter = None;
        let (mut seen, mut bytes) = (0, 0);
        let mut heard = Instant::now();
        while seen < self.records {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(record)) => {
                    if meter.is_none() {
                        meter = Some(Meter::start(std::process::id())?);
                    }
                    let value = record.payload().context("a record has no value")?;
                    match self.work {
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
        meter.context("there was no record")?.sample(self.records)
    }

    /// With the processor's own settings.
    fn consumer(&self) -> anyhow::Result<BaseConsumer> {
        ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", &self.group)
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
            .set("queued.max.messages.kbytes", "4096")
            .set("fetch.max.bytes", "8388608")
            .set("fetch.message.max.bytes", "262144")
            .create()
            .context("creating a consumer")
    }
}

//! One file for each scenario: what it does, what it demands, what it prints.

pub(crate) mod alerts;
pub(crate) mod latency;
pub(crate) mod otlp;
pub(crate) mod outage;
pub(crate) mod restart;
pub(crate) mod scale;
pub(crate) mod throughput;

use std::slice;

use rdkafka::producer::BaseProducer;

use crate::processor::Processor;
use crate::producer::backlog_config;
use crate::stream::{Produced, Stream};
use crate::windows::Windows;
use crate::workload::{TOPIC, close_windows};

/// How often backlogs are read; medians are shown.
const RUNS: usize = 3;

/// Ends a stream of one-second windows: closes all of them, ends the processor, and compares.
fn settle(
    bootstrap: &str,
    stream: Stream,
    windows: &mut Windows,
    mut processor: Processor,
) -> anyhow::Result<Produced> {
    // Beyond the last window and what it waits for.
    const CLOSING_AFTER_MS: i64 = 10_000;
    let produced = stream.finish()?;
    let producer: BaseProducer = backlog_config(bootstrap).create()?;
    close_windows(&producer, TOPIC, produced.to_ms + CLOSING_AFTER_MS)?;
    windows.await_count(produced.counts.windows(), slice::from_mut(&mut processor))?;
    processor.terminate()?;
    windows.check_complete()?;
    produced.counts.compare(windows.arrived())?;
    Ok(produced)
}

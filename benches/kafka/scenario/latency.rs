//! A live stream: how long after a window may close its last result is in a committed reader's hands.
//!
//! A window may close at t0, when the broker has acknowledged in every partition an event so late that the watermark
//! passes the window's end. At t1 the last record of that window arrives. Both are read from the same monotonic clock.

use std::collections::BTreeMap;
use std::fmt;
use std::slice;
use std::time::{Duration, Instant};

use anyhow::Context;
use bongsu_testkit::Broker;
use serde::Serialize;

use super::settle;
use crate::counts::{By, window_end_ms};
use crate::installation::{BY_SECOND, BY_SECOND_CLOSES_AFTER_MS, Installation, ONLY, json_source};
use crate::report::{percentile, progress};
use crate::stream::{DISORDER_MS, EVENTS_PER_SEC, Plan, Stream};
use crate::workload::{TOPIC, create_topic};

const WINDOW_MS: i64 = 1_000;
const WARM_UP_SECS: u64 = 10;
const MEASURED_SECS: u64 = 60;
/// The stream goes on while the last windows that are measured close.
const AFTERWARDS_SECS: u64 = 5;

#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    windows: usize,
    results: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// All, in ascending order.
    window_ms: Vec<f64>,
}

pub(crate) fn run() -> anyhow::Result<Latency> {
    progress(format_args!("latency: starting Kafka, then {EVENTS_PER_SEC} events per second for {MEASURED_SECS} s"));
    let broker = Broker::start()?;
    create_topic(&broker, TOPIC)?;
    let installation = Installation::new(broker.bootstrap(), "latency", &json_source(TOPIC), BY_SECOND)?;
    installation.explain(measure(broker.bootstrap(), &installation))
}

fn measure(bootstrap: &str, installation: &Installation) -> anyhow::Result<Latency> {
    let time = Duration::from_secs(WARM_UP_SECS + MEASURED_SECS + AFTERWARDS_SECS);
    let mut processor = installation.start(ONLY)?;
    let mut windows = installation.windows()?;
    let plan = Plan { topic: TOPIC, by: By::Service, window_ms: WINDOW_MS, behind_ms: 0, at_most: 2 * time };
    let stream = Stream::start(bootstrap, plan)?;
    windows.watch_for(time, slice::from_mut(&mut processor))?;
    let produced = settle(bootstrap, stream, &mut windows, processor)?;

    let mut last_at: BTreeMap<i64, Instant> = BTreeMap::new();
    for window in windows.arrived() {
        // Arrivals ascend.
        last_at.insert(window_end_ms(window)?, window.at);
    }
    let warm_ms = produced.from_ms + WARM_UP_SECS as i64 * 1_000;
    let first_start_ms = warm_ms - warm_ms.rem_euclid(WINDOW_MS) + WINDOW_MS;
    let mut window_ms = Vec::new();
    for index in 1..=MEASURED_SECS as i64 * 1_000 / WINDOW_MS {
        let end_ms = first_start_ms + index * WINDOW_MS;
        let may_close_at = produced.acknowledged.passed(end_ms + BY_SECOND_CLOSES_AFTER_MS);
        let may_close_at = may_close_at.with_context(|| format!("no event lets the window up to {end_ms} close"))?;
        let closed_at = last_at.get(&end_ms).with_context(|| format!("no event is in the window up to {end_ms}"))?;
        window_ms.push(closed_at.saturating_duration_since(may_close_at).as_secs_f64() * 1e3);
    }
    window_ms.sort_by(f64::total_cmp);
    Ok(Latency {
        windows: window_ms.len(),
        results: windows.arrived().len(),
        p50_ms: percentile(&window_ms, 0.50),
        p99_ms: percentile(&window_ms, 0.99),
        max_ms: percentile(&window_ms, 1.0),
        window_ms,
    })
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { windows, results, p50_ms, p99_ms, max_ms, .. } = self;
        writeln!(
            f,
            "{EVENTS_PER_SEC} events per second, up to {DISORDER_MS} ms out of order, {windows} windows of \
             {WINDOW_MS} ms after {WARM_UP_SECS} s of warm-up; max_disorder \
             {BY_SECOND_CLOSES_AFTER_MS} ms, allowed_lateness 0"
        )?;
        writeln!(f, "All {results} results, those of the warm-up too, count what was produced.\n")?;
        writeln!(f, "{:<48}{:>9}{:>9}{:>9}", "ms from may close to last result read", "p50", "p99", "max")?;
        writeln!(f, "{:<48}{p50_ms:>9.0}{p99_ms:>9.0}{max_ms:>9.0}", "bongsu, both stages, exactly once")
    }
}

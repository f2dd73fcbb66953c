//! An outage that is over: how fast what was missed is made up for, and how much memory that takes against a steady
//! stream.

use std::fmt;
use std::slice;
use std::time::Duration;

use anyhow::Context;
use bongsu_testkit::Broker;
use rdkafka::producer::BaseProducer;
use serde::Serialize;

use crate::counts::{By, Counts};
use crate::installation::{BY_MINUTE, Installation, ONLY, json_source};
use crate::measure::{Sample, peak_rss_mib};
use crate::producer::{backlog_config, send};
use crate::random::Random;
use crate::report::progress;
use crate::request::{EVENT_BYTES, Templates};
use crate::stream::{DISORDER_MS, EVENTS_PER_SEC, Plan, Produced, Stream};
use crate::workload::{MINUTE_MS, PARTITIONS, TOPIC, close_windows, create_topic, setting};

const DEFAULT_OUTAGE_SECS: u64 = 3_600;
const STEADY: Duration = Duration::from_secs(60);
/// The steady stream's event times are behind the clock by the outage and this, so that nothing is ever in the future.
const MARGIN_MS: i64 = 10 * MINUTE_MS;
/// The closing events are later than all others by more than windows stay open.
const CLOSING_AFTER_MS: i64 = 2 * MINUTE_MS;

#[derive(Debug, Serialize)]
pub(crate) struct Outage {
    outage_secs: u64,
    events: u64,
    windows: usize,
    steady_peak_rss_mib: f64,
    catch_up: Sample,
    catch_up_per_sec: f64,
    catch_up_per_cpu_sec: f64,
    /// Catching up to steady.
    peak_rss_ratio: f64,
}

pub(crate) fn run() -> anyhow::Result<Outage> {
    let outage_secs = setting("BONGSU_BENCH_OUTAGE_SECS", DEFAULT_OUTAGE_SECS)?;
    progress(format_args!("outage: starting Kafka, then {EVENTS_PER_SEC} events per second for {STEADY:?}"));
    let broker = Broker::start()?;
    create_topic(&broker, TOPIC)?;
    let bootstrap = broker.bootstrap();
    let installation = Installation::new(bootstrap, "outage", &json_source(TOPIC), BY_MINUTE)?;
    let (steady, steady_peak_rss_mib) = installation.explain(run_steadily(bootstrap, &installation, outage_secs))?;

    let mut counts = steady.counts;
    let events = write_backlog(bootstrap, steady.to_ms, outage_secs, &mut counts)?;
    progress(format_args!("catching up"));
    let (catch_up, windows) = installation.measure(events, counts.windows())?;
    progress(format_args!("caught up: {catch_up}"));
    counts.compare(windows.arrived()).context("the results are wrong")?;
    installation.check_nothing_late()?;
    Ok(Outage {
        outage_secs,
        events,
        windows: counts.windows(),
        steady_peak_rss_mib,
        catch_up,
        catch_up_per_sec: catch_up.per_sec(),
        catch_up_per_cpu_sec: catch_up.per_cpu_sec(),
        peak_rss_ratio: catch_up.peak_rss_mib / steady_peak_rss_mib,
    })
}

/// A live stream and a process that keeps up with it; then it is told to end. Gives the stream, and the process's peak.
fn run_steadily(bootstrap: &str, installation: &Installation, outage_secs: u64) -> anyhow::Result<(Produced, f64)> {
    let mut processor = installation.start(ONLY)?;
    let mut windows = installation.windows()?;
    let behind_ms = outage_secs as i64 * 1_000 + MARGIN_MS;
    let plan = Plan { topic: TOPIC, by: By::ServiceAndRoute, window_ms: MINUTE_MS, behind_ms, at_most: 2 * STEADY };
    let stream = Stream::start(bootstrap, plan)?;
    windows.watch_for(STEADY, slice::from_mut(&mut processor))?;
    let produced = stream.finish()?;
    let peak_mib = peak_rss_mib(processor.pid())?;
    processor.terminate()?;
    progress(format_args!("steady: {peak_mib:.0} MiB"));
    Ok((produced, peak_mib))
}

/// Writes at full speed what the stream would have had, from where it ended. How many events that is.
fn write_backlog(bootstrap: &str, from_ms: i64, secs: u64, counts: &mut Counts) -> anyhow::Result<u64> {
    let events = secs * EVENTS_PER_SEC;
    let producer: BaseProducer = backlog_config(bootstrap).create()?;
    let (mut templates, mut random) = (Templates::new()?, Random::new(2031));
    let tenth = (events / 10).max(1);
    for index in 0..events {
        if index.is_multiple_of(tenth) {
            progress(format_args!("{index} of {events} events of the outage are written"));
        }
        let in_order_ms = from_ms + (index * 1_000 / EVENTS_PER_SEC) as i64;
        let time_ms = in_order_ms - random.below(DISORDER_MS) as i64;
        let (group, json) = templates.at(time_ms);
        send(&producer, TOPIC, random.partition(), time_ms, json)?;
        counts.add(group, time_ms);
    }
    close_windows(&producer, TOPIC, from_ms + secs as i64 * 1_000 + CLOSING_AFTER_MS)?;
    Ok(events)
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outage { outage_secs, events, windows, steady_peak_rss_mib, catch_up, peak_rss_ratio, .. } = self;
        writeln!(
            f,
            "{events} events of {EVENT_BYTES} bytes in {PARTITIONS} partitions, {outage_secs} s of \
             {EVENTS_PER_SEC} per second, after {} s of a steady stream",
            STEADY.as_secs()
        )?;
        writeln!(f, "All {windows} windows count what was produced; nothing was late.\n")?;
        let (per_sec, per_cpu_sec) = (self.catch_up_per_sec / 1e3, self.catch_up_per_cpu_sec / 1e3);
        writeln!(f, "{:<48}{per_sec:>12.0}", "thousand events per second")?;
        writeln!(f, "{:<48}{per_cpu_sec:>12.0}", "thousand events per CPU-second")?;
        writeln!(f, "{:<48}{:>12.0}", "seconds until caught up", catch_up.wall_secs)?;
        writeln!(f, "{:<48}{:>12.0}", "CPU-seconds", catch_up.cpu_secs)?;
        writeln!(f, "{:<48}{steady_peak_rss_mib:>12.0}", "peak RSS of the steady stream, MiB")?;
        writeln!(f, "{:<48}{:>12.0}", "peak RSS while catching up, MiB", catch_up.peak_rss_mib)?;
        writeln!(f, "{:<48}{peak_rss_ratio:>12.2}", "ratio")
    }
}

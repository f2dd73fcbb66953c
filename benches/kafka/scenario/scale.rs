//! The backlog of requests with one process, and with two that share it.
//!
//! The events are written in a transaction that stays open until the processes have divided the partitions among
//! themselves: they see all of them at the same moment, and neither has a start on the other.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Context;
use bongsu_testkit::Broker;
use chrono::Utc;
use rdkafka::producer::{BaseProducer, Producer};
use serde::Serialize;

use super::RUNS;
use crate::installation::{BY_MINUTE, Installation, json_source};
use crate::processor::Processor;
use crate::producer::backlog_config;
use crate::recount::Recount;
use crate::report::{Spread, progress};
use crate::workload::{PARTITIONS, Workload, create_topic, events};

const INSTANCES: [&str; 2] = ["one", "two"];
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize)]
pub(crate) struct Scale {
    events: u64,
    windows: usize,
    /// Events per second of the clock on the wall.
    one: Spread,
    two: Spread,
    /// Of the medians.
    ratio: f64,
}

pub(crate) fn run() -> anyhow::Result<Scale> {
    let events = events()?;
    progress(format_args!("scale: starting Kafka"));
    let broker = Broker::start()?;
    let workload = Workload::ending_before(Utc::now(), events);
    let (mut rates, mut windows) = ([Vec::new(), Vec::new()], 0);
    for run in 1..=RUNS {
        for (index, measured) in rates.iter_mut().enumerate() {
            let instances = &INSTANCES[..=index];
            let name = format!("scale-{run}-{}", instances.len());
            progress(format_args!("run {run} of {RUNS}, {} of bongsu: writing {events} events", instances.len()));
            let (secs, count) = measure(&broker, &workload, &name, instances)?;
            progress(format_args!("run {run} of {RUNS}, {} of bongsu: {secs:.1} s", instances.len()));
            measured.push(events as f64 / secs);
            windows = count;
        }
    }
    let [one, two] = rates;
    let (one, two) = (Spread::over(one.into_iter())?, Spread::over(two.into_iter())?);
    Ok(Scale { events, windows, one, two, ratio: two.median / one.median })
}

/// Seconds from the moment when the events can be read to the last window, and how many windows those are.
fn measure(broker: &Broker, workload: &Workload, name: &str, instances: &[&str]) -> anyhow::Result<(f64, usize)> {
    // Names of the installation's own topics start with its name; a source's must not.
    let topic = format!("shop.requests.{name}");
    create_topic(broker, &topic)?;
    let producer: BaseProducer = backlog_config(broker.bootstrap())
        .set("transactional.id", &topic)
        .set("transaction.timeout.ms", "600000")
        .create()?;
    producer.init_transactions(TRANSACTION_TIMEOUT).context("beginning to write the events")?;
    producer.begin_transaction().context("beginning to write the events")?;
    let recount = workload.write(&producer, &topic)?;
    let installation = Installation::new(broker.bootstrap(), name, &json_source(&topic), BY_MINUTE)?;
    let secs = installation.explain(measure_running(&installation, &producer, &recount, instances))?;
    Ok((secs, recount.windows()))
}

fn measure_running(
    installation: &Installation,
    producer: &BaseProducer,
    recount: &Recount,
    instances: &[&str],
) -> anyhow::Result<f64> {
    let start = |instance: &&str| installation.start(instance);
    let mut processors = instances.iter().map(start).collect::<anyhow::Result<Vec<Processor>>>()?;
    installation.await_balance(instances)?;
    let mut windows = installation.windows()?;
    let started = Instant::now();
    producer.commit_transaction(TRANSACTION_TIMEOUT).context("letting go of the events")?;
    windows.await_count(recount.windows(), &mut processors)?;
    let secs = started.elapsed().as_secs_f64();
    processors.into_iter().try_for_each(Processor::terminate)?;
    windows.check_complete()?;
    recount.compare(windows.arrived())?;
    Ok(secs)
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scale { events, windows, ratio, .. } = self;
        writeln!(
            f,
            "{events} events, {PARTITIONS} partitions, {windows} windows; thousand events per second, medians"
        )?;
        writeln!(f, "All {windows} windows of every run agree with the recount.\n")?;
        writeln!(f, "{:<24}{:>24}{:>10}", "processes", "per s (min-max)", "ratio")?;
        for (title, rates, to_one) in [("one", &self.one, 1.0), ("two", &self.two, *ratio)] {
            let [median, min, max] = [rates.median, rates.min, rates.max].map(|rate| rate / 1e3);
            writeln!(f, "{title:<24}{:>24}{to_one:>10.2}", format!("{median:.0} ({min:.0}-{max:.0})"))?;
        }
        writeln!(
            f,
            "\nFrom the moment when all events become readable at once to the last window that a committed reader\n\
             sees. Kafka and the reader share the machine's cores with the processes."
        )
    }
}

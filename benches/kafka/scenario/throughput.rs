//! What one second of processor time buys: both stages, exactly once, against the raw ceiling in the same run.
//!
//! Three things read the same topic, each in a process of its own: a consumer that only counts, the same with
//! serde_json, and `bongsu run --role processor`. They take turns, and the medians are shown as a ratio to serde_json.

use std::fmt;

use anyhow::Context;
use bongsu_testkit::Broker;
use chrono::Utc;
use rdkafka::producer::BaseProducer;
use serde::Serialize;

use super::RUNS;
use crate::baseline::{Reading, Work};
use crate::installation::{BY_MINUTE, Installation, json_source};
use crate::producer::backlog_config;
use crate::report::{Comparison, Unit, progress};
use crate::request::{EVENT_BYTES, GROUPS};
use crate::workload::{MINUTE_MS, PARTITIONS, SPAN_MS, TOPIC, Workload, create_topic, events};

const UNIT: Unit = Unit { name: "thousand events", events: 1e3, decimals: 0 };
const BASELINES: [Work; 2] = [Work::Count, Work::SerdeJson];
/// Ratios are to the second line, serde_json.
const REFERENCE: usize = 1;

#[derive(Debug, Serialize)]
pub(crate) struct Throughput {
    events: u64,
    windows: usize,
    minutes: i64,
    comparison: Comparison,
}

pub(crate) fn run() -> anyhow::Result<Throughput> {
    let events = events()?;
    progress(format_args!("throughput: starting Kafka, writing {events} events"));
    let broker = Broker::start()?;
    create_topic(&broker, TOPIC)?;
    let bootstrap = broker.bootstrap();
    let workload = Workload::ending_before(Utc::now(), events);
    let producer: BaseProducer = backlog_config(bootstrap).create()?;
    let recount = workload.write(&producer, TOPIC)?;
    drop(producer);

    let (mut baselines, mut bongsu) = ([Vec::new(), Vec::new()], Vec::new());
    for run in 1..=RUNS {
        for (work, samples) in BASELINES.into_iter().zip(&mut baselines) {
            let (topic, group) = (TOPIC.to_owned(), format!("{work}-{run}"));
            let reading = Reading { work, bootstrap: bootstrap.to_owned(), topic, group, records: workload.records() };
            let sample = reading.measure_in_child()?;
            progress(format_args!("run {run} of {RUNS}, {work}: {sample}"));
            samples.push(sample);
        }
        let installation = Installation::new(bootstrap, &format!("bench-{run}"), &json_source(TOPIC), BY_MINUTE)?;
        let (sample, windows) = installation.measure(workload.records(), recount.windows())?;
        progress(format_args!("run {run} of {RUNS}, bongsu: {sample}"));
        recount.compare(windows.arrived()).with_context(|| format!("the results of run {run} are wrong"))?;
        bongsu.push(sample);
    }
    let [count, serde_json] = baselines;
    let lines = vec![
        ("librdkafka, only counting messages", count),
        ("the same and serde_json, borrowed", serde_json),
        ("bongsu, both stages, exactly once", bongsu),
    ];
    let comparison = Comparison::new(UNIT, REFERENCE, lines)?;
    Ok(Throughput { events, windows: recount.windows(), minutes: SPAN_MS / MINUTE_MS, comparison })
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Throughput { events, windows, minutes, comparison } = self;
        writeln!(
            f,
            "{events} events of {EVENT_BYTES} bytes, {PARTITIONS} partitions, lz4, {GROUPS} groups (Zipf 1.0), \
             {windows} windows of one minute out of {minutes}"
        )?;
        writeln!(f, "All {windows} windows of every run agree with the recount.\n")?;
        write!(f, "{comparison}")
    }
}

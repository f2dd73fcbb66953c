//! What one second of processor time buys where events are OpenTelemetry's spans: a captured record, repeated with
//! other services, routes, ids and times.

use std::fmt;

use anyhow::Context;
use bongsu_testkit::Broker;
use chrono::Utc;
use serde::Serialize;

use super::RUNS;
use crate::baseline::{Reading, Work};
use crate::installation::{BY_MINUTE, Installation};
use crate::measure::Sample;
use crate::report::{Comparison, Unit, progress};
use crate::spans::Spans;
use crate::workload::{MINUTE_MS, PARTITIONS, SPAN_MS, create_topic, events};

const TOPIC: &str = "otlp_spans";
const SOURCE: &str = "{ topic: otlp_spans, format: otlp_proto }";
const UNIT: Unit = Unit { name: "million spans", events: 1e6, decimals: 2 };
/// Ratios are to the first line: only counting messages.
const REFERENCE: usize = 0;

#[derive(Debug, Serialize)]
pub(crate) struct Otlp {
    spans: u64,
    requests: u64,
    records: u64,
    record_bytes: u64,
    windows: usize,
    comparison: Comparison,
}

pub(crate) fn run() -> anyhow::Result<Otlp> {
    let workload = Spans::ending_before(Utc::now(), events()?)?;
    let (spans, records) = (workload.spans(), workload.records());
    progress(format_args!("otlp: starting Kafka, writing {spans} spans"));
    let broker = Broker::start()?;
    create_topic(&broker, TOPIC)?;
    let bootstrap = broker.bootstrap();
    let written = workload.write(bootstrap, TOPIC)?;
    let counts = written.requests;

    let (mut baseline, mut bongsu) = (Vec::new(), Vec::new());
    for run in 1..=RUNS {
        let (bootstrap_too, topic, group) = (bootstrap.to_owned(), TOPIC.to_owned(), format!("count-{run}"));
        let reading = Reading { work: Work::Count, bootstrap: bootstrap_too, topic, group, records };
        // A record holds many spans.
        let sample = Sample { events: spans, ..reading.measure_in_child()? };
        progress(format_args!("run {run} of {RUNS}, count: {sample}"));
        baseline.push(sample);
        let installation = Installation::new(bootstrap, &format!("otlp-{run}"), SOURCE, BY_MINUTE)?;
        let (sample, windows) = installation.measure(spans, counts.windows())?;
        progress(format_args!("run {run} of {RUNS}, bongsu: {sample}"));
        counts.compare(windows.arrived()).with_context(|| format!("the results of run {run} are wrong"))?;
        bongsu.push(sample);
    }
    let lines = vec![("librdkafka, only counting messages", baseline), ("bongsu, both stages, exactly once", bongsu)];
    Ok(Otlp {
        spans,
        requests: counts.total(),
        records,
        record_bytes: written.bytes / records,
        windows: counts.windows(),
        comparison: Comparison::new(UNIT, REFERENCE, lines)?,
    })
}

impl fmt::Display for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Otlp { spans, requests, records, record_bytes, windows, comparison } = self;
        let minutes = SPAN_MS / MINUTE_MS;
        writeln!(
            f,
            "{spans} spans, {requests} of them of servers, in {records} records of {record_bytes} bytes, \
             {PARTITIONS} partitions, lz4, {windows} windows of one minute out of {minutes}"
        )?;
        writeln!(f, "The requests of every window of every run are as many as the server spans that were written.\n")?;
        write!(f, "{comparison}")
    }
}

//! What one second of processor time buys: both stages, exactly once on a real Kafka, against the raw ceiling in the same run.
//!
//! Three things read the same topic, each in a process of its own: a consumer that only counts, the same with serde_json, and
//! `bongsu run --role processor`. They take turns, and the medians are shown as a ratio to serde_json. All windows are compared with a
//! recount; wrong results fail the benchmark. See docs/benchmarks.md.

#![allow(clippy::print_stdout)] // the table is for people, the other format for programs

mod baseline;
mod measure;
mod processor;
mod recount;
mod report;
mod workload;

use std::env;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bongsu_testkit::Broker;
use clap::{Parser, Subcommand, ValueEnum};

use baseline::Work;
use measure::Sample;
use processor::Installation;
use report::Report;
use workload::{PARTITIONS, TOPIC, Workload};

const DEFAULT_EVENTS: u64 = 3_000_000;
const RUNS: usize = 3;

/// Thousand events per CPU-second on a real Kafka. BONGSU_BENCH_EVENTS sets how many events (3000000).
#[derive(Parser)]
struct Cli {
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Part {
    /// What the benchmark starts itself as: reads the topic once and prints a sample.
    #[command(hide = true)]
    Consume { work: Work, bootstrap: String, group: String, records: u64 },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.part {
        Some(Part::Consume { work, bootstrap, group, records }) => {
            baseline::consume(*work, bootstrap, group, *records).and_then(|sample| sample.print())
        }
        None => measure_all().and_then(|report| match cli.format {
            Format::Text => report.print_table(),
            Format::Json => report.print_json(),
        }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn measure_all() -> anyhow::Result<Report> {
    let events = events()?;
    progress(format_args!("starting Kafka, writing {events} events"));
    let broker = Broker::start()?;
    // Event times, and with them record times, are hours old: nothing may expire while it is measured.
    broker.create_topic_with(TOPIC, PARTITIONS, &[("retention.ms", "-1"), ("compression.type", "lz4")])?;
    let workload = Workload::ending_before(chrono::Utc::now(), events);
    let recount = workload.write(broker.bootstrap())?;
    let records = workload.records();

    let mut report = Report::new(&workload, recount.windows());
    for run in 1..=RUNS {
        for work in [Work::Count, Work::SerdeJson] {
            let sample = Sample::of_child(work, broker.bootstrap(), &format!("{work}-{run}"), records)?;
            progress(format_args!("run {run} of {RUNS}, {work}: {sample}"));
            report.add(work.into(), sample);
        }
        let installation = Installation::new(broker.bootstrap(), &format!("bench-{run}"))?;
        let (sample, windows) = installation.measure(records, recount.windows())?;
        progress(format_args!("run {run} of {RUNS}, bongsu: {sample}"));
        recount.compare(&windows).with_context(|| format!("the results of run {run} are wrong"))?;
        report.add(report::Line::Bongsu, sample);
    }
    Ok(report)
}

fn events() -> anyhow::Result<u64> {
    match env::var("BONGSU_BENCH_EVENTS") {
        Ok(text) => match text.parse() {
            Ok(events) if events > 0 => Ok(events),
            _ => bail!("BONGSU_BENCH_EVENTS is no number of events: `{text}`"),
        },
        Err(_) => Ok(DEFAULT_EVENTS),
    }
}

/// To stderr, so that stdout holds the result only.
#[allow(clippy::print_stderr)]
fn progress(text: std::fmt::Arguments<'_>) {
    eprintln!("{text}");
}

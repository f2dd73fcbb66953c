//! What the whole does on a real Kafka, in named scenarios.
//!
//! ```text
//! throughput   a backlog of JSON: events per CPU-second, exactly once, against the raw ceiling in the same run
//! otlp         a backlog of OpenTelemetry spans: spans per CPU-second
//! scale        the same backlog of JSON with one process and with two: events per second of the clock on the wall
//! latency      a live stream: from the moment a window may close to its last result in a committed reader's hands
//! alerts       a live stream: from the event that makes a rule's condition true to its message in Slack
//! restart      a live stream and SIGKILL: until there are new results again
//! outage       an hour that was missed: how fast it is made up for, and in how much memory
//! ```
//!
//! Each starts Kafka itself, and compares all windows with what was produced: wrong results fail the benchmark, times
//! never do. See docs/benchmarks.md.

#![allow(clippy::print_stdout)] // tables are for people, the other format for programs

mod baseline;
mod counts;
mod installation;
mod measure;
mod processor;
mod producer;
mod random;
mod recount;
mod report;
mod request;
mod scenario;
mod slack;
mod spans;
mod stream;
mod windows;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use report::{Format, progress, show};
use scenario::{alerts, latency, otlp, outage, restart, scale, throughput};

/// The whole on a real Kafka. BONGSU_BENCH_EVENTS sets how many events or spans a backlog has (3000000),
/// BONGSU_BENCH_OUTAGE_SECS how long the outage is (3600).
#[derive(Parser)]
struct Cli {
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// All but `outage` where absent.
    #[arg(value_enum)]
    scenario: Option<Scenario>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Scenario {
    Throughput,
    Otlp,
    Scale,
    Latency,
    Alerts,
    Restart,
    Outage,
}

/// `outage` runs only by its name, for it takes many minutes and gigabytes.
const BY_DEFAULT: [Scenario; 6] =
    [Scenario::Throughput, Scenario::Otlp, Scenario::Scale, Scenario::Latency, Scenario::Alerts, Scenario::Restart];

#[derive(Subcommand)]
enum Part {
    /// What the benchmark starts itself as: reads a topic once and prints a sample.
    #[command(hide = true)]
    Consume(baseline::Reading),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match (&cli.part, cli.scenario) {
        (Some(Part::Consume(reading)), _) => reading.measure().and_then(|sample| sample.print()),
        (None, Some(scenario)) => scenario.run(cli.format),
        (None, None) => BY_DEFAULT.iter().try_for_each(|scenario| scenario.run(cli.format)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

impl Scenario {
    fn run(self, format: Format) -> anyhow::Result<()> {
        match self {
            Scenario::Throughput => show("throughput", format, &throughput::run()?),
            Scenario::Otlp => show("otlp", format, &otlp::run()?),
            Scenario::Scale => show("scale", format, &scale::run()?),
            Scenario::Latency => show("latency", format, &latency::run()?),
            Scenario::Alerts => show("alerts", format, &alerts::run()?),
            Scenario::Restart => show("restart", format, &restart::run()?),
            Scenario::Outage => show("outage", format, &outage::run()?),
        }
    }
}

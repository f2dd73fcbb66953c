//! What scenarios found, for people and for programs.

use std::fmt;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde::Serialize;

use crate::measure::Sample;

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    /// Tables.
    Text,
    /// One line of JSON for each scenario, with every run's figures.
    Json,
}

/// Prints what a scenario found.
pub(crate) fn show(scenario: &str, format: Format, result: &(impl Serialize + fmt::Display)) -> anyhow::Result<()> {
    match format {
        Format::Text => println!("{scenario}: {result}"),
        Format::Json => {
            let value = serde_json::to_value(result)?;
            println!("{}", serde_json::json!({ "scenario": scenario, "result": value }));
        }
    }
    Ok(())
}

/// To stderr, so that stdout holds results only.
#[allow(clippy::print_stderr)]
pub(crate) fn progress(text: fmt::Arguments<'_>) {
    eprintln!("{text}");
}

/// Over all runs.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn over(values: impl Iterator<Item = f64>) -> anyhow::Result<Spread> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = values.first().copied().zip(values.last().copied()).context("nothing was measured")?;
        Ok(Spread { median: values[values.len() / 2], min, max })
    }
}

/// How long many of one kind took.
#[derive(Debug, Serialize)]
pub(crate) struct Delays {
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
    /// All, in ascending order.
    all_ms: Vec<f64>,
}

impl Delays {
    pub(crate) fn of(mut all_ms: Vec<f64>) -> anyhow::Result<Delays> {
        ensure!(!all_ms.is_empty(), "nothing was measured");
        all_ms.sort_by(f64::total_cmp);
        let [p50_ms, p90_ms, p99_ms, max_ms] = [0.50, 0.90, 0.99, 1.0].map(|fraction| percentile(&all_ms, fraction));
        Ok(Delays { p50_ms, p90_ms, p99_ms, max_ms, all_ms })
    }
}

/// The least of the values that so many are not above. There must be one.
pub(crate) fn percentile(ascending: &[f64], fraction: f64) -> f64 {
    ascending[(fraction * ascending.len() as f64).ceil() as usize - 1]
}

/// What a table counts in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    pub(crate) name: &'static str,
    pub(crate) events: f64,
    pub(crate) decimals: usize,
}

/// Several processes that read the same topic, in turns.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    #[serde(skip)]
    unit: Unit,
    lines: Vec<Line>,
}

/// One of them; rates in events.
#[derive(Debug, Serialize)]
struct Line {
    title: &'static str,
    per_cpu_sec: Spread,
    /// Of the medians per CPU-second.
    ratio: f64,
    per_sec: Spread,
    warm_up_cpu_secs: Spread,
    peak_rss_mib: Spread,
    samples: Vec<Sample>,
}

impl Comparison {
    /// Ratios are to the line of the number `reference`.
    pub(crate) fn new(
        unit: Unit,
        reference: usize,
        measured: Vec<(&'static str, Vec<Sample>)>,
    ) -> anyhow::Result<Comparison> {
        let spread = |samples: &[Sample], of: fn(&Sample) -> f64| Spread::over(samples.iter().map(of));
        let (_, reference_samples) = measured.get(reference).context("there is no such line")?;
        let reference_rate = spread(reference_samples, Sample::per_cpu_sec)?.median;
        let line = |(title, samples): (&'static str, Vec<Sample>)| -> anyhow::Result<Line> {
            let per_cpu_sec = spread(&samples, Sample::per_cpu_sec)?;
            Ok(Line {
                title,
                per_cpu_sec,
                ratio: per_cpu_sec.median / reference_rate,
                per_sec: spread(&samples, Sample::per_sec)?,
                warm_up_cpu_secs: spread(&samples, |sample| sample.warm_up_cpu_secs)?,
                peak_rss_mib: spread(&samples, |sample| sample.peak_rss_mib)?,
                samples,
            })
        };
        let lines = measured.into_iter().map(line).collect::<anyhow::Result<_>>()?;
        Ok(Comparison { unit, lines })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unit { name, events, decimals } = self.unit;
        writeln!(
            f,
            "{name:<40}{:>26}{:>8}{:>10}{:>10}{:>9}",
            "per CPU-second (min-max)", "ratio", "per s", "warm-up", "RSS"
        )?;
        for line in &self.lines {
            let Spread { median, min, max } = line.per_cpu_sec;
            let [median, min, max] = [median, min, max].map(|rate| rate / events);
            writeln!(
                f,
                "{:<40}{:>26}{:>8.2}{:>10.decimals$}{:>8.2} s{:>5.0} MiB",
                line.title,
                format!("{median:.decimals$} ({min:.decimals$}-{max:.decimals$})"),
                line.ratio,
                line.per_sec.median / events,
                line.warm_up_cpu_secs.median,
                line.peak_rss_mib.max,
            )?;
        }
        writeln!(
            f,
            "\nCPU: user and system time of the measured process, from /proc/PID/stat, without the warm-up. That ends\n\
             with the first record of a consumer, and when bongsu's /readyz says that stage 1 is ready. Medians; RSS\n\
             is the greatest peak."
        )
    }
}

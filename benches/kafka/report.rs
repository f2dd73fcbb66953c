//! Medians, for people and for programs.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Serialize;

use crate::baseline::Work;
use crate::measure::Sample;
use crate::workload::{EVENT_BYTES, PARTITIONS, ROUTES, SERVICES, Workload};

/// What was measured, in the table's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    Count,
    SerdeJson,
    Bongsu,
}

impl From<Work> for Line {
    fn from(work: Work) -> Line {
        match work {
            Work::Count => Line::Count,
            Work::SerdeJson => Line::SerdeJson,
        }
    }
}

impl Line {
    fn title(self) -> &'static str {
        match self {
            Line::Count => "rdkafka, only counting messages",
            Line::SerdeJson => "the same and serde_json, borrowed",
            Line::Bongsu => "bongsu, both stages, exactly once",
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    events: u64,
    windows: usize,
    minutes: i64,
    samples: BTreeMap<Line, Vec<Sample>>,
}

/// Over all runs.
#[derive(Debug, Clone, Copy, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

/// One line of the table; rates in thousand events.
#[derive(Debug, Serialize)]
struct Summary {
    line: Line,
    per_cpu_sec: Spread,
    /// Of the medians.
    ratio_to_serde_json: f64,
    per_sec: Spread,
    warm_up_cpu_secs: Spread,
    peak_rss_mib: Spread,
}

impl Report {
    pub(crate) fn new(workload: &Workload, windows: usize) -> Report {
        Report { events: workload.events, windows, minutes: workload.minutes(), samples: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, line: Line, sample: Sample) {
        self.samples.entry(line).or_default().push(sample);
    }

    pub(crate) fn print_table(&self) -> anyhow::Result<()> {
        println!(
            "{} events of {EVENT_BYTES} bytes, {PARTITIONS} partitions, lz4, {} groups (Zipf 1.0), {} windows of one minute out of {}",
            self.events,
            SERVICES * ROUTES,
            self.windows,
            self.minutes,
        );
        println!("All {} windows of every run agree with the recount.\n", self.windows);
        println!(
            "{:<35}{:>26}{:>8}{:>10}{:>10}{:>9}",
            "thousand events", "per CPU-second (min-max)", "ratio", "per s", "warm-up", "RSS"
        );
        for summary in self.summaries()? {
            let Spread { median, min, max } = summary.per_cpu_sec;
            println!(
                "{:<35}{:>26}{:>8.2}{:>10.0}{:>8.2} s{:>5.0} MiB",
                summary.line.title(),
                format!("{median:.0} ({min:.0}-{max:.0})"),
                summary.ratio_to_serde_json,
                summary.per_sec.median,
                summary.warm_up_cpu_secs.median,
                summary.peak_rss_mib.max,
            );
        }
        println!(
            "\nCPU: user and system time of the measured process, from /proc/PID/stat, without the warm-up. That ends with the first \
             record\nof a consumer, and when bongsu's /readyz says that stage 1 is ready. Medians; RSS is the greatest peak."
        );
        Ok(())
    }

    pub(crate) fn print_json(&self) -> anyhow::Result<()> {
        let report = serde_json::json!({ "report": self, "summaries": self.summaries()? });
        println!("{}", serde_json::to_string_pretty(&report)?);
        Ok(())
    }

    fn summaries(&self) -> anyhow::Result<Vec<Summary>> {
        let spread = |line: Line, of: fn(&Sample) -> f64| {
            let samples = self.samples.get(&line).context("nothing was measured")?;
            Spread::over(samples.iter().map(of).collect()).context("nothing was measured")
        };
        let serde_json = spread(Line::SerdeJson, Sample::per_cpu_sec)?.median;
        let summary = |line: Line| -> anyhow::Result<Summary> {
            let per_cpu_sec = spread(line, Sample::per_cpu_sec)?;
            Ok(Summary {
                line,
                per_cpu_sec,
                ratio_to_serde_json: per_cpu_sec.median / serde_json,
                per_sec: spread(line, Sample::per_sec)?,
                warm_up_cpu_secs: spread(line, |sample| sample.warm_up_cpu_secs)?,
                peak_rss_mib: spread(line, |sample| sample.peak_rss_mib)?,
            })
        };
        self.samples.keys().copied().map(summary).collect()
    }
}

impl Spread {
    fn over(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        Some(Spread { median: values[values.len() / 2], min, max })
    }
}

//! Processor time and memory, as the kernel counts them.

use std::time::Instant;
use std::{fmt, fs};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The kernel's unit of processor time towards programs: 1/100 s on all its architectures but two that are gone.
const TICKS_PER_SEC: f64 = 100.0;

/// What one process needed for all events.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) events: u64,
    /// User and system time of all threads, without the warm-up.
    pub(crate) cpu_secs: f64,
    pub(crate) warm_up_cpu_secs: f64,
    /// Without the warm-up.
    pub(crate) wall_secs: f64,
    pub(crate) peak_rss_mib: f64,
}

impl Sample {
    /// For the process that started this one as its child.
    pub(crate) fn print(&self) -> anyhow::Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }

    /// Events per second of processor time.
    pub(crate) fn per_cpu_sec(&self) -> f64 {
        self.events as f64 / self.cpu_secs
    }

    /// Events per second of the clock on the wall.
    pub(crate) fn per_sec(&self) -> f64 {
        self.events as f64 / self.wall_secs
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sample { cpu_secs, warm_up_cpu_secs, wall_secs, peak_rss_mib, .. } = self;
        write!(
            f,
            "{:.0} k per CPU-second ({cpu_secs:.2} s CPU after {warm_up_cpu_secs:.2} s of warm-up, \
             {wall_secs:.1} s in all, {peak_rss_mib:.0} MiB)",
            self.per_cpu_sec() / 1000.0
        )
    }
}

/// Measures a process from the end of its warm-up on.
pub(crate) struct Meter {
    pid: u32,
    started: Instant,
    warm_up_cpu_secs: f64,
}

impl Meter {
    /// The warm-up is over.
    pub(crate) fn start(pid: u32) -> anyhow::Result<Meter> {
        Ok(Meter { pid, started: Instant::now(), warm_up_cpu_secs: cpu_secs(pid)? })
    }

    /// The work is done: so many events.
    pub(crate) fn sample(&self, events: u64) -> anyhow::Result<Sample> {
        Ok(Sample {
            events,
            cpu_secs: cpu_secs(self.pid)? - self.warm_up_cpu_secs,
            warm_up_cpu_secs: self.warm_up_cpu_secs,
            wall_secs: self.started.elapsed().as_secs_f64(),
            peak_rss_mib: peak_rss_mib(self.pid)?,
        })
    }
}

/// User and system time of a process since its start, all its threads together.
fn cpu_secs(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // The second field, the program's name in parentheses, may hold anything; the third follows the last parenthesis.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| -> anyhow::Result<f64> { Ok(fields.get(field - 3).context("too short")?.parse()?) };
    let (utime, stime) = (ticks(14), ticks(15));
    Ok((utime.with_context(|| path.clone())? + stime.with_context(|| path.clone())?) / TICKS_PER_SEC)
}

/// The most memory that a process ever had resident.
pub(crate) fn peak_rss_mib(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = line.and_then(|line| line.trim().strip_suffix(" kB")).with_context(|| path.clone())?.parse()?;
    Ok(kib / 1024.0)
}

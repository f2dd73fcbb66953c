//! A live stream and SIGKILL: how long until there are new results, where the process is started again at once.

use std::collections::BTreeMap;
use std::fmt;
use std::slice;
use std::time::{Duration, Instant};

use anyhow::bail;
use bongsu_testkit::Broker;
use serde::Serialize;

use super::settle;
use crate::counts::By;
use crate::installation::{BY_SECOND, Installation, ONLY, json_source};
use crate::processor::Processor;
use crate::report::{Spread, progress};
use crate::stream::{EVENTS_PER_SEC, Plan, Stream};
use crate::windows::{LogEnds, Windows};
use crate::workload::{TOPIC, create_topic};

const KILLS: u32 = 5;
const BETWEEN_KILLS: Duration = Duration::from_secs(15);
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize)]
pub(crate) struct Restart {
    results: usize,
    secs: Spread,
    /// Each, in the order of the kills.
    kills_secs: Vec<f64>,
}

pub(crate) fn run() -> anyhow::Result<Restart> {
    progress(format_args!("restart: starting Kafka, then {EVENTS_PER_SEC} events per second and {KILLS} kills"));
    let broker = Broker::start()?;
    create_topic(&broker, TOPIC)?;
    let installation = Installation::new(broker.bootstrap(), "restart", &json_source(TOPIC), BY_SECOND)?;
    installation.explain(measure(broker.bootstrap(), &installation))
}

fn measure(bootstrap: &str, installation: &Installation) -> anyhow::Result<Restart> {
    let mut processor = installation.start(ONLY)?;
    let mut windows = installation.windows()?;
    let log_ends = LogEnds::open(bootstrap, &installation.windows_topic())?;
    let at_most = (BETWEEN_KILLS + RECOVERS_WITHIN) * (KILLS + 1);
    let plan = Plan { topic: TOPIC, by: By::Service, window_ms: 1_000, behind_ms: 0, at_most };
    let stream = Stream::start(bootstrap, plan)?;
    let mut kills_secs = Vec::new();
    for kill in 1..=KILLS {
        windows.watch_for(BETWEEN_KILLS, slice::from_mut(&mut processor))?;
        let killed_at = processor.kill()?;
        // What the dead process wrote may still be on its way to a reader, or its last transaction be completed by the
        // broker. New is what lies behind all of that.
        let ends = log_ends.now()?;
        processor = installation.spawn(ONLY)?;
        let secs = (first_beyond(&ends, &mut windows, &mut processor)? - killed_at).as_secs_f64();
        progress(format_args!("kill {kill} of {KILLS}: new results after {secs:.2} s"));
        kills_secs.push(secs);
    }
    // The last one has to catch up, too.
    windows.watch_for(BETWEEN_KILLS, slice::from_mut(&mut processor))?;
    settle(bootstrap, stream, &mut windows, processor)?;
    let secs = Spread::over(kills_secs.iter().copied())?;
    Ok(Restart { results: windows.arrived().len(), secs, kills_secs })
}

/// When the first record behind `ends` arrives.
fn first_beyond(
    ends: &BTreeMap<i32, i64>,
    windows: &mut Windows,
    processor: &mut Processor,
) -> anyhow::Result<Instant> {
    let deadline = Instant::now() + RECOVERS_WITHIN;
    while Instant::now() < deadline {
        if let Some(window) = windows.poll(slice::from_mut(processor))?
            && ends.get(&window.partition).is_none_or(|end| window.offset >= *end)
        {
            return Ok(window.at);
        }
    }
    bail!("no new results within {RECOVERS_WITHIN:?}")
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Restart { results, secs, .. } = self;
        writeln!(
            f,
            "{EVENTS_PER_SEC} events per second, windows of 1 s, {KILLS} kills, each followed by a start at once"
        )?;
        writeln!(f, "All {results} results are there once, and count what was produced.\n")?;
        writeln!(f, "{:<48}{:>9}{:>9}", "seconds from SIGKILL to the first new result", "median", "max")?;
        writeln!(f, "{:<48}{:>9.2}{:>9.2}", "bongsu, under the same name", secs.median, secs.max)
    }
}

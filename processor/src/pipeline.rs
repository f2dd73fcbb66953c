//! The processor, from topic to topic.
//!
//! ```text
//! sources ─► stage 1 ─► partials ─► stage 2 ─► windows, alerts, late
//!               └─► dead letters     ▲   └───► windows ─► history (Parquet)
//!                            panes ──┴───┘
//! ```
//!
//! Three flows, each on a thread of its own, since librdkafka's transactional calls block. A flow that fails is torn down and started
//! again from what it had committed, after a pause that grows; nothing else remembers anything.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use bongsu_ingest::decode::Wanted;
use bongsu_schemas::health::Health;
use bongsu_schemas::services::Services;
use bongsu_schemas::topics::Topics;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::events::{Emit, FlowFailed};
use crate::history;
use crate::kafka::Replaced;
use crate::kafka::identity::Identity;
use crate::kafka::transactor::Hanging;
use crate::plan::ViewPlan;
use crate::presence::with_presence;
use crate::rules::absence::AbsenceRule;
use crate::rules::engine::CompiledRule;
use crate::validate::{Compiled, compile, tables};
use crate::{events, evolution, stage1, stage2};

/// What the flows share.
pub(crate) struct Pipeline {
    pub(crate) config: Config,
    pub(crate) names: Names,
    /// Those of the configuration, in its order, and behind them earlier versions whose last windows may still be open.
    pub(crate) views: Vec<ViewPlan>,
    pub(crate) rules: Arc<Vec<CompiledRule>>,
    pub(crate) absences: Arc<Vec<AbsenceRule>>,
    pub(crate) services: Arc<Services>,
    /// Columns that some view reads, by table.
    pub(crate) wanted: Wanted,
    pub(crate) identity: Identity,
    /// The watermark over all source partitions, as this process's stage 2 knows it: what its stage 1 must not leave far behind.
    merged_watermark_ms: AtomicI64,
}

/// Stage 2 knows of no watermark.
const UNKNOWN_MS: i64 = i64::MIN;

/// Names of Bongsu's own topics, shared by all records that go there.
pub(crate) struct Names {
    pub(crate) partials: Arc<str>,
    pub(crate) panes: Arc<str>,
    pub(crate) rule_states: Arc<str>,
    pub(crate) views: Arc<str>,
    pub(crate) windows: Arc<str>,
    pub(crate) alerts: Arc<str>,
    pub(crate) late: Arc<str>,
    pub(crate) dead_letter: Arc<str>,
}

impl Names {
    fn new(topics: &Topics) -> Names {
        Names {
            partials: topics.partials().into(),
            panes: topics.panes().into(),
            rule_states: topics.rule_states().into(),
            views: topics.views().into(),
            windows: topics.windows().into(),
            alerts: topics.alerts().into(),
            late: topics.late().into(),
            dead_letter: topics.dead_letter().into(),
        }
    }
}

impl Pipeline {
    /// The views of the configuration whose windows are published.
    pub(crate) fn published_views(&self) -> Vec<&ViewPlan> {
        self.views[..self.config.views.len()].iter().filter(|view| !view.is_presence).collect()
    }

    /// How many partitions the partials have, as all processes of this configuration have agreed.
    pub(crate) fn partials_partitions(&self) -> i32 {
        self.views.first().map_or(1, |view| view.placement.partials)
    }

    /// Whether a topic is among the configured sources.
    pub(crate) fn is_source(&self, topic: &str) -> bool {
        self.config.sources.iter().any(|source| source.topic == topic)
    }

    pub(crate) fn merged_watermark_ms(&self) -> Option<i64> {
        // A number on its own: nothing else is published with it.
        Some(self.merged_watermark_ms.load(Ordering::Relaxed)).filter(|ms| *ms != UNKNOWN_MS)
    }

    pub(crate) fn set_merged_watermark_ms(&self, merged_ms: Option<i64>) {
        self.merged_watermark_ms.store(merged_ms.unwrap_or(UNKNOWN_MS), Ordering::Relaxed);
    }
}

/// Runs until `shutdown`; then each flow commits what it has and ends. An error is one that no restart would mend.
pub async fn run(config: Config, health: Health, shutdown: CancellationToken) -> anyhow::Result<()> {
    let config = with_presence(config);
    let Compiled { views, rules, absences } = match compile(&config) {
        Ok(compiled) => compiled,
        Err(mistakes) => {
            let lines: Vec<_> =
                mistakes.iter().map(|mistake| format!("{}: {}", mistake.path, mistake.problem)).collect();
            bail!("the configuration cannot be run: {}", lines.join("; "));
        }
    };
    events::register(&views);
    let names = Names::new(&config.kafka.topics());
    let (health_of_views, stop) = (health.clone(), shutdown.clone());
    let agreed = tokio::task::spawn_blocking(move || {
        let views = agree(&config, &names, &views, &health_of_views, &stop);
        (config, names, views)
    });
    let (config, names, Some(views)) = agreed.await.context("cannot wait for the versions of views")? else {
        return Ok(());
    };
    let pipeline = Arc::new(Pipeline {
        names,
        wanted: wanted(&views),
        views,
        rules: Arc::new(rules),
        absences: Arc::new(absences),
        services: Arc::new(config.services.clone()),
        identity: Identity::acquire(&config.kafka)?,
        merged_watermark_ms: AtomicI64::new(UNKNOWN_MS),
        config,
    });
    let flows: [(&'static str, Flow); 3] =
        [("stage1", stage1::run), ("stage2", stage2::run), ("history", history::run)];
    // One flow that cannot go on takes the others with it.
    let stop = shutdown.child_token();
    let spawn = |(name, flow): (&'static str, Flow)| {
        let (pipeline, health, shutdown) = (pipeline.clone(), health.clone(), stop.clone());
        let supervised = move || supervise(name, flow, &pipeline, &health, &shutdown);
        thread::Builder::new().name(format!("bongsu-{name}")).spawn(supervised).context("cannot start a thread")
    };
    let threads = flows.into_iter().map(spawn).collect::<anyhow::Result<Vec<_>>>()?;
    let joined = tokio::task::spawn_blocking(move || threads.into_iter().map(JoinHandle::join).collect::<Vec<_>>());
    for outcome in joined.await.context("cannot wait for the processor's threads")? {
        outcome.map_err(|_| anyhow!("a thread of the processor panicked, which is a bug"))??;
    }
    Ok(())
}

/// Until it is known which version of a view computes which windows, nothing can be read. None if asked to stop meanwhile.
fn agree(
    config: &Config,
    names: &Names,
    plans: &[ViewPlan],
    health: &Health,
    shutdown: &CancellationToken,
) -> Option<Vec<ViewPlan>> {
    const PART: &str = "views";
    const PAUSE: Duration = Duration::from_secs(2);
    let (tables, _) = tables(config);
    while !shutdown.is_cancelled() {
        match evolution::agree(config, names, plans, &tables, shutdown) {
            Ok(views) => {
                health.ready(PART);
                return Some(views);
            }
            Err(error) => {
                FlowFailed { flow: PART, error: &error }.emit();
                health.not_ready(PART, format!("{error:#}"));
                wait(PAUSE, shutdown);
            }
        }
    }
    None
}

/// A flow runs until shutdown (`Ok`) or its first error.
type Flow = fn(&Pipeline, &Health, &CancellationToken) -> anyhow::Result<()>;

/// Runs a flow again and again; an error is one that no restart would mend.
fn supervise(
    name: &'static str,
    flow: Flow,
    pipeline: &Pipeline,
    health: &Health,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    const FIRST_PAUSE: Duration = Duration::from_millis(200);
    const LONGEST_PAUSE: Duration = Duration::from_secs(10);
    let mut pause = FIRST_PAUSE;
    let mut replaced = Replacements::default();
    while !shutdown.is_cancelled() {
        health.not_ready(name, "starting");
        let started = Instant::now();
        // A panic is a bug of ours; it must not leave a process that looks healthy and does nothing.
        let outcome = catch_unwind(AssertUnwindSafe(|| flow(pipeline, health, shutdown)));
        if let Err(error) = outcome.unwrap_or_else(|_| Err(anyhow!("the flow panicked, which is a bug"))) {
            if error.is::<Hanging>() || error.is::<Replaced>() && replaced.again(Instant::now()) {
                shutdown.cancel();
                return Err(error);
            }
            FlowFailed { flow: name, error: &error }.emit();
            health.not_ready(name, format!("{error:#}"));
            pause = if started.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            wait(pause, shutdown);
        }
    }
    Ok(())
}

/// How often the group gave a flow's place to somebody else.
///
/// That somebody may have been the flow itself: librdkafka sends its request to join once more when brokers come back, the group heeds
/// the second and librdkafka the answer to the first. So one time means a new start, which takes the place back. From another process
/// that works under the same name it comes back at once.
#[derive(Debug, Default)]
struct Replacements {
    last: Option<Instant>,
}

impl Replacements {
    /// Notes one at `now`, and tells whether there is another process.
    fn again(&mut self, now: Instant) -> bool {
        const LATELY: Duration = Duration::from_secs(60);
        self.last.replace(now).is_some_and(|last| now.duration_since(last) < LATELY)
    }
}

/// Sleeps for `pause` or until shutdown.
fn wait(pause: Duration, shutdown: &CancellationToken) {
    let until = Instant::now() + pause;
    while Instant::now() < until && !shutdown.is_cancelled() {
        thread::sleep(Duration::from_millis(20).min(pause));
    }
}

fn wanted(views: &[ViewPlan]) -> Wanted {
    let mut wanted = Wanted::new();
    for view in views {
        let columns = wanted.entry(view.table.clone()).or_default();
        for column in &view.input_columns {
            if !columns.contains(column) {
                columns.push(column.clone());
            }
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_lost_twice_in_a_minute_is_another_process() {
        let start = Instant::now();
        let mut replaced = Replacements::default();
        assert!(!replaced.again(start), "the first may be our own");
        assert!(!replaced.again(start + Duration::from_secs(61)), "brokers went away once more");
        assert!(replaced.again(start + Duration::from_secs(63)));
    }
}

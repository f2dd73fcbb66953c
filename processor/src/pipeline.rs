//! The processor, from topic to topic.
//!
//! ```text
//! sources ─► stage 1 ─► partials ─► stage 2 ─► windows, alerts, late
//!               └─► dead letters       └────► windows ─► history (Parquet)
//! ```
//!
//! Three flows, each on a thread of its own, since librdkafka's transactional calls block. A flow that fails is torn down and started
//! again from what it had committed, after a pause that grows; nothing else remembers anything.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use bongsu_ingest::decode::Wanted;
use bongsu_schemas::health::Health;
use bongsu_schemas::topics::Topics;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::events::{Emit, FlowFailed};
use crate::history;
use crate::kafka::identity::Identity;
use crate::plan::ViewPlan;
use crate::rules::engine::CompiledRule;
use crate::validate::compile;
use crate::{stage1, stage2};

/// What the flows share, and nothing of it changes.
pub(crate) struct Pipeline {
    pub(crate) config: Config,
    pub(crate) topics: Topics,
    pub(crate) views: Vec<ViewPlan>,
    pub(crate) rules: Arc<Vec<CompiledRule>>,
    /// Columns that some view reads, by table.
    pub(crate) wanted: Wanted,
    pub(crate) identity: Identity,
}

impl Pipeline {
    /// Whether a topic is among the configured sources.
    pub(crate) fn is_source(&self, topic: &str) -> bool {
        self.config.sources.iter().any(|source| source.topic == topic)
    }
}

/// Runs until `shutdown`; then each flow commits what it has and ends. An error is one that no restart would mend.
pub async fn run(config: Config, health: Health, shutdown: CancellationToken) -> anyhow::Result<()> {
    let (views, rules) = match compile(&config) {
        Ok(compiled) => compiled,
        Err(mistakes) => {
            let lines: Vec<_> =
                mistakes.iter().map(|mistake| format!("{}: {}", mistake.path, mistake.problem)).collect();
            bail!("the configuration cannot be run: {}", lines.join("; "));
        }
    };
    let pipeline = Arc::new(Pipeline {
        topics: config.kafka.topics(),
        wanted: wanted(&views),
        views,
        rules: Arc::new(rules),
        identity: Identity::acquire(&config.kafka)?,
        config,
    });
    let flows: [(&'static str, Flow); 3] =
        [("stage1", stage1::run), ("stage2", stage2::run), ("history", history::run)];
    let spawn = |(name, flow): (&'static str, Flow)| {
        let (pipeline, health, shutdown) = (pipeline.clone(), health.clone(), shutdown.clone());
        let supervised = move || supervise(name, flow, &pipeline, &health, &shutdown);
        thread::Builder::new().name(format!("bongsu-{name}")).spawn(supervised).context("cannot start a thread")
    };
    let threads = flows.into_iter().map(spawn).collect::<anyhow::Result<Vec<_>>>()?;
    let joined = tokio::task::spawn_blocking(move || threads.into_iter().all(|thread| thread.join().is_ok()));
    ensure!(
        joined.await.context("cannot wait for the processor's threads")?,
        "a thread of the processor panicked, which is a bug"
    );
    Ok(())
}

/// A flow runs until shutdown (`Ok`) or its first error.
type Flow = fn(&Pipeline, &Health, &CancellationToken) -> anyhow::Result<()>;

fn supervise(name: &'static str, flow: Flow, pipeline: &Pipeline, health: &Health, shutdown: &CancellationToken) {
    const FIRST_PAUSE: Duration = Duration::from_millis(200);
    const LONGEST_PAUSE: Duration = Duration::from_secs(10);
    let mut pause = FIRST_PAUSE;
    while !shutdown.is_cancelled() {
        health.not_ready(name, "starting");
        let started = Instant::now();
        // A panic is a bug of ours; it must not leave a process that looks healthy and does nothing.
        let outcome = catch_unwind(AssertUnwindSafe(|| flow(pipeline, health, shutdown)));
        if let Err(error) = outcome.unwrap_or_else(|_| Err(anyhow!("the flow panicked, which is a bug"))) {
            FlowFailed { flow: name, error: &error }.emit();
            health.not_ready(name, format!("{error:#}"));
            pause = if started.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            wait(pause, shutdown);
        }
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

//! A configuration, with topics and groups of its own, and the processes that run it.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::slice;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::measure::{Meter, Sample};
use crate::processor::Processor;
use crate::windows::Windows;
use crate::workload::PARTITIONS;

const COMMON: &str = r##"
kafka: { brokers: "{brokers}", topic_prefix: "{name}", group: "{name}" }
defaults: false
dashboard: { listen: "{listen}" }
sources: [ {source} ]
"##;

/// Where no alert is ever sent.
const ONE_OWNER: &str = r##"
services: { "*": { owner: { slack: "#platform" } } }
"##;

/// Windows of a minute by service and route.
pub(crate) const BY_MINUTE: &str = "
time: { max_disorder: 5s, idle_timeout: 10m, allowed_lateness: 1s }
views:
  - name: requests_1m
    sql: |
      SELECT service, route, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors,
             sum(duration_ms) AS sum_ms, min(duration_ms) AS min_ms, max(duration_ms) AS max_ms,
             quantile(duration_ms, 0.95) AS p95_ms
      FROM requests GROUP BY tumble(interval '1 minute'), service, route
";

/// Windows of a second by service, which close as soon as they may: [`BY_SECOND_CLOSES_AFTER_MS`].
pub(crate) const BY_SECOND: &str = "
time: { max_disorder: 500ms, idle_timeout: 10m, allowed_lateness: 0s }
views:
  - name: requests_1s
    sql: |
      SELECT service, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors,
             quantile(duration_ms, 0.95) AS p95_ms
      FROM requests GROUP BY tumble(interval '1 second'), service
";

/// How far beyond the end of a window of [`BY_SECOND`] event time must be: `max_disorder` and `allowed_lateness`.
pub(crate) const BY_SECOND_CLOSES_AFTER_MS: i64 = 500;

/// The name of a process that is the only one.
pub(crate) const ONLY: &str = "one";

const BALANCED_WITHIN: Duration = Duration::from_secs(60);

/// The source of a topic of requests as JSON.
pub(crate) fn json_source(topic: &str) -> String {
    format!("{{ topic: {topic}, format: json, table: requests }}")
}

/// What a process is started as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Events to windows and alerts.
    Processor,
    /// That, and alerts to Slack, in one process.
    All,
}

impl Role {
    /// As `bongsu run --role` has it.
    fn name(self) -> &'static str {
        match self {
            Role::Processor => "processor",
            Role::All => "all",
        }
    }

    /// The parts that measuring waits for. Stage 1 reads as soon as it is ready, whether the others are or not.
    fn awaited_parts(self) -> &'static [&'static str] {
        match self {
            Role::Processor => &["stage1"],
            Role::All => &["stage1", "stage2", "reporter"],
        }
    }
}

/// Names, configuration and folder (logs, history).
pub(crate) struct Installation {
    role: Role,
    bootstrap: String,
    name: String,
    /// Lacks the address to listen at, which each process has for itself.
    config: String,
    folder: TempDir,
}

impl Installation {
    /// Of processors. `view` is [`BY_MINUTE`] or [`BY_SECOND`].
    pub(crate) fn new(bootstrap: &str, name: &str, source: &str, view: &str) -> anyhow::Result<Installation> {
        Installation::with_role(Role::Processor, bootstrap, name, source, &format!("{ONE_OWNER}{view}"))
    }

    /// `sections` is the rest of the configuration: `services`, `views` and what else there is to say.
    pub(crate) fn with_role(
        role: Role,
        bootstrap: &str,
        name: &str,
        source: &str,
        sections: &str,
    ) -> anyhow::Result<Installation> {
        let folder = tempfile::Builder::new().prefix("bongsu-bench-").tempdir()?;
        let common = COMMON.replace("{brokers}", bootstrap).replace("{name}", name).replace("{source}", source);
        let config = common + sections;
        Ok(Installation { role, bootstrap: bootstrap.to_owned(), name: name.to_owned(), config, folder })
    }

    /// Starts the process of that name, or starts it again, and waits until it does its work.
    pub(crate) fn start(&self, instance: &str) -> anyhow::Result<Processor> {
        let mut processor = self.spawn(instance)?;
        processor.await_ready(self.role.awaited_parts())?;
        Ok(processor)
    }

    /// Starts the process of that name, or starts it again.
    pub(crate) fn spawn(&self, instance: &str) -> anyhow::Result<Processor> {
        let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = self.folder.path().join(format!("{instance}.yaml"));
        fs::write(&config, self.config.replace("{listen}", &listen.to_string()))?;
        let log = File::options().create(true).append(true).open(self.log(instance))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_bongsu"));
        command
            .args(["run", "--role", self.role.name(), "--config"])
            .arg(&config)
            .env("BONGSU_INSTANCE", instance)
            // A stand-in needs no token, and is not to see a real one.
            .env_remove("SLACK_BOT_TOKEN")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Processor::spawn(&mut command, self.folder.path(), listen)
    }

    /// Runs one process until `count` windows are out. Measured from stage 1's readiness to the last window: starting,
    /// creating the topics and opening its transactions are the warm-up. Then it is told to end, and what came after is
    /// read, too.
    pub(crate) fn measure(&self, events: u64, count: usize) -> anyhow::Result<(Sample, Windows)> {
        self.explain(self.measure_running(events, count))
    }

    fn measure_running(&self, events: u64, count: usize) -> anyhow::Result<(Sample, Windows)> {
        let mut processor = self.start(ONLY)?;
        let meter = Meter::start(processor.pid())?;
        let mut windows = self.windows()?;
        windows.await_count(count, slice::from_mut(&mut processor))?;
        let sample = meter.sample(events)?;
        processor.terminate()?;
        windows.check_complete()?;
        Ok((sample, windows))
    }

    /// Waits until each process has its share of the source's partitions, and as much of stage 2 as the others.
    pub(crate) fn await_balance(&self, instances: &[&str]) -> anyhow::Result<()> {
        let share = i64::from(PARTITIONS) / instances.len() as i64;
        let deadline = Instant::now() + BALANCED_WITHIN;
        loop {
            let owned = |flow: &str| -> anyhow::Result<Vec<i64>> {
                instances.iter().map(|instance| self.owned(instance, flow)).collect()
            };
            let (of_stage1, of_stage2) = (owned("stage1")?, owned("stage2")?);
            let is_even = of_stage2.iter().all(|partitions| *partitions > 0 && *partitions == of_stage2[0]);
            if is_even && of_stage1.iter().all(|partitions| *partitions == share) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "not balanced within {BALANCED_WITHIN:?}: {of_stage1:?} partitions of stage 1, {of_stage2:?} of stage 2"
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// How many partitions a flow of a process has, by its log.
    fn owned(&self, instance: &str, flow: &str) -> anyhow::Result<i64> {
        let number = |line: &str, name: &str| -> i64 {
            let value = line.split_once(name).map_or("", |(_, rest)| rest);
            value.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
        };
        let log = fs::read_to_string(self.log(instance))?;
        let flow = format!("flow=\"{flow}\"");
        let latest_first = log.lines().rev().filter(|line| line.contains(&flow));
        // A flow that failed begins again with none.
        let current = latest_first.take_while(|line| !line.contains("flow failed"));
        let rebalances = current.filter(|line| line.contains("partitions rebalanced"));
        Ok(rebalances.map(|line| number(line, " assigned=") - number(line, " revoked=")).sum())
    }

    /// The windows from the first on; a process must have made the topic.
    pub(crate) fn windows(&self) -> anyhow::Result<Windows> {
        Windows::open(&self.bootstrap, &self.windows_topic())
    }

    pub(crate) fn windows_topic(&self) -> String {
        format!("{}.windows", self.name)
    }

    pub(crate) fn alerts_topic(&self) -> String {
        format!("{}.alerts", self.name)
    }

    /// That no event was late.
    pub(crate) fn check_nothing_late(&self) -> anyhow::Result<()> {
        let late = bongsu_testkit::read_committed(&self.bootstrap, &format!("{}.late", self.name))?;
        ensure!(late.is_empty(), "{} groups of late events", late.len());
        Ok(())
    }

    /// Adds to an error how the logs end.
    pub(crate) fn explain<T>(&self, outcome: anyhow::Result<T>) -> anyhow::Result<T> {
        outcome.with_context(|| format!("bongsu's log ends with:\n{}", self.log_tails()))
    }

    fn log(&self, instance: &str) -> PathBuf {
        self.folder.path().join(format!("{instance}.log"))
    }

    fn log_tails(&self) -> String {
        let files = fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        let mut logs: Vec<PathBuf> = files.map(|file| file.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort();
        let tail = |path: &PathBuf| {
            let log = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(10)..].join("\n")
        };
        logs.iter().map(tail).collect::<Vec<_>>().join("\n\n")
    }
}

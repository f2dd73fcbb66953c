//! `bongsu run`: the roles of this process, until SIGTERM or Ctrl-C; begun anew with each new configuration.

use std::time::Duration;

use anyhow::{Context, anyhow};
use bongsu_schemas::health::Health;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{load_config, metrics};
use crate::cli::{Role, Run};
use crate::config::Config;
use crate::failure::Failure;
use crate::kafka;
use crate::reload::Watch;

/// How long everything may take to end after a signal: within five seconds, exit included.
const DRAIN: Duration = Duration::from_millis(4_500);

/// Between two attempts to reach Kafka at the start.
const RETRY: Duration = Duration::from_secs(2);

/// How long a reload may take to end what runs: calls to brokers that are away time out within this.
const RELOAD_DRAIN: Duration = Duration::from_secs(60);

type Ended = (&'static str, anyhow::Result<()>);
type Roles = JoinSet<Ended>;
type Joined = Result<Ended, tokio::task::JoinError>;

pub(super) async fn run(options: Run, shutdown: CancellationToken) -> Result<(), Failure> {
    if options.role == Role::Ingest {
        let why = "there is no role `ingest` in this version: agents write to Kafka themselves (see `sources`); \
                   start --role processor, --role reporter, or both with --role all";
        return Err(Failure::Usage(why.to_owned()));
    }
    let role = options.role;
    // Before the file is read: what is written to it in between is seen.
    let mut watch = Watch::new(&options.config.path, Box::new(move |config| check_environment(config, role)))?;
    let mut config = load_config(&options.config.path)?;
    let recorder = metrics::install()?;
    loop {
        // With another configuration everything begins anew, as after a restart: all state is in Kafka.
        let stop = shutdown.child_token();
        let roles = start(config, role, &recorder, &stop);
        match supervise(roles, stop, &shutdown, &mut watch).await? {
            Some(next) if !shutdown.is_cancelled() => config = next,
            _ => return Ok(()),
        }
    }
}

/// Whether the environment has what the configuration names in it. Without, the roles would end as soon as they begin.
fn check_environment(config: &Config, role: Role) -> anyhow::Result<()> {
    kafka::client_config(&config.kafka)?;
    if role == Role::Processor { Ok(()) } else { bongsu_reporter::check_environment(&config.reporter()) }
}

/// Starts what the roles consist of; it ends with `stop`.
fn start(config: Config, role: Role, recorder: &PrometheusHandle, stop: &CancellationToken) -> Roles {
    let health = Health::default();
    let mut roles = Roles::new();
    // Listening comes first: `/readyz` tells why nothing happens while Kafka is away.
    if role == Role::Processor {
        let server = metrics::serve(config.dashboard.listen, recorder.clone(), health.clone(), stop.clone());
        roles.spawn(async { ("metrics server", server.await) });
    } else {
        let extra = metrics::routes(recorder.clone());
        let reporter = bongsu_reporter::run(config.reporter(), health.clone(), extra, stop.clone());
        roles.spawn(async { ("reporter", reporter.await) });
    }
    let upkeep = metrics::upkeep(recorder.clone(), stop.clone());
    roles.spawn(async { ("metrics", upkeep.await) });
    let prepared = prepare_then_process(config, role, health, stop.clone());
    roles.spawn(async { ("processor", prepared.await) });
    roles
}

/// Waits for Kafka, sees to the topics, then runs the processor, if it is among the roles.
async fn prepare_then_process(
    config: Config,
    role: Role,
    health: Health,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    if shutdown.run_until_cancelled(ensure_topics(&config, &health)).await.transpose()?.is_none() {
        return Ok(());
    }
    if role == Role::Reporter {
        shutdown.cancelled().await;
        return Ok(());
    }
    bongsu_processor::run(config.processor(), health, shutdown).await
}

/// Creates the missing topics. Kafka may come up after us, so only a definite refusal is an error.
async fn ensure_topics(config: &Config, health: &Health) -> anyhow::Result<()> {
    const PART: &str = "topics";
    health.not_ready(PART, "asking Kafka");
    // Properties that need a variable which is not set will not mend themselves.
    kafka::client_config(&config.kafka)?.create_native_config().context("while configuring the Kafka client")?;
    loop {
        match kafka::topics(&config.kafka, true).await {
            Ok(topics) => {
                if let Some(text) = kafka::what_is_missing(&topics, &config.kafka.brokers) {
                    return Err(anyhow!(text));
                }
                health.ready(PART);
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "cannot reach Kafka yet, trying again");
                health.not_ready(PART, format!("{error:#}"));
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// The next role that ended, none where all have; nothing at all if `shutdown` comes before.
async fn next_ended(roles: &mut Roles, shutdown: Option<&CancellationToken>) -> Option<Option<Joined>> {
    let asked = async {
        match shutdown {
            Some(shutdown) => shutdown.cancelled().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        joined = roles.join_next() => Some(joined),
        () = asked => None,
    }
}

/// Waits for the roles. One that ends before the signal takes the others with it. Gives a new configuration if that is why they ended.
async fn supervise(
    mut roles: Roles,
    stop: CancellationToken,
    shutdown: &CancellationToken,
    watch: &mut Watch,
) -> Result<Option<Config>, Failure> {
    let mut failure = None;
    let mut next = None;
    let mut deadline = None;
    loop {
        let joined = match deadline {
            Some(_) if next.is_some() && shutdown.is_cancelled() => {
                // Asked to end while it was about to begin anew.
                (next, deadline) = (None, Some(Instant::now() + DRAIN));
                continue;
            }
            Some(at) => match timeout_at(at, next_ended(&mut roles, next.is_some().then_some(shutdown))).await {
                Ok(Some(joined)) => joined,
                Ok(None) => continue,
                Err(_) if next.is_some() => {
                    let why = anyhow!(
                        "not everything ended within {RELOAD_DRAIN:?}, so that the new configuration has to wait for a restart"
                    );
                    return Err(Failure::Runtime(why));
                }
                Err(_) => {
                    tracing::warn!(unfinished = roles.len(), "not everything ended within {DRAIN:?}, leaving it");
                    break;
                }
            },
            None => tokio::select! {
                joined = roles.join_next() => joined,
                () = stop.cancelled() => {
                    deadline = Some(Instant::now() + DRAIN);
                    continue;
                }
                config = watch.next() => {
                    next = Some(config);
                    stop.cancel();
                    deadline = Some(Instant::now() + RELOAD_DRAIN);
                    continue;
                }
            },
        };
        let Some(joined) = joined else { break };
        let (role, result) = joined.unwrap_or_else(|error| ("a task", Err(anyhow!("ended abnormally: {error}"))));
        let result = match result {
            Ok(()) if !stop.is_cancelled() => Err(anyhow!("ended although nobody asked it to")),
            result => result,
        };
        if let Err(error) = result {
            tracing::error!(role, error = format!("{error:#}"), "failed");
            failure.get_or_insert(error.context(format!("in the {role}")));
            stop.cancel();
        } else {
            tracing::debug!(role, "ended");
        }
    }
    failure.map_or(Ok(next), |error| Err(Failure::Runtime(error)))
}

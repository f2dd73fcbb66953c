//! One file per command.

mod acknowledge;
mod backtest;
mod check;
mod config;
mod demo;
mod explain;
mod metrics;
mod replay;
mod report;
mod route;
mod run;
mod silence;
mod topics;

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bongsu_reporter::commands::Given;
use bongsu_schemas::kafka::Kafka;
use tokio_util::sync::CancellationToken;

use crate::cli::{Cli, Command};
use crate::config::{Config, load};
use crate::failure::Failure;
use crate::output::complain_line;

/// Runs the command.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Demo(options) => block_on(|shutdown| demo::run(options, shutdown)),
        Command::Run(options) => block_on(|shutdown| run::run(options, shutdown)),
        Command::Check(options) => check::run(&options),
        Command::Topics(options) => block_on(|shutdown| until(shutdown, topics::run(options))),
        Command::Report(options) => block_on(|shutdown| until(shutdown, report::run(options))),
        Command::Backtest(options) => backtest::run(&options),
        Command::Explain(options) => block_on(|shutdown| until(shutdown, explain::run(options))),
        Command::Route(options) => route::run(&options),
        Command::Silence(options) => block_on(|shutdown| until(shutdown, silence::silence(options))),
        Command::Silences(options) => block_on(|shutdown| until(shutdown, silence::silences(options))),
        Command::Unsilence(options) => block_on(|shutdown| until(shutdown, silence::unsilence(options))),
        Command::Acknowledge(options) => block_on(|shutdown| until(shutdown, acknowledge::run(options))),
        Command::Replay(options) => block_on(|shutdown| replay::run(options, shutdown)),
        Command::Config(options) => config::run(&options),
    }
}

/// Loads a configuration and says on stderr what is odd about it.
fn load_config(path: &Path) -> Result<Config, Failure> {
    let config = load(path)?;
    for warning in &config.warnings {
        complain_line(warning);
    }
    Ok(config)
}

/// A list that mostly has one entry: that entry, the list, or nothing.
fn one_or_list(texts: &[String]) -> serde_json::Value {
    match texts {
        [] => serde_json::Value::Null,
        [one] => one.as_str().into(),
        several => several.into(),
    }
}

/// Who asks for something: as given, else the user of this terminal.
fn somebody(given: Option<String>) -> String {
    let variable = |name| std::env::var(name).ok().filter(|name| !name.trim().is_empty());
    given.or_else(|| variable("USER")).or_else(|| variable("LOGNAME")).unwrap_or_else(|| "unknown".to_owned())
}

/// All commands in Kafka, so that what cannot be written is known before it is tried.
async fn read_commands(kafka: &Kafka) -> Result<Vec<Given>, Failure> {
    let reading = bongsu_reporter::commands::read(kafka).await;
    Ok(reading.with_context(|| format!("while reading `{}` at {}", kafka.topics().commands(), kafka.brokers))?)
}

/// Runs a command with a token that SIGTERM and Ctrl-C cancel.
fn block_on<F: Future<Output = Result<(), Failure>>>(
    command: impl FnOnce(CancellationToken) -> F,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::Runtime(anyhow::Error::new(error).context("while starting threads")))?;
    let result = runtime.block_on(async { command(crate::shutdown::on_signal()?).await });
    // Whatever still blocks a thread has had its time; it must not hold the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// A command that can simply be dropped when it is interrupted.
async fn until(shutdown: CancellationToken, command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::select! {
        result = command => result,
        () = shutdown.cancelled() => Ok(()),
    }
}

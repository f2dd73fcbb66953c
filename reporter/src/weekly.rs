//! The weekly exception report: one for each owner, with all their services.
//!
//! `history` counts, [`judge`](self) decides what is new, back, more frequent or gone, and the result is rendered as HTML, text, JSON and a
//! Slack digest. Only reading and sending are not pure.

pub(crate) mod counts;
mod judge;
mod model;
mod owner;
mod render;
mod schedule;
pub(crate) mod sender;
mod week;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use chrono::{DateTime, NaiveTime, Utc, Weekday};
use tokio_util::sync::CancellationToken;

pub use self::model::{Group, GroupState, ServiceReport, WeeklyReport};
pub use self::week::Week;

use self::owner::by_owner;
use self::sender::{Channels, Sent};
use crate::config::Config;
use crate::history::{self, Question};
use crate::mail::Mailer;
use crate::slack::client::Client;

const DAYS: [Weekday; 7] =
    [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat, Weekday::Sun];

/// Reads history and makes the report of `week`, of one service or of all.
pub async fn report(config: &Config, week: Week, service: Option<&str>) -> anyhow::Result<WeeklyReport> {
    read(config, week, service).await.map(|(report, _)| report)
}

/// The report, and when history begins.
async fn read(
    config: &Config,
    week: Week,
    service: Option<&str>,
) -> anyhow::Result<(WeeklyReport, Option<DateTime<Utc>>)> {
    let weekly = config.reports.weekly.as_ref();
    let days = std::array::from_fn(|day| match DAYS.get(day) {
        Some(weekday) => week.at(*weekday, NaiveTime::MIN, config.zone),
        None => week.end(config.zone),
    });
    let question = Question {
        days,
        previous_start: week.previous().start(config.zone),
        environment: weekly.and_then(|weekly| weekly.environment.as_deref()),
        service,
    };
    let counts = history::count(&config.history, &question).await?;
    let known_since = counts.known_since;
    Ok((judge::judge(counts, week, config.zone, &config.services, service), known_since))
}

/// Writes one `.html`, `.txt` and `.json` for every owner into `folder`, which is created where missing, and returns their paths.
pub fn write_files(config: &Config, report: &WeeklyReport, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating `{}`", folder.display()))?;
    let mut paths = Vec::new();
    for owner in by_owner(report, &config.services) {
        let rendered = render::render(&owner, config.zone, false)?;
        let services = owner.services.iter().map(|service| (*service).clone()).collect();
        let json = serde_json::to_string_pretty(&WeeklyReport { week: report.week, services }.to_json())?;
        for (ending, content) in [("html", rendered.html), ("txt", rendered.text), ("json", json)] {
            let path = folder.join(format!("{}.{ending}", owner.file_stem()));
            std::fs::write(&path, content).with_context(|| format!("writing `{}`", path.display()))?;
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Sends the report now, to every owner by e-mail and Slack, and returns one line for each message about what became of it.
///
/// This is what somebody asked for, so it is sent whatever was sent before. An error if no message could be sent.
pub async fn send(config: &Config, report: &WeeklyReport) -> anyhow::Result<Vec<String>> {
    let weekly =
        config.reports.weekly.as_ref().context("reports.weekly is not configured: its `from` is the sender")?;
    let environment = |name: &str| std::env::var(name).ok();
    let slack = config.slack.as_ref().map(|slack| Client::new(slack, environment)).transpose()?.map(Arc::new);
    let mailer = config.smtp.as_ref().map(|smtp| Mailer::new(smtp, environment)).transpose()?.map(Arc::new);
    anyhow::ensure!(slack.is_some() || mailer.is_some(), "neither `smtp` nor `slack` is configured");
    let channels = Channels { slack, mailer, ledger: None };
    let sent = sender::send_all(config, weekly, &channels, report, false, &CancellationToken::new()).await?;
    let line = |Sent { kind, to, outcome }: &Sent| match outcome {
        Ok(()) => format!("{} sent to {to}", kind.name()),
        Err(error) => format!("{} to {to} failed: {error}", kind.name()),
    };
    let lines: Vec<String> = sent.iter().map(line).collect();
    anyhow::ensure!(sent.is_empty() || sent.iter().any(|sent| sent.outcome.is_ok()), "{}", lines.join("\n"));
    Ok(lines)
}

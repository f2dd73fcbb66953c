//! The weekly exception report, one for each owner.

pub(crate) mod counts;
mod judge;
mod model;
mod week;

use std::path::{Path, PathBuf};

pub use model::{Group, GroupState, ServiceReport, WeeklyReport};
pub use week::Week;

use chrono::{NaiveTime, Weekday};

use crate::config::Config;
use crate::history::{self, Question};
use crate::weekly::judge::judge;

const DAYS: [Weekday; 7] =
    [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat, Weekday::Sun];

/// Reads history and makes the report of `week`, of one service or of all.
pub async fn report(config: &Config, week: Week, service: Option<&str>) -> anyhow::Result<WeeklyReport> {
    let weekly = config.reports.weekly.as_ref();
    let days = std::array::from_fn(|day| match day {
        7 => week.end(config.zone),
        day => week.at(DAYS[day], NaiveTime::MIN, config.zone),
    });
    let question = Question {
        days,
        previous_start: week.previous().start(config.zone),
        environment: weekly.and_then(|weekly| weekly.environment.as_deref()),
        service,
    };
    let counts = history::count(&config.history, &question).await?;
    Ok(judge(counts, week, config.zone, &config.services, service))
}

/// Writes one `.html`, `.txt` and `.json` for every owner into `folder`, which is created where missing, and returns their paths.
pub fn write_files(config: &Config, report: &WeeklyReport, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    anyhow::bail!("not built yet: {} {} {}", config.zone, report.week, folder.display())
}

/// Sends the report now, to every owner by e-mail and Slack, and returns one line for each message about what became of it.
///
/// This is what somebody asked for, so it is sent whatever was sent before.
pub async fn send(config: &Config, report: &WeeklyReport) -> anyhow::Result<Vec<String>> {
    anyhow::bail!("not built yet: {} {}", config.zone, report.week)
}

//! The weekly exception report, one for each owner.

mod model;
mod week;

use std::path::{Path, PathBuf};

pub use model::{Group, GroupState, ServiceReport, WeeklyReport};
pub use week::Week;

use crate::config::Config;

/// Reads history and makes the report of `week`, of one service or of all.
pub async fn report(config: &Config, week: Week, service: Option<&str>) -> anyhow::Result<WeeklyReport> {
    anyhow::bail!("not built yet: {week} {service:?} {}", config.zone)
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

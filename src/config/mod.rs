//! The configuration: one file in, either a checked [`Config`] or every mistake with its place out.
//!
//! ```text
//! text ─► yaml ─► JSON value + positions ─► schema ─► sections ─► semantics ─► Config
//!                      └────────────── findings: FILE:LINE:COLUMN: KEY: problem ──┘
//! ```
//!
//! After [`load`] nothing checks the configuration again.

mod defaults;
mod mistake;
mod model;
mod owners;
mod params;
mod paths;
mod schema;
mod sections;
mod semantics;
#[cfg(test)]
mod tests;
mod webhooks;
mod yaml;

use std::path::Path;

use bongsu_ingest::config::Source;
use bongsu_processor::config::{Rule, Time, View};
use bongsu_reporter::config::{Dashboard, Reports, Slack, Smtp, Webhook};
use bongsu_schemas::history::History;
use bongsu_schemas::kafka::Kafka;
use bongsu_schemas::services::Services;

pub(crate) use defaults::TEXT as DEFAULTS_YAML;
use mistake::{Findings, Position, Positions};
pub(crate) use mistake::{Mistakes, printable, shown, suggestion};
pub(crate) use model::schema as json_schema;

/// A checked configuration, built-in views and rules included.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) kafka: Kafka,
    pub(crate) sources: Vec<Source>,
    pub(crate) time: Time,
    pub(crate) zone: chrono_tz::Tz,
    pub(crate) services: Services,
    pub(crate) views: Vec<View>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) reports: Reports,
    pub(crate) slack: Option<Slack>,
    pub(crate) smtp: Option<Smtp>,
    pub(crate) webhooks: Vec<Webhook>,
    pub(crate) history: History,
    pub(crate) dashboard: Dashboard,
    /// What is not wrong, but probably not meant; one line each.
    pub(crate) warnings: Vec<String>,
}

impl Config {
    /// What the processor needs to know.
    pub(crate) fn processor(&self) -> bongsu_processor::config::Config {
        bongsu_processor::config::Config {
            kafka: self.kafka.clone(),
            sources: self.sources.clone(),
            time: self.time.clone(),
            zone: self.zone,
            services: self.services.clone(),
            views: self.views.clone(),
            rules: self.rules.clone(),
            history: self.history.clone(),
        }
    }

    /// What the reporter needs to know.
    pub(crate) fn reporter(&self) -> bongsu_reporter::config::Config {
        bongsu_reporter::config::Config {
            kafka: self.kafka.clone(),
            services: self.services.clone(),
            slack: self.slack.clone(),
            smtp: self.smtp.clone(),
            webhooks: self.webhooks.clone(),
            reports: self.reports.clone(),
            history: self.history.clone(),
            dashboard: self.dashboard.clone(),
            zone: self.zone,
        }
    }
}

/// Reads and checks a file.
pub(crate) fn load(path: &Path) -> Result<Config, Mistakes> {
    let file = path.display().to_string();
    let refuse = |position, problem: String| {
        let mut findings = Findings::new(&file, Positions::default());
        findings.add_at(position, "file", problem);
        Mistakes(findings.into_mistakes())
    };
    let bytes = paths::read_bounded(path, yaml::MAX_BYTES)
        .map_err(|problem| refuse(Position::START, format!("{problem}; name another file with --config")))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned();
        let line = good.matches('\n').count() + 1;
        let column = good.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        refuse(Position { line, column }, "is not UTF-8 text from here on; save the file as UTF-8".to_owned())
    })?;
    from_text(&file, text, path.parent().unwrap_or(Path::new("")))
}

/// Checks the text of a configuration. `file` names it in messages; relative paths in it start at `folder`.
pub(crate) fn from_text(file: &str, text: &str, folder: &Path) -> Result<Config, Mistakes> {
    let parsed = yaml::parse(file, text).map_err(|findings| Mistakes(findings.into_mistakes()))?;
    let yaml::Parsed { mut value, mut findings } = parsed;
    sections::spell_properties_as_text(&mut value);
    let schema = model::schema();
    let unfit = match schema::validate(&schema, &value, &mut findings) {
        Ok(unfit) => unfit,
        Err(error) => {
            findings.add_at(
                Position::START,
                "(top)",
                format!("could not be checked; this is a bug of Bongsu: {error}"),
            );
            schema::Unfit::default()
        }
    };
    let sections = sections::read(&value, unfit, &mut findings);
    let config = semantics::check(&value, sections, folder, &mut findings);
    let mistakes = findings.into_mistakes();
    match config {
        Some(config) if mistakes.is_empty() => Ok(config),
        _ => Err(Mistakes(mistakes)),
    }
}

//! `bongsu acknowledge`: somebody takes an incident.

use anyhow::anyhow;
use bongsu_reporter::commands::Writer;
use bongsu_reporter::silences::check_name;
use bongsu_schemas::command::Command;
use chrono::Utc;
use serde_json::json;

use super::{load_config, read_commands, somebody};
use crate::cli::Acknowledge;
use crate::config::printable;
use crate::failure::Failure;
use crate::output::print_as;

pub(super) async fn run(options: Acknowledge) -> Result<(), Failure> {
    let config = load_config(&options.config.path)?;
    let (incident_id, by) = (options.incident_id, somebody(options.by));
    let wrong = |what: &str, problem: String| Failure::Input(anyhow!("{what} {problem}"));
    check_name(&incident_id).map_err(|problem| wrong("the incident's id", problem))?;
    check_name(&by).map_err(|problem| wrong("--by", problem))?;
    read_commands(&config.kafka).await?;
    let command = Command::Acknowledge { incident_id: incident_id.clone(), by: by.clone() };
    Writer::new(&config.kafka)?.write(&command, Utc::now()).await?;
    let json = json!({ "incident_id": incident_id, "by": by });
    print_as(options.format, &json, || printable(&format!("incident {incident_id} is taken by {by}")))
}

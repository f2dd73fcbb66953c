//! `bongsu report`: the weekly exception report, printed, written or sent.

use bongsu_reporter::weekly;

use super::load_config;
use crate::cli::{Format, Report};
use crate::failure::Failure;
use crate::output::{complain_line, print, print_as, table};

pub(super) async fn run(options: Report) -> Result<(), Failure> {
    let config = load_config(&options.config.path)?.reporter();
    let report = weekly::report(&config, options.week, options.service.as_deref()).await?;
    if report.services.iter().all(|service| service.groups.is_empty()) {
        complain_line(&format!("history at {} has no exceptions of {}", config.history.url, options.week));
    }
    if let Some(folder) = &options.out {
        let files = weekly::write_files(&config, &report, folder)?;
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        return print_list(options.format, "files", &files);
    }
    if options.send {
        let outcomes = weekly::send(&config, &report).await?;
        return print_list(options.format, "messages", &outcomes);
    }
    let rows: Vec<[String; 7]> = report
        .services
        .iter()
        .flat_map(|service| {
            service.groups.iter().map(|group| {
                [
                    service.service.clone(),
                    service.owner.clone(),
                    group.state.name().to_owned(),
                    group.count.to_string(),
                    group.previous_count.to_string(),
                    group.exception_type.clone(),
                    group.message.chars().take(80).collect(),
                ]
            })
        })
        .collect();
    let header = ["service", "owner", "state", "count", "week before", "type", "message"];
    print_as(options.format, &report.to_json(), || table(header, &rows))
}

fn print_list(format: Format, name: &str, lines: &[String]) -> Result<(), Failure> {
    match format {
        Format::Table if lines.is_empty() => Ok(()),
        Format::Table => print(&lines.iter().map(|line| crate::config::printable(line)).collect::<Vec<_>>().join("\n")),
        Format::Json => print(&format!("{:#}", serde_json::json!({ name: lines }))),
    }
}

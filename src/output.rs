//! Data on stdout, logs and complaints on stderr.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;
use tracing_subscriber::EnvFilter;

use crate::cli::{Format, LogFormat};
use crate::config::printable;
use crate::failure::Failure;

/// Sends logs to stderr, filtered by `BONGSU_LOG`, else `RUST_LOG`; without either a long-running command says more than a short one.
pub(crate) fn log_to_stderr(format: LogFormat, long_running: bool) {
    let directives = ["BONGSU_LOG", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok());
    let default = if long_running { "info" } else { "warn" };
    let filter = EnvFilter::builder().parse_lossy(directives.as_deref().unwrap_or(default));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => subscriber.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => subscriber.json().init(),
    }
}

/// Says on stderr why the command failed.
pub(crate) fn complain(failure: &Failure) {
    let text = match failure {
        // One line each, already made printable.
        Failure::Config(mistakes) => mistakes.to_string(),
        other => printable(&other.to_string()),
    };
    complain_line(&text);
}

/// One line for people on stderr. If stderr is gone there is nobody left to tell.
pub(crate) fn complain_line(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes data to stdout. A reader that closed the pipe has read enough, which is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    match write!(stdout, "{text}{end}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Runtime(anyhow::Error::new(error).context("while writing to stdout")))
        }
        _ => Ok(()),
    }
}

/// Prints data in the format that was asked for.
pub(crate) fn print_as(format: Format, json: &Value, table: impl FnOnce() -> String) -> Result<(), Failure> {
    match format {
        Format::Json => print(&format!("{json:#}")),
        Format::Table => print(&table()),
    }
}

/// Rows as aligned columns under a header.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let header = header.map(str::to_owned);
    let cells = || std::iter::once(&header).chain(rows);
    let shown = |row: &[String; N]| row.each_ref().map(|cell| printable(cell));
    let widths: [usize; N] =
        std::array::from_fn(|column| cells().map(|row| shown(row)[column].chars().count()).max().unwrap_or_default());
    let line = |row: &[String; N]| {
        let row = shown(row);
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    cells().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

//! Data on stdout, logs and complaints on stderr.

use std::io::{self, IsTerminal, Write};

use chrono::TimeDelta;
use serde_json::{Map, Value};
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

/// Members of an object as `name=value`, numbers with at most four digits after the point.
pub(crate) fn members(object: &Map<String, Value>) -> String {
    let members = object.iter().map(|(name, value)| format!("{name}={}", value_text(value)));
    members.collect::<Vec<_>>().join(" ")
}

/// A value for people.
pub(crate) fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.abs() >= 1e15 => format!("{float:e}"),
            Some(float) if !number.is_i64() && !number.is_u64() => {
                let rounded = format!("{float:.4}");
                rounded.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
            _ => number.to_string(),
        },
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    }
}

/// A length of time in its two largest units.
pub(crate) fn duration(length: TimeDelta) -> String {
    let (sign, secs) =
        if length < TimeDelta::zero() { ("-", -length.num_seconds()) } else { ("", length.num_seconds()) };
    let text = match (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60, secs % 60) {
        (0, 0, 0, secs) => format!("{secs}s"),
        (0, 0, minutes, 0) => format!("{minutes}m"),
        (0, 0, minutes, secs) => format!("{minutes}m {secs}s"),
        (0, hours, 0, _) => format!("{hours}h"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, 0, ..) => format!("{days}d"),
        (days, hours, ..) => format!("{days}d {hours}h"),
    };
    format!("{sign}{text}")
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lengths_have_two_units() {
        let cases =
            [(0, "0s"), (59, "59s"), (60, "1m"), (90, "1m 30s"), (3_600, "1h"), (5_430, "1h 30m"), (86_400, "1d")];
        for (secs, expected) in cases.into_iter().chain([(90_000, "1d 1h"), (-61, "-1m 1s")]) {
            assert_eq!(duration(TimeDelta::seconds(secs)), expected);
        }
    }

    #[test]
    fn values_are_short() {
        let object = json!({ "a": 1, "b": 0.123_456, "c": 20.0, "d": null, "e": "x y", "f": true, "g": 1e300 });
        assert_eq!(members(object.as_object().unwrap()), "a=1 b=0.1235 c=20 d=none e=x y f=true g=1e300");
    }
}

//! One alert in a message: what fired beside its thresholds, the last windows as a table, and what else happened at that moment. Pure.

use std::collections::BTreeMap;

use bongsu_schemas::alert::{AlertRecord, NO_DATA};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value};

use super::condition::Condition;
use super::message::{
    clock, code, cut, duration, escape, flaps, float_text, inline, one_line, param_text, time, value_text, weight,
};
use crate::incidents::IncidentAlert;
use crate::recent::{Found, TopException, TopUrl};

/// Values shown of an alert.
const MAX_VALUES_SHOWN: usize = 12;
/// Rows of the table of windows.
const MAX_ROWS: usize = 6;
/// Its columns beside time and mark, and how wide they get: a phone shows some forty characters.
const MAX_COLUMNS: usize = 3;
const MAX_COLUMN_CHARS: usize = 12;

/// Whether a window met the condition, where that is known, and its values.
type Row<'a> = (Option<bool>, &'a Map<String, Value>);

/// What fired and why, in Slack's markup. `cause` is the alert that explains it.
pub(super) fn text(alert: &IncidentAlert, cause: Option<&IncidentAlert>, zone: Tz) -> String {
    let AlertRecord { rule, summary, key, values, evidence, window_start, window_end, early, .. } = &alert.firing;
    let sign = if alert.fires() { weight(&alert.firing) } else { "✅".to_owned() };
    // Each part is cut by itself, so that a long summary leaves room for the values.
    let mut text = format!("{sign} *{}*\n{}", inline(rule, 100), inline(summary, 400));
    let keys: Vec<String> = key.iter().take(MAX_VALUES_SHOWN).map(|(name, value)| named(name, value)).collect();
    if !keys.is_empty() {
        text.push_str(&format!("\n{}", keys.join(" · ")));
    }
    if is_silence(&alert.firing) {
        text.push_str("\nFired: no data came");
    }
    let condition = Condition::parse(&evidence.when);
    let fired = compared(&alert.firing, &condition);
    if !fired.is_empty() {
        text.push_str(&format!("\nFired: {}", fired.join(" · ")));
    }
    let is_known = |name: &str| values.contains_key(name) || key.contains_key(name);
    let is_understood = !fired.is_empty()
        && condition.clauses.iter().all(|clause| clause.head.as_ref().is_some_and(|(name, _)| is_known(name)));
    if !is_understood && !evidence.when.trim().is_empty() {
        text.push_str(&format!("\nBecause: {}", code(&evidence.when, 200)));
    }
    let others = values.iter().filter(|(name, _)| !condition.names.contains(name));
    let others: Vec<String> = others.take(MAX_VALUES_SHOWN).map(|(name, value)| named(name, value)).collect();
    if !others.is_empty() {
        text.push_str(&format!("\nAlso: {}", others.join(" · ")));
    }
    text.push_str(&format!("\nWindow {} to {}", time(*window_start, zone), clock(*window_end, zone)));
    if *early {
        text.push_str(" · window still open");
    }
    if let Some(resolved) = &alert.resolved {
        let lasted = resolved.window_end - alert.since;
        text.push_str(&format!(" · resolved {} after {}", clock(resolved.window_end, zone), duration(lasted)));
    }
    text.extend(flaps(alert, zone).map(|flaps| format!(" · {flaps}")));
    text.extend(cause.map(|cause| format!("\nExplained by {}", code(&cause.firing.rule, 100))));
    text
}

/// Whether it is about windows that did not come.
fn is_silence(firing: &AlertRecord) -> bool {
    firing.reason.as_deref() == Some(NO_DATA)
}

/// The columns that the condition names, first those that it compares, each with what it is compared to and the parameters in that.
fn compared(firing: &AlertRecord, condition: &Condition<'_>) -> Vec<String> {
    let value_of = |name: &str| firing.values.get(name).or_else(|| firing.key.get(name));
    let mut parts = Vec::new();
    let mut shown: Vec<&str> = Vec::new();
    for clause in &condition.clauses {
        let Some((name, rest)) = &clause.head else { continue };
        let Some(value) = value_of(name) else { continue };
        shown.push(name);
        let mut part = format!("{} against {}", named(name, value), code(rest, 60));
        let mut with = clause.params.iter().filter_map(|name| Some((*name, firing.params.get(*name)?))).take(4);
        if let Some((name, value)) = with.next() {
            part.push_str(&format!(" with {} {}", inline(name, 40), code(&param_text(value), 40)));
        }
        for (name, value) in with {
            part.push_str(&format!(", {} {}", inline(name, 40), code(&param_text(value), 40)));
        }
        parts.push(part);
    }
    // A key stands in the line above already, unless it is compared.
    let others = condition.names.iter().filter(|name| !shown.contains(&name.as_str()));
    parts.extend(others.filter_map(|name| Some(named(name, firing.values.get(name)?))));
    parts.truncate(MAX_VALUES_SHOWN);
    parts
}

/// The last windows, monospaced; none where only one is known, which the text tells already.
pub(super) fn table(firing: &AlertRecord, found: Option<&Found>, zone: Tz) -> Option<String> {
    let mut rows: BTreeMap<DateTime<Utc>, Row<'_>> = BTreeMap::new();
    for (start, values) in found.into_iter().flat_map(|found| &found.windows) {
        rows.insert(*start, (None, values));
    }
    if !is_silence(firing) {
        rows.insert(firing.window_start, (Some(true), &firing.values));
    }
    for window in &firing.evidence.windows {
        rows.insert(window.window_start, (Some(window.met), &window.values));
    }
    if rows.len() < 2 {
        return None;
    }
    let rows: Vec<_> = rows.into_iter().rev().take(MAX_ROWS).collect();
    let known = |name: &&String| rows.iter().any(|(_, (_, values))| values.contains_key(*name));
    let condition = Condition::parse(&firing.evidence.when);
    let mut columns: Vec<&String> = condition.names.iter().filter(known).take(MAX_COLUMNS).collect();
    if columns.is_empty() {
        // Those of a silent series are in its last windows only.
        let values = rows.iter().map(|(_, (_, values))| *values).find(|values| !values.is_empty());
        columns = values.into_iter().flat_map(Map::keys).take(MAX_COLUMNS).collect();
    }
    let cell = |text: &str| cut(&one_line(&text.replace('`', "'")), MAX_COLUMN_CHARS);
    let mut lines = vec![
        [vec!["time".to_owned()], columns.iter().map(|name| cell(name)).collect(), vec!["met".to_owned()]].concat(),
    ];
    let (first, last) = (rows.last().map(|(start, _)| *start), rows.first().map(|(start, _)| *start));
    let is_long = first.zip(last).is_some_and(|(first, last)| last - first > TimeDelta::hours(20));
    for (start, (met, values)) in rows.into_iter().rev() {
        let at = start.with_timezone(&zone).format(if is_long { "%m-%d %H:%M" } else { "%H:%M:%S" }).to_string();
        let value = |name: &&String| values.get(*name).map_or_else(|| "–".to_owned(), |value| cell(&value_text(value)));
        let mark = if met == Some(true) { "●" } else { "" };
        lines.push([vec![at], columns.iter().map(value).collect(), vec![mark.to_owned()]].concat());
    }
    Some(format!("```\n{}\n```", escape(&aligned(&lines))))
}

/// Rows of cells as lines: the first column to the left, numbers to the right, the mark behind them.
fn aligned(lines: &[Vec<String>]) -> String {
    let count = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).enumerate();
        let cells = cells.map(|(position, (cell, width))| match position {
            0 => format!("{cell:<width$}"),
            last if last + 1 == count => cell.clone(),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The exceptions and the URLs of that moment, a text each.
pub(super) fn surroundings(found: &Found) -> Vec<String> {
    let exception = |TopException { kind, count, sample }: &TopException| {
        let sample = sample.as_ref().map(|sample| format!(" ({})", inline(sample, 80))).unwrap_or_default();
        format!("{} {}{sample}", code(kind, 80), float_text(*count))
    };
    let url = |TopUrl { route, requests, errors }: &TopUrl| {
        let failed = errors.filter(|errors| *errors > 0.0);
        let failed = failed.map(|errors| format!(", {} failed", float_text(errors))).unwrap_or_default();
        format!("{} {} requests{failed}", code(route, 80), float_text(*requests))
    };
    let exceptions: Vec<String> = found.exceptions.iter().map(exception).collect();
    let urls: Vec<String> = found.urls.iter().map(url).collect();
    let texts = [("Exceptions at that moment", exceptions), ("Busiest URLs", urls)];
    texts
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(what, list)| format!("{what}: {}", list.join(" · ")))
        .collect()
}

fn named(name: &str, value: &Value) -> String {
    format!("{} {}", inline(name, 40), code(&value_text(value), 60))
}

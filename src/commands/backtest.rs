//! `bongsu backtest`: what would have fired, and what other parameters would change.

use std::collections::BTreeSet;

use bongsu_processor::backtest::{Alert, BacktestError, Difference, Outcome, ParamChange, Question, run as judge};
use bongsu_processor::config::Rule;
use bongsu_schemas::alert::AlertLevel;
use bongsu_schemas::services::{ParamSetting, ParamValue};
use bongsu_schemas::window::rfc3339;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::load_config;
use crate::cli::{Backtest, Moment, Param};
use crate::config::{Config, shown, suggestion};
use crate::failure::Failure;
use crate::output::{complain_line, duration, members, print_as, table};

/// As many digits of an id as people need; `bongsu explain` takes them.
const SHORT_ID: usize = 12;

pub(super) fn run(options: &Backtest) -> Result<(), Failure> {
    let config = load_config(&options.config.path)?;
    let question = question(options, &config, Utc::now())?;
    let outcome = judge(&config.processor(), &question).map_err(|error| match error {
        BacktestError::Question(problem) => Failure::Input(anyhow::Error::msg(problem)),
        BacktestError::Failed(error) => Failure::Runtime(error),
    })?;
    for (view, rows) in &outcome.misfits {
        complain_line(&format!(
            "{rows} rows of the history of {view} are of windows that it does not have any more; they are left out"
        ));
    }
    if outcome.judged_to < question.to {
        complain_line(&format!("the history ends at {}: what came later was not judged", at(outcome.judged_to)));
    }
    print_as(options.format, &as_json(&question, &outcome), || as_table(&question, &outcome))
}

/// What is asked, with its names and values held against the configuration.
fn question(options: &Backtest, config: &Config, now: DateTime<Utc>) -> Result<Question, Failure> {
    let instant = |moment: Moment| moment.instant(now, config.zone);
    let (from, to) = (instant(options.from), instant(options.to));
    if from >= to {
        return Err(Failure::Usage(format!("--from ({}) must be before --to ({})", at(from), at(to))));
    }
    for name in &options.rule {
        rule(config, name)?;
    }
    let params = options.param.iter().map(|param| param_change(config, options, param));
    Ok(Question {
        from,
        to,
        rules: options.rule.iter().cloned().collect::<BTreeSet<_>>(),
        service: options.service.clone(),
        params: params.collect::<Result<_, _>>()?,
    })
}

fn rule<'a>(config: &'a Config, name: &str) -> Result<&'a Rule, Failure> {
    config.rules.iter().find(|rule| rule.name == name).ok_or_else(|| {
        let names = || config.rules.iter().map(|rule| rule.name.as_str());
        let listed = names().collect::<Vec<_>>().join(", ");
        wrong(format!("there is no rule `{}`{}; rules: {listed}", shown(name), suggestion(name, names())))
    })
}

/// `--param`, in the type that the parameter has.
fn param_change(config: &Config, options: &Backtest, param: &Param) -> Result<ParamChange, Failure> {
    let Param { rule: rule_name, name, value } = param;
    let rule = rule(config, rule_name)?;
    let names = || rule.params.keys().map(String::as_str);
    let (name, level) = match name.rsplit_once('.') {
        Some((name, "warn")) => (name, Some(AlertLevel::Warn)),
        Some((name, "critical")) => (name, Some(AlertLevel::Critical)),
        _ => (name.as_str(), None),
    };
    let Some(default) = rule.params.get(name) else {
        let listed = if rule.params.is_empty() { "none".to_owned() } else { names().collect::<Vec<_>>().join(", ") };
        let hint = suggestion(name, names());
        return Err(wrong(format!(
            "the rule `{rule_name}` has no parameter `{}`{hint}; it has: {listed}",
            shown(name)
        )));
    };
    if !options.rule.is_empty() && !options.rule.contains(rule_name) {
        return Err(wrong(format!("--param is for the rule `{rule_name}`, which --rule leaves out")));
    }
    let Some(default) = default.at(level).filter(|_| level.is_some() == matches!(default, ParamSetting::Levels(_)))
    else {
        return Err(wrong(match level {
            Some(_) => format!("the parameter `{name}` of `{rule_name}` has no levels; write {rule_name}.{name}=..."),
            None => format!(
                "the parameter `{name}` of `{rule_name}` has two levels; write {rule_name}.{name}.warn=... or {rule_name}.{name}.critical=..."
            ),
        }));
    };
    let typed = match default {
        ParamValue::Boolean(_) => value.parse().ok().map(ParamValue::Boolean),
        ParamValue::Number(_) => value.parse().ok().filter(|number: &f64| number.is_finite()).map(ParamValue::Number),
        ParamValue::Text(_) => Some(ParamValue::Text(value.clone())),
    };
    let needed = if matches!(default, ParamValue::Boolean(_)) { "true or false" } else { "a number" };
    let refused = || wrong(format!("the parameter `{name}` of `{rule_name}` is {needed}, not `{}`", shown(value)));
    let value = typed.ok_or_else(refused)?;
    Ok(ParamChange { rule: rule_name.clone(), name: name.to_owned(), level, value })
}

fn wrong(problem: String) -> Failure {
    Failure::Input(anyhow::Error::msg(problem))
}

fn at(time: DateTime<Utc>) -> String {
    rfc3339::format(&time)
}

fn as_json(question: &Question, outcome: &Outcome) -> Value {
    let list = |alerts: &[Alert]| alerts.iter().map(alert_json).collect::<Vec<_>>();
    let mut json = json!({
        "from": at(question.from),
        "to": at(question.to),
        "judged_to": at(outcome.judged_to),
        "alerts": list(&outcome.alerts),
    });
    if let Some(Difference { gone, new, moved, unchanged }) = &outcome.changed {
        let moved = moved
            .iter()
            .map(|(old, new)| json!({ "before": alert_json(old), "after": alert_json(new) }))
            .collect::<Vec<_>>();
        json["changed"] = json!({ "gone": list(gone), "new": list(new), "moved": moved, "unchanged": unchanged });
    }
    json
}

fn alert_json(alert: &Alert) -> Value {
    json!({
        "alert_id": alert.alert_id,
        "rule": alert.rule,
        "status": if alert.resolved.is_some() { "resolved" } else { "firing" },
        "severity": alert.severity,
        "service": alert.service,
        "key": alert.key,
        "values": alert.values,
        "params": alert.params,
        "start": at(alert.start),
        "fired": at(alert.fired),
        "resolved": alert.resolved.map(at),
        "duration_secs": alert.resolved.map(|end| (end - alert.fired).num_seconds()),
        "peak": alert.peak,
        "summary": alert.summary,
    })
}

fn as_table(question: &Question, outcome: &Outcome) -> String {
    let range = format!("from {} to {}", at(question.from), at(question.to));
    let mut text = String::new();
    if !outcome.alerts.is_empty() {
        text = alerts_table(&outcome.alerts) + "\n";
    }
    text += &format!("{} {range}\n", count(outcome.alerts.len(), "would have fired"));
    let Some(Difference { gone, new, moved, unchanged }) = &outcome.changed else { return text };
    let param = |change: &ParamChange| format!("{}.{}={}", change.rule, change.name, param_text(&change.value));
    text += &format!("\nwith {}:\n", question.params.iter().map(param).collect::<Vec<_>>().join(" "));
    let mut rows: Vec<(DateTime<Utc>, [String; 8])> = Vec::new();
    rows.extend(gone.iter().map(|alert| (alert.fired, change_row("gone", alert, None))));
    rows.extend(new.iter().map(|alert| (alert.fired, change_row("new", alert, None))));
    rows.extend(moved.iter().map(|(old, new)| (old.fired, change_row("moved", old, Some(new)))));
    rows.sort();
    if !rows.is_empty() {
        let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
        text += &table(["CHANGE", "fired", "resolved", "rule", "service", "key", "summary", "alert_id"], &rows);
        text += "\n";
    }
    let totals = [(gone.len(), "gone"), (new.len(), "new"), (moved.len(), "at other times"), (*unchanged, "unchanged")];
    text + &totals.map(|(number, what)| format!("{number} {what}")).join(", ") + "\n"
}

fn alerts_table(alerts: &[Alert]) -> String {
    let row = |alert: &Alert| {
        [
            at(alert.fired),
            alert.resolved.map_or_else(|| "still firing".to_owned(), at),
            alert.resolved.map(|end| duration(end - alert.fired)).unwrap_or_default(),
            at(alert.start),
            alert.severity.to_string(),
            alert.rule.clone(),
            shown(alert.service.as_deref().unwrap_or_default()),
            shown(&other_keys(alert)),
            shown(&members(&alert.peak)),
            shown(&alert.summary),
            short_id(alert),
        ]
    };
    let header =
        ["FIRED", "resolved", "lasted", "start", "severity", "rule", "service", "key", "peak", "summary", "alert_id"];
    table(header, &alerts.iter().map(row).collect::<Vec<_>>())
}

/// An alert that other parameters change; one that moves shows both times.
fn change_row(change: &str, alert: &Alert, after: Option<&Alert>) -> [String; 8] {
    let resolved = |alert: &Alert| alert.resolved.map_or_else(|| "still firing".to_owned(), at);
    let moved = |before: String, after: Option<String>| match after {
        Some(after) if after != before => format!("{before} -> {after}"),
        _ => before,
    };
    [
        change.to_owned(),
        moved(at(alert.fired), after.map(|after| at(after.fired))),
        moved(resolved(alert), after.map(resolved)),
        alert.rule.clone(),
        shown(alert.service.as_deref().unwrap_or_default()),
        shown(&other_keys(alert)),
        shown(&alert.summary),
        short_id(alert),
    ]
}

/// The key without the service, which has a column of its own.
fn other_keys(alert: &Alert) -> String {
    let others = alert.key.iter().filter(|(name, _)| *name != "service");
    members(&others.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
}

fn short_id(alert: &Alert) -> String {
    alert.alert_id.chars().take(SHORT_ID).collect()
}

fn param_text(value: &ParamValue) -> String {
    match value {
        ParamValue::Boolean(flag) => flag.to_string(),
        ParamValue::Number(number) => number.to_string(),
        ParamValue::Text(text) => text.clone(),
    }
}

fn count(number: usize, what: &str) -> String {
    match number {
        0 => format!("no alert {what}"),
        1 => format!("1 alert {what}"),
        number => format!("{number} alerts {what}"),
    }
}

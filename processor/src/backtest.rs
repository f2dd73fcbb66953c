//! What would have fired: the history, judged again by the same rules.
//!
//! ```text
//! Parquet ─► windows of each view, in the order of their end ─► RuleEngine as configured ───► alerts ─┐
//!                                                         └───► RuleEngine with other params ─► alerts ─┴─► what changes
//! ```
//!
//! Live, each partition of the partials has an engine of its own, and the windows of a partition without a row are not closed there. One
//! engine over all groups says the same: a series is stepped once through each window of its view, by its row or as absent, whatever
//! other groups do. What cannot be the same is written down in `docs/backtest.md`.
//!
//! - B1: an alert of the past is found with its own id, and with the windows in which it fired and was resolved.
//! - B2: no decision depends on the clock: the engine's wall clock is the end of the window.
//! - B3: of a view, the rows of one window and of the files that reach into it are in memory, no more.

mod difference;
mod extremes;
mod replay;
mod rows;
#[cfg(test)]
mod tests;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::Schema;
use bongsu_schemas::alert::AlertLevel;
use bongsu_schemas::key::{GroupKey, key_text};
use bongsu_schemas::services::{FALLBACK, ParamLevels, ParamSetting, ParamValue, Services};
use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Map, Value};

pub use self::difference::Difference;
use self::replay::Replay;
use self::windows::{ViewWindows, last_end_ms};
use crate::config::{Config, ForWindows};
use crate::history::place::Place;
use crate::plan::ViewPlan;
use crate::results::time;
use crate::rules::engine::{ClosedWindow, CompiledRule};
use crate::validate::{Compiled, compile_with};

/// Judging begins at least so long before the range: an alert that hangs between `when` and `clear` fired some time ago.
const LEAST_WARM_UP_MS: i64 = 3_600_000;

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Alerts that fire at this event time or later ...
    pub from: DateTime<Utc>,
    /// ... and before this.
    pub to: DateTime<Utc>,
    /// Only these rules; all where there are none.
    pub rules: BTreeSet<String>,
    /// Only alerts of this service.
    pub service: Option<String>,
    /// Parameters to be tried.
    pub params: Vec<ParamChange>,
}

/// A parameter of a rule with another value.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamChange {
    /// Name of the rule.
    pub rule: String,
    /// Name of the parameter.
    pub name: String,
    /// Of a parameter with two levels: which.
    pub level: Option<AlertLevel>,
    /// Of the same type as in the rule.
    pub value: ParamValue,
}

/// What would have fired.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// With the configuration as it is, in the order in which they fire.
    pub alerts: Vec<Alert>,
    /// What becomes of them with the parameters that were given; none without any.
    pub changed: Option<Difference>,
    /// Event time that the history tells of, at most the end of the range: later windows were not judged.
    pub judged_to: DateTime<Utc>,
    /// Rows of windows that do not fit their view any more, by view: it had windows of another length.
    pub misfits: BTreeMap<String, u64>,
}

/// An alert, from its first window to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// The id that it has in `bongsu.alerts`.
    pub alert_id: String,
    /// Name of the rule.
    pub rule: String,
    /// 1 to 5 fires.
    pub severity: u8,
    /// The service that it concerns.
    pub service: Option<String>,
    /// The group keys of the view.
    pub key: GroupKey,
    /// The view's values in the window that fired.
    pub values: Map<String, Value>,
    /// The parameters that applied.
    pub params: BTreeMap<String, ParamValue>,
    /// One line for people.
    pub summary: String,
    /// Start of the first window that counted.
    pub start: DateTime<Utc>,
    /// End of the window that fired.
    pub fired: DateTime<Utc>,
    /// End of the window that resolved it; none if it fires still.
    pub resolved: Option<DateTime<Utc>>,
    /// The highest values of the condition's columns in windows that met it; the lowest where the condition is `column < ...`.
    pub peak: Map<String, Value>,
}

impl Alert {
    /// Which series: an alert of another one is never the same.
    fn series(&self) -> (String, String) {
        (self.rule.clone(), key_text(&self.key))
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum BacktestError {
    /// The question cannot be answered as it is.
    #[error("{0}")]
    Question(String),
    /// The history cannot be read.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// Judges the history. Needs no Kafka.
pub fn run(config: &Config, question: &Question) -> Result<Outcome, BacktestError> {
    let is_asked = |rule: &str| question.rules.is_empty() || question.rules.contains(rule);
    let (views, rules) = compiled(config, is_asked)?;
    let is_changed = |rule: &str| question.params.iter().any(|param| param.rule == rule);
    let (tried_services, tried_rules) = if question.params.is_empty() {
        (Services::default(), Vec::new())
    } else {
        let tried = with_params(config, question);
        let (_, rules) = compiled(&tried, |rule| is_asked(rule) && is_changed(rule))?;
        (tried.services, rules)
    };
    if rules.is_empty() {
        return Err(BacktestError::Question("there is no rule to be judged".to_owned()));
    }

    let place = Place::open(&config.history)?;
    let range = question.from.timestamp_millis()..question.to.timestamp_millis();
    let begins = begins_ms(&views, &rules, range.start);
    let service = question.service.as_deref();
    let mut windows = begins
        .iter()
        .map(|(view, begin_ms)| {
            let windows = ViewWindows::open(&place, &views[*view], *begin_ms + 1..range.end, service)?;
            Ok((*view, windows))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let replay = |rules, services| Replay::new(Arc::new(rules), Arc::new(services), range.clone(), service);
    let mut as_configured = replay(rules, config.services.clone());
    let mut tried = replay(tried_rules, tried_services);

    let mut windows_in_range = 0;
    while let Some((end_ms, at)) = next_window(&mut windows)? {
        let (view, windows) = &mut windows[at];
        let plan = &views[*view];
        let results = windows.take(end_ms)?;
        let start_ms = plan.window.window_start(end_ms);
        let window = ClosedWindow { view: *view, plan, start_ms, end_ms, results: &results };
        as_configured.window(&views, window)?;
        tried.window(&views, window)?;
        windows_in_range += u64::from(range.contains(&end_ms));
    }
    if windows_in_range == 0 {
        let names: Vec<&str> = begins.keys().map(|view| views[*view].name.as_str()).collect();
        return Err(BacktestError::Question(nothing_to_judge(config, question, &place, &names)?));
    }

    // Event time is the same for all views: one whose last window is long ago has been silent since.
    let mut judged_to_ms = as_configured.event_time_ms();
    for view in &views {
        judged_to_ms = judged_to_ms.max(last_end_ms(&place, &view.name, range.end)?);
    }
    let judged_to_ms = judged_to_ms.unwrap_or(range.start).min(range.end);
    for replay in [&mut as_configured, &mut tried] {
        // A window that ends with the range is the next range's.
        replay.time_passes(&views, judged_to_ms.min(range.end - 1))?;
    }
    let alerts = as_configured.into_alerts();
    let changed = (!question.params.is_empty()).then(|| {
        let before = alerts.iter().filter(|alert| is_changed(&alert.rule)).cloned().collect();
        difference::difference(before, tried.into_alerts())
    });
    let misfits = windows.iter().filter(|(_, windows)| windows.misfits() > 0);
    let misfits = misfits.map(|(view, windows)| (views[*view].name.clone(), windows.misfits())).collect();
    Ok(Outcome { alerts, changed, judged_to: time(judged_to_ms), misfits })
}

/// The views, and the rules that are to be judged.
fn compiled(
    config: &Config,
    is_judged: impl Fn(&str) -> bool,
) -> Result<(Vec<ViewPlan>, Vec<CompiledRule>), BacktestError> {
    // Silence is not judged: who sent anything is not in the history.
    let Compiled { views, mut rules, .. } = compile_with(config, nullable).map_err(|mistakes| {
        let lines: Vec<_> = mistakes.iter().map(|mistake| format!("{}: {}", mistake.path, mistake.problem)).collect();
        BacktestError::Question(format!("the configuration cannot be run: {}", lines.join("; ")))
    })?;
    rules.retain(|compiled| is_judged(&compiled.rule.name));
    Ok((views, rules))
}

/// The history may lack columns that a view has today, even those that are never null there, such as counts.
fn nullable(mut plan: ViewPlan) -> ViewPlan {
    let fields = plan.result_schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    plan.result_schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    plan
}

/// The configuration with other parameters: where a service is asked about, as if the service set them; else as if the rule did.
fn with_params(config: &Config, question: &Question) -> Config {
    let mut config = config.clone();
    for ParamChange { rule, name, level, value } in &question.params {
        match &question.service {
            Some(service) => {
                let entry = config.services.0.entry(service.clone()).or_default();
                let set = entry.params.entry(rule.clone()).or_default();
                set.entry(name.clone()).or_insert_with(|| nothing_set(*level, value)).set(*level, value.clone());
            }
            None => {
                // What `"*"` sets hides what the rule says.
                let fallback = config.services.0.get_mut(FALLBACK).and_then(|entry| entry.params.get_mut(rule));
                let hiding = fallback.and_then(|params| params.get_mut(name));
                let own = config.rules.iter_mut().filter(|known| known.name == *rule);
                for param in hiding.into_iter().chain(own.filter_map(|rule| rule.params.get_mut(name))) {
                    param.set(*level, value.clone());
                }
            }
        }
    }
    config
}

fn nothing_set(level: Option<AlertLevel>, value: &ParamValue) -> ParamSetting {
    match level {
        Some(_) => ParamSetting::Levels(ParamLevels::default()),
        None => ParamSetting::One(value.clone()),
    }
}

/// The views that are judged, and for each the end of the last window before judging begins: earlier than the range by as much as `for`
/// looks back, so that its first windows are judged as they were.
fn begins_ms(views: &[ViewPlan], rules: &[CompiledRule], from_ms: i64) -> BTreeMap<usize, i64> {
    let mut begins = BTreeMap::new();
    for compiled in rules {
        let window = views[compiled.view].window;
        let ForWindows { of, .. } = compiled.rule.for_windows.unwrap_or_default();
        let long_ago_ms = (0..of).fold(window.pane_start(from_ms), |end_ms, _| window.pane_start(end_ms - 1));
        let begin_ms = long_ago_ms.min(from_ms - LEAST_WARM_UP_MS);
        begins.entry(compiled.view).and_modify(|known: &mut i64| *known = begin_ms.min(*known)).or_insert(begin_ms);
    }
    begins
}

/// The end of the next window of all views, and whose it is: in the order in which stage 2 closes them.
fn next_window(windows: &mut [(usize, ViewWindows<'_>)]) -> anyhow::Result<Option<(i64, usize)>> {
    let mut next: Option<(i64, usize)> = None;
    for (at, (_, windows)) in windows.iter_mut().enumerate() {
        if let Some(end_ms) = windows.next_end_ms()?
            && next.is_none_or(|(earliest_ms, _)| end_ms < earliest_ms)
        {
            next = Some((end_ms, at));
        }
    }
    Ok(next)
}

/// Why nothing was judged, and what could be.
fn nothing_to_judge(config: &Config, question: &Question, place: &Place, views: &[&str]) -> anyhow::Result<String> {
    let mut days = BTreeSet::new();
    for view in views {
        days.extend(place.dates(view)?);
    }
    let (from, to) = (question.from, question.to);
    let of = question.service.as_ref().map(|service| format!(" of the service `{service}`")).unwrap_or_default();
    let (views, url) = (views.join(", "), &config.history.url);
    let hint = match (days.first(), days.last()) {
        (Some(first), Some(last)) => format!("its days are {}", days_text(*first, *last)),
        _ => "it is empty; `bongsu run` writes windows there after they have closed".to_owned(),
    };
    Ok(format!("the history at {url} has no windows of {views}{of} that end between {from:?} and {to:?}; {hint}"))
}

fn days_text(first: NaiveDate, last: NaiveDate) -> String {
    if first == last { first.to_string() } else { format!("{first} to {last}") }
}

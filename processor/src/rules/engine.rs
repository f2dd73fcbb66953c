//! The rules of one partition of the partials: judges each closed window, keeps the states of the series, makes alert records.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use bongsu_schemas::alert::{AlertRecord, AlertStatus, Evidence, EvidenceWindow, alert_id};
use bongsu_schemas::key::{GroupKey, key_text};
use bongsu_schemas::services::{ParamValue, Services};
use chrono::{DateTime, Utc};
use minijinja::Environment;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::condition::Conditions;
use super::series::{Firing, Observation, SeriesState, Transition};
use crate::config::{ForWindows, Rule};
use crate::plan::{ViewPlan, first_event_time};
use crate::results::{row_object, time};
use crate::window::WindowSpec;

/// A rule, compiled. Shared by all partitions.
#[derive(Debug)]
pub struct CompiledRule {
    /// As configured.
    pub rule: Rule,
    /// Index of its view.
    pub view: usize,
    /// `when` and `clear`.
    pub conditions: Conditions,
}

impl CompiledRule {
    fn needed(&self) -> ForWindows {
        self.rule.for_windows.unwrap_or_default()
    }
}

/// Renders the line for people of an alert. Undefined values are empty; the result is one line of bounded length.
pub fn summary(rule: &Rule, fields: &Map<String, Value>) -> String {
    const MAX_CHARS: usize = 500;
    let template = rule.summary.as_deref().unwrap_or("{{ rule }}");
    let mut environment = Environment::new();
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Chainable);
    let rendered =
        environment.render_str(template, minijinja::value::Serde(fields)).unwrap_or_else(|_| rule.name.clone());
    let one_line = rendered.split(|c: char| c.is_control()).collect::<Vec<_>>().join(" ");
    one_line.trim().chars().take(MAX_CHARS).collect()
}

/// Which series: index of the rule, text of the group key.
pub type SeriesId = (usize, String);

/// A series as `bongsu.rule-states` has it; the record's key is rule and group key, so that a later state replaces it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesRecord {
    /// Name of the rule.
    pub rule: String,
    /// The group key.
    pub key: GroupKey,
    /// Its state.
    pub state: SeriesState,
}

impl SeriesRecord {
    /// The Kafka key.
    pub fn kafka_key(rule: &str, key_text: &str) -> String {
        format!("{rule} {key_text}")
    }
}

/// What closing a window changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// Alerts that began or ended.
    pub alerts: Vec<AlertRecord>,
    /// New states by Kafka key; none where a series has no state any more.
    pub states: BTreeMap<String, Option<SeriesRecord>>,
}

/// States of the series of one partition.
#[derive(Debug)]
pub struct RuleEngine {
    rules: Arc<Vec<CompiledRule>>,
    services: Arc<Services>,
    series: BTreeMap<SeriesId, (GroupKey, SeriesState)>,
    /// End of the last window that each rule was stepped through.
    stepped_to_ms: HashMap<usize, i64>,
}

/// A closed window of a view.
#[derive(Debug, Clone, Copy)]
pub struct ClosedWindow<'a> {
    /// Index of the view.
    pub view: usize,
    /// Its plan.
    pub plan: &'a ViewPlan,
    /// Epoch milliseconds, inclusive.
    pub start_ms: i64,
    /// Epoch milliseconds, exclusive.
    pub end_ms: i64,
    /// One row for each group key.
    pub results: &'a RecordBatch,
}

impl RuleEngine {
    /// No series has a state yet.
    pub fn new(rules: Arc<Vec<CompiledRule>>, services: Arc<Services>) -> RuleEngine {
        RuleEngine { rules, services, series: BTreeMap::new(), stepped_to_ms: HashMap::new() }
    }

    /// Takes a state from `bongsu.rule-states`; one of a rule that is not configured any more is let go.
    pub fn restore(&mut self, record: SeriesRecord) {
        let Some(rule) = self.rules.iter().position(|compiled| compiled.rule.name == record.rule) else { return };
        self.series.insert((rule, key_text(&record.key)), (record.key, record.state));
    }

    /// All windows that end at `closed_ms` or earlier have been judged.
    pub fn stepped_to(&mut self, plans: &[ViewPlan], closed_ms: i64) {
        if closed_ms > crate::stage2::state::NEVER_MS {
            let ends = self
                .rules
                .iter()
                .enumerate()
                .map(|(index, rule)| (index, plans[rule.view].window.pane_start(closed_ms)));
            self.stepped_to_ms = ends.collect();
        }
    }

    /// Number of series with a state.
    pub fn active_series(&self) -> usize {
        self.series.len()
    }

    /// Judges a window's rows. Windows must come in the order in which they end. `now` is the wall clock.
    pub fn window_closed(
        &mut self,
        window: ClosedWindow<'_>,
        now: DateTime<Utc>,
        changes: &mut Changes,
    ) -> anyhow::Result<()> {
        let rules = self.rules.clone();
        for (index, compiled) in rules.iter().enumerate().filter(|(_, compiled)| compiled.view == window.view) {
            self.step_missing(
                index,
                compiled,
                window.plan.window,
                window.end_ms - window.plan.window.slide_ms(),
                now,
                changes,
            );
            self.judge(index, compiled, &window, now, changes)?;
            self.stepped_to_ms.insert(index, window.end_ms);
        }
        Ok(())
    }

    /// Event time has passed: series whose windows have ended without any row in the partition are stepped through them.
    pub fn time_passed(&mut self, plans: &[ViewPlan], closed_ms: i64, now: DateTime<Utc>, changes: &mut Changes) {
        let rules = self.rules.clone();
        for (index, compiled) in rules.iter().enumerate() {
            let spec = plans[compiled.view].window;
            let last_end_ms = spec.pane_start(closed_ms);
            self.step_missing(index, compiled, spec, last_end_ms, now, changes);
        }
    }

    fn judge(
        &mut self,
        index: usize,
        compiled: &CompiledRule,
        window: &ClosedWindow<'_>,
        now: DateTime<Utc>,
        changes: &mut Changes,
    ) -> anyhow::Result<()> {
        let rows = window.results.num_rows();
        let keys: Vec<GroupKey> = (0..rows).map(|row| row_object(window.results, &window.plan.keys, row)).collect();
        let mut params_of = HashMap::new();
        let params: Vec<_> = keys.iter().map(|key| self.params(compiled, key, &mut params_of)).collect();
        let judgement =
            compiled.conditions.judge(window.plan, window.results, (window.start_ms, window.end_ms), &params)?;
        let mut seen = BTreeSet::new();
        for (row, key) in keys.into_iter().enumerate() {
            let id = (index, key_text(&key));
            let known = self.series.contains_key(&id);
            if judgement.met[row] || known {
                let values = row_object(window.results, &window.plan.values, row);
                let first_event_time = first_event_time(window.results, row).map(time);
                let observation =
                    Observation::Row { met: judgement.met[row], clear: judgement.clear[row], values, first_event_time };
                seen.insert(id.1.clone());
                self.step(id, Some(key), compiled, (window.start_ms, window.end_ms), observation, now, changes);
            }
        }
        for id in self.series_of(index).into_iter().filter(|id| !seen.contains(&id.1)) {
            self.step(id, None, compiled, (window.start_ms, window.end_ms), Observation::Absent, now, changes);
        }
        Ok(())
    }

    fn params(
        &self,
        compiled: &CompiledRule,
        key: &GroupKey,
        cache: &mut HashMap<Option<String>, Arc<BTreeMap<String, ParamValue>>>,
    ) -> Arc<BTreeMap<String, ParamValue>> {
        let service = service_of(&compiled.rule, key);
        let params =
            || Arc::new(compiled.conditions.params_of(&compiled.rule.name, service.as_deref(), &self.services));
        cache.entry(service.clone()).or_insert_with(params).clone()
    }

    fn series_of(&self, rule: usize) -> Vec<SeriesId> {
        let all = self.series.range((rule, String::new())..(rule + 1, String::new()));
        all.map(|(id, _)| id.clone()).collect()
    }

    /// Steps the rule's series through the windows that ended after the last one, up to `to_end_ms`, and had no row at all.
    fn step_missing(
        &mut self,
        index: usize,
        compiled: &CompiledRule,
        spec: WindowSpec,
        to_end_ms: i64,
        now: DateTime<Utc>,
        changes: &mut Changes,
    ) {
        let Some(mut end_ms) = self.stepped_to_ms.get(&index).copied() else { return };
        while end_ms + spec.slide_ms() <= to_end_ms {
            let series = self.series_of(index);
            if series.is_empty() {
                end_ms = to_end_ms;
                break;
            }
            end_ms += spec.slide_ms();
            for id in series {
                self.step(id, None, compiled, (end_ms - spec.size_ms(), end_ms), Observation::Absent, now, changes);
            }
        }
        self.stepped_to_ms.insert(index, end_ms);
    }

    #[allow(clippy::too_many_arguments)]
    fn step(
        &mut self,
        id: SeriesId,
        key: Option<GroupKey>,
        compiled: &CompiledRule,
        window_ms: (i64, i64),
        observation: Observation,
        now: DateTime<Utc>,
        changes: &mut Changes,
    ) {
        let (key, state) =
            self.series.entry(id.clone()).or_insert_with(|| (key.unwrap_or_default(), SeriesState::default()));
        let values = match &observation {
            Observation::Row { values, .. } => values.clone(),
            Observation::Absent => Map::new(),
        };
        let transition = state.step(time(window_ms.0), observation, compiled.needed());
        let evidence: Vec<EvidenceWindow> = state.recent.iter().map(evidence_window).collect();
        let (status, firing) = match transition {
            Some(Transition::Fires) => {
                let first = state.first_met_window().unwrap_or_else(|| time(window_ms.0));
                let firing = state.fire(alert_id(&compiled.rule.name, key, first), now).clone();
                (AlertStatus::Firing, Some(firing))
            }
            Some(Transition::Resolves) => (AlertStatus::Resolved, state.resolve()),
            None => (AlertStatus::Firing, None),
        };
        if let Some(firing) = firing {
            let service = service_of(&compiled.rule, key);
            let params = compiled.conditions.params_of(&compiled.rule.name, service.as_deref(), &self.services);
            let alert = AlertParts { compiled, key, values, params, service, firing, status, window_ms, evidence, now };
            changes.alerts.push(alert.record());
        }
        let kafka_key = SeriesRecord::kafka_key(&compiled.rule.name, &id.1);
        if state.is_trivial() {
            self.series.remove(&id);
            changes.states.insert(kafka_key, None);
        } else {
            let record = SeriesRecord { rule: compiled.rule.name.clone(), key: key.clone(), state: state.clone() };
            changes.states.insert(kafka_key, Some(record));
        }
    }
}

struct AlertParts<'a> {
    compiled: &'a CompiledRule,
    key: &'a GroupKey,
    values: Map<String, Value>,
    params: BTreeMap<String, ParamValue>,
    service: Option<String>,
    firing: Firing,
    status: AlertStatus,
    window_ms: (i64, i64),
    evidence: Vec<EvidenceWindow>,
    now: DateTime<Utc>,
}

impl AlertParts<'_> {
    fn record(self) -> AlertRecord {
        let rule = &self.compiled.rule;
        let mut fields = self.values.clone();
        fields.extend(self.key.clone());
        fields.extend(
            self.params.iter().filter_map(|(name, value)| Some((name.clone(), serde_json::to_value(value).ok()?))),
        );
        fields.insert("rule".to_owned(), rule.name.clone().into());
        let resolved = self.status == AlertStatus::Resolved;
        AlertRecord {
            alert_id: self.firing.alert_id,
            rule: rule.name.clone(),
            status: self.status,
            severity: rule.severity,
            summary: summary(rule, &fields),
            service: self.service,
            key: self.key.clone(),
            values: self.values,
            params: self.params,
            window_start: time(self.window_ms.0),
            window_end: time(self.window_ms.1),
            first_event_time: self.firing.first_event_time,
            fired_at: self.firing.fired_at,
            resolved_at: resolved.then_some(self.now),
            evidence: Evidence {
                view: rule.on.clone(),
                when: self.compiled.conditions.when_text.clone(),
                clear: self.compiled.conditions.clear_text.clone(),
                windows: self.evidence,
            },
            sequence: if resolved { 2 } else { 1 },
            reason: None,
        }
    }
}

fn evidence_window(window: &super::series::JudgedWindow) -> EvidenceWindow {
    EvidenceWindow { window_start: window.window_start, met: window.met, values: window.values.clone() }
}

/// Whose alert it is: the key's service, else the rule's.
fn service_of(rule: &Rule, key: &GroupKey) -> Option<String> {
    key.get("service").and_then(Value::as_str).map(str::to_owned).or_else(|| rule.service.clone())
}

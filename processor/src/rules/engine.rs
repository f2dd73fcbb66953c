//! The rules of one partition of the partials: judges each closed window, keeps the states of the series, makes alert records.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use bongsu_schemas::alert::{AlertRecord, AlertStatus, alert_id};
use bongsu_schemas::key::{GroupKey, key_text};
use bongsu_schemas::services::{ParamValue, Services};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::alert::{AlertParts, Moment, Summary, evidence_windows, resolved_without_rule, service_of};
use super::condition::{ConditionError, Conditions};
use super::series::{Observation, SeriesState, Transition};
use crate::config::{ForWindows, Rule};
use crate::plan::{ViewPlan, first_event_time};
use crate::results::{row_object, time};

/// A rule, compiled. Shared by all partitions.
#[derive(Debug)]
pub struct CompiledRule {
    /// As configured.
    pub rule: Rule,
    /// Index of its view.
    pub view: usize,
    /// `when` and `clear`.
    pub conditions: Conditions,
    /// The line for people.
    pub summary: Summary,
}

impl CompiledRule {
    /// Compiles a rule with this `when` over its view, which is the one with the index `view`.
    pub fn new(rule: &Rule, when: &str, view: usize, plan: &ViewPlan) -> Result<CompiledRule, ConditionError> {
        let summary = Summary::new(rule).map_err(|problem| ConditionError { key: "summary", problem })?;
        let conditions = Conditions::new(rule, when, plan)?;
        Ok(CompiledRule { rule: rule.clone(), view, conditions, summary })
    }

    fn needed(&self) -> ForWindows {
        self.rule.for_windows.unwrap_or_default()
    }
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
    /// Restored states of rules that are not configured; they end with the next closed window.
    orphans: Vec<SeriesRecord>,
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
        RuleEngine { rules, services, series: BTreeMap::new(), stepped_to_ms: HashMap::new(), orphans: Vec::new() }
    }

    /// Takes a state from `bongsu.rule-states`. One of a rule that is not configured any more ends with the next change of
    /// event time: nobody else would ever resolve its alert.
    pub fn restore(&mut self, record: SeriesRecord) {
        match self.rules.iter().position(|compiled| compiled.rule.name == record.rule) {
            Some(rule) => {
                self.series.insert((rule, key_text(&record.key)), (record.key, record.state));
            }
            None => self.orphans.push(record),
        }
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
            let to_end_ms = window.plan.window.pane_start(window.end_ms - 1);
            self.step_missing(index, compiled, window.plan, to_end_ms, now, changes);
            self.judge(index, compiled, &window, now, changes)?;
            self.stepped_to_ms.insert(index, window.end_ms);
        }
        Ok(())
    }

    /// Event time has passed: series whose windows have ended without any row in the partition are stepped through them.
    pub fn time_passed(&mut self, plans: &[ViewPlan], closed_ms: i64, now: DateTime<Utc>, changes: &mut Changes) {
        let rules = self.rules.clone();
        for (index, compiled) in rules.iter().enumerate() {
            let plan = &plans[compiled.view];
            self.step_missing(index, compiled, plan, plan.window.pane_start(closed_ms), now, changes);
        }
        for orphan in std::mem::take(&mut self.orphans) {
            changes.states.insert(SeriesRecord::kafka_key(&orphan.rule, &key_text(&orphan.key)), None);
            changes.alerts.extend(resolved_without_rule(orphan, closed_ms, now));
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
        let moment = Moment { window_ms: (window.start_ms, window.end_ms), now };
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
                self.step(id, Some(key), compiled, observation, moment, changes);
            }
        }
        for id in self.series_of(index).into_iter().filter(|id| !seen.contains(&id.1)) {
            self.step(id, None, compiled, Observation::Absent, moment, changes);
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
        plan: &ViewPlan,
        to_end_ms: i64,
        now: DateTime<Utc>,
        changes: &mut Changes,
    ) {
        let Some(mut end_ms) = self.stepped_to_ms.get(&index).copied() else { return };
        let (spec, begins_ms) = (plan.window, plan.placement.from_ms);
        while spec.pane_end(end_ms) <= to_end_ms {
            let series = self.series_of(index);
            if series.is_empty() {
                end_ms = to_end_ms;
                break;
            }
            end_ms = spec.pane_end(end_ms);
            let moment = Moment { window_ms: (spec.window_start(end_ms), end_ms), now };
            if moment.window_ms.0 < begins_ms {
                // Another version of the view has this window, and nobody judges it: the series stay as they are.
                continue;
            }
            for id in series {
                self.step(id, None, compiled, Observation::Absent, moment, changes);
            }
        }
        self.stepped_to_ms.insert(index, end_ms);
    }

    fn step(
        &mut self,
        id: SeriesId,
        key: Option<GroupKey>,
        compiled: &CompiledRule,
        observation: Observation,
        moment: Moment,
        changes: &mut Changes,
    ) {
        let (key, state) =
            self.series.entry(id.clone()).or_insert_with(|| (key.unwrap_or_default(), SeriesState::default()));
        let values = match &observation {
            Observation::Row { values, .. } => values.clone(),
            Observation::Absent => Map::new(),
        };
        let window_start = time(moment.window_ms.0);
        let transition = state.step(window_start, observation, compiled.needed());
        let evidence = evidence_windows(state);
        let service = service_of(&compiled.rule, key);
        let (status, firing) = match transition {
            Some(Transition::Fires) => {
                let id = alert_id(&compiled.rule.name, key, state.first_met_window().unwrap_or(window_start));
                let firing = state.fire(id, moment.now, compiled.rule.severity, service.clone()).clone();
                (AlertStatus::Firing, Some(firing))
            }
            Some(Transition::Resolves) => (AlertStatus::Resolved, state.resolve()),
            None => (AlertStatus::Firing, None),
        };
        if let Some(firing) = firing {
            let params = compiled.conditions.params_of(&compiled.rule.name, service.as_deref(), &self.services);
            let alert = AlertParts { compiled, key, values, params, firing, status, evidence, moment };
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

#[cfg(test)]
mod tests;

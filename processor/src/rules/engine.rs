//! The rules of one partition of the partials: judges each closed window, keeps the states of the series, makes alert records.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use bongsu_schemas::alert::{AlertLevel, AlertRecord, AlertStatus, alert_id};
use bongsu_schemas::key::{GroupKey, key_text};
use bongsu_schemas::services::Services;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::absence::{AbsenceRule, Absences, Presence, state_name};
use super::alert::{AlertParts, Moment, Summary, evidence_windows, resolved_without_rule, service_of};
use super::condition::{ConditionError, Conditions};
use super::early::fires_early;
use super::rows::{Overrides, Rows};
use super::series::{Naming, Observation, SeriesState, Transition, Verdict};
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
    /// Whether it need not wait for the end of a window: see [`fires_early`].
    pub fires_early: bool,
}

impl CompiledRule {
    /// Compiles a rule with this `when` over its view, which is the one with the index `view`.
    pub fn new(rule: &Rule, when: &str, view: usize, plan: &ViewPlan) -> Result<CompiledRule, ConditionError> {
        let summary = Summary::new(rule).map_err(|problem| ConditionError { key: "summary", problem })?;
        let conditions = Conditions::new(rule, when, plan)?;
        let fires_early = fires_early(rule, when, plan);
        Ok(CompiledRule { rule: rule.clone(), view, conditions, summary, fires_early })
    }

    /// How many windows must meet `when`.
    fn needed(&self) -> ForWindows {
        self.rule.for_windows.unwrap_or_default()
    }
}

/// Series of a rule that have a state, by the text of their group key.
type SeriesOfRule = BTreeMap<String, (GroupKey, SeriesState)>;

/// A series as `bongsu.rule-states` has it; the record's key is rule and group key, so that a later state replaces it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesRecord {
    /// Name of the rule.
    pub rule: String,
    /// The group key.
    pub key: GroupKey,
    /// Its state.
    #[serde(default)]
    pub state: SeriesState,
    /// Of a rule's `no_data`: when it sent something last. Then there is no other state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence: Option<Presence>,
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
    /// Of each rule, what services set for it.
    overrides: Vec<Overrides>,
    /// Of each rule.
    series: Vec<SeriesOfRule>,
    absences: Absences,
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
        let overrides = rules.iter().map(|compiled| Overrides::of(&compiled.rule.name, &services)).collect();
        let series = vec![SeriesOfRule::new(); rules.len()];
        let absences = Absences::default();
        RuleEngine { rules, services, overrides, series, absences, stepped_to_ms: HashMap::new(), orphans: Vec::new() }
    }

    /// Watches for silence as well. Nobody is known yet.
    pub fn with_absences(self, absences: Arc<Vec<AbsenceRule>>) -> RuleEngine {
        RuleEngine { absences: Absences::new(absences), ..self }
    }

    /// Takes a state from `bongsu.rule-states`. One of a rule that is not configured any more ends with the next change of
    /// event time: nobody else would ever resolve its alert.
    pub fn restore(&mut self, record: SeriesRecord) {
        if record.presence.is_some() {
            self.orphans.extend(self.absences.restore(record));
            return;
        }
        match self.rules.iter().position(|compiled| compiled.rule.name == record.rule) {
            Some(rule) => {
                self.series[rule].insert(key_text(&record.key), (record.key, record.state));
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
        self.series.iter().map(SeriesOfRule::len).sum::<usize>() + self.absences.len()
    }

    /// Judges a window's rows. Windows must come in the order in which they end. `now` is the wall clock.
    pub fn window_closed(
        &mut self,
        window: ClosedWindow<'_>,
        now: DateTime<Utc>,
        changes: &mut Changes,
    ) -> anyhow::Result<()> {
        let rules = self.rules.clone();
        let rows = Rows::new(window);
        for (index, compiled) in rules.iter().enumerate().filter(|(_, compiled)| compiled.view == window.view) {
            let to_end_ms = window.plan.window.pane_start(window.end_ms - 1);
            self.step_missing(index, compiled, window.plan, to_end_ms, now, changes);
            self.judge(index, compiled, &rows, now, changes)?;
            self.stepped_to_ms.insert(index, window.end_ms);
        }
        self.absences.window_closed(&window, now, changes);
        Ok(())
    }

    /// Whether some rule over the view looks into windows that are still open.
    pub fn looks_into_open(&self, view: usize) -> bool {
        self.rules.iter().any(|compiled| compiled.view == view && compiled.fires_early)
    }

    /// Judges rows of a window that is still open, by the rules whose conditions can only become true in it.
    pub fn window_grew(
        &mut self,
        window: ClosedWindow<'_>,
        now: DateTime<Utc>,
        changes: &mut Changes,
    ) -> anyhow::Result<()> {
        let rules = self.rules.clone();
        let rows = Rows::new(window);
        let moment = Moment { window_ms: (window.start_ms, window.end_ms), now, is_open: true };
        let early = rules.iter().enumerate().filter(|(_, rule)| rule.view == window.view && rule.fires_early);
        for (index, compiled) in early {
            let verdicts = rows.verdicts(compiled, &self.overrides[index], &self.services)?;
            for (row, verdict) in verdicts.into_iter().enumerate().filter(|(_, verdict)| verdict.met) {
                let known = self.series[index].get(&*rows.key_text(row)).and_then(|(_, state)| state.firing.as_ref());
                // Most of what grows has been told.
                if known.is_none_or(|firing| verdict.critical && !firing.critical) {
                    self.step(index, compiled, Stepped::Row { rows: &rows, row, verdict }, moment, changes);
                }
            }
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
        self.absences.time_passed(plans, closed_ms, now, changes);
        for orphan in std::mem::take(&mut self.orphans) {
            let name = if orphan.presence.is_some() { state_name(&orphan.rule) } else { orphan.rule.clone() };
            changes.states.insert(SeriesRecord::kafka_key(&name, &key_text(&orphan.key)), None);
            changes.alerts.extend(resolved_without_rule(orphan, closed_ms, now));
        }
    }

    fn judge(
        &mut self,
        index: usize,
        compiled: &CompiledRule,
        rows: &Rows<'_>,
        now: DateTime<Utc>,
        changes: &mut Changes,
    ) -> anyhow::Result<()> {
        let ClosedWindow { start_ms, end_ms, .. } = rows.window;
        let moment = Moment { window_ms: (start_ms, end_ms), now, is_open: false };
        let verdicts = rows.verdicts(compiled, &self.overrides[index], &self.services)?;
        let mut to_step: BTreeSet<usize> = (0..verdicts.len()).filter(|row| verdicts[*row].met).collect();
        let mut absent = Vec::new();
        for known in self.series[index].keys() {
            match rows.row_of(known) {
                Some(row) => drop(to_step.insert(row)),
                None => absent.push(known.clone()),
            }
        }
        for row in to_step {
            self.step(index, compiled, Stepped::Row { rows, row, verdict: verdicts[row] }, moment, changes);
        }
        for key_text in absent {
            self.step(index, compiled, Stepped::Absent { key_text }, moment, changes);
        }
        Ok(())
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
            let series: Vec<String> = self.series[index].keys().cloned().collect();
            if series.is_empty() {
                end_ms = to_end_ms;
                break;
            }
            end_ms = spec.pane_end(end_ms);
            let moment = Moment { window_ms: (spec.window_start(end_ms), end_ms), now, is_open: false };
            if moment.window_ms.0 < begins_ms {
                // Another version of the view has this window, and nobody judges it: the series stay as they are.
                continue;
            }
            for key_text in series {
                self.step(index, compiled, Stepped::Absent { key_text }, moment, changes);
            }
        }
        self.stepped_to_ms.insert(index, end_ms);
    }

    fn step(
        &mut self,
        index: usize,
        compiled: &CompiledRule,
        stepped: Stepped<'_>,
        moment: Moment,
        changes: &mut Changes,
    ) {
        let key_text = stepped.key_text();
        let new = || (stepped.key(), SeriesState::default());
        let (key, state) = self.series[index].entry(key_text.clone()).or_insert_with(new);
        let observation = stepped.observation();
        let window_start = time(moment.window_ms.0);
        let transition = if moment.is_open {
            state.step_early(window_start, observation)
        } else {
            state.step(window_start, observation, compiled.needed())
        };
        if moment.is_open && transition.is_none() {
            // Nothing of an open window is kept unless it is told.
            if state.is_trivial() {
                self.series[index].remove(&key_text);
            }
            return;
        }
        // Before the end of an alert forgets them.
        let evidence = if transition.is_some() { evidence_windows(state) } else { Vec::new() };
        let service = service_of(&compiled.rule, key);
        let (status, firing) = match transition {
            Some(Transition::Fires) => {
                let alert_id = alert_id(&compiled.rule.name, key, state.first_met_window().unwrap_or(window_start));
                let naming = Naming { alert_id, fired_at: moment.now, service: service.clone() };
                let firing = state.fire(naming, compiled.needed());
                firing.severity = compiled.rule.severity.at(level(compiled, firing.critical));
                (AlertStatus::Firing, Some(firing.clone()))
            }
            Some(Transition::ChangesLevel) => {
                if let Some(firing) = &mut state.firing {
                    firing.severity = compiled.rule.severity.at(level(compiled, firing.critical));
                }
                (AlertStatus::Firing, state.firing.clone())
            }
            Some(Transition::Resolves) => (AlertStatus::Resolved, state.resolve()),
            None => (AlertStatus::Firing, None),
        };
        if let Some(firing) = firing {
            let level = level(compiled, firing.critical);
            let (rule, services) = (&compiled.rule.name, &self.services);
            let params = compiled.conditions.params_of(rule, service.as_deref(), key, level, services);
            let values = stepped.values();
            let alert = AlertParts { compiled, key, values, params, level, firing, status, evidence, moment };
            changes.alerts.push(alert.record());
        }
        let kafka_key = SeriesRecord::kafka_key(&compiled.rule.name, &key_text);
        if state.is_trivial() {
            self.series[index].remove(&key_text);
            changes.states.insert(kafka_key, None);
        } else {
            let record = SeriesRecord {
                rule: compiled.rule.name.clone(),
                key: key.clone(),
                state: state.clone(),
                presence: None,
            };
            changes.states.insert(kafka_key, Some(record));
        }
    }
}

/// A series and what a window says of it.
enum Stepped<'a> {
    Row {
        rows: &'a Rows<'a>,
        row: usize,
        verdict: Verdict,
    },
    /// It has a state, and no row.
    Absent {
        key_text: String,
    },
}

impl Stepped<'_> {
    fn key_text(&self) -> String {
        match self {
            Stepped::Row { rows, row, .. } => rows.key_text(*row).into_owned(),
            Stepped::Absent { key_text } => key_text.clone(),
        }
    }

    fn key(&self) -> GroupKey {
        match self {
            Stepped::Row { rows, row, .. } => rows.key(*row),
            Stepped::Absent { .. } => GroupKey::new(),
        }
    }

    fn values(&self) -> Map<String, Value> {
        match self {
            Stepped::Row { rows, row, .. } => row_object(rows.window.results, &rows.window.plan.values, *row),
            Stepped::Absent { .. } => Map::new(),
        }
    }

    fn observation(&self) -> Observation {
        match self {
            Stepped::Row { rows, row, verdict } => {
                let first_event_time = first_event_time(rows.window.results, *row).map(time);
                Observation::Row { verdict: *verdict, values: self.values(), first_event_time }
            }
            Stepped::Absent { .. } => Observation::Absent,
        }
    }
}

fn level(compiled: &CompiledRule, critical: bool) -> Option<AlertLevel> {
    let levels = compiled.rule.severity.levels();
    if critical { levels.last() } else { levels.first() }.copied().flatten()
}

#[cfg(test)]
pub(crate) mod tests;

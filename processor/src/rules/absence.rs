//! Silence: an alert for a service, or a series, that has sent something and then nothing for as long as its rule says.
//!
//! - N1: silence is measured in event time, from the end of the last window with data to the end of a later one, so that a processor that
//!   was down for an hour finds nobody silent.
//! - N2: whoever has been silent for long is forgotten, and its alert ends: it will not come back.

use std::collections::BTreeMap;
use std::sync::Arc;

use bongsu_schemas::alert::{AlertRecord, AlertStatus, Evidence, NO_DATA, alert_id};
use bongsu_schemas::key::{GroupKey, OTHER, key_text};
use bongsu_schemas::window::rfc3339;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::alert::service_of;
use super::engine::{Changes, ClosedWindow, SeriesRecord};
use super::series::Firing;
use crate::config::{NoData, Rule};
use crate::plan::ViewPlan;
use crate::results::{row_object, time};

/// Whoever is silent for longer than this, and for ten times as long as its rule allows, is forgotten.
const FORGET_AFTER_MS: i64 = 24 * 3_600_000;

/// A rule's `no_data`.
#[derive(Debug, Clone)]
pub struct AbsenceRule {
    /// As configured.
    pub rule: Rule,
    /// Its `no_data`.
    pub no_data: NoData,
    /// Index of the presence view.
    pub view: usize,
    /// Names of its keys, in their order.
    pub keys: Vec<String>,
}

/// What is known of one that sends data, as `bongsu.rule-states` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// End of the last window with data.
    #[serde(with = "rfc3339")]
    pub until: DateTime<Utc>,
    /// The alert, while it is silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firing: Option<Firing>,
}

/// All that is present in one partition.
#[derive(Debug, Default)]
pub(super) struct Absences {
    rules: Arc<Vec<AbsenceRule>>,
    known: BTreeMap<(usize, String), (GroupKey, Presence)>,
}

impl Absences {
    pub(super) fn new(rules: Arc<Vec<AbsenceRule>>) -> Absences {
        Absences { rules, known: BTreeMap::new() }
    }

    /// Takes back a state; gives it back if no rule has it any more.
    pub(super) fn restore(&mut self, record: SeriesRecord) -> Option<SeriesRecord> {
        let rule = self.rules.iter().position(|absence| absence.rule.name == record.rule);
        match (rule, record.presence.clone()) {
            // Another presence view than that of the time has other keys, and nobody would ever see these again.
            (Some(rule), Some(presence)) if record.key.keys().eq(&self.rules[rule].keys) => {
                self.known.insert((rule, key_text(&record.key)), (record.key, presence));
                None
            }
            _ => Some(record),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Takes who was there in a window. Who comes back after a silence that nobody was told of was silent nevertheless.
    pub(super) fn window_closed(&mut self, window: &ClosedWindow<'_>, now: DateTime<Utc>, changes: &mut Changes) {
        let rules = Arc::clone(&self.rules);
        for (index, absence) in rules.iter().enumerate().filter(|(_, absence)| absence.view == window.view) {
            for row in 0..window.results.num_rows() {
                let key = row_object(window.results, &window.plan.keys, row);
                let is_nobody = |value: &Value| value.is_null() || value == OTHER;
                if key.get("service").is_some_and(is_nobody) || key.values().any(|value| value == OTHER) {
                    continue;
                }
                let id = (index, key_text(&key));
                let here = Presence { until: time(window.end_ms), firing: None };
                let (key, presence) = self.known.entry(id.clone()).or_insert_with(|| (key, here));
                let told_by = Teller { absence, plan: window.plan, key, now };
                if told_by.is_silent(presence, window.start_ms) && presence.firing.is_none() {
                    changes.alerts.push(told_by.fire(presence));
                }
                if let Some(firing) = presence.firing.take() {
                    changes.alerts.push(told_by.resolve(&firing, (window.start_ms, window.end_ms), "sends data again"));
                }
                presence.until = presence.until.max(time(window.end_ms));
                changes.states.insert(told_by.state_key(&id.1), Some(told_by.state(presence)));
            }
        }
    }

    /// Event time has passed: all windows that end at `closed_ms` or before are closed.
    pub(super) fn time_passed(
        &mut self,
        plans: &[ViewPlan],
        closed_ms: i64,
        now: DateTime<Utc>,
        changes: &mut Changes,
    ) {
        let rules = Arc::clone(&self.rules);
        self.known.retain(|(rule, text), (key, presence)| {
            let absence = &rules[*rule];
            let plan = &plans[absence.view];
            let end_ms = plan.window.pane_start(closed_ms);
            let told_by = Teller { absence, plan, key, now };
            if presence.firing.is_none() && told_by.is_silent(presence, end_ms) {
                changes.alerts.push(told_by.fire(presence));
                changes.states.insert(told_by.state_key(text), Some(told_by.state(presence)));
            }
            let silent_ms = end_ms - presence.until.timestamp_millis();
            let is_forgotten = silent_ms >= FORGET_AFTER_MS.max(10 * absence.no_data.after.millis());
            if is_forgotten {
                if let Some(firing) = presence.firing.take() {
                    let window_ms = (plan.window.window_start(end_ms), end_ms);
                    changes.alerts.push(told_by.resolve(
                        &firing,
                        window_ms,
                        "has been silent for so long that it is forgotten",
                    ));
                }
                changes.states.insert(told_by.state_key(text), None);
            }
            !is_forgotten
        });
    }
}

/// Makes the records of one that is silent.
struct Teller<'a> {
    absence: &'a AbsenceRule,
    plan: &'a ViewPlan,
    key: &'a GroupKey,
    now: DateTime<Utc>,
}

impl Teller<'_> {
    /// End of the first window by whose end the silence has lasted long enough.
    fn fires_at_ms(&self, presence: &Presence) -> i64 {
        let due_ms = presence.until.timestamp_millis() + self.absence.no_data.after.millis();
        let start_ms = self.plan.window.pane_start(due_ms);
        if start_ms == due_ms { due_ms } else { self.plan.window.pane_end(start_ms) }
    }

    fn is_silent(&self, presence: &Presence, end_ms: i64) -> bool {
        self.fires_at_ms(presence) <= end_ms
    }

    fn fire(&self, presence: &mut Presence) -> AlertRecord {
        let end_ms = self.fires_at_ms(presence);
        let window_start = time(self.plan.window.window_start(end_ms));
        let severity = self.absence.no_data.severity;
        let firing = presence.firing.insert(Firing {
            // By the last window with data: the same silence has the same id.
            alert_id: alert_id(&state_name(&self.absence.rule.name), self.key, presence.until),
            fired_at: self.now,
            window_start: Some(window_start),
            critical: false,
            sequence: 1,
            first_event_time: None,
            severity,
            service: service_of(&self.absence.rule, self.key),
            absent_windows: 0,
        });
        let since = rfc3339::format(&presence.until);
        let what = format!("no data for {} (since {since})", self.absence.no_data.after);
        self.record(firing, AlertStatus::Firing, (window_start, time(end_ms)), &what)
    }

    fn resolve(&self, firing: &Firing, (start_ms, end_ms): (i64, i64), what: &str) -> AlertRecord {
        self.record(firing, AlertStatus::Resolved, (time(start_ms), time(end_ms)), what)
    }

    fn record(
        &self,
        firing: &Firing,
        status: AlertStatus,
        (window_start, window_end): (DateTime<Utc>, DateTime<Utc>),
        what: &str,
    ) -> AlertRecord {
        let is_resolved = status == AlertStatus::Resolved;
        let rule = &self.absence.rule;
        AlertRecord {
            alert_id: firing.alert_id.clone(),
            rule: rule.name.clone(),
            status,
            severity: firing.severity,
            level: None,
            service: firing.service.clone(),
            key: self.key.clone(),
            values: Map::new(),
            params: BTreeMap::new(),
            window_start,
            window_end,
            first_event_time: None,
            fired_at: firing.fired_at,
            resolved_at: is_resolved.then_some(self.now),
            summary: format!("{}: {what}", self.subject()),
            evidence: Evidence { view: rule.on.clone(), ..Evidence::default() },
            sequence: firing.sequence + u32::from(is_resolved),
            reason: Some(NO_DATA.to_owned()),
            explained_by: rule.explained_by.clone(),
            early: false,
        }
    }

    /// Who is silent, in one harmless line.
    fn subject(&self) -> String {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let parts: Vec<String> = self.key.values().filter(|value| !value.is_null()).map(text).collect();
        let subject = if parts.is_empty() { self.absence.rule.on.clone() } else { parts.join(" ") };
        super::alert::one_line(&subject)
    }

    fn state_key(&self, key_text: &str) -> String {
        SeriesRecord::kafka_key(&state_name(&self.absence.rule.name), key_text)
    }

    fn state(&self, presence: &Presence) -> SeriesRecord {
        let (rule, key) = (self.absence.rule.name.clone(), self.key.clone());
        SeriesRecord { rule, key, state: super::series::SeriesState::default(), presence: Some(presence.clone()) }
    }
}

/// A rule can have a condition and `no_data`: their states and alerts are told apart by this.
pub(super) fn state_name(rule: &str) -> String {
    format!("{rule} {NO_DATA}")
}

#[cfg(test)]
mod tests;

//! Closed windows in the order of their end become alerts. Pure: the engine of the rules is the one that judges live.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bongsu_schemas::alert::{AlertRecord, AlertStatus};
use bongsu_schemas::services::Services;
use serde_json::Map;

use super::extremes::Extremes;
use super::{Alert, BacktestError};
use crate::plan::ViewPlan;
use crate::results::time;
use crate::rules::engine::{Changes, ClosedWindow, CompiledRule, RuleEngine, SeriesRecord};

/// More alerts than anybody reads; bounds memory.
const MAX_ALERTS: usize = 50_000;

/// Live, event time passes in small steps also where no window closes.
const PACE_MS: i64 = 60_000;
/// After so long without any window, the rest of a gap passes at once.
const PACED_MS: i64 = 24 * 3_600_000;

/// See the module.
pub(super) struct Replay {
    engine: RuleEngine,
    /// Alerts that fire outside of it are not kept.
    range: Range<i64>,
    service: Option<String>,
    /// Which values of an alert are remembered, by rule.
    extremes: BTreeMap<String, Extremes>,
    event_time_ms: Option<i64>,
    /// In the order in which they fired.
    alerts: Vec<Alert>,
    /// Positions of those that fire, by alert id.
    firing: BTreeMap<String, usize>,
}

impl Replay {
    pub(super) fn new(
        rules: Arc<Vec<CompiledRule>>,
        services: Arc<Services>,
        range: Range<i64>,
        service: Option<&str>,
    ) -> Replay {
        let extremes = |compiled: &CompiledRule| {
            let when = compiled.rule.when.as_deref().unwrap_or_default();
            (compiled.rule.name.clone(), Extremes::of_condition(when))
        };
        Replay {
            extremes: rules.iter().map(extremes).collect(),
            engine: RuleEngine::new(rules, services),
            range,
            service: service.map(str::to_owned),
            event_time_ms: None,
            alerts: Vec::new(),
            firing: BTreeMap::new(),
        }
    }

    /// Takes the next window; none that ends later was taken before.
    pub(super) fn window(&mut self, plans: &[ViewPlan], window: ClosedWindow<'_>) -> Result<(), BacktestError> {
        self.time_passes(plans, window.end_ms - 1)?;
        let mut changes = Changes::default();
        self.engine.window_closed(window, time(window.end_ms), &mut changes)?;
        self.take(changes)
    }

    /// All windows that end at `closed_ms` or earlier were taken, or have no row.
    pub(super) fn time_passes(&mut self, plans: &[ViewPlan], closed_ms: i64) -> Result<(), BacktestError> {
        let mut at_ms = self.event_time_ms.unwrap_or(closed_ms);
        if self.event_time_ms.is_some() && closed_ms <= at_ms {
            return Ok(());
        }
        let paced_to_ms = closed_ms.min(at_ms + PACED_MS);
        while at_ms + PACE_MS < paced_to_ms {
            at_ms += PACE_MS;
            self.step(plans, at_ms)?;
        }
        self.step(plans, closed_ms)
    }

    fn step(&mut self, plans: &[ViewPlan], closed_ms: i64) -> Result<(), BacktestError> {
        let mut changes = Changes::default();
        self.engine.time_passed(plans, closed_ms, time(closed_ms), &mut changes);
        self.event_time_ms = Some(closed_ms);
        self.take(changes)
    }

    /// Event time of the last window, to the millisecond before its end; none before the first one.
    pub(super) fn event_time_ms(&self) -> Option<i64> {
        self.event_time_ms
    }

    /// The alerts that fired in the range, in the order in which they did.
    pub(super) fn into_alerts(mut self) -> Vec<Alert> {
        self.alerts.sort_by_cached_key(|alert| (alert.fired, alert.series()));
        self.alerts
    }

    fn take(&mut self, changes: Changes) -> Result<(), BacktestError> {
        for record in changes.alerts {
            match record.status {
                AlertStatus::Firing => self.fires(record)?,
                AlertStatus::Resolved => {
                    if let Some(at) = self.firing.remove(&record.alert_id) {
                        self.alerts[at].resolved = Some(record.window_end);
                    }
                }
            }
        }
        for SeriesRecord { rule, state, .. } in changes.states.into_values().flatten() {
            let Some(at) = state.firing.and_then(|firing| self.firing.get(&firing.alert_id)) else { continue };
            if let Some(last) = state.recent.back().filter(|window| window.met)
                && let Some(extremes) = self.extremes.get(&rule)
            {
                extremes.update(&mut self.alerts[*at].peak, &last.values);
            }
        }
        Ok(())
    }

    fn fires(&mut self, record: AlertRecord) -> Result<(), BacktestError> {
        if let Some(at) = self.firing.get(&record.alert_id) {
            // It got worse: not another alert.
            let alert = &mut self.alerts[*at];
            alert.severity = alert.severity.max(record.severity);
            return Ok(());
        }
        let is_ours = self.service.is_none() || self.service == record.service;
        if !is_ours || !self.range.contains(&record.window_end.timestamp_millis()) {
            return Ok(());
        }
        if self.alerts.len() >= MAX_ALERTS {
            let at = record.window_end;
            return Err(BacktestError::Question(format!(
                "more than {MAX_ALERTS} alerts would have fired until {at:?}; ask about fewer rules, one service or a shorter time"
            )));
        }
        let mut peak = Map::new();
        if let Some(extremes) = self.extremes.get(&record.rule) {
            for window in record.evidence.windows.iter().filter(|window| window.met) {
                extremes.update(&mut peak, &window.values);
            }
        }
        self.firing.insert(record.alert_id.clone(), self.alerts.len());
        self.alerts.push(Alert {
            start: record.evidence.windows.first().map_or(record.window_start, |window| window.window_start),
            fired: record.window_end,
            resolved: None,
            peak,
            alert_id: record.alert_id,
            rule: record.rule,
            severity: record.severity,
            service: record.service,
            key: record.key,
            values: record.values,
            params: record.params,
            summary: record.summary,
        });
        Ok(())
    }
}

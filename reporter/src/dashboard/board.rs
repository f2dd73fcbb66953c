//! What the page shows: bounded, and with a memory of what changed since the last look. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bongsu_schemas::alert::{AlertRecord, AlertStatus};
use bongsu_schemas::incident::{IncidentRecord, IncidentStatus};
use bongsu_schemas::key::key_text;
use bongsu_schemas::window::WindowRecord;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

/// Groups of views, each with its latest window.
const MAX_WINDOWS: usize = 2_000;
const MAX_ALERTS: usize = 500;
const MAX_INCIDENTS: usize = 200;

/// The latest windows, alerts and incidents.
#[derive(Debug, Default)]
pub(crate) struct Board {
    windows: Latest<(String, String), WindowRecord>,
    alerts: Latest<String, AlertRecord>,
    incidents: Latest<String, IncidentRecord>,
}

/// How long-lived an entry is: what is closed goes first, then the oldest.
type Rank = (bool, DateTime<Utc>);

/// The latest record of each key; over the limit, the lowest rank goes.
#[derive(Debug)]
struct Latest<K, T> {
    by_key: BTreeMap<K, (Rank, T)>,
    by_rank: BTreeSet<(Rank, K)>,
    changed: BTreeSet<K>,
}

impl<K, T> Default for Latest<K, T> {
    fn default() -> Latest<K, T> {
        Latest { by_key: BTreeMap::new(), by_rank: BTreeSet::new(), changed: BTreeSet::new() }
    }
}

impl<K: Ord + Clone, T> Latest<K, T> {
    fn put(&mut self, key: K, rank: Rank, record: T, limit: usize) {
        if let Some((earlier, _)) = self.by_key.insert(key.clone(), (rank, record)) {
            self.by_rank.remove(&(earlier, key.clone()));
        }
        self.changed.insert(key.clone());
        self.by_rank.insert((rank, key));
        while self.by_key.len() > limit {
            let Some((_, lowest)) = self.by_rank.pop_first() else { return };
            self.by_key.remove(&lowest);
            self.changed.remove(&lowest);
        }
    }

    /// Highest rank first.
    fn all(&self) -> impl Iterator<Item = &T> {
        self.by_rank.iter().rev().filter_map(|(_, key)| self.by_key.get(key)).map(|(_, record)| record)
    }

    fn take_changed(&mut self) -> Vec<&T> {
        let changed = std::mem::take(&mut self.changed);
        changed.iter().filter_map(|key| self.by_key.get(key)).map(|(_, record)| record).collect()
    }
}

impl Board {
    /// Takes a window; an older one than the present one of its group changes nothing.
    pub(crate) fn window(&mut self, window: WindowRecord) {
        let key = (window.view.clone(), key_text(&window.key));
        let newer =
            self.windows.by_key.get(&key).is_none_or(|(_, present)| present.window_start <= window.window_start);
        if newer {
            self.windows.put(key, (true, window.window_end), window, MAX_WINDOWS);
        }
    }

    /// Takes an alert.
    pub(crate) fn alert(&mut self, alert: AlertRecord) {
        let rank = (alert.status == AlertStatus::Firing, alert.window_end);
        self.alerts.put(alert.alert_id.clone(), rank, alert, MAX_ALERTS);
    }

    /// Takes an incident; an older state changes nothing.
    pub(crate) fn incident(&mut self, incident: IncidentRecord) {
        let id = incident.incident_id.clone();
        let newer = self.incidents.by_key.get(&id).is_none_or(|(_, present)| present.sequence <= incident.sequence);
        if newer {
            let rank = (incident.status == IncidentStatus::Open, incident.opened_at);
            self.incidents.put(id, rank, incident, MAX_INCIDENTS);
        }
    }

    /// Whether the page shows the incident.
    pub(crate) fn has_incident(&self, id: &str) -> bool {
        self.incidents.by_key.contains_key(id)
    }

    /// Firing alerts first, then the latest.
    pub(crate) fn alerts(&self) -> Value {
        json!({ "alerts": self.alerts.all().collect::<Vec<_>>() })
    }

    /// Open incidents first, then the latest.
    pub(crate) fn incidents(&self) -> Value {
        json!({ "incidents": self.incidents.all().collect::<Vec<_>>() })
    }

    /// The latest window of each group, the latest first.
    pub(crate) fn windows(&self) -> Value {
        json!({ "windows": self.windows.all().collect::<Vec<_>>() })
    }

    /// Everything.
    pub(crate) fn snapshot(&self) -> Value {
        let windows: Vec<_> = self.windows.all().collect();
        let (alerts, incidents): (Vec<_>, Vec<_>) = (self.alerts.all().collect(), self.incidents.all().collect());
        json!({ "windows": windows, "alerts": alerts, "incidents": incidents })
    }

    /// What changed since this was called last; none if nothing did.
    pub(crate) fn take_changes(&mut self) -> Option<Value> {
        let (windows, alerts) = (self.windows.take_changed(), self.alerts.take_changed());
        let incidents = self.incidents.take_changed();
        let any = !(windows.is_empty() && alerts.is_empty() && incidents.is_empty());
        any.then(|| json!({ "windows": windows, "alerts": alerts, "incidents": incidents }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::incidents::tests::alert;

    fn window(key: &str, minute: i64) -> WindowRecord {
        let start = DateTime::from_timestamp(60 * minute, 0).unwrap();
        WindowRecord {
            view: "requests_1m".to_owned(),
            window_start: start,
            window_end: start + chrono::TimeDelta::minutes(1),
            key: Map::from_iter([("service".to_owned(), json!(key))]),
            values: Map::from_iter([("requests".to_owned(), json!(minute))]),
            is_final: true,
            sequence: None,
        }
    }

    /// Scenario: more groups than are kept, an older window of a known group, alerts that fire and are over.
    /// Guarantees: memory is bounded; firing alerts stay, what is over goes first; changes are told once.
    #[test]
    fn the_board_is_bounded_and_tells_changes_once() {
        let mut board = Board::default();
        for number in 0..2 * MAX_WINDOWS {
            board.window(window(&format!("s{number}"), number as i64));
        }
        board.window(window("s3999", 0));
        let windows = board.windows();
        assert_eq!(windows["windows"].as_array().unwrap().len(), MAX_WINDOWS);
        assert_eq!(windows["windows"][0]["values"]["requests"], 3_999);

        board.alert(alert("lasting", Some("order"), AlertStatus::Firing, 0));
        for number in 0..2 * MAX_ALERTS {
            board.alert(alert(&format!("r{number}"), Some("order"), AlertStatus::Resolved, 10));
        }
        let alerts = board.alerts();
        assert_eq!(alerts["alerts"].as_array().unwrap().len(), MAX_ALERTS);
        assert_eq!(alerts["alerts"][0]["rule"], "lasting");

        let changes = board.take_changes().unwrap();
        assert_eq!(changes["windows"].as_array().unwrap().len(), MAX_WINDOWS);
        assert_eq!(board.take_changes(), None);
    }
}

//! What was said before: the assignments in `bongsu.incidents`. The fold follows them, so that a restart moves no alert into another
//! incident, although the call graph knows less than it did then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bongsu_schemas::alert::Siblings;
use bongsu_schemas::incident::IncidentRecord;
use serde_json::Value;

/// Alerts whose incident is remembered. The topic holds them for 35 days; past this number, further ones are decided anew.
const MAX_ALERTS: usize = 500_000;

/// Which incident each alert was published in, which calls were known between its services, and how many series there were like its own.
#[derive(Debug, Clone, Default)]
pub struct Published {
    incident_of_alert: BTreeMap<String, Arc<str>>,
    calls: BTreeMap<Arc<str>, BTreeSet<(String, String)>>,
    siblings: BTreeMap<Arc<str>, (String, u32)>,
}

impl Published {
    /// Takes the next record of `bongsu.incidents`, in the order of the topic. Of two incidents that claim an alert the first one has it.
    pub fn take(&mut self, record: &IncidentRecord) {
        let id: Arc<str> = record.incident_id.as_str().into();
        for alert_id in &record.alert_ids {
            if self.incident_of_alert.len() >= MAX_ALERTS {
                break;
            }
            self.incident_of_alert.entry(alert_id.clone()).or_insert_with(|| Arc::clone(&id));
        }
        let siblings = record.evidence.get("siblings").and_then(|siblings| {
            let of = u32::try_from(siblings.get("of")?.as_u64()?).ok()?;
            Some((siblings.get("rule")?.as_str()?.to_owned(), of))
        });
        if let Some(siblings) = siblings.filter(|_| self.siblings.len() < MAX_ALERTS) {
            self.siblings.insert(Arc::clone(&id), siblings);
        }
        let calls: BTreeSet<_> = record.evidence.get("calls").map(pairs).unwrap_or_default();
        if !calls.is_empty() && (self.calls.len() < MAX_ALERTS || self.calls.contains_key(&id)) {
            self.calls.insert(id, calls);
        }
    }

    /// The incident that an alert was published in.
    pub(super) fn incident_of(&self, alert_id: &str) -> Option<&str> {
        self.incident_of_alert.get(alert_id).map(|id| &**id)
    }

    /// Of how many series an alert of this rule was one.
    pub(super) fn siblings(&self, incident_id: &str, rule: &str) -> Option<Siblings> {
        let (_, of) = self.siblings.get(incident_id).filter(|(known, _)| known == rule)?;
        Some(Siblings { met: 1, of: *of })
    }

    /// Caller and callee, directly or not, among an incident's services.
    pub(super) fn calls(&self, incident_id: &str) -> impl Iterator<Item = &(String, String)> {
        self.calls.get(incident_id).into_iter().flatten()
    }
}

/// Anybody may write to a topic: what is no pair of names is passed over.
fn pairs(value: &Value) -> BTreeSet<(String, String)> {
    let pair = |value: &Value| match value.as_array()?.as_slice() {
        [Value::String(caller), Value::String(callee)] => Some((caller.clone(), callee.clone())),
        _ => None,
    };
    value.as_array().into_iter().flatten().filter_map(pair).take(super::incident::MAX_CALLS).collect()
}

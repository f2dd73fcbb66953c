//! Silences: which alerts nobody is told about. A pure fold over `bongsu.commands`.
//!
//! - S1: an alert is muted by the `window_end` of the record that fired, not by the clock, so that live and replay agree.
//! - S2: a silence mutes what its matcher fits, and nothing else.

use std::collections::BTreeMap;

use bongsu_schemas::alert::AlertRecord;
use bongsu_schemas::command::Command;
use chrono::{DateTime, Utc};
use serde_json::Value;

/// Over this number, the silences that end first are forgotten.
const MAX_SILENCES: usize = 10_000;

/// The silences that hold.
#[derive(Debug, Default)]
pub(crate) struct Silences {
    by_id: BTreeMap<String, Silence>,
}

#[derive(Debug)]
struct Silence {
    matcher: BTreeMap<String, String>,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
}

impl Silences {
    /// Takes the next command. True if silences changed.
    pub(crate) fn apply(&mut self, command: &Command) -> bool {
        match command {
            Command::Silence { id, matcher, from, until, .. } => {
                let silence = Silence { matcher: matcher.clone(), from: *from, until: *until };
                self.by_id.insert(id.clone(), silence);
                if self.by_id.len() > MAX_SILENCES {
                    let first = self.by_id.iter().min_by_key(|(_, silence)| silence.until).map(|(id, _)| id.clone());
                    first.and_then(|id| self.by_id.remove(&id));
                }
                true
            }
            Command::Unsilence { id, .. } => self.by_id.remove(id).is_some(),
            Command::Acknowledge { .. } => false,
        }
    }

    /// Whether nobody is told of an alert that fired with this record.
    pub(crate) fn mute(&self, firing: &AlertRecord) -> bool {
        self.by_id.values().any(|silence| silence.mutes(firing))
    }
}

impl Silence {
    fn mutes(&self, firing: &AlertRecord) -> bool {
        let holds = self.from <= firing.window_end && firing.window_end < self.until;
        holds && self.matcher.iter().all(|(name, wanted)| value(firing, name).is_some_and(|value| value == *wanted))
    }
}

/// The value that a matcher's name stands for.
fn value(alert: &AlertRecord, name: &str) -> Option<String> {
    match name {
        "rule" => Some(alert.rule.clone()),
        "service" if alert.service.is_some() => alert.service.clone(),
        _ => match alert.key.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use bongsu_schemas::alert::AlertStatus::Firing;

    use super::*;
    use crate::incidents::tests::alert;

    fn silence(id: &str, matcher: &[(&str, &str)], from_minute: i64, until_minute: i64) -> Command {
        let noon: DateTime<Utc> = "2026-11-16T12:00:00Z".parse().unwrap();
        let at = |minute| noon + chrono::TimeDelta::minutes(minute);
        let matcher = matcher.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let (id, by, reason) = (id.to_owned(), "me".to_owned(), String::new());
        Command::Silence { id, matcher, from: at(from_minute), until: at(until_minute), by, reason }
    }

    /// Scenario: alerts before, in and after a silence; other services, rules and keys; the silence is taken back.
    /// Guarantees: S1 to the end of the window, and S2.
    #[test]
    fn a_silence_mutes_its_matcher_only() {
        let mut silences = Silences::default();
        assert!(silences.apply(&silence("a", &[("service", "order"), ("rule", "errors")], 5, 8)));
        let cases = [
            ("errors", "order", 4, false),
            ("errors", "order", 5, true),
            ("errors", "order", 7, true),
            ("errors", "order", 8, false),
            ("errors", "pay", 6, false),
            ("latency", "order", 6, false),
        ];
        for (rule, service, minute, muted) in cases {
            assert_eq!(silences.mute(&alert(rule, Some(service), Firing, minute)), muted, "{rule} {service} {minute}");
        }
        silences.apply(&silence("b", &[("route", "/orders")], 0, 100));
        let mut of_route = alert("errors", Some("pay"), Firing, 6);
        assert!(!silences.mute(&of_route), "the alert has no such key");
        of_route.key.insert("route".to_owned(), "/orders".into());
        assert!(silences.mute(&of_route));
        assert!(silences.apply(&Command::Unsilence { id: "a".to_owned(), by: "me".to_owned() }));
        assert!(!silences.mute(&alert("errors", Some("order"), Firing, 6)));
    }
}

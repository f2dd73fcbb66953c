//! What an alert record says: the line for people, whose alert it is, and the record itself.

use std::collections::BTreeMap;
use std::fmt;

use bongsu_schemas::alert::{AlertLevel, AlertRecord, AlertStatus, Evidence, EvidenceWindow, NO_DATA};
use bongsu_schemas::key::GroupKey;
use chrono::{DateTime, Utc};
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value};

use super::condition::Params;
use super::engine::{CompiledRule, SeriesRecord};
use super::series::{Firing, SeriesState};
use crate::config::Rule;
use crate::results::time;

const SUMMARY: &str = "summary";
const MAX_SUMMARY_CHARS: usize = 500;

/// A rule's template for the line for people of an alert, compiled.
pub struct Summary {
    templates: Environment<'static>,
    /// The line where the template cannot be rendered.
    rule: String,
}

impl Summary {
    /// Compiles a rule's `summary`; without one the line is the rule's name. The error is for the author.
    pub fn new(rule: &Rule) -> Result<Summary, String> {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Chainable);
        let template = rule.summary.clone().unwrap_or_else(|| "{{ rule }}".to_owned());
        templates.add_template_owned(SUMMARY, template).map_err(|error| format!("is not a template: {error}"))?;
        Ok(Summary { templates, rule: rule.name.clone() })
    }

    /// The names that the template reads, sorted.
    pub fn names(&self) -> Vec<String> {
        let template = self.templates.get_template(SUMMARY);
        let mut names: Vec<_> = template.iter().flat_map(|template| template.undeclared_variables(false)).collect();
        names.sort();
        names
    }

    /// The line. Undefined values are empty; the result is one line of bounded length that reads in the order of its characters.
    pub fn render(&self, fields: &Map<String, Value>) -> String {
        let template = self.templates.get_template(SUMMARY);
        let rendered = template.and_then(|template| template.render(minijinja::value::Serde(fields)));
        one_line(&rendered.unwrap_or_else(|_| self.rule.clone()))
    }
}

impl fmt::Debug for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Summary").field("rule", &self.rule).finish_non_exhaustive()
    }
}

/// A line of bounded length that reads in the order of its characters.
pub(super) fn one_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if breaks_the_line(c) { ' ' } else { c }).collect();
    line.trim().chars().take(MAX_SUMMARY_CHARS).collect()
}

/// Control characters, line and paragraph separators, and what reverses the direction of the text after it.
fn breaks_the_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whose alert it is: the key's service, else the rule's.
pub(super) fn service_of(rule: &Rule, key: &GroupKey) -> Option<String> {
    key.get("service").and_then(Value::as_str).map(str::to_owned).or_else(|| rule.service.clone())
}

/// The window that a series is stepped through, and the wall clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// Start and end, epoch milliseconds of event time.
    pub(super) window_ms: (i64, i64),
    pub(super) now: DateTime<Utc>,
    /// The window has not closed yet.
    pub(super) is_open: bool,
}

/// What makes the record of a transition.
pub(super) struct AlertParts<'a> {
    pub(super) compiled: &'a CompiledRule,
    pub(super) key: &'a GroupKey,
    pub(super) values: Map<String, Value>,
    pub(super) params: Params,
    pub(super) level: Option<AlertLevel>,
    pub(super) firing: Firing,
    pub(super) status: AlertStatus,
    pub(super) evidence: Vec<EvidenceWindow>,
    pub(super) moment: Moment,
}

impl AlertParts<'_> {
    pub(super) fn record(self) -> AlertRecord {
        let rule = &self.compiled.rule;
        let mut fields = self.values.clone();
        fields.extend(self.key.clone());
        let param = |(name, value): (&String, _)| Some((name.clone(), serde_json::to_value(value).ok()?));
        fields.extend(self.params.iter().filter_map(param));
        fields.insert("rule".to_owned(), rule.name.clone().into());
        let resolved = self.status == AlertStatus::Resolved;
        AlertRecord {
            alert_id: self.firing.alert_id,
            rule: rule.name.clone(),
            status: self.status,
            severity: rule.severity.at(self.level),
            level: self.level,
            summary: self.compiled.summary.render(&fields),
            service: service_of(rule, self.key),
            key: self.key.clone(),
            values: self.values,
            params: self.params,
            window_start: time(self.moment.window_ms.0),
            window_end: time(self.moment.window_ms.1),
            first_event_time: self.firing.first_event_time,
            fired_at: self.firing.fired_at,
            resolved_at: resolved.then_some(self.moment.now),
            evidence: Evidence {
                view: rule.on.clone(),
                when: self.compiled.conditions.when_text.clone(),
                clear: self.compiled.conditions.clear_text.clone(),
                windows: self.evidence,
                siblings: None,
            },
            sequence: self.firing.sequence + u32::from(resolved),
            reason: None,
            explained_by: rule.explained_by.clone(),
            early: self.moment.is_open,
        }
    }
}

/// The windows that `for` looks at, for people.
pub(super) fn evidence_windows(state: &SeriesState) -> Vec<EvidenceWindow> {
    let window = |window: &super::series::JudgedWindow| EvidenceWindow {
        window_start: window.window_start,
        met: window.met,
        values: window.values.clone(),
    };
    state.recent.iter().map(window).collect()
}

/// The end of an alert whose rule is not configured any more, as far as its state tells; none if it did not fire.
/// `closed_ms` is the event time at which this was noticed.
pub(super) fn resolved_without_rule(orphan: SeriesRecord, closed_ms: i64, now: DateTime<Utc>) -> Option<AlertRecord> {
    let windows = evidence_windows(&orphan.state);
    let reason = orphan.presence.is_some().then(|| NO_DATA.to_owned());
    let firing = orphan.presence.map_or(orphan.state.firing, |presence| presence.firing)?;
    Some(AlertRecord {
        alert_id: firing.alert_id,
        status: AlertStatus::Resolved,
        severity: firing.severity,
        level: None,
        summary: format!("{}: the rule is not configured any more", orphan.rule),
        rule: orphan.rule,
        service: firing.service,
        key: orphan.key,
        values: Map::new(),
        params: BTreeMap::new(),
        window_start: time(closed_ms),
        window_end: time(closed_ms),
        first_event_time: firing.first_event_time,
        fired_at: firing.fired_at,
        resolved_at: Some(now),
        evidence: Evidence { windows, ..Evidence::default() },
        sequence: firing.sequence + 1,
        reason,
        explained_by: Vec::new(),
        early: false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn summary(template: Option<&str>) -> Summary {
        let rule = json!({ "name": "errors", "on": "requests_1m", "when": "errors > 1", "summary": template });
        Summary::new(&serde_json::from_value(rule).unwrap()).unwrap()
    }

    #[test]
    fn a_summary_is_one_harmless_line() {
        let fields = json!({
            "rule": "errors", "service": "a\u{1b}[31m", "message": "x\r\ny\u{0}z", "template": "{{ 7 * 7 }}", "errors": 1,
            "requests": 8, "lines": "a\u{2028}b\u{2029}c\u{85}d", "reversed": "a\u{202e}b\u{202a}c\u{2066}d\u{2069}e",
        });
        let fields = fields.as_object().unwrap();
        #[rustfmt::skip]
        let cases = [
            // name                             template                                                 line
            ("default",                         None,                                                    "errors"),
            ("control characters are spaces",   Some("{{ service }}: {{ message }}"),                    "a [31m: x  y z"),
            ("so are separators of lines",      Some("{{ lines }}"),                                     "a b c d"),
            ("so is what reverses text",        Some("{{ reversed }}"),                                  "a b c d e"),
            ("values are no templates",         Some("{{ template }}"),                                  "{{ 7 * 7 }}"),
            ("what is undefined is empty",      Some("<{{ nothing }}{{ nothing.at.all }}>"),             "<>"),
            ("arithmetic",                      Some("{{ (100 * errors / requests) | round(1) }} %"),    "12.5 %"),
            ("what cannot be rendered",         Some("{{ nothing() }}"),                                 "errors"),
        ];
        for (name, template, expected) in cases {
            assert_eq!(summary(template).render(fields), expected, "{name}");
        }
        let long = json!({ "service": "é".repeat(10_000) });
        assert_eq!(summary(Some("{{ service }}")).render(long.as_object().unwrap()).chars().count(), 500);
    }

    #[test]
    fn a_template_tells_what_it_reads() {
        assert_eq!(summary(Some("{{ b }} {% set c = a %}{{ c }}")).names(), ["a", "b"]);
        assert_eq!(summary(None).names(), ["rule"]);
    }
}

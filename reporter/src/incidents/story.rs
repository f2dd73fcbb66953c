//! An incident in words: its title, its services from the likely cause on, its timeline, and the evidence.
//!
//! The likely cause is the deepest callee: a service that has an alert of its own, and reaches no other one that has. What is explained
//! by another alert gives neither cause nor title.

use std::collections::{BTreeMap, BTreeSet};

use bongsu_schemas::alert::{AlertRecord, Siblings};
use bongsu_schemas::incident::TimelineEntry;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::incident::{Incident, IncidentAlert};

/// Lines of the timeline that are kept: the first ones, which tell the cause, and the latest.
const MAX_TIMELINE_HEAD: usize = 50;
pub(super) const MAX_TIMELINE: usize = 200;
/// Alerts whose values are copied into the record's evidence.
const MAX_EVIDENCE: usize = 20;
/// From so many firing alerts of one rule on, it matters more how many fail than which.
const ALIKE_FROM: usize = 3;
/// Affected services that a title names.
const MAX_SERVICES_NAMED: usize = 3;

/// Alerts of one rule, service and environment that fire together: no single one is to blame.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Alike {
    rule: String,
    service: Option<String>,
    environment: Option<String>,
    siblings: Siblings,
    /// What there are so many of, such as `issuers`.
    noun: String,
}

/// A level that rose or fell while its alert fired.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LevelChange {
    at: DateTime<Utc>,
    text: String,
}

impl LevelChange {
    /// How `after` differs from `before`; none if neither level nor severity does.
    pub(super) fn between(before: &AlertRecord, after: &AlertRecord) -> Option<LevelChange> {
        if before.level == after.level && before.severity == after.severity {
            return None;
        }
        let verb = if after.severity >= before.severity { "rises" } else { "falls" };
        let level = after.level.map_or_else(|| format!("severity {}", after.severity), |level| level.name().to_owned());
        Some(LevelChange { at: after.window_end, text: said(&format!("{verb} to {level}"), &after.summary) })
    }
}

impl Alike {
    fn includes(&self, alert: &IncidentAlert) -> bool {
        let AlertRecord { rule, service, .. } = &alert.firing;
        *rule == self.rule && *service == self.service && alert.firing.environment() == self.environment.as_deref()
    }

    /// Such as `all 5 issuers: issuer-failing`.
    fn text(&self) -> String {
        let Alike { rule, siblings: Siblings { met, of }, noun, .. } = self;
        if met >= of { format!("all {of} {noun}: {rule}") } else { format!("{met} of {of} {noun}: {rule}") }
    }
}

impl Incident {
    /// Where `alert` is one of many alike, what to say in place of its own summary, such as `all 5 issuers: issuer-failing`.
    pub fn alike(&self, alert: &IncidentAlert) -> Option<String> {
        self.alike.as_ref().filter(|alike| alike.includes(alert)).map(Alike::text)
    }

    /// The alert that tells the likely cause: the most severe one of the first service that is not explained by another.
    pub fn cause(&self) -> Option<&IncidentAlert> {
        let service = self.cause_service();
        let own = self.alerts.iter().filter(|alert| alert.explained_by.is_none());
        let of_cause = own.filter(|alert| alert.firing.service.as_deref() == service);
        // Reversed, because the last of equals is taken: the earliest of the most severe.
        of_cause.rev().max_by_key(|alert| (alert.firing.severity, std::cmp::Reverse(alert.onset)))
    }

    /// Brings title, services, timeline, evidence and sequence up to date.
    pub(super) fn describe(&mut self) {
        self.record.services = self.services_from_cause();
        self.look_for_alike();
        let title = self.cause().map(|cause| self.title(cause));
        self.record.title = title.unwrap_or_default();
        self.record.timeline = self.timeline();
        self.record.evidence = self.evidence();
        self.record.sequence += 1;
    }

    /// Of the services with an alert of their own: one that reaches none of the others; of several, where it began first.
    fn cause_service(&self) -> Option<&str> {
        let own = onsets(self.alerts.iter().filter(|alert| alert.explained_by.is_none()));
        let reaches = |from: &str, to: &str| self.calls.contains(&(from.to_owned(), to.to_owned()));
        // Two that call each other are equally deep.
        let is_caller = |service: &str| own.keys().any(|other| reaches(service, other) && !reaches(other, service));
        let deepest = own.iter().filter(|(service, _)| !is_caller(service)).map(|(service, onset)| (*onset, *service));
        deepest.min().map(|(_, service)| service)
    }

    fn services_from_cause(&self) -> Vec<String> {
        let cause = self.cause_service();
        let onsets = onsets(self.alerts.iter());
        let mut services: Vec<_> =
            onsets.into_iter().map(|(service, onset)| (Some(service) != cause, onset, service)).collect();
        services.sort_unstable();
        services.into_iter().map(|(_, _, service)| service.to_owned()).collect()
    }

    /// Notices that many alerts like the cause's fire together. It stays noticed: the last of five to recover is not the culprit.
    fn look_for_alike(&mut self) {
        let Some(alike) = self.cause().and_then(|cause| self.alike_to(cause)) else { return };
        let same = |known: &Alike| known.rule == alike.rule && known.service == alike.service;
        let is_more = self.alike.as_ref().is_none_or(|known| !same(known) || alike.siblings.met >= known.siblings.met);
        if is_more {
            self.alike = Some(alike);
        }
    }

    fn alike_to(&self, cause: &IncidentAlert) -> Option<Alike> {
        let AlertRecord { rule, service, .. } = &cause.firing;
        let mut alike = Alike {
            rule: rule.clone(),
            service: service.clone(),
            environment: cause.firing.environment().map(str::to_owned),
            siblings: Siblings { met: 0, of: 0 },
            noun: String::new(),
        };
        let own = self.alerts.iter().filter(|alert| alert.fires() && alert.explained_by.is_none());
        let firing: Vec<_> = own.filter(|alert| alike.includes(alert)).collect();
        if firing.len() < ALIKE_FROM {
            return None;
        }
        let counted =
            firing.iter().filter_map(|alert| Some((alert.firing.window_end, alert.firing.evidence.siblings?)));
        let Siblings { met, of } = counted.max_by_key(|(at, siblings)| (*at, siblings.met)).map(|(_, found)| found)?;
        // A series may fire in a later window than the one in which its siblings were counted.
        let firing_now = u32::try_from(firing.len()).unwrap_or(u32::MAX);
        let of = of.max(firing_now);
        alike.siblings = Siblings { met: met.max(firing_now).min(of), of };
        alike.noun = plural(differing_key(&firing)?);
        Some(alike)
    }

    fn title(&self, cause: &IncidentAlert) -> String {
        let alike = self.alike.as_ref().filter(|alike| alike.includes(cause));
        let AlertRecord { rule, service, summary, .. } = &cause.firing;
        let what = if summary.trim().is_empty() { rule } else { summary };
        let what = match (alike, service) {
            (Some(alike), _) => alike.text(),
            (None, Some(service)) if self.record.services.len() > 1 && !what.contains(service.as_str()) => {
                format!("{service}: {what}")
            }
            _ => what.clone(),
        };
        let is_told = |alert: &IncidentAlert| match alike {
            Some(alike) => alike.includes(alert),
            None => std::ptr::eq(alert, cause),
        };
        let others: Vec<_> = self.alerts.iter().filter(|alert| !is_told(alert)).collect();
        let of_others: BTreeSet<&str> = others.iter().filter_map(|alert| alert.firing.service.as_deref()).collect();
        let named: Vec<&str> =
            self.record.services.iter().map(String::as_str).filter(|service| of_others.contains(service)).collect();
        match (others.len(), named.as_slice()) {
            (0, _) => what,
            (count, []) => format!("{what} (and {count} more)"),
            (count, [only]) if service.as_deref() == Some(*only) => format!("{what} (and {count} more)"),
            (count, named) => format!("{what} (and {count} more in {})", list(named)),
        }
    }

    /// What happened by event time, whenever it was noticed. A series that flaps has one line for all its firings.
    fn timeline(&self) -> Vec<TimelineEntry> {
        let mut moments = Vec::new();
        for (place, alert) in self.alerts.iter().enumerate() {
            moments.push((alert.onset, Moment::Fires, place));
            moments.extend(alert.level_change.as_ref().map(|change| (change.at, Moment::ChangesLevel, place)));
            moments.extend((alert.flaps > 1).then_some((alert.last_fired, Moment::Flapped, place)));
            moments.extend(alert.resolved.as_ref().map(|end| (end.window_end, Moment::IsResolved, place)));
        }
        moments.extend(self.taken.iter().enumerate().map(|(place, (at, _))| (*at, Moment::Taken, place)));
        moments.sort_unstable();
        if moments.len() > MAX_TIMELINE {
            moments.drain(MAX_TIMELINE_HEAD..MAX_TIMELINE_HEAD + moments.len() - MAX_TIMELINE);
        }
        let line = |(at, moment, place)| TimelineEntry { at, text: self.line(moment, place) };
        moments.into_iter().map(line).collect()
    }

    fn line(&self, moment: Moment, place: usize) -> String {
        if moment == Moment::Taken {
            return format!("taken by {}", self.taken[place].1);
        }
        let alert = &self.alerts[place];
        let AlertRecord { rule, service, .. } = &alert.firing;
        let subject = service.as_ref().map_or_else(|| rule.clone(), |service| format!("{service}: {rule}"));
        match moment {
            Moment::Fires => {
                let line = said(&format!("{subject} fires"), &alert.first_summary);
                let cause = self.cause_of(alert).map(|cause| format!(" (explained by {})", cause.firing.rule));
                line + cause.as_deref().unwrap_or_default()
            }
            Moment::ChangesLevel => {
                let change = alert.level_change.as_ref().map(|change| change.text.as_str());
                format!("{subject} {}", change.unwrap_or_default())
            }
            Moment::Flapped => {
                let format =
                    if alert.onset.date_naive() == alert.last_fired.date_naive() { "%H:%M" } else { "%F %H:%M" };
                format!("{subject} fired {} times until {} UTC", alert.flaps, alert.last_fired.format(format))
            }
            Moment::IsResolved | Moment::Taken => format!("{subject} is resolved"),
        }
    }

    fn evidence(&self) -> Map<String, Value> {
        let alerts: Vec<Value> = self.alerts.iter().take(MAX_EVIDENCE).map(evidence_of).collect();
        let mut evidence = Map::from_iter([("alerts".to_owned(), Value::Array(alerts))]);
        if let Some(IncidentAlert { firing: AlertRecord { service, rule, alert_id, .. }, .. }) = self.cause() {
            evidence.insert("cause".to_owned(), json!({ "service": service, "rule": rule, "alert_id": alert_id }));
        }
        let counted = self.alerts.iter().find_map(|alert| Some((&alert.firing.rule, alert.firing.evidence.siblings?)));
        if let Some((rule, Siblings { met: _, of })) = counted {
            evidence.insert("siblings".to_owned(), json!({ "rule": rule, "of": of }));
        }
        if !self.calls.is_empty() {
            evidence.insert("calls".to_owned(), json!(self.calls));
        }
        evidence
    }
}

/// What a line of the timeline tells. In the order in which lines of one moment stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Fires,
    ChangesLevel,
    Flapped,
    IsResolved,
    Taken,
}

/// The services of some alerts, each with its earliest onset.
fn onsets<'a>(alerts: impl Iterator<Item = &'a IncidentAlert>) -> BTreeMap<&'a str, DateTime<Utc>> {
    let mut onsets: BTreeMap<&str, DateTime<Utc>> = BTreeMap::new();
    for alert in alerts {
        if let Some(service) = alert.firing.service.as_deref() {
            let onset = onsets.entry(service).or_insert(alert.onset);
            *onset = alert.onset.min(*onset);
        }
    }
    onsets
}

/// The group key in which alerts differ most, beside the service and the environment.
fn differing_key<'a>(alerts: &[&'a IncidentAlert]) -> Option<&'a str> {
    let names: BTreeSet<&str> = alerts.iter().flat_map(|alert| alert.firing.key.keys()).map(String::as_str).collect();
    let values = |name: &str| {
        let texts = alerts.iter().filter_map(|alert| alert.firing.key.get(name)).map(Value::to_string);
        texts.collect::<BTreeSet<String>>().len()
    };
    let own = names.into_iter().filter(|name| *name != "service" && *name != "environment");
    let counted = own.map(|name| (values(name), std::cmp::Reverse(name))).filter(|(values, _)| *values > 1);
    counted.max().map(|(_, std::cmp::Reverse(name))| name)
}

/// `issuers` of `issuer`, as English does it mostly.
fn plural(noun: &str) -> String {
    let noun = noun.replace('_', " ");
    let vowel_y = ["ay", "ey", "oy", "uy"].iter().any(|end| noun.ends_with(end));
    match noun.strip_suffix('y').filter(|_| !vowel_y) {
        Some(stem) => format!("{stem}ies"),
        None if ["s", "x", "z", "ch", "sh"].iter().any(|end| noun.ends_with(end)) => format!("{noun}es"),
        None => format!("{noun}s"),
    }
}

/// `a, b`, or `a, b, c and 4 others`.
fn list(services: &[&str]) -> String {
    let named = services.iter().take(MAX_SERVICES_NAMED).copied().collect::<Vec<_>>().join(", ");
    match services.len().saturating_sub(MAX_SERVICES_NAMED) {
        0 => named,
        1 => format!("{named} and 1 other"),
        others => format!("{named} and {others} others"),
    }
}

fn said(what: &str, summary: &str) -> String {
    if summary.trim().is_empty() { what.to_owned() } else { format!("{what}: {summary}") }
}

fn evidence_of(alert: &IncidentAlert) -> Value {
    let AlertRecord { alert_id, rule, service, severity, key, values, params, summary, evidence, .. } = &alert.firing;
    let mut value = json!({
        "alert_id": alert_id, "rule": rule, "service": service, "severity": severity, "key": key, "values": values, "params": params,
        "summary": summary, "when": evidence.when, "flaps": alert.flaps,
    });
    if let (Some(explained_by), Some(fields)) = (&alert.explained_by, value.as_object_mut()) {
        fields.insert("explained_by".to_owned(), json!(explained_by));
    }
    value
}

//! An incident as a Slack message: Block Kit in JSON. Pure.
//!
//! - M1: whatever the alerts contain, no limit of Slack is exceeded, because it refuses the whole message otherwise.
//! - M2: the first block's `block_id` is the notification's id, by which a message is found again after a crash.
//! - M3: text from events is escaped or stands in plain text, so that it can mention nobody and link nowhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use bongsu_schemas::alert::AlertRecord;
use bongsu_schemas::incident::IncidentRecord;
use bongsu_schemas::services::ParamValue;
use bongsu_schemas::window::rfc3339;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use super::alert;
use crate::incidents::{Incident, IncidentAlert};
use crate::recent::Found;

/// Slack's limit for blocks in a message.
pub const MAX_BLOCKS: usize = 50;
/// Slack's limit for the text of a section, in characters.
pub const MAX_SECTION_CHARS: usize = 3_000;
/// Slack's limit for the text of a header, in characters.
pub const MAX_HEADER_CHARS: usize = 150;
/// Slack's limit for a `block_id`, in characters.
pub const MAX_BLOCK_ID_CHARS: usize = 255;
/// Fallback text is cut here; Slack recommends 4,000 at the most.
const MAX_TEXT_CHARS: usize = 1_000;
/// Alerts shown one by one; the rest are counted. Ten are what somebody reads on a phone, and with three blocks each they fit.
pub(crate) const MAX_ALERTS_SHOWN: usize = 10;
/// Affected services that are named.
const MAX_SERVICES_SHOWN: usize = 10;
/// An alert that fired this often in one incident flaps.
const FLAPPING: u32 = 3;
/// Alerts named in one reply; the rest are counted, and stand in the message.
const MAX_REPLY_ALERTS: usize = 10;

/// What `chat.postMessage` and `chat.update` are given beside the channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Shown in notifications, and where blocks cannot be.
    pub text: String,
    /// Block Kit.
    pub blocks: Vec<Value>,
}

/// What the message needs to know beside the incident.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The notification's id.
    pub id: &'a str,
    /// Time zone of the times shown.
    pub zone: Tz,
    /// Base URL of the dashboard, for the link.
    pub public_url: Option<&'a str>,
    /// Whose incident it is, for people.
    pub owner: Option<&'a str>,
    /// What is known about the moments of alerts, by alert id.
    pub found: &'a BTreeMap<String, Arc<Found>>,
}

/// The message of `incident` in a channel that is told about `alerts` of it.
pub fn incident(incident: &Incident, alerts: &[&IncidentAlert], context: Context<'_>) -> Message {
    let record = &incident.record;
    let open = alerts.iter().any(|alert| alert.fires());
    let severity = alerts.iter().map(|alert| alert.firing.severity).max().unwrap_or(record.severity);
    let sign = if open { fires(severity) } else { "✅ Resolved:".to_owned() };
    let title = title(incident, alerts);
    let header = cut(&one_line(&format!("{sign} {title}")), MAX_HEADER_CHARS);

    let mut blocks = vec![json!({
        "type": "header",
        "block_id": cut(context.id, MAX_BLOCK_ID_CHARS),
        "text": { "type": "plain_text", "text": header, "emoji": true },
    })];
    blocks.push(context_block(&status_line(incident, alerts, open, context)));
    blocks.extend(services_line(record).map(|line| context_block(&line)));
    let mut last_surroundings = Vec::new();
    for shown in most_important(alerts) {
        let firing = &shown.firing;
        let found = context.found.get(&firing.alert_id).map(Arc::as_ref);
        blocks.push(section(&alert::text(shown, incident.cause_of(shown), context.zone)));
        blocks.extend(alert::table(firing, found, context.zone).map(|table| section(&table)));
        let surroundings = found.map(alert::surroundings).unwrap_or_default();
        // Alerts of one service and moment have the same.
        if !surroundings.is_empty() && surroundings != last_surroundings {
            blocks.push(context_of(&surroundings));
            last_surroundings = surroundings;
        }
    }
    if alerts.len() > MAX_ALERTS_SHOWN {
        blocks.push(context_block(&format!("and {} more alerts", alerts.len() - MAX_ALERTS_SHOWN)));
    }
    if let Some(base) = context.public_url {
        let (since, until) = time_range(alerts, record.opened_at);
        let url = incident_url(base, &record.incident_id, since, until);
        blocks.push(context_block(&format!("<{url}|Open the dashboard> · incident `{}`", escape(&record.incident_id))));
    }
    blocks.truncate(MAX_BLOCKS);
    Message { text: cut_escaped(&escape(&one_line(&format!("{sign} {title}"))), MAX_TEXT_CHARS), blocks }
}

/// The reply in an incident's thread that says what joined it. `lines` are of [`reply_line`].
pub(crate) fn reply(id: &str, lines: &[&str]) -> Message {
    let mut blocks: Vec<Value> = lines.iter().take(MAX_REPLY_ALERTS).map(|line| section(line)).collect();
    if lines.len() > MAX_REPLY_ALERTS {
        blocks.push(context_block(&format!("and {} more", lines.len() - MAX_REPLY_ALERTS)));
    }
    if blocks.is_empty() {
        blocks.push(section(""));
    }
    blocks[0]["block_id"] = json!(cut(id, MAX_BLOCK_ID_CHARS));
    let text = lines.first().copied().unwrap_or("—");
    Message { text: cut_escaped(text, MAX_TEXT_CHARS), blocks }
}

/// What a reply says about one alert.
pub(crate) fn reply_line(alert: &IncidentAlert) -> String {
    let AlertRecord { rule, summary, severity, level, .. } = &alert.firing;
    let level = level.map_or_else(String::new, |level| format!("{} ", level.name()));
    format!("{} Also fires: {level}*{}* {}", fires(*severity), inline(rule, 100), inline(summary, 400))
}

impl Message {
    /// The same notification with nothing in it that Slack could find wrong, for when it refuses the blocks.
    pub(crate) fn plain(&self) -> Message {
        let id = self.blocks.first().and_then(|block| block["block_id"].as_str()).unwrap_or("bongsu");
        let header = json!({
            "type": "header",
            "block_id": cut(id, MAX_BLOCK_ID_CHARS),
            "text": { "type": "plain_text", "text": "Alert (without its details, which Slack refused)" },
        });
        let text = cut_escaped(&self.text, MAX_SECTION_CHARS);
        Message { text: text.clone(), blocks: vec![header, section(&text)] }
    }
}

/// A message that is only paragraphs of text in Slack's own markup, such as a digest. Paragraphs must be escaped already.
pub fn paragraphs(id: &str, title: &str, paragraphs: &[String]) -> Message {
    let title = one_line(title);
    let mut blocks = vec![json!({
        "type": "header",
        "block_id": cut(id, MAX_BLOCK_ID_CHARS),
        "text": { "type": "plain_text", "text": cut(&title, MAX_HEADER_CHARS), "emoji": true },
    })];
    blocks.extend(paragraphs.iter().map(|text| section(text)));
    if blocks.len() > MAX_BLOCKS {
        blocks.truncate(MAX_BLOCKS - 1);
        blocks.push(context_block(&format!("and {} more", paragraphs.len() + 2 - MAX_BLOCKS)));
    }
    Message { text: cut_escaped(&escape(&title), MAX_TEXT_CHARS), blocks }
}

/// Those that are shown one by one: what fires, the most severe first, then what another one explains; then what is over.
pub(crate) fn most_important<'a>(alerts: &[&'a IncidentAlert]) -> Vec<&'a IncidentAlert> {
    let mut sorted = alerts.to_vec();
    sorted
        .sort_by_key(|alert| (!alert.fires(), alert.explained_by.is_some(), std::cmp::Reverse(alert.firing.severity)));
    sorted.truncate(MAX_ALERTS_SHOWN);
    sorted
}

/// First and last moment of alerts, in event time.
pub(crate) fn time_range(alerts: &[&IncidentAlert], otherwise: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
    let since = alerts.iter().map(|alert| alert.onset).min().unwrap_or(otherwise);
    let until = alerts.iter().map(|alert| alert.latest().window_end).max().unwrap_or(otherwise);
    (since, until)
}

/// The page at an incident, with the time that it lasted so far; escaped.
pub(crate) fn incident_url(base: &str, incident_id: &str, from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    let (from, to) = (rfc3339::format(&from), rfc3339::format(&to));
    escape(&format!("{base}/?from={from}&to={to}#incident-{incident_id}"))
}

/// The summary of the most severe alert that no other one explains, with the service in front where it doesn't say; how many there are
/// where many are alike.
pub(crate) fn title(incident: &Incident, alerts: &[&IncidentAlert]) -> String {
    let by_weight = |alert: &&&IncidentAlert| (alert.explained_by.is_none(), alert.firing.severity);
    let Some(most_severe) = alerts.iter().rev().max_by_key(by_weight) else {
        return "alert".to_owned();
    };
    let AlertRecord { summary, rule, service, .. } = &most_severe.firing;
    let alike = incident.alike(most_severe);
    let told = if alike.is_some() { alerts.iter().filter(|alert| incident.alike(alert) == alike).count() } else { 1 };
    let what = alike.unwrap_or_else(|| if summary.trim().is_empty() { rule.clone() } else { summary.clone() });
    let subject = match service {
        Some(service) if !what.contains(service.as_str()) => format!("{service}: {what}"),
        _ => what,
    };
    match alerts.len().saturating_sub(told) {
        0 => subject,
        others => format!("{subject} (+{others})"),
    }
}

/// Which service is the likely cause and which ones suffer, where there are several: each channel has alerts of its own only.
fn services_line(record: &IncidentRecord) -> Option<String> {
    let (cause, affected) = record.services.split_first().filter(|(_, affected)| !affected.is_empty())?;
    let mut named: Vec<String> = affected.iter().take(MAX_SERVICES_SHOWN).map(|service| inline(service, 100)).collect();
    if affected.len() > MAX_SERVICES_SHOWN {
        named.push(format!("{} more", affected.len() - MAX_SERVICES_SHOWN));
    }
    Some(format!("Likely cause: {} · affected: {}", inline(cause, 100), named.join(", ")))
}

fn status_line(incident: &Incident, alerts: &[&IncidentAlert], open: bool, context: Context<'_>) -> String {
    let zone = context.zone;
    let (since, until) = time_range(alerts, incident.record.opened_at);
    let firing = alerts.iter().filter(|alert| alert.fires()).count();
    let mut line = if open {
        format!("Since {} · {firing} of {} alerts firing", time(since, zone), alerts.len())
    } else {
        format!("Resolved {} after {} · since {}", time(until, zone), duration(until - since), time(since, zone))
    };
    let worst = alerts.iter().filter(|alert| alert.flaps >= FLAPPING).max_by_key(|alert| alert.flaps);
    line.extend(worst.and_then(|alert| flaps(alert, zone)).map(|flaps| format!(" · {flaps}")));
    if let Some(owner) = context.owner {
        line.push_str(&format!(" · owner {}", inline(owner, 80)));
    }
    if let Some(by) = &incident.record.acknowledged_by {
        line.push_str(&format!(" · taken by {}", inline(by, 80)));
    }
    line
}

/// How often an alert fired; none if once.
pub(super) fn flaps(alert: &IncidentAlert, zone: Tz) -> Option<String> {
    match alert.flaps {
        0 | 1 => None,
        few @ ..FLAPPING => Some(format!("fired {few} times")),
        many => {
            let day = |at: DateTime<Utc>| at.with_timezone(&zone).date_naive();
            let is_one_day = day(alert.onset) == day(alert.since);
            let since = if is_one_day { minute(alert.onset, zone) } else { time(alert.onset, zone) };
            Some(format!("flapping: fired {many} times since {since}"))
        }
    }
}

pub(super) fn fires(severity: u8) -> String {
    "🔥".repeat(usize::from(severity.clamp(1, 5)))
}

/// The severity of an alert, and its level where its rule has two.
pub(super) fn weight(firing: &AlertRecord) -> String {
    let level = firing.level.map(|level| format!(" {}", level.name()));
    format!("{}{}", fires(firing.severity), level.unwrap_or_default())
}

/// A value as people read it: at most four digits after the point.
pub(crate) fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if !number.is_i64() && !number.is_u64() => float_text(float),
            _ => number.to_string(),
        },
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    }
}

pub(crate) fn param_text(value: &ParamValue) -> String {
    match value {
        ParamValue::Boolean(flag) => flag.to_string(),
        ParamValue::Number(number) => float_text(*number),
        ParamValue::Text(text) => text.clone(),
    }
}

pub(super) fn float_text(float: f64) -> String {
    let rounded = format!("{float:.4}");
    rounded.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(super) fn time(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S %Z").to_string()
}

pub(super) fn clock(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).format("%H:%M:%S").to_string()
}

pub(super) fn minute(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).format("%H:%M").to_string()
}

/// A length of time in its two largest units.
pub(crate) fn duration(length: TimeDelta) -> String {
    let secs = length.num_seconds().max(0);
    match (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60, secs % 60) {
        (0, 0, 0, secs) => format!("{secs} s"),
        (0, 0, minutes, 0) => format!("{minutes} min"),
        (0, 0, minutes, secs) => format!("{minutes} min {secs} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, _, _) => format!("{days} d {hours} h"),
    }
}

pub(super) fn section(text: &str) -> Value {
    // An empty text is refused too.
    let text = if text.trim().is_empty() { "—".to_owned() } else { cut_escaped(text, MAX_SECTION_CHARS) };
    json!({ "type": "section", "text": { "type": "mrkdwn", "text": text } })
}

pub(super) fn context_block(text: &str) -> Value {
    context_of(&[text.to_owned()])
}

fn context_of(texts: &[String]) -> Value {
    let element = |text: &String| json!({ "type": "mrkdwn", "text": cut_escaped(text, MAX_SECTION_CHARS) });
    json!({ "type": "context", "elements": texts.iter().map(element).collect::<Vec<_>>() })
}

/// `text` escaped for Slack's markup and made harmless: one line, at most `chars` characters before escaping.
pub(crate) fn inline(text: &str, chars: usize) -> String {
    escape(&cut(&one_line(text), chars))
}

/// `text` as code, in which Slack's markup has no meaning. A backtick would end it.
pub(crate) fn code(text: &str, chars: usize) -> String {
    match inline(&text.replace('`', "'"), chars) {
        empty if empty.trim().is_empty() => "`(empty)`".to_owned(),
        text => format!("`{text}`"),
    }
}

/// Control characters, line ends and marks that turn the direction of writing become spaces or vanish.
pub(crate) fn one_line(text: &str) -> String {
    let turns_direction =
        |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    let spaced = text.chars().filter(|c| !turns_direction(*c));
    let spaced: String =
        spaced.map(|c| if c.is_control() || c == '\u{2028}' || c == '\u{2029}' { ' ' } else { c }).collect();
    spaced.trim().to_owned()
}

/// Escapes what Slack's markup gives a meaning to.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The first `max` characters; where some are left out, the last one is `…`.
pub(crate) fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(max.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// As [`cut`], but not inside of an entity such as `&amp;`.
pub(super) fn cut_escaped(text: &str, max: usize) -> String {
    let short = cut(text, max);
    if short.len() == text.len() {
        return short;
    }
    let last_entity = short.rfind('&').filter(|start| !short[*start..].contains(';'));
    last_entity.map_or(short.clone(), |start| format!("{}…", &short[..start]))
}

#[cfg(test)]
#[path = "message_tests.rs"]
pub(crate) mod tests;

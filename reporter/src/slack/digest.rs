//! Many incidents as one Slack message, a line for each. Pure.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::message::{
    MAX_BLOCK_ID_CHARS, MAX_BLOCKS, MAX_HEADER_CHARS, MAX_SECTION_CHARS, Message, context_block, cut, cut_escaped,
    escape, fires, incident_url, inline, minute, one_line, section,
};

/// Lines of a digest: as many as somebody scrolls through, and as Slack takes for certain where no line is extreme.
pub(crate) const MAX_LINES: usize = 100;
const MAX_TITLE_CHARS: usize = 120;
const MAX_SERVICE_CHARS: usize = 60;
/// A longer link leaves no room for others; the dashboard's address is the operator's.
const MAX_URL_CHARS: usize = 600;
/// Slack recommends 4,000 at the most. The titles are in it, because it is what is left where blocks are refused.
const MAX_TEXT_CHARS: usize = 2_900;
/// Header, status and the count of what is left out.
const OTHER_BLOCKS: usize = 3;

/// What a digest says about one incident. In the ledger, so that the digest can be written anew without the incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) incident_id: String,
    pub(crate) severity: u8,
    pub(crate) title: String,
    pub(crate) service: Option<String>,
    /// Event time: what the link shows.
    pub(crate) since: DateTime<Utc>,
    pub(crate) until: DateTime<Utc>,
    pub(crate) is_resolved: bool,
    pub(crate) acknowledged_by: Option<String>,
}

impl Line {
    /// Cuts the texts, so that an entry of the ledger stays small.
    pub(crate) fn bounded(mut self) -> Line {
        self.title = cut(&one_line(&self.title), MAX_TITLE_CHARS);
        self.service = self.service.map(|service| cut(&one_line(&service), MAX_SERVICE_CHARS));
        self.acknowledged_by = self.acknowledged_by.map(|by| cut(&one_line(&by), MAX_SERVICE_CHARS));
        self
    }
}

/// The message for `lines`, in their order. `id` is the digest's notification id.
pub(crate) fn digest(id: &str, channel: &str, lines: &[&Line], zone: Tz, public_url: Option<&str>) -> Message {
    let open: Vec<u8> = lines.iter().filter(|line| !line.is_resolved).map(|line| line.severity).collect();
    let sign = match open.iter().max() {
        Some(severity) => fires(*severity),
        None => "✅ Resolved:".to_owned(),
    };
    let title = one_line(&format!("{sign} {} incidents in {channel}", lines.len()));
    let mut blocks = vec![json!({
        "type": "header",
        "block_id": cut(id, MAX_BLOCK_ID_CHARS),
        "text": { "type": "plain_text", "text": cut(&title, MAX_HEADER_CHARS), "emoji": true },
    })];
    blocks.push(context_block(&format!(
        "{} of {} open · they began together, so they share this message",
        open.len(),
        lines.len()
    )));
    let mut sections: Vec<String> = Vec::new();
    let mut shown = 0;
    for line in lines.iter().take(MAX_LINES) {
        let text = line_text(line, zone, public_url);
        let is_full = sections.len() + OTHER_BLOCKS >= MAX_BLOCKS;
        match sections.last_mut() {
            Some(last) if last.chars().count() + 1 + text.chars().count() <= MAX_SECTION_CHARS => {
                last.push('\n');
                last.push_str(&text);
            }
            _ if is_full => break,
            _ => sections.push(text),
        }
        shown += 1;
    }
    blocks.extend(sections.iter().map(|text| section(text)));
    if shown < lines.len() {
        blocks.push(context_block(&format!("and {} more", lines.len() - shown)));
    }
    let titles: Vec<&str> = lines.iter().map(|line| line.title.as_str()).collect();
    let text = escape(&one_line(&format!("{title}: {}", titles.join("; "))));
    Message { text: cut_escaped(&text, MAX_TEXT_CHARS), blocks }
}

fn line_text(line: &Line, zone: Tz, public_url: Option<&str>) -> String {
    let sign = if line.is_resolved { "✅".to_owned() } else { fires(line.severity) };
    let service = line.service.as_deref().filter(|service| !service.trim().is_empty());
    // Most titles begin with the service, which stands in front already.
    let title = service.and_then(|service| line.title.strip_prefix(service)).unwrap_or(&line.title);
    let title = match inline(title.trim_start_matches([':', ' ']), MAX_TITLE_CHARS) {
        empty if empty.is_empty() => "incident".to_owned(),
        title => title,
    };
    let service = service.map(|service| format!(" *{}*", inline(service, MAX_SERVICE_CHARS))).unwrap_or_default();
    let url = public_url.map(|base| incident_url(base, &line.incident_id, line.since, line.until));
    let title = match url.filter(|url| url.chars().count() <= MAX_URL_CHARS) {
        Some(url) => format!("<{url}|{title}>"),
        None => title,
    };
    let taken = line.acknowledged_by.as_deref().map(|by| format!(" · taken by {}", inline(by, MAX_SERVICE_CHARS)));
    format!("{sign}{service} {title} · since {}{}", minute(line.since, zone), taken.unwrap_or_default())
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;

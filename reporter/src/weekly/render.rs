//! One owner's report for people: subject, HTML, plain text, and the digest for Slack. Pure.
//!
//! - R1: text from events is escaped in HTML and Slack, and has no control characters anywhere.
//! - R2: HTML is smaller than 100 KB, because mail programs cut longer messages; details give way first, then whole services.

use std::sync::LazyLock;

use anyhow::Context;
use chrono::Days;
use chrono_tz::Tz;
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment};
use serde_json::{Value, json};

use super::model::{Group, GroupState, ServiceReport};
use super::owner::OwnerReport;
use crate::slack::message::{self, Message, code, cut, inline, one_line};

/// Mail programs cut longer messages.
pub(crate) const MAX_HTML_BYTES: usize = 100 * 1024;
/// Room for the encoding of a long line and for what mail programs add.
const HTML_BUDGET_BYTES: usize = 90 * 1024;
/// Kinds of exceptions listed in each section, and services shown; the first that fits is taken. Without kinds, no bars either.
const DETAILS: [(usize, usize); 6] = [(10, 1_000), (5, 1_000), (3, 200), (1, 200), (0, 200), (0, 40)];
/// Kinds listed for a service in a digest.
const DIGEST_GROUPS: usize = 3;

/// What is mailed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rendered {
    pub(crate) subject: String,
    pub(crate) html: String,
    pub(crate) text: String,
}

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment
        .set_auto_escape_callback(|name| if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None });
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the delimiters are the usual ones"));
    environment.add_filter("thousands", thousands);
    for (name, source) in [("report.html", include_str!("report.html")), ("report.txt", include_str!("report.txt"))] {
        environment.add_template(name, source).expect("the tests render both templates");
    }
    environment
});

/// Renders a report; `late` says that it comes after its time.
pub(crate) fn render(report: &OwnerReport<'_>, zone: Tz, late: bool) -> anyhow::Result<Rendered> {
    let subject = subject(report, late);
    let mut html = String::new();
    for (groups, services) in DETAILS {
        html = fill("report.html", report, zone, &subject, groups, services)?;
        if html.len() < HTML_BUDGET_BYTES {
            break;
        }
    }
    anyhow::ensure!(html.len() < MAX_HTML_BYTES, "the report of {} takes {} bytes of HTML", report.name(), html.len());
    let (groups, services) = DETAILS[0];
    let text = fill("report.txt", report, zone, &subject, groups, services)?;
    Ok(Rendered { subject, html, text })
}

/// The digest of a report for Slack; `id` finds the message again.
pub(crate) fn digest(report: &OwnerReport<'_>, id: &str, late: bool) -> Message {
    let mut paragraphs: Vec<String> = sorted(report).into_iter().map(digest_service).collect();
    let quiet = quiet(report);
    if !quiet.is_empty() {
        paragraphs
            .push(format!("No exceptions: {}", quiet.iter().map(|name| code(name, 80)).collect::<Vec<_>>().join(" ")));
    }
    message::paragraphs(id, &subject(report, late), &paragraphs)
}

fn digest_service(service: &ServiceReport) -> String {
    let states = [GroupState::New, GroupState::Regressed, GroupState::Escalating, GroupState::Gone];
    let counted = states.map(|state| (service.groups_in(state), state.name()));
    let states: Vec<_> =
        counted.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
    let mut text =
        format!("*{}* {} exceptions, {}", inline(&service.service, 80), thousands(service.total), change(service));
    text.push_str(&format!(" · {}", rate(service)));
    if !states.is_empty() {
        text.push_str(&format!(" · {}", states.join(", ")));
    }
    for group in service.groups.iter().filter(|group| group.state != GroupState::Gone).take(DIGEST_GROUPS) {
        let Group { exception_type, message, count, state, .. } = group;
        let (name, message) = (code(exception_type, 100), inline(message, 160));
        text.push_str(&format!("\n• {} · {} × {name} {message}", state.name(), thousands(*count)));
    }
    text
}

fn subject(report: &OwnerReport<'_>, late: bool) -> String {
    let new = report.groups_in(GroupState::New);
    let news = if new > 0 { format!(", {new} new") } else { String::new() };
    let late = if late { " (late)" } else { "" };
    let total = thousands(report.total());
    cut(&one_line(&format!("Exceptions in {} of {}: {total}{news}{late}", report.week, report.name())), 200)
}

fn fill(
    template: &str,
    report: &OwnerReport<'_>,
    zone: Tz,
    subject: &str,
    max_groups: usize,
    max_services: usize,
) -> anyhow::Result<String> {
    let shown = sorted(report);
    let services: Vec<Value> =
        shown.iter().take(max_services).map(|service| service_values(report, service, zone, max_groups)).collect();
    let quiet = quiet(report);
    let values = json!({
        "subject": subject,
        "owner": one_line(report.name()),
        "week": report.week.to_string(),
        "first_day": report.week.monday().to_string(),
        "last_day": (report.week.monday() + Days::new(6)).to_string(),
        "zone": zone.name(),
        "total": report.total(),
        "services": services,
        "hidden_services": shown.len().saturating_sub(max_services),
        "quiet": quiet.iter().take(max_services).map(|name| cut(&one_line(name), 80)).collect::<Vec<_>>(),
        "hidden_quiet": quiet.len().saturating_sub(max_services),
    });
    let template = TEMPLATES.get_template(template)?;
    template
        .render(minijinja::value::Serde(&values))
        .with_context(|| format!("rendering the report of `{}`", report.name()))
}

/// Services with something to tell, the noisiest first.
fn sorted<'a>(report: &OwnerReport<'a>) -> Vec<&'a ServiceReport> {
    let mut services: Vec<_> = report.services.iter().copied().filter(|service| service.has_news()).collect();
    services.sort_by_key(|service| std::cmp::Reverse(service.total));
    services
}

fn quiet<'a>(report: &OwnerReport<'a>) -> Vec<&'a str> {
    let quiet = report.services.iter().filter(|service| !service.has_news());
    quiet.map(|service| service.service.as_str()).collect()
}

fn service_values(report: &OwnerReport<'_>, service: &ServiceReport, zone: Tz, max_groups: usize) -> Value {
    let values = |group: &&Group| group_values(group, zone);
    let attention = |group: &&Group| group.state < GroupState::Ongoing;
    let of = |wanted: &dyn Fn(&&Group) -> bool| service.groups.iter().filter(|group| wanted(group)).collect::<Vec<_>>();
    let (attention, gone) = (of(&attention), of(&|group| group.state == GroupState::Gone));
    let mut top = of(&|group| group.state != GroupState::Gone);
    top.sort_by_key(|group| std::cmp::Reverse(group.count));
    let section = |title: &str, groups: &[&Group]| {
        json!({
            "title": title,
            "groups": groups.iter().take(max_groups).map(values).collect::<Vec<_>>(),
            "hidden": groups.len().saturating_sub(max_groups),
        })
    };
    // What is both new and frequent would stand there twice; the first section says all about it.
    top.retain(|group| group.state == GroupState::Ongoing);
    let most = service.days.iter().copied().max().unwrap_or(0).max(1);
    let days = service.days.iter().enumerate().map(|(day, count)| {
        let date = report.week.monday() + Days::new(day as u64);
        json!({ "name": date.format("%a").to_string(), "count": count, "percent": (100 * count).div_ceil(most) })
    });
    let sections = [
        section("New, back or more frequent", &attention),
        section("Most frequent of the others", &top),
        section("Gone since last week", &gone),
    ];
    json!({
        "service": cut(&one_line(&service.service), 120),
        "total": service.total,
        "previous_total": service.previous_total,
        "change": change(service),
        "rate": rate(service),
        "days": days.filter(|_| max_groups > 0).collect::<Vec<_>>(),
        "sections": sections.into_iter().filter(|section| section["groups"] != json!([]) || section["hidden"] != 0).collect::<Vec<_>>(),
    })
}

fn group_values(group: &Group, zone: Tz) -> Value {
    let time = |at: chrono::DateTime<chrono::Utc>| at.with_timezone(&zone).format("%Y-%m-%d %H:%M").to_string();
    json!({
        "state": group.state.name(),
        "type": cut(&one_line(&group.exception_type), 160),
        "message": cut(&one_line(&group.message), 240),
        "frame": group.first_frame.as_deref().map(|frame| cut(&one_line(frame), 200)),
        "count": group.count,
        "previous_count": group.previous_count,
        "first_seen": time(group.first_seen),
        "last_seen": time(group.last_seen),
    })
}

/// Against the week before.
fn change(service: &ServiceReport) -> String {
    match (service.total, service.previous_total) {
        (_, 0) => "none the week before".to_owned(),
        (total, previous) if total / previous >= 10 => {
            format!("{} times the {} before", total / previous, thousands(previous))
        }
        (total, previous) => {
            let percent = 100.0 * (total as f64 - previous as f64) / previous as f64;
            format!("{percent:+.0} % against {}", thousands(previous))
        }
    }
}

fn rate(service: &ServiceReport) -> String {
    match service.rate_per_1000() {
        Some(rate) => format!("{} per 1,000 requests", digits(rate)),
        None => format!("{} per hour", digits(service.rate_per_hour())),
    }
}

/// Two digits after the point where the number is small.
fn digits(number: f64) -> String {
    if number >= 100.0 { format!("{number:.0}") } else { format!("{number:.2}") }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;

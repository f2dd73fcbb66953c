//! Who is told about an alert, and why. Pure.
//!
//! - Q1: the answer depends on the record that fired and on the configuration, not on the clock, so that live and replay agree and the end
//!   of an alert is told where its beginning was.

use std::fmt;

use bongsu_schemas::alert::AlertRecord;
use bongsu_schemas::routes::RouteEntry;
use bongsu_schemas::services::{FALLBACK, Owner, Services};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;

/// The severity from which owners with `alert_email: true` get an e-mail beside the Slack message.
pub const EMAIL_SEVERITY: u8 = 5;

/// What decides where an alert goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    /// The service that it concerns; none for a view without a service.
    pub service: Option<&'a str>,
    /// 1 to 5 fires.
    pub severity: u8,
    /// Its group key `environment`.
    pub environment: Option<&'a str>,
    /// The rule that fired.
    pub rule: Option<&'a str>,
    /// Event time: the end of the window that fired.
    pub at: DateTime<Utc>,
}

impl<'a> Question<'a> {
    /// What the record that fired asks.
    pub fn of(firing: &'a AlertRecord) -> Question<'a> {
        Question {
            service: firing.service.as_deref(),
            severity: firing.severity,
            environment: firing.environment(),
            rule: Some(&firing.rule),
            at: firing.window_end,
        }
    }
}

/// Where an alert goes. Its `Display` explains it, line by line, as `bongsu route` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route<'a> {
    /// What was asked.
    pub question: Question<'a>,
    /// The zone in which hours are read.
    pub zone: Tz,
    /// Who is told; nobody if neither the service nor `"*"` has an owner.
    pub owner: Option<&'a Owner>,
    /// Entry of `services` that decided.
    pub entry: Option<&'a str>,
    /// Entry of the owner's `routes` that decided, with its index; none where the owner's own channels hold.
    pub decided: Option<(usize, &'a RouteEntry)>,
    /// Slack channels.
    pub channels: &'a [String],
    /// Addresses that get the alert by e-mail.
    pub email: &'a [String],
}

/// Decides where an alert goes. Hours are read in `zone`.
pub fn route<'a>(services: &'a Services, zone: Tz, question: Question<'a>) -> Route<'a> {
    let ownership = services.owner_of(question.service);
    let owner = ownership.map(|ownership| ownership.owner);
    let mut routes = owner.into_iter().flat_map(|owner| &owner.routes).enumerate();
    let decided = routes.find(|(_, entry)| fits(entry, zone, &question));
    let decided_entry = decided.map(|(_, entry)| entry);
    let own_channels = owner.map_or(&[][..], Owner::channels);
    let wants_email = |owner: &&Owner| owner.alert_email && question.severity >= EMAIL_SEVERITY;
    let own_email = owner.filter(wants_email).map_or(&[][..], |owner| owner.email.as_slice());
    Route {
        question,
        zone,
        owner,
        entry: ownership.map(|ownership| ownership.entry),
        decided,
        channels: decided_entry.and_then(|entry| entry.slack.as_ref()).map_or(own_channels, |slack| slack.0.as_slice()),
        email: match decided_entry {
            Some(entry) if entry.tells_nobody() => &[],
            Some(RouteEntry { email: Some(email), .. }) => email,
            _ => own_email,
        },
    }
}

fn fits(entry: &RouteEntry, zone: Tz, question: &Question<'_>) -> bool {
    let RouteEntry { severity, environment, hours, rule, slack: _, email: _ } = entry;
    let names = |names: &[String], name: Option<&str>| name.is_some_and(|name| names.iter().any(|known| known == name));
    severity.is_none_or(|severity| severity.contains(question.severity))
        && environment.as_ref().is_none_or(|environment| names(&environment.0, question.environment))
        && hours.is_none_or(|hours| hours.contains(question.at, zone))
        && rule.as_ref().is_none_or(|rule| names(&rule.0, question.rule))
}

impl Route<'_> {
    /// Whether the owner wants nobody to be told.
    pub fn is_nobody_on_purpose(&self) -> bool {
        self.decided.is_some_and(|(_, entry)| entry.tells_nobody())
    }

    /// Why it goes there.
    pub fn because(&self) -> String {
        let service = self.question.service.unwrap_or("(no service)");
        let (Some(owner), Some(entry)) = (self.owner, self.entry) else {
            return format!("neither services.\"{service}\" nor services.\"{FALLBACK}\" has an owner");
        };
        let mut why = if entry == FALLBACK && self.question.service != Some(FALLBACK) {
            format!("services.\"{service}\" has no owner, so services.\"{FALLBACK}\" decides")
        } else {
            format!("services.\"{entry}\" has this owner")
        };
        match self.decided {
            Some((index, entry)) => why.push_str(&format!("; its routes[{index}] fits first ({entry})")),
            None if !owner.routes.is_empty() => why.push_str("; none of its routes fits"),
            None => {}
        }
        let decides_email = self.decided.is_some_and(|(_, entry)| entry.email.is_some() || entry.tells_nobody());
        match (owner.alert_email, self.email.is_empty()) {
            _ if decides_email => {}
            (true, true) if self.question.severity < EMAIL_SEVERITY => {
                why.push_str(&format!("; alerts go by e-mail from severity {EMAIL_SEVERITY}"));
            }
            (false, _) if self.question.severity >= EMAIL_SEVERITY => {
                why.push_str("; no e-mail because alert_email is not true");
            }
            _ => {}
        }
        why
    }
}

impl fmt::Display for Route<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Question { service, severity, environment, rule, at } = self.question;
        let listed = |texts: &[String]| if texts.is_empty() { "(none)".to_owned() } else { texts.join(", ") };
        writeln!(f, "service     {}", service.unwrap_or("(no service)"))?;
        writeln!(f, "severity    {severity}")?;
        writeln!(f, "environment {}", environment.unwrap_or("(none)"))?;
        writeln!(f, "rule        {}", rule.unwrap_or("(none)"))?;
        writeln!(f, "at          {}", at.with_timezone(&self.zone).format("%a %Y-%m-%d %H:%M:%S %Z"))?;
        writeln!(f, "owner       {}", self.owner.map_or("nobody", Owner::display_name))?;
        if self.owner.is_some() {
            writeln!(f, "slack       {}", listed(self.channels))?;
            writeln!(f, "email       {}", listed(self.email))?;
        }
        write!(f, "because     {}", self.because())
    }
}

#[cfg(test)]
#[path = "routing_tests.rs"]
mod tests;

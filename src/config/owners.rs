//! Owners: channels and addresses that can be used, routes that can be reached, and whether anybody hears of anything.

use std::collections::BTreeSet;

use bongsu_schemas::routes::{OneOrMore, RouteEntry};
use bongsu_schemas::services::{FALLBACK, Owner};
use serde_json::Value;

use super::defaults::Defaults;
use super::mistake::{Findings, KeyPath, shown, suggestion};
use super::sections::Sections;
use super::semantics::names_in;

/// Checks the owners of all services.
pub(super) fn check(value: &Value, sections: &Sections, defaults: &Defaults, findings: &mut Findings) {
    let built_in = defaults.rules.iter().map(|rule| rule.name.as_str());
    let rules = built_in.chain(names_in(&value["rules"]).into_iter().map(|(_, name)| name)).collect();
    let mut checker = Checker { value, sections, rules, findings };
    for (name, service) in &sections.services.0 {
        if let Some(owner) = &service.owner {
            checker.owner(&value["services"][name.as_str()]["owner"], owner, &at_services().key(name).key("owner"));
        }
    }
    if let Some(weekly) = sections.reports.weekly.as_ref().filter(|weekly| !is_address(&weekly.from)) {
        let problem = format!("`{}` is no e-mail address; write bongsu@example.com", shown(&weekly.from));
        checker.findings.add(&KeyPath::default().key("reports").key("weekly").key("from"), problem);
    }
    checker.reachable();
    checker.mailed();
}

fn at_services() -> KeyPath {
    KeyPath::default().key("services")
}

struct Checker<'a> {
    value: &'a Value,
    sections: &'a Sections,
    /// Names of all rules, also of those that could not be read.
    rules: BTreeSet<&'a str>,
    findings: &'a mut Findings,
}

impl Checker<'_> {
    /// `written` is what the file says, in which an empty value can be told from an absent one.
    fn owner(&mut self, written: &Value, owner: &Owner, path: &KeyPath) {
        self.channels(written.get("slack"), owner.slack.as_ref(), &path.clone().key("slack"));
        self.addresses(&owner.email, &path.clone().key("email"));
        let routes = path.clone().key("routes");
        for (index, entry) in owner.routes.iter().enumerate() {
            self.route(&written["routes"][index], entry, &routes.clone().index(index));
        }
        let unconditional = owner.routes.iter().position(|entry| !entry.has_condition());
        if let Some(index) = unconditional.filter(|index| index + 1 < owner.routes.len()) {
            let text = format!("is never reached: routes[{index}] has no condition and fits every alert; put it last");
            self.findings.warn(&routes.index(index + 1), text);
        }
    }

    fn route(&mut self, written: &Value, entry: &RouteEntry, path: &KeyPath) {
        self.channels(written.get("slack"), entry.slack.as_ref(), &path.clone().key("slack"));
        self.addresses(entry.email.as_deref().unwrap_or_default(), &path.clone().key("email"));
        for (key, names) in [("environment", &entry.environment), ("rule", &entry.rule)] {
            if names.as_ref().is_some_and(|names| names.0.is_empty()) {
                let problem = "is empty, so that the entry fits no alert; name one, or remove the key";
                self.findings.add(&path.clone().key(key), problem);
            }
        }
        for (index, name) in entry.rule.iter().flat_map(|rules| &rules.0).enumerate() {
            if !self.rules.contains(name.as_str()) {
                let hint = suggestion(name, self.rules.iter().copied());
                let listed = self.rules.iter().copied().collect::<Vec<_>>().join(", ");
                let problem = format!("there is no rule `{}`{hint}; rules: {listed}", shown(name));
                self.findings.add(&item(written.get("rule"), path.clone().key("rule"), index), problem);
            }
        }
    }

    fn channels(&mut self, written: Option<&Value>, channels: Option<&OneOrMore>, path: &KeyPath) {
        if channels.is_none() && written.is_some_and(Value::is_null) {
            let problem = "is empty: `#` begins a comment in YAML; put the channel in quotes: \"#channel\"";
            self.findings.add(path, problem);
        }
        for (index, channel) in channels.into_iter().flat_map(|channels| &channels.0).enumerate() {
            if !is_channel(channel) {
                let problem = format!("`{}` is no channel; write \"#name\" or a channel's id", shown(channel));
                self.findings.add(&item(written, path.clone(), index), problem);
            }
        }
    }

    fn addresses(&mut self, addresses: &[String], path: &KeyPath) {
        for (index, address) in addresses.iter().enumerate().filter(|(_, address)| !is_address(address)) {
            let problem = format!("`{}` is no e-mail address; write name@example.com", shown(address));
            self.findings.add(&path.clone().index(index), problem);
        }
    }

    /// Whether anybody hears of anything.
    fn reachable(&mut self) {
        let services = &self.sections.services.0;
        let unowned: Vec<&String> =
            services.iter().filter(|(_, service)| service.owner.is_none()).map(|(name, _)| name).collect();
        let has_fallback = services.get(FALLBACK).is_some_and(|fallback| fallback.owner.is_some());
        for name in unowned.iter().filter(|name| !has_fallback && name.as_str() != FALLBACK) {
            let text = "has no owner and there is no services.\"*\" either, so nobody is told about it";
            self.findings.warn(&at_services().key(name.as_str()), text);
        }
        if !has_fallback && unowned.is_empty() && self.value.get("services").is_some() {
            let text = "there is no entry \"*\", so nobody is told about services that are not listed";
            self.findings.warn(&at_services(), text);
        }
        let has_channel = self.owners().any(|owner| {
            let routed = owner.routes.iter().filter_map(|entry| entry.slack.as_ref());
            owner.slack.iter().chain(routed).any(|channels| !channels.0.is_empty())
        });
        // Entries that could not be read may have one.
        let all_read = self.value["services"].as_object().is_none_or(|entries| entries.len() == services.len());
        if self.sections.slack.is_some() && !has_channel && all_read {
            let problem =
                "no owner has a channel; add services.\"*\".owner.slack: \"#channel\", or remove this section";
            self.findings.add(&KeyPath::default().key("slack"), problem);
        }
        if self.value.get("slack").is_none() && has_channel {
            let text = "owners have Slack channels, but there is no section `slack`, so nothing is posted";
            self.findings.warn(&at_services(), text);
        }
    }

    /// Whether mail for owners can be sent.
    fn mailed(&mut self) {
        let routed = |owner: &Owner| owner.routes.iter().flat_map(|entry| &entry.email).any(|email| !email.is_empty());
        if self.value.get("smtp").is_none() && self.owners().any(|owner| !owner.email.is_empty() || routed(owner)) {
            let text = "owners have e-mail addresses, but there is no section `smtp`, so no e-mail is sent";
            self.findings.warn(&at_services(), text);
        } else if self.value["reports"].get("weekly").is_none()
            && self.owners().any(|owner| owner.alert_email || routed(owner))
        {
            let text =
                "alerts are to go by e-mail, but there is no reports.weekly.from to send them from, so none is sent";
            self.findings.warn(&at_services(), text);
        }
    }

    fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.sections.services.0.values().filter_map(|service| service.owner.as_ref())
    }
}

/// Where an item of a list stands, or the one that is written without a list.
fn item(written: Option<&Value>, path: KeyPath, index: usize) -> KeyPath {
    if written.is_some_and(Value::is_array) { path.index(index) } else { path }
}

fn is_channel(text: &str) -> bool {
    let is_id = text.len() >= 9 && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    let is_name = text.strip_prefix('#').is_some_and(|name| !name.is_empty() && !name.contains([' ', '#']));
    is_name || (is_id && text.starts_with(['C', 'G', 'D']))
}

fn is_address(text: &str) -> bool {
    let plain = match text.split_once('<') {
        Some((_, rest)) => rest.trim_end().strip_suffix('>').unwrap_or_default(),
        None => text,
    };
    let parts = plain.split_once('@');
    let clean =
        |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c.is_control() || c == '@');
    parts.is_some_and(|(name, host)| clean(name) && clean(host))
}

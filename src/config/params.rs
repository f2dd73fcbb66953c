//! Parameters that services set: the rule and the parameter must exist, and the value must be of the rule's kind.

use std::collections::{BTreeMap, BTreeSet};

use bongsu_processor::config::Rule;
use bongsu_schemas::services::{ParamSetting, ParamValue, RuleParams};
use serde_json::Value;

use super::defaults::Defaults;
use super::mistake::{Findings, KeyPath, shown, suggestion};
use super::sections::Sections;
use super::semantics::{at, names_in};

/// Checks the parameters of all services and their series, and the names of rules that explain others.
pub(super) fn check(value: &Value, sections: &Sections, defaults: &Defaults, findings: &mut Findings) {
    let built_in = defaults.rules.iter().map(|rule| (rule.name.as_str(), rule));
    let own = sections.rules.iter().map(|(_, rule)| (rule.name.as_str(), rule));
    let rules: BTreeMap<&str, &Rule> = built_in.chain(own).collect();
    let unread: BTreeSet<&str> = names_in(&value["rules"]).into_iter().map(|(_, name)| name).collect();
    let mut checker = Checker { rules, unread, findings };
    for (service, entry) in &sections.services.0 {
        let path = at("services").key(service);
        checker.params(&path.clone().key("params"), &entry.params);
        for (index, series) in entry.series.iter().enumerate() {
            checker.params(&path.clone().key("series").index(index).key("params"), &series.params);
        }
    }
    for (index, rule) in &sections.rules {
        let path = at("rules").index(*index).key("explained_by");
        for (at, name) in rule.explained_by.iter().enumerate() {
            checker.rule(&path.clone().index(at), name);
        }
    }
}

struct Checker<'a> {
    rules: BTreeMap<&'a str, &'a Rule>,
    /// Rules of the file that could not be read.
    unread: BTreeSet<&'a str>,
    findings: &'a mut Findings,
}

impl Checker<'_> {
    fn rule(&mut self, path: &KeyPath, name: &str) -> Option<&Rule> {
        if !self.rules.contains_key(name) && !self.unread.contains(name) {
            let hint = suggestion(name, self.rules.keys().copied());
            let listed = self.rules.keys().copied().collect::<Vec<_>>().join(", ");
            self.findings.add(path, format!("there is no rule `{}`{hint}; rules: {listed}", shown(name)));
        }
        self.rules.get(name).copied()
    }

    fn params(&mut self, path: &KeyPath, params: &RuleParams) {
        for (rule_name, params) in params {
            let path = path.clone().key(rule_name);
            let Some(rule) = self.rule(&path, rule_name) else { continue };
            let problems: Vec<_> =
                params.iter().filter_map(|(name, given)| Some((name, problem(rule, name, given)?))).collect();
            for (name, problem) in problems {
                self.findings.add(&path.clone().key(name), problem);
            }
        }
    }
}

fn problem(rule: &Rule, name: &str, given: &ParamSetting) -> Option<String> {
    let rule_name = &rule.name;
    let Some(default) = rule.params.get(name) else {
        let hint = suggestion(name, rule.params.keys().map(String::as_str));
        let listed = rule.params.keys().map(String::as_str).collect::<Vec<_>>();
        let listed = if listed.is_empty() { "none".to_owned() } else { listed.join(", ") };
        return Some(format!("the rule `{rule_name}` has no parameter `{}`{hint}; it has: {listed}", shown(name)));
    };
    let kind = default.values().first().map(|value| kind(value))?;
    match (default, given) {
        (ParamSetting::Levels(_), ParamSetting::One(_)) => {
            return Some(format!(
                "has two levels in the rule `{rule_name}`; write {{ warn: ..., critical: ... }}, or one of the two"
            ));
        }
        (ParamSetting::One(_), ParamSetting::Levels(_)) => {
            return Some(format!("has one value in the rule `{rule_name}`, which has no levels"));
        }
        _ => {}
    }
    let is_wrong = given.values().iter().any(|value| self::kind(value) != kind);
    is_wrong.then(|| format!("must be {kind}, as in the rule `{rule_name}`"))
}

fn kind(value: &ParamValue) -> &'static str {
    match value {
        ParamValue::Boolean(_) => "true or false",
        ParamValue::Number(_) => "a number",
        ParamValue::Text(_) => "text",
    }
}

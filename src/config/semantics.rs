//! What a schema cannot say: names that must exist or be unique, values that must be understood, SQL that must plan.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bongsu_ingest::config::TableDef;
use bongsu_processor::config::{Rule, View};
use bongsu_schemas::kafka::Kafka;
use bongsu_schemas::services::Services;
use chrono_tz::{TZ_VARIANTS, Tz};
use serde_json::Value;

use super::Config;
use super::defaults::{Defaults, table_of};
use super::mistake::{Findings, KeyPath, shown, suggestion};
use super::owners;
use super::params;
use super::paths::resolve_history;
use super::sections::Sections;
use super::webhooks;

/// Checks the sections against each other, and puts them together where all that is needed is there.
pub(super) fn check(value: &Value, mut sections: Sections, folder: &Path, findings: &mut Findings) -> Option<Config> {
    let mut checker = Checker { value, findings };
    if let Some(kafka) = &sections.kafka {
        checker.kafka(kafka);
    }
    let tables = checker.sources(&sections);
    let zone = checker.zone(&sections.time.zone);
    match resolve_history(&sections.history.url, folder) {
        Ok(url) => sections.history.url = url,
        Err(problem) => checker.findings.add(&at("history").key("url"), problem),
    }
    let defaults = if sections.defaults { Defaults::read() } else { Defaults::default() };
    owners::check(value, &sections, &defaults, checker.findings);
    checker.names(&sections, &defaults, &tables);
    params::check(value, &sections, &defaults, checker.findings);
    checker.unique("webhooks", &names_in(&value["webhooks"]));
    webhooks::check(&sections, checker.findings);
    let plan = Plan::new(&sections, defaults, &tables);
    let (views, rules) = checker.plan(plan, &sections, zone.unwrap_or(Tz::UTC));
    for service in sections.services.0.values_mut() {
        // Parameters of rules that are not in force have no meaning.
        let in_force = |name: &str| rules.iter().any(|rule| rule.name == name);
        service.params.retain(|name, _| in_force(name));
        for series in &mut service.series {
            series.params.retain(|name, _| in_force(name));
        }
    }
    let warnings = findings.warnings();
    Some(Config {
        kafka: sections.kafka?,
        sources: sections.sources.into_iter().map(|(_, source)| source).collect(),
        time: sections.time,
        zone: zone?,
        services: sections.services,
        views,
        rules,
        reports: sections.reports,
        slack: sections.slack,
        smtp: sections.smtp,
        webhooks: sections.webhooks.into_iter().map(|(_, webhook)| webhook).collect(),
        history: sections.history,
        dashboard: sections.dashboard,
        warnings,
    })
}

pub(super) fn at(key: &str) -> KeyPath {
    KeyPath::default().key(key)
}

struct Checker<'a> {
    value: &'a Value,
    findings: &'a mut Findings,
}

impl Checker<'_> {
    fn kafka(&mut self, kafka: &Kafka) {
        let kafka_key = at("kafka");
        if kafka.brokers.split(',').any(|broker| broker.trim().is_empty()) {
            self.findings
                .add(&kafka_key.clone().key("brokers"), "has an empty entry; write host:port, separated by commas");
        }
        for (name, text) in [("topic_prefix", &kafka.topic_prefix), ("group", &kafka.group)] {
            if !is_topic_name(text) {
                let problem = format!("is `{}`; use letters, digits, `.`, `_` and `-`", shown(text));
                self.findings.add(&kafka_key.clone().key(name), problem);
            }
        }
        for (name, text) in &kafka.properties {
            let path = kafka_key.clone().key("properties").key(name);
            if let Some(instead) = own_property(name) {
                self.findings.add(&path, format!("is set by Bongsu itself; {instead}"));
            } else if let Some(variable) = text.strip_prefix('$') {
                if std::env::var_os(variable).is_none() {
                    let text = format!("the environment variable `{}` is not set here", shown(variable));
                    self.findings.warn(&path, text);
                }
            } else if let Err(error) = rdkafka::ClientConfig::new().set(name, text).create_native_config() {
                self.findings.add(&path, property_problem(&error));
            }
        }
    }

    /// The tables that the sources fill, by name.
    fn sources(&mut self, sections: &Sections) -> BTreeMap<String, TableDef> {
        let mut tables: BTreeMap<String, TableDef> = BTreeMap::new();
        let mut topics = BTreeSet::new();
        if self.value["sources"].as_array().is_some_and(Vec::is_empty) {
            let problem = "is empty; name at least one topic: { topic: requests, format: json, table: requests }";
            self.findings.add(&at("sources"), problem);
        }
        let prefix = sections.kafka.as_ref().map(|kafka| format!("{}.", kafka.topic_prefix));
        for (index, source) in &sections.sources {
            let path = at("sources").index(*index);
            let topic = path.clone().key("topic");
            if !is_topic_name(&source.topic) {
                let problem =
                    format!("`{}` is no name of a topic: use letters, digits, `.`, `_` and `-`", shown(&source.topic));
                self.findings.add(&topic, problem);
            } else if prefix.as_ref().is_some_and(|prefix| source.topic.starts_with(prefix)) {
                let problem = format!("`{}` begins as Bongsu's own topics do; change kafka.topic_prefix", source.topic);
                self.findings.add(&topic, problem);
            }
            if !topics.insert(&source.topic) {
                self.findings
                    .add(&topic, format!("`{}` is a source already; name each topic once", shown(&source.topic)));
            }
            let filled = match source.tables() {
                Ok(filled) => filled,
                Err(problem) => {
                    let (path, problem) = split_key(path, &problem);
                    self.findings.add(&path, problem);
                    continue;
                }
            };
            for table in filled {
                let name = table.name.clone();
                if tables.get(&name).is_some_and(|other| *other != table) {
                    let problem =
                        format!("another source fills `{}` with other columns; make them the same", shown(&name));
                    self.findings.add(&path.clone().key("table"), problem);
                }
                tables.insert(name, table);
            }
        }
        tables
    }

    fn zone(&mut self, name: &str) -> Option<Tz> {
        let zone = name.parse();
        if zone.is_err() {
            let hint = suggestion(name, TZ_VARIANTS.iter().map(|zone| zone.name()));
            let problem = format!("`{}` is no IANA time zone{hint}; write for example Asia/Seoul", shown(name));
            self.findings.add(&at("time").key("zone"), problem);
        }
        zone.ok()
    }

    /// Names of views and rules: unique, and known where they are used.
    fn names(&mut self, sections: &Sections, defaults: &Defaults, tables: &BTreeMap<String, TableDef>) {
        let own_views = names_in(&self.value["views"]);
        self.unique("views", &own_views);
        self.unique("rules", &names_in(&self.value["rules"]));
        let built_in = |name: &str| defaults.views.iter().find(|view| view.name == name);
        let known: BTreeSet<&str> = own_views
            .iter()
            .map(|(_, name)| *name)
            .chain(defaults.views.iter().map(|view| view.name.as_str()))
            .collect();
        for (index, rule) in &sections.rules {
            let path = at("rules").index(*index);
            let is_own = own_views.iter().any(|(_, name)| *name == rule.on);
            if !known.contains(rule.on.as_str()) {
                let hint = suggestion(&rule.on, known.iter().copied());
                let listed = known.iter().copied().collect::<Vec<_>>().join(", ");
                let problem = format!("there is no view `{}`{hint}; views: {listed}", shown(&rule.on));
                self.findings.add(&path.clone().key("on"), problem);
            } else if let Some(view) = built_in(&rule.on).filter(|_| !is_own && sections.all_sources_read)
                && !tables.contains_key(table_of(view))
            {
                let problem =
                    format!("the view `{}` needs a source that fills the table `{}`", rule.on, table_of(view));
                self.findings.add(&path.clone().key("on"), problem);
            }
            if rule.when.is_none() && rule.no_data.is_none() {
                let problem = "is missing; a rule needs a condition such as `errors > 10`, or `no_data`";
                self.findings.add(&path.key("when"), problem);
            }
        }
    }

    fn unique(&mut self, list: &str, names: &[(usize, &str)]) {
        let mut seen = BTreeSet::new();
        for (index, name) in names {
            if !seen.insert(name) {
                let path = at(list).index(*index).key("name");
                self.findings.add(&path, format!("`{}` is used twice; give one of the two another name", shown(name)));
            }
        }
    }

    /// Plans every view and rule, and returns those that are in force.
    fn plan(&mut self, plan: Plan, sections: &Sections, zone: Tz) -> (Vec<View>, Vec<Rule>) {
        let Some(kafka) = sections.kafka.clone().or_else(placeholder_kafka) else { return plan.into_parts() };
        let config = bongsu_processor::config::Config {
            kafka,
            sources: sections.sources.iter().map(|(_, source)| source.clone()).collect(),
            time: sections.time.clone(),
            zone,
            // Their parameters have been checked, built-in rules that are left out included.
            services: Services::default(),
            views: plan.views.iter().map(|(_, view)| view.clone()).collect(),
            rules: plan.rules.iter().map(|(_, rule)| rule.clone()).collect(),
            history: sections.history.clone(),
        };
        let sources_are_good =
            sections.all_sources_read && sections.sources.iter().all(|(_, source)| source.tables().is_ok());
        if !sources_are_good {
            // Without all tables, each view over a missing one would be called wrong.
            return plan.into_parts();
        }
        let mut left_out = BTreeSet::new();
        for mistake in bongsu_processor::validate(&config) {
            let path = KeyPath::parse(&mistake.path);
            match plan.origin(&path) {
                Some((Origin::File, path)) if self.findings.knows(&path) => {}
                Some((Origin::File, path)) => self.findings.add(&path, mistake.problem),
                Some((Origin::BuiltIn, path)) => {
                    let name = plan.name(&path).to_owned();
                    let text =
                        format!("the built-in `{name}` is left out, because it does not fit: {}", mistake.problem);
                    if left_out.insert(name) {
                        self.findings.warn(&plan.cause(&path), text);
                    }
                }
                // Sources have been checked, with their places in the file.
                None => {}
            }
        }
        let (views, mut rules) = plan.into_parts();
        rules.retain(|rule| !left_out.contains(&rule.name));
        (views, rules)
    }
}

/// Where a view or a rule comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    BuiltIn,
    File,
}

/// The views and rules in force: built-in ones first, each with its index in its own list.
struct Plan {
    views: Vec<((Origin, usize), View)>,
    rules: Vec<((Origin, usize), Rule)>,
}

impl Plan {
    fn new(sections: &Sections, defaults: Defaults, tables: &BTreeMap<String, TableDef>) -> Plan {
        let own_views: BTreeSet<&str> = sections.views.iter().map(|(_, view)| view.name.as_str()).collect();
        let own_rules: BTreeSet<&str> = sections.rules.iter().map(|(_, rule)| rule.name.as_str()).collect();
        let used =
            |(_, view): &(usize, View)| !own_views.contains(view.name.as_str()) && tables.contains_key(table_of(view));
        let built_in = |index| (Origin::BuiltIn, index);
        let in_file = |index| (Origin::File, index);
        let mut views: Vec<_> =
            defaults.views.into_iter().enumerate().filter(used).map(|(i, view)| (built_in(i), view)).collect();
        views.extend(sections.views.iter().map(|(index, view)| (in_file(*index), view.clone())));
        // A rule over a view that is not there has been complained about, or its table has no source.
        let known: BTreeSet<String> = views.iter().map(|(_, view)| view.name.clone()).collect();
        let used = |(_, rule): &(usize, Rule)| !own_rules.contains(rule.name.as_str());
        let mut rules: Vec<_> =
            defaults.rules.into_iter().enumerate().filter(used).map(|(i, rule)| (built_in(i), rule)).collect();
        rules.extend(sections.rules.iter().map(|(index, rule)| (in_file(*index), rule.clone())));
        rules.retain(|(_, rule)| known.contains(&rule.on));
        Plan { views, rules }
    }

    /// A path in the list of all views or rules, as a path in the file or in the built-in list.
    fn origin(&self, path: &KeyPath) -> Option<(Origin, KeyPath)> {
        use super::mistake::Segment::{Index, Key};
        let [Key(list), Index(index), rest @ ..] = path.segments() else { return None };
        let (origin, index) = match list.as_str() {
            "views" => self.views.get(*index)?.0,
            "rules" => self.rules.get(*index)?.0,
            _ => return None,
        };
        Some((origin, at(list).index(index).join(rest)))
    }

    /// The name of the built-in view or rule at `path`.
    fn name(&self, path: &KeyPath) -> &str {
        use super::mistake::Segment::{Index, Key};
        let [Key(list), Index(index), ..] = path.segments() else { return "" };
        let here = (Origin::BuiltIn, *index);
        let view = || self.views.iter().find(|(origin, _)| *origin == here).map(|(_, view)| view.name.as_str());
        let rule = || self.rules.iter().find(|(origin, _)| *origin == here).map(|(_, rule)| rule.name.as_str());
        if list == "views" { view() } else { rule() }.unwrap_or_default()
    }

    /// Where in the file the cause is that a built-in rule does not fit: the view of the file that replaced the built-in one.
    fn cause(&self, path: &KeyPath) -> KeyPath {
        let rule = self.rules.iter().find(|(origin, rule)| origin.0 == Origin::BuiltIn && rule.name == self.name(path));
        let view = rule.and_then(|(_, rule)| self.views.iter().find(|(_, view)| view.name == rule.on));
        match view {
            Some(((Origin::File, index), _)) => at("views").index(*index).key("sql"),
            _ => at("defaults"),
        }
    }

    fn into_parts(self) -> (Vec<View>, Vec<Rule>) {
        let views = self.views.into_iter().map(|(_, view)| view).collect();
        (views, self.rules.into_iter().map(|(_, rule)| rule).collect())
    }
}

/// Views can be planned where the `kafka` section is the mistake.
fn placeholder_kafka() -> Option<Kafka> {
    serde_json::from_value(serde_json::json!({ "brokers": "localhost:9092" })).ok()
}

/// The names in a list of the file, also of entries that could not be read.
pub(super) fn names_in(list: &Value) -> Vec<(usize, &str)> {
    let items = list.as_array().into_iter().flatten().enumerate();
    items.filter_map(|(index, item)| Some((index, item["name"].as_str()?))).collect()
}

/// Splits the key in backticks off that a source's complaint begins with.
fn split_key(path: KeyPath, problem: &str) -> (KeyPath, String) {
    let parts = problem.strip_prefix('`').and_then(|rest| rest.split_once('`'));
    match parts {
        Some((key, rest)) if !key.contains(' ') => {
            let keys = key.split('.').fold(path, |path, key| path.key(key));
            (keys, rest.trim_start().to_owned())
        }
        _ => (path, problem.to_owned()),
    }
}

fn is_topic_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&text.len()) && text.chars().all(allowed) && text != "." && text != ".."
}

/// What to write instead of a librdkafka property that Bongsu sets itself.
fn own_property(name: &str) -> Option<&'static str> {
    match name {
        "bootstrap.servers" | "metadata.broker.list" => Some("write kafka.brokers"),
        "group.id" => Some("write kafka.group"),
        "transactional.id" | "enable.auto.commit" | "enable.auto.offset.store" | "isolation.level" => Some("remove it"),
        "enable.idempotence" | "enable.partition.eof" | "auto.offset.reset" => Some("remove it"),
        _ => None,
    }
}

/// librdkafka's own words about a property, without its value, which may be a secret.
fn property_problem(error: &rdkafka::error::KafkaError) -> String {
    match error {
        rdkafka::error::KafkaError::ClientConfig(_, description, name, value) => {
            let description =
                if value.is_empty() { description.clone() } else { description.replace(value.as_str(), "...") };
            let hidden = shown(&description);
            format!("librdkafka refuses `{}`: {hidden}; see librdkafka's CONFIGURATION.md for its values", shown(name))
        }
        other => format!("librdkafka refuses it: {}", shown(&other.to_string())),
    }
}

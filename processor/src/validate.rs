//! Whether a configuration can be run: every view and rule is planned as `run` would. Needs no Kafka.

use std::collections::BTreeMap;

use bongsu_schemas::duration::Span;
use bongsu_schemas::services::ParamValue;

use crate::config::{Config, Rule};
use crate::plan::{TableColumns, Tables, ViewPlan};
use crate::rules::engine::CompiledRule;

/// The longest time in which closed windows can be corrected: half as long as `bongsu.partials` are kept, so that an outage costs nothing.
const MAX_CORRECTIONS: Span = Span::from_secs(24 * 3600);

/// Something that the operator must mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where in the configuration, such as `views[2].sql`.
    pub path: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// All mistakes in sources, views and rules.
pub fn validate(config: &Config) -> Vec<Mistake> {
    compile(config).err().unwrap_or_default()
}

/// The views of a configuration, planned; mistakes are left out. For `bongsu check`, which prints them.
pub fn plan_views(config: &Config) -> Vec<ViewPlan> {
    let (tables, _) = tables(config);
    config.views.iter().filter_map(|view| ViewPlan::new(view, &tables, config.zone).ok()).collect()
}

/// The tables that the sources fill.
pub fn tables(config: &Config) -> (Tables, Vec<Mistake>) {
    let (mut tables, mut mistakes) = (Tables::new(), Vec::new());
    for (index, source) in config.sources.iter().enumerate() {
        match source.tables() {
            Err(problem) => mistakes.push(Mistake { path: format!("sources[{index}]"), problem }),
            Ok(filled) => {
                for table in filled {
                    let columns = TableColumns { columns: table.columns, has_attributes: table.has_attributes };
                    let known = tables.entry(table.name.clone()).or_insert_with(|| columns.clone());
                    if *known != columns {
                        let problem =
                            format!("declares the table `{}` with other columns than an earlier source", table.name);
                        mistakes.push(Mistake { path: format!("sources[{index}].columns"), problem });
                    }
                }
            }
        }
    }
    (tables, mistakes)
}

pub(crate) fn compile(config: &Config) -> Result<(Vec<ViewPlan>, Vec<CompiledRule>), Vec<Mistake>> {
    let (tables, mut mistakes) = tables(config);
    let mut views = Vec::new();
    for (index, view) in config.views.iter().enumerate() {
        match ViewPlan::new(view, &tables, config.zone) {
            Ok(plan) => views.push(plan),
            Err(problem) => mistakes.push(Mistake { path: format!("views[{index}].sql"), problem }),
        }
        if view.corrections.is_some_and(|corrections| corrections > MAX_CORRECTIONS) {
            let problem = format!("is more than {MAX_CORRECTIONS}: what windows are made of is not kept for longer");
            mistakes.push(Mistake { path: format!("views[{index}].corrections"), problem });
        }
    }
    let mut rules = Vec::new();
    for (index, rule) in config.rules.iter().enumerate() {
        match compile_rule(rule, &views, config) {
            Ok(compiled) => rules.extend(compiled),
            Err((key, problem)) => mistakes.push(Mistake { path: format!("rules[{index}].{key}"), problem }),
        }
    }
    mistakes.extend(wrong_params_of_services(config));
    if mistakes.is_empty() { Ok((views, rules)) } else { Err(mistakes) }
}

fn compile_rule(
    rule: &Rule,
    views: &[ViewPlan],
    config: &Config,
) -> Result<Option<CompiledRule>, (&'static str, String)> {
    let Some(view) = views.iter().position(|view| view.name == rule.on) else {
        // A view that cannot be planned is a mistake of its own.
        if config.views.iter().any(|view| view.name == rule.on) {
            return Ok(None);
        }
        return Err(("on", format!("names the view `{}`, which does not exist", rule.on)));
    };
    let Some(when) = &rule.when else {
        return match rule.no_data {
            Some(_) => Ok(None),
            None => Err(("when", "is missing; a rule needs `when` or `no_data`".to_owned())),
        };
    };
    let plan = &views[view];
    let shadowed = |name: &&String| *name == "rule" || columns_of(plan).any(|column| column == *name);
    if let Some(name) = rule.params.keys().find(shadowed) {
        let problem = format!("has the parameter `{name}`; in a summary that is a column of `{}` or the rule", rule.on);
        return Err(("params", problem));
    }
    let compiled = CompiledRule::new(rule, when, view, plan).map_err(|error| (error.key, error.problem))?;
    let known = |name: &str| columns_of(plan).chain(["rule", "range"]).any(|known| known == name);
    match compiled.summary.names().into_iter().find(|name| !known(name) && !rule.params.contains_key(name)) {
        Some(name) => {
            Err(("summary", format!("uses `{name}`, which is neither a column of `{}` nor a parameter", rule.on)))
        }
        None => Ok(Some(compiled)),
    }
}

fn columns_of(view: &ViewPlan) -> impl Iterator<Item = &str> {
    view.keys.iter().chain(&view.values).map(|column| view.result_schema.field(*column).name().as_str())
}

fn wrong_params_of_services(config: &Config) -> Vec<Mistake> {
    let rules: BTreeMap<&str, &Rule> = config.rules.iter().map(|rule| (rule.name.as_str(), rule)).collect();
    let mut mistakes = Vec::new();
    for (service, entry) in &config.services.0 {
        for (rule, params) in &entry.params {
            let path = format!("services.{service}.params.{rule}");
            let Some(known) = rules.get(rule.as_str()) else {
                mistakes.push(Mistake { path, problem: format!("is for the rule `{rule}`, which does not exist") });
                continue;
            };
            for (name, value) in params {
                let problem = match known.params.get(name) {
                    None => format!("the rule `{rule}` has no parameter `{name}`"),
                    Some(default) if kind(default) != kind(value) => {
                        format!("must be {}, as in the rule", kind(default))
                    }
                    Some(_) => continue,
                };
                mistakes.push(Mistake { path: format!("{path}.{name}"), problem });
            }
        }
    }
    mistakes
}

fn kind(value: &ParamValue) -> &'static str {
    match value {
        ParamValue::Boolean(_) => "true or false",
        ParamValue::Number(_) => "a number",
        ParamValue::Text(_) => "text",
    }
}

#[cfg(test)]
mod tests;

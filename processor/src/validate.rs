//! Whether a configuration can be run: every view and rule is planned as `run` would. Needs no Kafka.

use bongsu_schemas::duration::Span;
use bongsu_schemas::services::{ParamLevels, ParamSetting};

use crate::config::{Config, Rule, Severity, SeverityLevels};
use crate::plan::{TableColumns, Tables, ViewPlan};
use crate::presence::{name_of, with_presence};
use crate::rules::absence::AbsenceRule;
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
    compile(&with_presence(config.clone())).err().unwrap_or_default()
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

/// A configuration, compiled.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// Of all views, in their order.
    pub(crate) views: Vec<ViewPlan>,
    pub(crate) rules: Vec<CompiledRule>,
    pub(crate) absences: Vec<AbsenceRule>,
}

/// Compiles a configuration that has its presence views.
pub(crate) fn compile(config: &Config) -> Result<Compiled, Vec<Mistake>> {
    compile_with(config, |plan| plan)
}

/// The same where plans are adapted before rules are compiled over them.
pub(crate) fn compile_with(config: &Config, adapt: impl Fn(ViewPlan) -> ViewPlan) -> Result<Compiled, Vec<Mistake>> {
    let (tables, mut mistakes) = tables(config);
    let mut views = Vec::new();
    for (index, view) in config.views.iter().enumerate() {
        match ViewPlan::new(view, &tables, config.zone) {
            Ok(plan) => views.push(adapt(plan)),
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
    let absences = config.rules.iter().filter_map(|rule| absence(rule, &views)).collect();
    if mistakes.is_empty() { Ok(Compiled { views, rules, absences }) } else { Err(mistakes) }
}

fn absence(rule: &Rule, views: &[ViewPlan]) -> Option<AbsenceRule> {
    let no_data = rule.no_data.clone()?;
    let name = name_of(&rule.on, no_data.per);
    let view = views.iter().position(|view| view.name == name)?;
    let plan = &views[view];
    let keys = plan.keys_by_name.iter().map(|key| plan.result_schema.field(*key).name().clone()).collect();
    Some(AbsenceRule { rule: rule.clone(), no_data, view, keys })
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
    check_levels(rule)?;
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

/// Two levels need two severities and two values of some parameter; each without the other is a mistake.
fn check_levels(rule: &Rule) -> Result<(), (&'static str, String)> {
    let has_levels = |setting: &&ParamSetting| matches!(setting, ParamSetting::Levels(_));
    let leveled = rule.params.values().filter(has_levels).count();
    match rule.severity {
        Severity::One(_) if leveled > 0 => {
            let problem = "has a parameter with `warn` and `critical`; give `severity: { warn: 3, critical: 5 }` too";
            return Err(("params", problem.to_owned()));
        }
        Severity::Levels(_) if leveled == 0 => {
            let problem =
                "has two levels; give a parameter two values too, such as `max: { warn: 0.05, critical: 0.2 }`";
            return Err(("severity", problem.to_owned()));
        }
        Severity::Levels(SeverityLevels { warn, critical }) if warn >= critical => {
            return Err(("severity", "must be higher for `critical` than for `warn`".to_owned()));
        }
        Severity::One(_) | Severity::Levels(_) => {}
    }
    for (name, setting) in &rule.params {
        let ParamSetting::Levels(ParamLevels { warn, critical }) = setting else { continue };
        let (Some(warn), Some(critical)) = (warn, critical) else {
            return Err(("params", format!("sets `{name}` for one level only; give both `warn` and `critical`")));
        };
        if std::mem::discriminant(warn) != std::mem::discriminant(critical) {
            return Err(("params", format!("sets `{name}` to values of two types")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

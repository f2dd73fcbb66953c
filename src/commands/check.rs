//! `bongsu check`: what a configuration amounts to.

use std::collections::BTreeSet;

use bongsu_processor::plan::ViewPlan;
use bongsu_processor::validate::plan_views;
use bongsu_schemas::services::{FALLBACK, Owner};
use serde_json::{Value, json};

use super::{load_config, one_or_list};
use crate::cli::Check;
use crate::config::Config;
use crate::failure::Failure;
use crate::output::{print_as, table};

pub(super) fn run(options: &Check) -> Result<(), Failure> {
    let config = load_config(&options.config.path)?;
    let views = plan_views(&config.processor());
    print_as(options.format, &as_json(&config, &views), || as_tables(&config, &views))
}

/// Names of columns of a view's result.
fn names(plan: &ViewPlan, columns: &[usize]) -> Vec<String> {
    columns.iter().map(|column| plan.result_schema.field(*column).name().clone()).collect()
}

/// Services with an entry of their own, then the fallback.
fn routed_services(config: &Config) -> Vec<&str> {
    let own: BTreeSet<&str> = config.services.0.keys().map(String::as_str).filter(|name| *name != FALLBACK).collect();
    own.into_iter().chain(std::iter::once(FALLBACK)).collect()
}

fn owner_of<'a>(config: &'a Config, service: &str) -> Option<&'a Owner> {
    config.services.owner_of(Some(service)).map(|ownership| ownership.owner)
}

/// The owner's own channels, and that there are others.
fn channels(owner: &Owner) -> String {
    let own = owner.channels().join(", ");
    match owner.routes.len() {
        0 => own,
        routes => format!("{own} (and {routes} routes)").trim_start().to_owned(),
    }
}

fn for_windows(rule: &bongsu_processor::config::Rule) -> String {
    rule.for_windows.map_or("1 of 1".to_owned(), |windows| format!("{} of {}", windows.needed, windows.of))
}

fn as_json(config: &Config, views: &[ViewPlan]) -> Value {
    let sources = config.sources.iter().map(|source| {
        let tables: Vec<String> = source.tables().unwrap_or_default().into_iter().map(|table| table.name).collect();
        json!({ "topic": source.topic, "format": source.format.name(), "tables": tables })
    });
    let views = views.iter().map(|view| {
        json!({
            "name": view.name,
            "table": view.table,
            "window": view.window.to_string(),
            "keys": names(view, &view.keys),
            "values": names(view, &view.values),
        })
    });
    let rules = config.rules.iter().map(|rule| {
        json!({
            "name": rule.name,
            "on": rule.on,
            "when": rule.when,
            "clear": rule.clear,
            "for": for_windows(rule),
            "severity": rule.severity,
            "params": rule.params,
        })
    });
    let routing = routed_services(config).into_iter().map(|service| {
        let owner = owner_of(config, service);
        json!({
            "service": service,
            "owner": owner.map(Owner::display_name),
            "slack": one_or_list(owner.map_or(&[], Owner::channels)),
            "email": owner.map(|owner| owner.email.clone()).unwrap_or_default(),
            "routes": owner.map_or(0, |owner| owner.routes.len()),
        })
    });
    let webhooks = config.webhooks.iter().map(|webhook| {
        json!({
            "name": webhook.name,
            "format": webhook.format.name(),
            "severity": webhook.severity,
            "services": webhook.services,
            "environment": webhook.environment,
        })
    });
    json!({
        "sources": sources.collect::<Vec<_>>(),
        "views": views.collect::<Vec<_>>(),
        "rules": rules.collect::<Vec<_>>(),
        "routing": routing.collect::<Vec<_>>(),
        "webhooks": webhooks.collect::<Vec<_>>(),
    })
}

fn as_tables(config: &Config, views: &[ViewPlan]) -> String {
    let sources: Vec<[String; 3]> = config
        .sources
        .iter()
        .map(|source| {
            let tables: Vec<String> = source.tables().unwrap_or_default().into_iter().map(|table| table.name).collect();
            [source.topic.clone(), source.format.name().to_owned(), tables.join(", ")]
        })
        .collect();
    let views: Vec<[String; 5]> = views
        .iter()
        .map(|view| {
            let keys = names(view, &view.keys).join(", ");
            [view.name.clone(), view.table.clone(), view.window.to_string(), keys, names(view, &view.values).join(", ")]
        })
        .collect();
    let rules: Vec<[String; 5]> = config
        .rules
        .iter()
        .map(|rule| {
            let when = rule.when.clone().unwrap_or_else(|| "no data".to_owned());
            [rule.name.clone(), rule.on.clone(), for_windows(rule), rule.severity.to_string(), when]
        })
        .collect();
    let routing: Vec<[String; 4]> = routed_services(config)
        .into_iter()
        .map(|service| {
            let owner = owner_of(config, service);
            let name = owner.map_or("nobody", Owner::display_name);
            let email = owner.map(|owner| owner.email.join(", ")).unwrap_or_default();
            [service.to_owned(), name.to_owned(), owner.map(channels).unwrap_or_default(), email]
        })
        .collect();
    let webhooks: Vec<[String; 5]> = config
        .webhooks
        .iter()
        .map(|webhook| {
            let services = webhook.services.as_ref().map_or("all".to_owned(), |services| services.join(", "));
            let environment = webhook.environment.clone().unwrap_or_else(|| "all".to_owned());
            let severity = webhook.severity.to_string();
            [webhook.name.clone(), webhook.format.name().to_owned(), severity, services, environment]
        })
        .collect();
    let mut tables = vec![
        table(["SOURCE", "format", "tables"], &sources),
        table(["VIEW", "table", "window", "keys", "values"], &views),
        table(["RULE", "view", "for", "severity", "when"], &rules),
        table(["SERVICE", "owner", "slack", "e-mail"], &routing),
    ];
    if !webhooks.is_empty() {
        tables.push(table(["WEBHOOK", "format", "severity", "services", "environment"], &webhooks));
    }
    tables.join("\n")
}

//! `bongsu route`: where would an alert go, and why.

use bongsu_reporter::routing::{Question, route};
use chrono::{SecondsFormat, SubsecRound, Utc};
use serde_json::json;

use super::{load_config, one_or_list};
use crate::cli::{AlertPart, Route};
use crate::failure::Failure;
use crate::output::print_as;

pub(super) fn run(options: &Route) -> Result<(), Failure> {
    let (mut service, mut severity, mut environment, mut rule, mut at) = (None, None, None, None, None);
    for part in &options.alert {
        let given_twice = match part {
            AlertPart::Service(name) => service.replace(name.as_str()).is_some(),
            AlertPart::Severity(number) => severity.replace(*number).is_some(),
            AlertPart::Environment(name) => environment.replace(name.as_str()).is_some(),
            AlertPart::Rule(name) => rule.replace(name.as_str()).is_some(),
            AlertPart::At(time) => at.replace(*time).is_some(),
        };
        if given_twice {
            return Err(Failure::Usage("each part of an alert can be given once".to_owned()));
        }
    }
    let config = load_config(&options.config.path)?;
    let severity = severity.unwrap_or(DEFAULT_SEVERITY);
    let at = at.unwrap_or_else(|| Utc::now().trunc_subsecs(0));
    let route = route(&config.services, config.zone, Question { service, severity, environment, rule, at });
    let json = json!({
        "service": service,
        "severity": severity,
        "environment": environment,
        "rule": rule,
        "at": at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        "owner": route.owner.map(|owner| owner.display_name()),
        "slack": one_or_list(route.channels),
        "email": route.email,
        "route": route.decided.map(|(index, _)| index),
        "because": route.because(),
    });
    let lines = || route.to_string().lines().map(crate::config::printable).collect::<Vec<_>>().join("\n");
    print_as(options.format, &json, lines)
}

/// A rule's severity where it says none.
const DEFAULT_SEVERITY: u8 = 3;

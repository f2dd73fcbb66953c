//! `bongsu route`: where would an alert go, and why.

use bongsu_reporter::routing::route;
use serde_json::json;

use super::load_config;
use crate::cli::{AlertPart, Route};
use crate::failure::Failure;
use crate::output::print_as;

pub(super) fn run(options: &Route) -> Result<(), Failure> {
    let (mut service, mut severity) = (None, None);
    for part in &options.alert {
        let given_twice = match part {
            AlertPart::Service(name) => service.replace(name.as_str()).is_some(),
            AlertPart::Severity(number) => severity.replace(*number).is_some(),
        };
        if given_twice {
            return Err(Failure::Usage("service and severity can be given once each".to_owned()));
        }
    }
    let config = load_config(&options.config.path)?;
    let route = route(&config.services, service, severity.unwrap_or(DEFAULT_SEVERITY));
    let text = route.to_string();
    let because = text.lines().find_map(|line| line.strip_prefix("because")).map(str::trim);
    let json = json!({
        "service": route.service,
        "severity": route.severity,
        "owner": route.owner.map(|owner| owner.display_name()),
        "slack": route.channel,
        "email": route.email,
        "because": because,
    });
    print_as(options.format, &json, || text.lines().map(crate::config::printable).collect::<Vec<_>>().join("\n"))
}

/// A rule's severity where it says none.
const DEFAULT_SEVERITY: u8 = 3;

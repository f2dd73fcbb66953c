//! Who owns which service, and the service's own parameters: the `services` section of the configuration.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Name of the entry that owns every service without an own entry.
pub const FALLBACK: &str = "*";

/// One service.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Who is told about it. Without one, the owner of `"*"` is.
    #[serde(default)]
    pub owner: Option<Owner>,
    /// This service's own parameters of rules: rule name, then parameter name.
    #[serde(default)]
    pub params: BTreeMap<String, BTreeMap<String, ParamValue>>,
}

/// People who own a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// Name of the team, for people.
    #[serde(default)]
    pub name: Option<String>,
    /// Slack channel for alerts and digests: `#name` or a channel id.
    #[serde(default)]
    pub slack: Option<String>,
    /// Addresses for the weekly report.
    #[serde(default)]
    pub email: Vec<String>,
    /// Send alerts of severity 5 by e-mail too.
    #[serde(default)]
    pub alert_email: bool,
}

impl Owner {
    /// The team's name, else its channel, else its first address.
    pub fn display_name(&self) -> &str {
        let addresses = || self.email.first().map(String::as_str);
        self.name.as_deref().or(self.slack.as_deref()).or_else(addresses).unwrap_or("nobody")
    }
}

/// A value of a rule's parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ParamValue {
    /// `true` or `false`
    Boolean(bool),
    /// A number
    Number(f64),
    /// Text
    Text(String),
}

/// All services of an installation, by name.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Services(pub BTreeMap<String, Service>);

/// The owner of a service, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership<'a> {
    /// Who.
    pub owner: &'a Owner,
    /// Name of the entry that decided: the service's own, or `"*"`.
    pub entry: &'a str,
}

impl Services {
    /// Who owns `service`; nobody if neither it nor `"*"` has an owner.
    pub fn owner_of(&self, service: Option<&str>) -> Option<Ownership<'_>> {
        let owned = |name: &str| {
            let (entry, found) = self.0.get_key_value(name)?;
            Some(Ownership { owner: found.owner.as_ref()?, entry })
        };
        service.and_then(owned).or_else(|| owned(FALLBACK))
    }

    /// The value that `service` sets for a parameter of `rule`; where it sets none, that of `"*"`.
    pub fn param_of(&self, service: Option<&str>, rule: &str, name: &str) -> Option<&ParamValue> {
        let set_by = |entry: &str| self.0.get(entry)?.params.get(rule)?.get(name);
        service.and_then(set_by).or_else(|| set_by(FALLBACK))
    }
}

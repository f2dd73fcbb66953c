//! Who owns which service, and the service's own parameters: the `services` section of the configuration.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::alert::AlertLevel;
use crate::key::GroupKey;

use crate::routes::{OneOrMore, RouteEntry};

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
    pub params: RuleParams,
    /// Parameters of some of its series only. Of several that fit, the one with the most keys decides, then the first.
    #[serde(default)]
    pub series: Vec<SeriesParams>,
}

/// Parameters by rule, then by name.
pub type RuleParams = BTreeMap<String, BTreeMap<String, ParamSetting>>;

/// Parameters of a service's series with certain group keys.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeriesParams {
    /// Group keys and the values that they must have; numbers and truth values as text.
    #[schemars(extend("minProperties" = 1))]
    pub key: BTreeMap<String, String>,
    /// As in the service's `params`.
    pub params: RuleParams,
}

impl SeriesParams {
    fn fits(&self, key: &GroupKey) -> bool {
        self.key.iter().all(|(name, wanted)| match key.get(name) {
            Some(Value::String(text)) => text == wanted,
            Some(other) => other.to_string().as_str() == wanted,
            None => false,
        })
    }
}

/// People who own a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// Name of the team, for people.
    #[serde(default)]
    pub name: Option<String>,
    /// Slack channel for alerts and digests: `#name` or a channel id. Of a list, alerts go to all, the digest to the first one.
    #[serde(default)]
    pub slack: Option<OneOrMore>,
    /// Addresses for the weekly report.
    #[serde(default)]
    pub email: Vec<String>,
    /// Send alerts of severity 5 by e-mail too.
    #[serde(default)]
    pub alert_email: bool,
    /// Alerts that go elsewhere. The first entry that fits decides; where none does, `slack`, `email` and `alert_email` hold.
    #[serde(default)]
    pub routes: Vec<RouteEntry>,
}

impl Owner {
    /// The team's name, else its first channel, else its first address.
    pub fn display_name(&self) -> &str {
        let first = self.channels().first().or(self.email.first());
        self.name.as_deref().or(first.map(String::as_str)).unwrap_or("nobody")
    }

    /// Channels for alerts that no route sends elsewhere; the first one is for digests, too.
    pub fn channels(&self) -> &[String] {
        self.slack.as_ref().map_or(&[], |slack| slack.0.as_slice())
    }
}

/// What a rule or a service sets a parameter to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ParamSetting {
    /// One value.
    One(ParamValue),
    /// One for each level of a rule that has two.
    Levels(ParamLevels),
}

/// A parameter of a rule that warns first. A service may set only one of the two.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParamLevels {
    /// From here on it warns.
    #[serde(default)]
    pub warn: Option<ParamValue>,
    /// From here on it is critical.
    #[serde(default)]
    pub critical: Option<ParamValue>,
}

impl ParamSetting {
    /// The value at a level; none if it is left to somebody else.
    pub fn at(&self, level: Option<AlertLevel>) -> Option<&ParamValue> {
        match (self, level) {
            (ParamSetting::One(value), _) => Some(value),
            (ParamSetting::Levels(levels), Some(AlertLevel::Critical)) => levels.critical.as_ref(),
            (ParamSetting::Levels(levels), Some(AlertLevel::Warn)) => levels.warn.as_ref(),
            (ParamSetting::Levels(_), None) => None,
        }
    }

    /// Sets the value at a level; the level must be one that it has.
    pub fn set(&mut self, level: Option<AlertLevel>, value: ParamValue) {
        match (self, level) {
            (ParamSetting::Levels(levels), Some(AlertLevel::Warn)) => levels.warn = Some(value),
            (ParamSetting::Levels(levels), Some(AlertLevel::Critical)) => levels.critical = Some(value),
            (setting, _) => *setting = ParamSetting::One(value),
        }
    }

    /// All values.
    pub fn values(&self) -> Vec<&ParamValue> {
        match self {
            ParamSetting::One(value) => vec![value],
            ParamSetting::Levels(levels) => levels.warn.iter().chain(&levels.critical).collect(),
        }
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

    /// The value of a parameter, given by its rule and its name, that applies to a series: set for the series, else for its service, else for the series
    /// of `"*"`, else for `"*"`.
    pub fn param_of(
        &self,
        service: Option<&str>,
        key: &GroupKey,
        level: Option<AlertLevel>,
        param: (&str, &str),
    ) -> Option<&ParamValue> {
        fn setting<'a>(
            params: &'a RuleParams,
            (rule, name): (&str, &str),
            level: Option<AlertLevel>,
        ) -> Option<&'a ParamValue> {
            params.get(rule)?.get(name)?.at(level)
        }
        let set_by = |entry: &str| {
            let entry = self.0.get(entry)?;
            let fitting = entry.series.iter().filter(|series| series.fits(key));
            let set = fitting.filter_map(|series| Some((series.key.len(), setting(&series.params, param, level)?)));
            // Of equals, `max_by_key` takes the last.
            let for_series = set.rev().max_by_key(|(keys, _)| *keys).map(|(_, value)| value);
            for_series.or_else(|| setting(&entry.params, param, level))
        };
        service.and_then(set_by).or_else(|| set_by(FALLBACK))
    }

    /// Whether an entry sets parameters of `rule`: for single series, and at all.
    pub fn sets_params(&self, entry: &str, rule: &str) -> (bool, bool) {
        let Some(entry) = self.0.get(entry) else { return (false, false) };
        let for_series = entry.series.iter().any(|series| series.params.contains_key(rule));
        (for_series, for_series || entry.params.contains_key(rule))
    }
}

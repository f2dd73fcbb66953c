//! How to reach Kafka: the `kafka` section of the configuration.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::topics::Topics;

/// Connection, names, and librdkafka's own properties.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    /// Bootstrap servers, `host:port` separated by commas.
    pub brokers: String,
    /// First part of the names of Bongsu's own topics.
    #[serde(default = "default_name")]
    pub topic_prefix: String,
    /// First part of the names of Bongsu's consumer groups.
    #[serde(default = "default_name")]
    pub group: String,
    /// Any librdkafka property, such as `security.protocol`. A value `$NAME` is read from the environment variable NAME.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

fn default_name() -> String {
    "bongsu".to_owned()
}

impl Kafka {
    /// The installation's topics.
    pub fn topics(&self) -> Topics {
        Topics::new(&self.topic_prefix)
    }

    /// The consumer group of one part of Bongsu.
    pub fn group_of(&self, part: &str) -> String {
        format!("{}-{part}", self.group)
    }

    /// What every client of librdkafka is given, before the part's own settings.
    ///
    /// `environment` looks a variable up; secrets come from there.
    pub fn client_properties(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<BTreeMap<String, String>, MissingVariable> {
        let mut properties = BTreeMap::from([("bootstrap.servers".to_owned(), self.brokers.clone())]);
        for (name, value) in &self.properties {
            let value = match value.strip_prefix('$') {
                None => value.clone(),
                Some(variable) => environment(variable)
                    .ok_or_else(|| MissingVariable { property: name.clone(), variable: variable.to_owned() })?,
            };
            properties.insert(name.clone(), value);
        }
        Ok(properties)
    }
}

/// A property names an environment variable that is not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingVariable {
    /// The librdkafka property.
    pub property: String,
    /// The variable.
    pub variable: String,
}

impl std::fmt::Display for MissingVariable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "kafka.properties.{} needs the environment variable `{}`, which is not set",
            self.property, self.variable
        )
    }
}

impl std::error::Error for MissingVariable {}

impl std::fmt::Debug for Kafka {
    // Properties can hold passwords: their names are enough for a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka")
            .field("brokers", &self.brokers)
            .field("topic_prefix", &self.topic_prefix)
            .field("group", &self.group)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

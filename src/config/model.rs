//! The configuration as a whole: what `bongsu.yaml` may say.

use bongsu_ingest::config::Source;
use bongsu_processor::config::{Rule, Time, View};
use bongsu_reporter::config::{Dashboard, Reports, Slack, Smtp, Webhook};
use bongsu_schemas::history::History;
use bongsu_schemas::kafka::Kafka;
use bongsu_schemas::services::Services;
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::Value;

/// Configuration of Bongsu. Relative paths in it are relative to the file's folder.
// Each section is deserialised by itself, so that a mistake in one hides none in another: only the schema is derived here.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used")]
pub(crate) struct Root {
    /// How to reach Kafka.
    pub(crate) kafka: Kafka,
    /// Whether the built-in views and rules are in force (`bongsu config --defaults` prints them). A view or rule of the same name replaces
    /// the built-in one.
    #[serde(default = "yes")]
    pub(crate) defaults: bool,
    /// Topics that are read.
    pub(crate) sources: Vec<Source>,
    /// Event time.
    #[serde(default)]
    pub(crate) time: Time,
    /// Who owns which service, and each service's own thresholds. `"*"` stands for every service without an owner of its own.
    #[serde(default)]
    pub(crate) services: Services,
    /// Own views, besides the built-in ones.
    #[serde(default)]
    pub(crate) views: Vec<View>,
    /// Own rules, besides the built-in ones.
    #[serde(default)]
    pub(crate) rules: Vec<Rule>,
    /// What is reported regularly.
    #[serde(default)]
    pub(crate) reports: Reports,
    /// Where alerts are posted; without it nobody is told by Slack.
    #[serde(default)]
    pub(crate) slack: Option<Slack>,
    /// Where mail is handed in; without it no e-mail is sent.
    #[serde(default)]
    pub(crate) smtp: Option<Smtp>,
    /// Who is told of incidents by HTTP: any service of one's own, or Alertmanager.
    #[serde(default)]
    pub(crate) webhooks: Vec<Webhook>,
    /// Where closed windows are kept.
    #[serde(default)]
    pub(crate) history: History,
    /// The page that shows what is going on.
    #[serde(default)]
    pub(crate) dashboard: Dashboard,
}

fn yes() -> bool {
    true
}

/// The JSON Schema of a configuration, for editors and for the check itself.
pub(crate) fn schema() -> Value {
    let generator: SchemaGenerator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = Value::from(generator.into_root_schema_for::<Root>());
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), "bongsu.yaml".into());
    }
    schema
}

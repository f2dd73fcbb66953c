//! JSON value -> the crates' own types, section by section, so that a mistake in one hides none in another.

use bongsu_ingest::config::Source;
use bongsu_processor::config::{Rule, Time, View};
use bongsu_reporter::config::{Dashboard, Reports, Slack, Smtp, Webhook};
use bongsu_schemas::history::History;
use bongsu_schemas::kafka::Kafka;
use bongsu_schemas::services::{Service, Services};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment as SerdeSegment;

use super::mistake::{Findings, KeyPath, shown};
use super::schema::{Unfit, remove};

/// All sections. What could not be read has been noted, and stands here as its default or not at all.
#[derive(Debug)]
pub(super) struct Sections {
    pub(super) kafka: Option<Kafka>,
    pub(super) defaults: bool,
    /// Each with its index in the file.
    pub(super) sources: Vec<(usize, Source)>,
    pub(super) time: Time,
    pub(super) services: Services,
    /// Each with its index in the file.
    pub(super) views: Vec<(usize, View)>,
    /// Each with its index in the file.
    pub(super) rules: Vec<(usize, Rule)>,
    pub(super) reports: Reports,
    pub(super) slack: Option<Slack>,
    pub(super) smtp: Option<Smtp>,
    /// Each with its index in the file.
    pub(super) webhooks: Vec<(usize, Webhook)>,
    pub(super) history: History,
    pub(super) dashboard: Dashboard,
    /// Whether every source of the file could be read.
    pub(super) all_sources_read: bool,
}

/// librdkafka's properties are text, but nobody quotes numbers: `socket.timeout.ms: 6000` is as good as `"6000"`.
pub(super) fn spell_properties_as_text(value: &mut Value) {
    let properties = value.pointer_mut("/kafka/properties").and_then(Value::as_object_mut);
    for (_, value) in properties.into_iter().flatten() {
        if value.is_number() || value.is_boolean() {
            *value = Value::String(value.to_string());
        }
    }
}

/// Reads all sections of `value`, which has been held against the schema with the result `unfit`.
pub(super) fn read(value: &Value, unfit: Unfit, findings: &mut Findings) -> Sections {
    let mut value = value.clone();
    for path in unfit.keys.iter().chain(&unfit.values) {
        remove(&mut value, path);
    }
    let mut reader = Reader { value: &value, unfit: &unfit, findings };
    let sources: Vec<(usize, Source)> = reader.list("sources");
    let all_sources_read = value["sources"].as_array().is_none_or(|items| items.len() == sources.len());
    Sections {
        kafka: reader.section("kafka"),
        defaults: value["defaults"].as_bool().unwrap_or(true),
        sources,
        time: reader.section("time").unwrap_or_default(),
        services: Services(reader.services()),
        views: reader.list("views"),
        rules: reader.list("rules"),
        reports: reader.section("reports").unwrap_or_default(),
        slack: reader.section("slack"),
        smtp: reader.section("smtp"),
        webhooks: reader.list("webhooks"),
        history: reader.section("history").unwrap_or_default(),
        dashboard: reader.section("dashboard").unwrap_or_default(),
        all_sources_read,
    }
}

struct Reader<'a> {
    value: &'a Value,
    unfit: &'a Unfit,
    findings: &'a mut Findings,
}

impl Reader<'_> {
    fn section<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        self.part(KeyPath::default().key(name), value)
    }

    fn list<T: DeserializeOwned>(&mut self, name: &str) -> Vec<(usize, T)> {
        let mut parts = Vec::new();
        let items = self.value.get(name).and_then(Value::as_array);
        for (index, item) in items.into_iter().flatten().enumerate() {
            let path = KeyPath::default().key(name).index(index);
            parts.extend(self.part(path, item).map(|part| (index, part)));
        }
        parts
    }

    fn services(&mut self) -> std::collections::BTreeMap<String, Service> {
        let entries = self.value.get("services").and_then(Value::as_object);
        let entries = entries.into_iter().flatten();
        let mut read = |(name, value): (&String, &Value)| {
            let path = KeyPath::default().key("services").key(name);
            Some((name.clone(), self.part(path, value)?))
        };
        entries.filter_map(&mut read).collect()
    }

    /// Deserialises one part. A part that the schema refused is not complained about twice.
    fn part<T: DeserializeOwned>(&mut self, path: KeyPath, value: &Value) -> Option<T> {
        let error = match serde_path_to_error::deserialize(value) {
            Ok(part) => return Some(part),
            Err(error) => error,
        };
        let known =
            self.unfit.values.iter().any(|unfit| unfit.segments().starts_with(path.segments()) || *unfit == path);
        if !known {
            let at = error.path().iter().fold(path, |path, segment| match segment {
                SerdeSegment::Seq { index } => path.index(*index),
                SerdeSegment::Map { key } => path.key(key),
                SerdeSegment::Enum { .. } | SerdeSegment::Unknown => path,
            });
            self.findings.add(&at, problem_of(&error.inner().to_string()));
        }
        None
    }
}

/// The message of a type's own parser; the standard library's says nothing about what would be right. What it quotes is bounded.
fn problem_of(text: &str) -> String {
    if text == "invalid socket address syntax" {
        return "is not an IP address and a port; write for example 127.0.0.1:7070".to_owned();
    }
    text.split('`').map(shown).collect::<Vec<_>>().join("`")
}

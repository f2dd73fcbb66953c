//! Bongsu's own topics in Kafka: which exist, and making those that are missing.

use std::time::Duration;

use anyhow::Context;
use bongsu_schemas::kafka::Kafka;
use bongsu_schemas::topics::TopicSpec;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaErrorCode;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Replicas of a topic where the cluster has so many brokers.
const REPLICAS: usize = 3;

/// A topic that Bongsu needs, and how it stands with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicStatus {
    pub(crate) spec: TopicSpec,
    pub(crate) replication: i32,
    pub(crate) state: TopicState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TopicState {
    /// It is there, with that many partitions.
    Exists { partitions: usize },
    /// It has just been made.
    Created,
    /// It is not there.
    Missing,
    /// It is there and cannot be used as it is.
    Unsuitable(String),
    /// It is not there, and we may not make it.
    Refused(String),
}

/// librdkafka's configuration for any client of ours.
pub(crate) fn client_config(kafka: &Kafka) -> anyhow::Result<ClientConfig> {
    let mut client = ClientConfig::new();
    client.extend(kafka.client_properties(|name| std::env::var(name).ok())?);
    Ok(client)
}

/// How it stands with every topic of the installation; with `create`, after those that were missing have been made.
pub(crate) async fn topics(kafka: &Kafka, create: bool) -> anyhow::Result<Vec<TopicStatus>> {
    let admin: AdminClient<DefaultClientContext> =
        client_config(kafka)?.create().context("while making a Kafka client")?;
    let admin = std::sync::Arc::new(admin);
    let asking = admin.clone();
    // Metadata is fetched on a thread where waiting is allowed.
    let metadata = tokio::task::spawn_blocking(move || asking.inner().fetch_metadata(None, TIMEOUT))
        .await
        .context("while asking Kafka for its topics")?
        .with_context(|| format!("while asking Kafka at {} for its topics", kafka.brokers))?;
    let replication = i32::try_from(metadata.brokers().len().clamp(1, REPLICAS)).unwrap_or(1);
    let specs = kafka.topics().specs();
    let counts = [kafka.topics().partials(), kafka.topics().panes()].map(|topic| partition_count(&metadata, &topic));
    let most = counts.into_iter().flatten().max();
    let mut topics: Vec<TopicStatus> = specs
        .into_iter()
        .map(|mut spec| {
            if let Some(most) = most.filter(|_| spec.name == kafka.topics().rule_states()) {
                // A partition of the partials, or of the panes, keeps the states of its rules in the partition of the same number.
                spec.partitions = i32::try_from(most).unwrap_or(i32::MAX);
            }
            let state = match partition_count(&metadata, &spec.name) {
                None => TopicState::Missing,
                Some(partitions) => judge(&spec, partitions, kafka),
            };
            TopicStatus { spec, replication, state }
        })
        .collect();
    if create {
        create_missing(&admin, &mut topics).await?;
    }
    Ok(topics)
}

fn partition_count(metadata: &Metadata, name: &str) -> Option<usize> {
    let topic = metadata.topics().iter().find(|topic| topic.name() == name)?;
    Some(topic.partitions().len()).filter(|partitions| *partitions > 0)
}

fn judge(spec: &TopicSpec, partitions: usize, kafka: &Kafka) -> TopicState {
    let needed = usize::try_from(spec.partitions).unwrap_or_default();
    if spec.name == kafka.topics().rule_states() && partitions < needed {
        return TopicState::Unsuitable(format!(
            "has {partitions} partitions, but {} or {} has {needed}: give it as many (kafka-topics.sh --alter --topic {} --partitions {needed})",
            kafka.topics().partials(),
            kafka.topics().panes(),
            spec.name,
        ));
    }
    TopicState::Exists { partitions }
}

async fn create_missing(admin: &AdminClient<DefaultClientContext>, topics: &mut [TopicStatus]) -> anyhow::Result<()> {
    let missing = || topics.iter().filter(|topic| topic.state == TopicState::Missing);
    let new: Vec<NewTopic<'_>> = missing()
        .map(|topic| {
            let new =
                NewTopic::new(&topic.spec.name, topic.spec.partitions, TopicReplication::Fixed(topic.replication));
            topic.spec.settings.iter().fold(new, |new, (name, value)| new.set(name, value))
        })
        .collect();
    if new.is_empty() {
        return Ok(());
    }
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
    let results = admin.create_topics(&new, &options).await.context("while creating topics")?;
    drop(new);
    for result in results {
        let (name, state) = match result {
            Ok(name) => (name, TopicState::Created),
            // Another process of ours was faster.
            Err((name, RDKafkaErrorCode::TopicAlreadyExists)) => (name, TopicState::Created),
            Err((name, code)) => (name, TopicState::Refused(code.to_string())),
        };
        if let Some(topic) = topics.iter_mut().find(|topic| topic.spec.name == name) {
            topic.state = state;
        }
    }
    Ok(())
}

impl TopicStatus {
    /// The command that makes the topic, for somebody who may.
    pub(crate) fn command(&self, brokers: &str) -> String {
        let TopicSpec { name, partitions, settings } = &self.spec;
        let settings: String = settings.iter().map(|(name, value)| format!(" --config {name}={value}")).collect();
        format!(
            "kafka-topics.sh --bootstrap-server {brokers} --create --if-not-exists --topic {name} --partitions {partitions} \
             --replication-factor {}{settings}",
            self.replication
        )
    }
}

/// What must be done before Bongsu can run, or nothing.
pub(crate) fn what_is_missing(topics: &[TopicStatus], brokers: &str) -> Option<String> {
    let lines: Vec<String> = topics
        .iter()
        .filter_map(|topic| match &topic.state {
            TopicState::Exists { .. } | TopicState::Created => None,
            TopicState::Missing => Some(topic.command(brokers)),
            TopicState::Refused(_) => Some(topic.command(brokers)),
            TopicState::Unsuitable(why) => Some(format!("# {} {why}", topic.spec.name)),
        })
        .collect();
    let reason = topics.iter().find_map(|topic| match &topic.state {
        TopicState::Refused(why) => Some(format!("Kafka refuses to create them ({why})")),
        _ => None,
    });
    let reason = reason.unwrap_or_else(|| "some are missing or unsuitable".to_owned());
    (!lines.is_empty())
        .then(|| format!("Bongsu's topics are not ready: {reason}. Somebody who may must run:\n{}", lines.join("\n")))
}

//! What stage 2 was when it last committed: the offset's metadata, and the states of the rules.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::offsets;
use super::partition::Partition;
use super::state::Progress;
use crate::kafka::consumer::GroupConsumer;
use crate::kafka::{REQUEST_TIMEOUT, client_config};
use crate::pipeline::Pipeline;
use crate::rules::engine::{RuleEngine, SeriesRecord};

/// Reading the states of one partition may take this long; longer than a dead worker's transaction can stay open.
const STATES_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at whether open transactions are settled.
const SETTLE_PAUSE: Duration = Duration::from_millis(20);

/// Restores one partition. The consumer itself begins at the committed offset, which is the low-water mark.
pub(crate) fn partition<'a>(
    pipeline: &'a Pipeline,
    consumer: &GroupConsumer,
    number: i32,
    shutdown: &CancellationToken,
) -> anyhow::Result<Partition<'a>> {
    let mut progress = committed(consumer, &pipeline.topics.partials(), number)?;
    progress.watermarks.retain_topics(|topic| pipeline.is_source(topic));
    let mut rules = RuleEngine::new(pipeline.rules.clone(), pipeline.config.services.clone().into());
    rules.stepped_to(&pipeline.views, progress.closed_ms);
    for state in rule_states(pipeline, number, shutdown)? {
        rules.restore(state);
    }
    Ok(Partition::new(pipeline, number, progress, rules))
}

fn committed(consumer: &GroupConsumer, topic: &str, number: i32) -> anyhow::Result<Progress> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, number);
    let committed =
        consumer.inner().committed_offsets(list, REQUEST_TIMEOUT).context("cannot read the committed offset")?;
    let element = committed.find_partition(topic, number).context("the broker left out the committed offset")?;
    match element.offset() {
        Offset::Offset(offset) => offsets::decode(offset, element.metadata()),
        _ => Ok(Progress::default()),
    }
}

/// The states of a partition's rules are in the partition of that number of another topic.
pub(crate) fn check_partition_counts(pipeline: &Pipeline, consumer: &GroupConsumer) -> anyhow::Result<()> {
    let (partials, states) = (pipeline.topics.partials(), pipeline.topics.rule_states());
    let (of_partials, of_states) = (consumer.own_partition_count(&partials)?, consumer.own_partition_count(&states)?);
    if of_states < of_partials {
        bail!("`{states}` has {of_states} partitions, fewer than the {of_partials} of `{partials}`: give it as many");
    }
    Ok(())
}

/// The last state of every series, from the compacted topic.
fn rule_states(pipeline: &Pipeline, number: i32, shutdown: &CancellationToken) -> anyhow::Result<Vec<SeriesRecord>> {
    let topic = pipeline.topics.rule_states();
    let deadline = Instant::now() + STATES_TIMEOUT;
    let patience = |consumer: &BaseConsumer| {
        if shutdown.is_cancelled() {
            bail!("asked to stop while the states of rules were read");
        }
        if Instant::now() > deadline {
            bail!("the states of rules in {topic}-{number} could not be read within {STATES_TIMEOUT:?}");
        }
        consumer.fetch_watermarks(&topic, number, REQUEST_TIMEOUT).with_context(|| format!("cannot read `{topic}`"))
    };
    let consumer = reader(pipeline, "read_committed")?;
    // The end that includes open transactions: a commit whose offsets are visible may still be on its way in this topic. Only when all
    // before it is settled does the first end of the partition that the reader meets lie at or behind it.
    let (_, end) = patience(&reader(pipeline, "read_uncommitted")?)?;
    while patience(&consumer)?.1 < end {
        std::thread::sleep(SETTLE_PAUSE);
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, number, Offset::Beginning)?;
    consumer.assign(&list)?;

    let mut states = BTreeMap::new();
    loop {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                let key = record.key().unwrap_or_default().to_vec();
                match record.payload() {
                    Some(value) => {
                        let state: SeriesRecord = serde_json::from_slice(value).with_context(|| {
                            format!("offset {} of {topic}-{number} is no rule state", record.offset())
                        })?;
                        states.insert(key, state);
                    }
                    None => {
                        states.remove(&key);
                    }
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(states.into_values().collect()),
            Some(Err(error)) => return Err(error).with_context(|| format!("cannot read `{topic}`")),
            None => {
                patience(&consumer)?;
            }
        }
    }
}

fn reader(pipeline: &Pipeline, isolation: &str) -> anyhow::Result<BaseConsumer> {
    let mut config = client_config(&pipeline.config.kafka)?;
    // Never joined: the partition is assigned by hand, nothing is committed.
    config.set("group.id", pipeline.config.kafka.group_of("rule-states")).set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true").set("isolation.level", isolation).set("fetch.wait.max.ms", "50");
    config.create().context("cannot create a consumer")
}

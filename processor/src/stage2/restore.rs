//! What stage 2 was when it last committed: the offset's metadata, and the states of the rules.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use rdkafka::Offset;
use tokio_util::sync::CancellationToken;

use super::level::Level;
use super::offsets;
use super::partition::Partition;
use super::state::Progress;
use crate::events::{Emit, PartialsExpired};
use crate::kafka::compacted;
use crate::kafka::consumer::GroupConsumer;
use crate::pipeline::Pipeline;
use crate::rules::engine::{RuleEngine, SeriesRecord};

/// Restores partitions of both topics. The consumer itself begins at the committed offset, which is the low-water mark.
pub(crate) fn partitions<'a>(
    pipeline: &'a Pipeline,
    consumer: &GroupConsumer,
    assigned: &[(Level, i32)],
    shutdown: &CancellationToken,
) -> anyhow::Result<Vec<Partition<'a>>> {
    let panes = check_partition_counts(pipeline, consumer)?;
    let numbers: BTreeSet<i32> = assigned.iter().map(|(_, number)| *number).collect();
    let states = compacted::read(&pipeline.config.kafka, &pipeline.names.rule_states, &numbers, shutdown)?;
    let mut restored = Vec::new();
    for ((level, number), mut progress) in committed(pipeline, consumer, assigned)? {
        progress.watermarks.retain_topics(|topic| level.waits_for(pipeline, topic));
        let mut rules = RuleEngine::new(pipeline.rules.clone(), pipeline.services.clone());
        rules = rules.with_absences(pipeline.absences.clone());
        rules.stepped_to(&pipeline.views, progress.closed_ms);
        for value in states.get(&number).into_iter().flat_map(|states| states.values()) {
            let state: SeriesRecord = serde_json::from_slice(value)
                .with_context(|| format!("a state in {}-{number} cannot be read", pipeline.names.rule_states))?;
            if is_judged_at(pipeline, level, &state) {
                rules.restore(state);
            }
        }
        restored.push(Partition::new(pipeline, level, panes, number, progress, rules));
    }
    Ok(restored)
}

/// Both levels keep the states of their series in one topic. The partials' level sees to those of rules that are gone.
fn is_judged_at(pipeline: &Pipeline, level: Level, state: &SeriesRecord) -> bool {
    match pipeline.rules.iter().find(|compiled| compiled.rule.name == state.rule) {
        // Presence views have short windows.
        _ if state.presence.is_some() => level == Level::Partials,
        Some(compiled) => level.judges(&pipeline.views[compiled.view], &state.key),
        None => level == Level::Partials,
    }
}

fn committed(
    pipeline: &Pipeline,
    consumer: &GroupConsumer,
    assigned: &[(Level, i32)],
) -> anyhow::Result<Vec<((Level, i32), Progress)>> {
    let names: Vec<_> = assigned.iter().map(|(level, number)| (level.topic(pipeline).to_owned(), *number)).collect();
    let committed = consumer.committed(&names)?;
    let progress = |(level, number): &(Level, i32)| {
        let element = committed.find_partition(level.topic(pipeline), *number);
        let element = element.context("the broker left out a committed offset")?;
        let progress = match element.offset() {
            Offset::Offset(offset) => offsets::decode(offset, element.metadata())?,
            _ => Progress::default(),
        };
        if progress.processed_to > 0 {
            let topic = level.topic(pipeline);
            let ends = consumer.ends(&(topic.to_owned(), *number));
            let (first_offset, _) = ends.context("cannot ask for the first offset")?;
            let expired = first_offset - progress.low_water_offset;
            if expired > 0 {
                PartialsExpired { topic, partition: *number, records: expired }.emit();
            }
        }
        Ok(((*level, *number), progress))
    };
    assigned.iter().map(progress).collect()
}

/// The states of a partition's rules are in the partition of that number of another topic. Gives how many partitions the panes have.
fn check_partition_counts(pipeline: &Pipeline, consumer: &GroupConsumer) -> anyhow::Result<i32> {
    let names = &pipeline.names;
    let partials = consumer.own_partition_count(&names.partials)?;
    let panes = consumer.own_partition_count(&names.panes)?;
    let states = consumer.own_partition_count(&names.rule_states)?;
    for (name, count) in [(&names.partials, partials), (&names.panes, panes)] {
        if states < count {
            bail!(
                "`{}` has {states} partitions, fewer than the {count} of `{name}`: give it as many",
                names.rule_states
            );
        }
    }
    Ok(panes)
}

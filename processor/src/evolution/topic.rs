//! The topic of eras. One process at a time writes to it: its transactional id is the same in all of them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio_util::sync::CancellationToken;

use super::{Era, extended, placed};
use crate::config::Config;
use crate::events::{Emit, ViewsAgreed};
use crate::kafka::consumer::partition_count;
use crate::kafka::transaction::{Outgoing, Transactions};
use crate::kafka::{REQUEST_TIMEOUT, client_config, compacted};
use crate::pipeline::Names;
use crate::plan::{Tables, ViewPlan};

/// The only one of the topic that is used.
const PARTITION: i32 = 0;

/// Agrees with all other processes, past and present, on the version of each view and the windows that it computes.
///
/// Gives the plans of the configuration, placed, in their order, and behind them those of earlier versions.
pub(crate) fn agree(
    config: &Config,
    names: &Names,
    plans: &[ViewPlan],
    tables: &Tables,
    shutdown: &CancellationToken,
) -> anyhow::Result<Vec<ViewPlan>> {
    // Whoever else is at it is fenced, and starts again.
    let transactions = Transactions::open(&config.kafka, "views", "all")?;
    let consumer: BaseConsumer = client_config(&config.kafka)?
        // Only asked for topics and offsets, never joined.
        .set("group.id", config.kafka.group_of("stage1"))
        .set("isolation.level", "read_committed")
        .create()
        .context("cannot create a consumer")?;
    let counts = (own_partition_count(&consumer, &names.partials)?, own_partition_count(&consumer, &names.panes)?);
    let known = read(config, names, shutdown)?;
    let latest_ms = latest_event_ms(config, &consumer)?;
    let (mut current, mut earlier, mut records) = (Vec::new(), Vec::new(), Vec::new());
    for (view, plan) in config.views.iter().zip(plans) {
        let eras_before = known.get(&view.name).map(Vec::as_slice).unwrap_or_default();
        let eras = extended(eras_before, view, config.zone, plan, counts, latest_ms);
        if eras != eras_before {
            let record = Outgoing::keyed(&names.views, view.name.clone(), serde_json::to_vec(&eras)?);
            records.push(Outgoing { partition: Some(PARTITION), ..record });
        }
        let (plan, earlier_plans) = placed(&eras, &view.name, plan, tables);
        current.push(plan);
        earlier.extend(earlier_plans);
    }
    if !records.is_empty() {
        transactions.commit_alone(&records)?;
    }
    ViewsAgreed { changed: records.len(), earlier: earlier.len() }.emit();
    current.append(&mut earlier);
    Ok(current)
}

fn read(config: &Config, names: &Names, shutdown: &CancellationToken) -> anyhow::Result<BTreeMap<String, Vec<Era>>> {
    let values = compacted::read(&config.kafka, &names.views, &BTreeSet::from([PARTITION]), shutdown)?;
    let parse = |(key, value): (Vec<u8>, Vec<u8>)| {
        let name = String::from_utf8_lossy(&key).into_owned();
        let eras = serde_json::from_slice(&value)
            .with_context(|| format!("the versions of the view `{name}` in `{}` cannot be read", names.views))?;
        Ok((name, eras))
    };
    values.into_values().flatten().map(parse).collect()
}

/// The latest event of what stage 1 has committed; none if it has committed nothing yet.
fn latest_event_ms(config: &Config, consumer: &BaseConsumer) -> anyhow::Result<Option<i64>> {
    let mut list = TopicPartitionList::new();
    for source in &config.sources {
        let count = partition_count(consumer, &source.topic, REQUEST_TIMEOUT);
        let count = count.with_context(|| format!("cannot ask for `{}`", source.topic))?;
        for partition in 0..count.unwrap_or(0) {
            list.add_partition(&source.topic, partition);
        }
    }
    if list.count() == 0 {
        return Ok(None);
    }
    let committed = consumer.committed_offsets(list, REQUEST_TIMEOUT).context("cannot read the committed offsets")?;
    Ok(committed.elements().iter().filter_map(|element| element.metadata().parse().ok()).max())
}

fn own_partition_count(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<i32> {
    let count =
        partition_count(consumer, topic, REQUEST_TIMEOUT).with_context(|| format!("cannot ask for `{topic}`"))?;
    count.with_context(|| format!("there is no topic `{topic}`"))
}

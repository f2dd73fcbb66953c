//! The stand-in for Slack, within the benchmark: no network in between, and one clock.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use bongsu_stand_ins::{SlackOptions, SlackStandIn};
use tokio::runtime::{Builder, Runtime};

/// A running stand-in with Slack's own limit of one message a second and channel.
pub(crate) struct Slack {
    stand_in: SlackStandIn,
    /// Dropped last: the stand-in ends on it.
    _runtime: Runtime,
}

impl Slack {
    /// Refuses what goes to other channels than these.
    pub(crate) fn start(channels: BTreeSet<String>) -> anyhow::Result<Slack> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("bench-slack").enable_all().build()?;
        let options = SlackOptions { channels: Some(channels), one_per_second: true, ..SlackOptions::default() };
        let stand_in = runtime.block_on(SlackStandIn::start(options))?;
        Ok(Slack { stand_in, _runtime: runtime })
    }

    /// What the configuration's `slack.api_url` has to be.
    pub(crate) fn api_url(&self) -> String {
        self.stand_in.api_url()
    }

    /// When each message came, by channel: microseconds since the epoch, in ascending order.
    pub(crate) fn arrivals_us(&self) -> anyhow::Result<BTreeMap<String, Vec<i64>>> {
        let mut arrivals: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for message in self.stand_in.all_messages() {
            let at_us = micros(&message.ts).with_context(|| format!("no message has the ts `{}`", message.ts))?;
            arrivals.entry(message.channel).or_default().push(at_us);
        }
        Ok(arrivals)
    }
}

/// A message's `ts`: seconds since the epoch and, behind the point, six digits.
fn micros(ts: &str) -> Option<i64> {
    let (secs, micros) = ts.split_once('.')?;
    Some(secs.parse::<i64>().ok()? * 1_000_000 + micros.parse::<i64>().ok()?)
}

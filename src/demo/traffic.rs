//! The shop in real time: sells, and sends what happened, until shutdown.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bongsu_ingest::producer::{EventProducer, Options, SendError};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::outage;
use super::shop::{Happening, Shop};

/// The shop's topics; the number of partitions of each.
pub(super) const TOPICS: [&str; 4] = ["shop.requests", "shop.events", "shop.exceptions", "shop.metrics"];
pub(super) const PARTITIONS: i32 = 2;

const TICK: Duration = Duration::from_millis(100);

/// Sells from now on; the outages are counted from `started`.
pub(super) async fn run(
    brokers: String,
    mut shop: Shop,
    started: Instant,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let producer = EventProducer::new(&Options::new(brokers))?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sold_to_ms = now_ms();
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        let now_ms = now_ms().max(sold_to_ms);
        for happening in shop.sell(sold_to_ms, now_ms, outage::is_on(started.elapsed())) {
            match send(&producer, &happening) {
                // The queue holds minutes of the shop's traffic; what it cannot take is counted by the producer.
                Ok(()) | Err(SendError::Full) => {}
                Err(error) => return Err(error).context("sending the shop's events"),
            }
        }
        sold_to_ms = now_ms;
    }
    // Nothing waits for the last events: the embedded broker ends with them.
    drop(producer);
    Ok(())
}

fn send(producer: &EventProducer, happening: &Happening) -> Result<(), SendError> {
    match happening {
        Happening::Request(request) => producer.try_send("shop.requests", request),
        Happening::Event(event) => producer.try_send("shop.events", event),
        Happening::Exception(exception) => producer.try_send("shop.exceptions", exception),
        Happening::Metric(metric) => producer.try_send("shop.metrics", metric),
    }
}

fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

//! Writing events as services do: in batches, compressed with lz4.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// A queue that stays full for so long, or a flush that takes so long, is an error.
const PATIENCE: Duration = Duration::from_secs(60);

/// For a backlog, written at full speed.
pub(crate) fn backlog_config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "50")
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "65536");
    config
}

/// For a live stream: an event waits for others no longer than 5 ms.
pub(crate) fn live_config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "5");
    config
}

/// Waits while the queue is full.
pub(crate) fn send(
    producer: &BaseProducer,
    topic: &str,
    partition: i32,
    time_ms: i64,
    value: &[u8],
) -> anyhow::Result<()> {
    let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition).timestamp(time_ms).payload(value);
    let mut full_since = None;
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                let since: &mut Instant = full_since.get_or_insert_with(Instant::now);
                ensure!(since.elapsed() < PATIENCE, "the broker has taken no events for {PATIENCE:?}");
                producer.poll(Duration::from_millis(10));
                record = returned;
            }
            Err((error, _)) => return Err(error).context("writing the events"),
        }
    }
}

/// Returns when the broker has all that was sent.
pub(crate) fn flush(producer: &BaseProducer) -> anyhow::Result<()> {
    producer.flush(PATIENCE).context("writing the events")
}

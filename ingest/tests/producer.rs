//! The producer library against a real broker.

#![allow(clippy::unwrap_used)] // a test may stop

use std::{collections::BTreeMap, time::Duration};

use bongsu_ingest::producer::{Compression, Counts, EventProducer, Options, SendError};
use bongsu_schemas::native::{Event, Outcome, Time};
use bongsu_testkit::{Broker, read_committed};

fn payment(number: i64, reason: Option<String>) -> Event {
    Event {
        ts: Time::EpochMillis(1_795_420_557_000 + number),
        service: "payment-api".into(),
        event: "payment".into(),
        outcome: Some(Outcome::Failure),
        amount: Some(12.5),
        reason,
        attributes: BTreeMap::from([("issuer".into(), "hana".into())]),
    }
}

/// Guarantees: what `send` took and `shutdown` confirmed stands in Kafka once, keyed by service, with either compression.
#[test]
fn everything_confirmed_is_in_kafka_once() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    for (topic, compression) in [("lz4", Compression::Lz4), ("zstd", Compression::Zstd)] {
        broker.create_topic(topic, 3)?;
        let producer = EventProducer::new(&Options { compression, ..Options::new(broker.bootstrap()) })?;
        for number in 0..1000 {
            producer.send(topic, &payment(number, None), Duration::from_secs(10))?;
        }
        let counts = producer.shutdown(Duration::from_secs(30))?;
        assert_eq!(counts, Counts { queued: 1000, delivered: 1000, failed: 0, dropped: 0 });
        let messages = read_committed(broker.bootstrap(), topic)?;
        let values: Vec<_> = messages.iter().filter_map(|message| message.value.clone()).collect();
        let expected: Vec<_> = (0..1000).map(|number| serde_json::to_vec(&payment(number, None)).unwrap()).collect();
        assert_eq!(values, expected, "one key, so one partition, in order");
        assert!(messages.iter().all(|message| message.key.as_deref() == Some(b"payment-api")));
    }
    Ok(())
}

/// Guarantees: without Kafka the queue is bounded in messages and in bytes, nobody waits for longer than asked, and what was
/// dropped is counted.
#[test]
fn a_full_queue_drops_and_counts() -> anyhow::Result<()> {
    // Nothing listens on the discard port.
    let options = Options { max_queued_messages: 5, ..Options::new("127.0.0.1:9") };
    let producer = EventProducer::new(&options)?;
    for number in 0..5 {
        producer.try_send("t", &payment(number, None))?;
    }
    assert!(matches!(producer.try_send("t", &payment(5, None)), Err(SendError::Full)));
    assert!(matches!(producer.send("t", &payment(6, None), Duration::from_millis(120)), Err(SendError::Full)));
    assert_eq!(producer.counts(), Counts { queued: 5, delivered: 0, failed: 0, dropped: 2 });
    assert_eq!(producer.flush(Duration::from_millis(10)).unwrap_err().waiting, 5);

    let producer = EventProducer::new(&Options { max_queued_bytes: 64 * 1024, ..Options::new("127.0.0.1:9") })?;
    let large = payment(0, Some("x".repeat(10 * 1024)));
    let taken = (0..100).take_while(|_| producer.try_send("t", &large).is_ok()).count();
    assert!((5..=7).contains(&taken), "64 KiB hold six events of 10 KiB, took {taken}");

    let not_finite = Event { amount: Some(f64::NAN), ..payment(0, None) };
    let written = serde_json::to_value(&not_finite)?;
    assert!(written["amount"].is_null(), "a number that is not finite is null in JSON");
    Ok(())
}

//! The broker that all tests of delivery rest on does what they need.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, stop at the first surprise")]

use std::time::Duration;

use bongsu_testkit::{Broker, Record, consume_committed, end_offsets, produce, read_committed};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};

const TIMEOUT: Duration = Duration::from_secs(30);

fn values(messages: &[bongsu_testkit::Message]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8(message.value.clone().unwrap()).unwrap()).collect()
}

/// Scenario: plain records, an aborted and a committed transaction, then the broker is killed and restarted.
/// Guarantees: committed records only are read, in order, with key and timestamp, and they survive SIGKILL.
#[test]
fn transactions_and_restart() {
    let mut broker = Broker::start().unwrap();
    broker.create_topic("orders", 1).unwrap();
    broker.create_topic_with("compacted", 2, &[("cleanup.policy", "compact")]).unwrap();

    let plain = ["one", "two"].map(|value| Record::from(("key", value, 1_000)));
    assert_eq!(produce(broker.bootstrap(), "orders", None, plain).unwrap(), 2);
    transaction(broker.bootstrap(), "aborted", |producer| producer.abort_transaction(TIMEOUT).unwrap());
    transaction(broker.bootstrap(), "committed", |producer| producer.commit_transaction(TIMEOUT).unwrap());

    let read = read_committed(broker.bootstrap(), "orders").unwrap();
    assert_eq!(values(&read), ["one", "two", "committed"]);
    assert_eq!((read[0].key.as_deref(), read[0].timestamp_ms), (Some(&b"key"[..]), Some(1_000)));

    let bootstrap = broker.bootstrap().to_owned();
    broker.kill();
    broker.restart().unwrap();
    assert_eq!(broker.bootstrap(), bootstrap);
    assert_eq!(values(&read_committed(&bootstrap, "orders").unwrap()), ["one", "two", "committed"]);
    produce(&bootstrap, "orders", Some(0), ["after"]).unwrap();
    let read = consume_committed(&bootstrap, "orders", |messages| messages.len() == 4, TIMEOUT).unwrap();
    assert_eq!(values(&read)[3], "after");
    // Two plain records, two transactions of a record and a control record each, and one more record.
    assert_eq!(end_offsets(&bootstrap, "orders").unwrap()[&0], 7);
}

/// Scenario: a record is awaited that never comes, in a topic that exists and in one that does not.
/// Guarantees: an error that says what was read, never a hanging test.
#[test]
fn waiting_ends() {
    let broker = Broker::start().unwrap();
    broker.create_topic("empty", 3).unwrap();
    assert!(read_committed(broker.bootstrap(), "empty").unwrap().is_empty());
    let error =
        consume_committed(broker.bootstrap(), "empty", |messages| !messages.is_empty(), Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("read 0 records"), "{error}");
    assert!(read_committed(broker.bootstrap(), "absent").unwrap_err().to_string().contains("no topic `absent`"));
}

fn transaction(bootstrap: &str, value: &str, end: impl FnOnce(&BaseProducer)) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("transactional.id", "testkit").create().unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::<str, str>::to("orders").payload(value)).map_err(|(error, _)| error).unwrap();
    producer.flush(TIMEOUT).unwrap();
    end(&producer);
}

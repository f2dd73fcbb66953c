//! `bongsu topics` and `bongsu replay` against a real Kafka.

use std::path::Path;
use std::process::{Command, Output};

use bongsu_testkit::Broker;
use bongsu_testkit::records::read_committed;

fn bongsu(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bongsu")).current_dir(folder).args(arguments).output().unwrap()
}

/// The topics' states, as `bongsu topics` prints them.
fn states(output: &Output) -> Vec<String> {
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let topics = listed["topics"].as_array().unwrap().iter();
    topics.map(|topic| topic["state"].as_str().unwrap().to_owned()).collect()
}

/// Scenario: an empty Kafka; topics are listed, created, created again; then a file of lines is replayed.
/// Guarantees: listing changes nothing and says what to run; creating is repeatable; every line is one record, empty lines none.
#[test]
fn topics_are_created_once_and_files_replayed() {
    let broker = Broker::start().unwrap();
    broker.create_topic("shop.requests", 2).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "kafka: {{ brokers: '{}' }}\nsources: [ {{ topic: shop.requests, format: json, table: requests }} ]\n",
        broker.bootstrap()
    );
    std::fs::write(folder.path().join("bongsu.yaml"), config).unwrap();

    let listed = bongsu(folder.path(), &["topics", "--format", "json"]);
    assert_eq!(listed.status.code(), Some(0));
    assert!(states(&listed).iter().all(|state| state == "missing"));
    assert!(
        String::from_utf8_lossy(&listed.stderr)
            .contains("--create --if-not-exists --topic bongsu.partials --partitions 4")
    );
    for expected in ["created", "exists"] {
        let created = bongsu(folder.path(), &["topics", "--create", "--format", "json"]);
        assert_eq!(created.status.code(), Some(0), "{}", String::from_utf8_lossy(&created.stderr));
        assert!(states(&created).iter().all(|state| state == expected), "{expected}: {:?}", states(&created));
    }

    std::fs::write(folder.path().join("events.ndjson"), "{\"a\":1}\n\n{\"a\":2}\r\n{\"a\":3}").unwrap();
    let replayed =
        bongsu(folder.path(), &["replay", "--in", "events.ndjson", "--topic", "shop.requests", "--format", "json"]);
    let counted: serde_json::Value = serde_json::from_slice(&replayed.stdout).unwrap();
    assert_eq!(counted["records"], 3);
    let mut values: Vec<_> = read_committed(broker.bootstrap(), "shop.requests")
        .unwrap()
        .into_iter()
        .filter_map(|message| message.value)
        .collect();
    values.sort();
    assert_eq!(values, [b"{\"a\":1}".to_vec(), b"{\"a\":2}".to_vec(), b"{\"a\":3}".to_vec()]);

    let unknown = bongsu(folder.path(), &["replay", "--in", "absent.ndjson", "--topic", "shop.requests"]);
    assert_eq!(unknown.status.code(), Some(1));
}

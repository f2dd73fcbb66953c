//! Records that nobody should send.

use std::collections::BTreeMap;
use std::time::Duration;

use bongsu_testkit::Broker;
use chrono::Utc;

use crate::support::{Bongsu, committed, eventually, free_port};

const CONFIG: &str = r##"
kafka: { brokers: "{brokers}" }
defaults: false
sources: [ { topic: shop.requests, format: json, table: requests } ]
time: { max_disorder: 100ms, idle_timeout: 1s, allowed_lateness: 100ms }
services: { "*": { owner: { slack: "#platform" } } }
views:
  - name: requests_1s
    sql: |
      SELECT service, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors
      FROM requests GROUP BY tumble(interval '1 second'), service
dashboard: { listen: "127.0.0.1:{port}" }
"##;

/// Scenario: garbage, wrong types, a record of 2 MB, the year 2099 and a null value come between good events.
/// Guarantees: each bad record is a dead letter with its origin and reason, the good ones are counted, and the pipeline lives.
#[test]
fn bad_records_are_dead_letters_and_good_ones_are_counted() {
    let broker = Broker::start().unwrap();
    broker.create_topic_with("shop.requests", 1, &[("max.message.bytes", "3145728")]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("bongsu.yaml");
    std::fs::write(
        &config,
        CONFIG.replace("{brokers}", broker.bootstrap()).replace("{port}", &free_port().to_string()),
    )
    .unwrap();

    let now_ms = Utc::now().timestamp_millis() - 60_000;
    let good =
        |name: &str| format!(r#"{{"ts":{now_ms},"service":"{name}","route":"/","status":200,"duration_ms":1.5}}"#);
    let huge = format!(
        r#"{{"ts":{now_ms},"service":"huge","route":"/","status":200,"duration_ms":1,"note":"{}"}}"#,
        "x".repeat(2_000_000)
    );
    let records: Vec<(&str, Vec<u8>)> = vec![
        ("", good("shop").into_bytes()),
        ("malformed", vec![0xff, 0x00, 0x9f, 0x92, 0x96]),
        ("wrong_type", good("shop").replace("200", "\"many\"").into_bytes()),
        ("missing_field", br#"{"ts":1,"service":"shop"}"#.to_vec()),
        ("bad_time", good("shop").replace(&now_ms.to_string(), "\"yesterday\"").into_bytes()),
        ("future", good("shop").replace(&now_ms.to_string(), "\"2099-01-01T00:00:00Z\"").into_bytes()),
        ("", huge.into_bytes()),
        ("malformed", "x".repeat(2_000_000).into_bytes()),
        ("", format!("[{},{}]", good("shop"), good("array")).into_bytes()),
    ];
    let values = records.iter().map(|(_, value)| (b"key".to_vec(), value.clone()));
    bongsu_testkit::produce(broker.bootstrap(), "shop.requests", Some(0), values).unwrap();
    let null = bongsu_testkit::Record { key: Some(b"key".to_vec()), value: None, timestamp_ms: None };
    bongsu_testkit::produce(broker.bootstrap(), "shop.requests", Some(0), [null]).unwrap();

    let mut bongsu = Bongsu::run("processor", &config);
    let counts = eventually("the good events' windows", Duration::from_secs(60), || {
        let mut counts = BTreeMap::new();
        for message in committed(broker.bootstrap(), "bongsu.windows") {
            let record = message.json().unwrap();
            *counts.entry(record["key"]["service"].as_str().unwrap().to_owned()).or_insert(0) +=
                record["values"]["requests"].as_i64().unwrap();
        }
        (counts.len() >= 3).then_some(counts)
    });
    assert_eq!(counts, BTreeMap::from([("shop".to_owned(), 2), ("huge".to_owned(), 1), ("array".to_owned(), 1)]));

    let letters = committed(broker.bootstrap(), "bongsu.dead-letter");
    let found: Vec<_> = letters
        .iter()
        .map(|letter| {
            (letter.header("bongsu.offset").unwrap().parse::<usize>().unwrap(), letter.header("bongsu.reason").unwrap())
        })
        .collect();
    let mut expected: Vec<_> = records
        .iter()
        .enumerate()
        .filter(|(_, (reason, _))| !reason.is_empty())
        .collect::<Vec<_>>()
        .into_iter()
        .map(|(offset, (reason, _))| (offset, (*reason).to_owned()))
        .collect();
    expected.push((records.len(), "null".to_owned()));
    assert_eq!(found, expected);
    for letter in &letters {
        assert_eq!(letter.header("bongsu.topic").unwrap(), "shop.requests");
        assert_eq!(letter.header("bongsu.partition").unwrap(), "0");
        assert_eq!(letter.key.as_deref(), Some(b"key".as_slice()));
        assert!(!letter.header("bongsu.detail").unwrap().is_empty());
    }
    let cut = letters.iter().find(|letter| letter.header("bongsu.truncated").is_some()).unwrap();
    assert_eq!(cut.value.as_ref().map(Vec::len), Some(64 * 1024));

    // Somebody writes to our own topics.
    for topic in ["bongsu.partials", "bongsu.panes", "bongsu.windows"] {
        bongsu_testkit::produce(broker.bootstrap(), topic, Some(0), ["nonsense"]).unwrap();
    }
    eventually("dead letters of our own topics", Duration::from_secs(60), || {
        let letters = committed(broker.bootstrap(), "bongsu.dead-letter");
        let topics: Vec<_> = letters.iter().filter_map(|letter| letter.header("bongsu.topic")).collect();
        ["bongsu.partials", "bongsu.panes"].iter().all(|topic| topics.iter().any(|found| found == topic)).then_some(())
    });

    // And it goes on.
    let later_ms = Utc::now().timestamp_millis();
    let later = good("afterwards").replace(&now_ms.to_string(), &later_ms.to_string());
    bongsu_testkit::produce(broker.bootstrap(), "shop.requests", Some(0), [later.as_str()]).unwrap();
    eventually("the window of an event after all that", Duration::from_secs(60), || {
        let windows = committed(broker.bootstrap(), "bongsu.windows");
        let is_it = |window: &bongsu_testkit::Message| {
            window.json().is_ok_and(|window| window["key"]["service"] == "afterwards")
        };
        windows.iter().any(is_it).then_some(())
    });
    assert!(bongsu.is_alive());
}

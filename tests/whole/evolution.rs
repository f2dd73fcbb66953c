//! Views and topics change, and no window notices.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bongsu_testkit::Broker;
use serde_json::Value;

use crate::support::{Bongsu, Request, START_MS, committed, eventually, free_port, get, produce, requests};

const PATIENCE: Duration = Duration::from_secs(120);
const MINUTE_MS: i64 = 60_000;

fn config(broker: &Broker, folder: &tempfile::TempDir, column: &str, port: u16) -> PathBuf {
    let path = folder.path().join("bongsu.yaml");
    let text = format!(
        r##"
kafka: {{ brokers: "{}" }}
defaults: false
sources: [ {{ topic: shop.requests, format: json, table: requests }} ]
time: {{ max_disorder: 5s, idle_timeout: 10m, allowed_lateness: 1s }}
services: {{ "*": {{ owner: {{ slack: "#platform" }} }} }}
dashboard: {{ listen: "127.0.0.1:{}" }}
views:
  - {{ name: per_minute, sql: "SELECT service, {column} FROM requests GROUP BY tumble(interval '1 minute'), service" }}
  - {{ name: hopping, sql: "SELECT service, {column} FROM requests GROUP BY hop(interval '1 minute', interval '5 minutes'), service" }}
  - {{ name: unchanged, sql: "SELECT service, count(*) AS requests FROM requests GROUP BY tumble(interval '15 minutes'), service" }}
  - {{ name: limited, max_groups: 32, sql: "SELECT service, route, count(*) AS requests FROM requests GROUP BY tumble(interval '10 minutes'), service, route" }}
"##,
        broker.bootstrap(),
        port,
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn requests_of(windows: &[Value]) -> i64 {
    windows.iter().map(|window| window["values"]["requests"].as_i64().unwrap()).sum()
}

/// Scenario: in the middle of the stream the process is stopped, two views get another column in place of theirs, `bongsu.partials` and
/// `bongsu.rule-states` get twice the partitions, and the process is started again.
/// Guarantees: E1, P2 and G1. Every window is there once and counts all its events; the new version begins with a window of its own.
#[test]
fn a_changed_view_begins_with_a_window_of_its_own() {
    let broker = Broker::start().unwrap();
    broker.create_topic("shop.requests", 4).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stream = requests(31, 60_000);
    let open: Vec<Request> = stream.iter().filter(|request| request.service != "closing").cloned().collect();
    let (before, after) = open.split_at(open.len() / 2);

    produce(broker.bootstrap(), "shop.requests", before);
    let port = free_port();
    let old = Bongsu::run("processor", &config(&broker, &folder, "count(*) AS requests", port));
    eventually("windows of the old version", PATIENCE, || {
        (!committed(broker.bootstrap(), "bongsu.windows").is_empty()).then_some(())
    });
    let all_read = format!("bongsu_records_in_total {}", before.len());
    eventually("the first half to be read", PATIENCE, || get(port, "/metrics").contains(&all_read).then_some(()));
    assert_eq!(old.signal("TERM").0, Some(0));
    for topic in ["bongsu.rule-states", "bongsu.partials"] {
        broker.add_partitions(topic, 8).unwrap();
    }
    produce(broker.bootstrap(), "shop.requests", after);
    produce(broker.bootstrap(), "shop.requests", &stream[open.len()..]);
    let _new = Bongsu::run("processor", &config(&broker, &folder, "count(status) AS total", free_port()));

    let mut expected: BTreeMap<(&str, &str, i64), i64> = BTreeMap::new();
    for Request { service, time_ms, .. } in &open {
        let minute_ms = time_ms - time_ms.rem_euclid(MINUTE_MS);
        *expected.entry(("per_minute", service, minute_ms)).or_default() += 1;
        for hop in 0..5 {
            *expected.entry(("hopping", service, minute_ms - hop * MINUTE_MS)).or_default() += 1;
        }
        *expected.entry(("unchanged", service, time_ms - time_ms.rem_euclid(15 * MINUTE_MS))).or_default() += 1;
    }
    let (limited, windows) = eventually("all windows", PATIENCE, || {
        let windows = committed(broker.bootstrap(), "bongsu.windows");
        let windows: Vec<Value> = windows.iter().map(|message| message.json().unwrap()).collect();
        let ours = windows.into_iter().filter(|window| window["key"]["service"] != "closing");
        let (limited, ours): (Vec<Value>, Vec<Value>) = ours.partition(|window| window["view"] == "limited");
        let is_complete = ours.len() >= expected.len() && requests_of(&limited) >= open.len() as i64;
        is_complete.then_some((limited, ours))
    });
    assert_eq!(requests_of(&limited), open.len() as i64, "each event in one group, named or not, of one window");

    let mut found = BTreeMap::new();
    let mut begins = BTreeMap::<&str, [Option<i64>; 2]>::new();
    for window in &windows {
        let (view, service) = (window["view"].as_str().unwrap(), window["key"]["service"].as_str().unwrap());
        let start = chrono::DateTime::parse_from_rfc3339(window["window_start"].as_str().unwrap()).unwrap();
        let start_ms = start.timestamp_millis();
        let values = &window["values"];
        let is_new = values.get("total").is_some();
        let count = values.get("total").or(values.get("requests")).unwrap().as_i64().unwrap();
        assert!(found.insert((view, service, start_ms), count).is_none(), "{window} is there twice");
        let [last_old, first_new] = begins.entry(view).or_default();
        if is_new {
            *first_new = Some(first_new.map_or(start_ms, |first_ms| first_ms.min(start_ms)));
        } else {
            *last_old = (*last_old).max(Some(start_ms));
        }
    }
    assert_eq!(found, expected);
    let latest_ms = before.iter().map(|request| request.time_ms).max().unwrap();
    for view in ["per_minute", "hopping"] {
        let [last_old, first_new] = begins[view];
        let from_ms = latest_ms - latest_ms.rem_euclid(MINUTE_MS) + MINUTE_MS;
        assert_eq!((last_old, first_new), (Some(from_ms - MINUTE_MS), Some(from_ms)), "{view}");
    }
    assert!(latest_ms < START_MS + 20 * MINUTE_MS);
}

/// Scenario: a source topic gets two more partitions while the process runs, and events go to all four.
/// Guarantees: M1. The new partitions are read, and windows wait for them.
#[test]
fn new_partitions_of_a_source_are_read() {
    let broker = Broker::start().unwrap();
    broker.create_topic("shop.requests", 2).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut stream = requests(32, 20_000);
    let open = stream.len() - 4;
    stream[..open / 2].iter_mut().for_each(|request| request.partition %= 2);

    let port = free_port();
    let _bongsu = Bongsu::run("processor", &config(&broker, &folder, "count(*) AS requests", port));
    produce(broker.bootstrap(), "shop.requests", &stream[..open / 2]);
    let all_read = format!("bongsu_records_in_total {}", open / 2);
    let metrics =
        |expected: &str| eventually(expected, PATIENCE, || get(port, "/metrics").contains(expected).then_some(()));
    eventually("a page of metrics", PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    metrics(&all_read);
    broker.add_partitions("shop.requests", 4).unwrap();
    metrics(r#"bongsu_source_partitions{topic="shop.requests"} 4"#);
    produce(broker.bootstrap(), "shop.requests", &stream[open / 2..]);

    let total = eventually("all windows of a minute", PATIENCE, || {
        let windows = committed(broker.bootstrap(), "bongsu.windows");
        let windows = windows.iter().map(|message| message.json().unwrap());
        let ours: Vec<Value> =
            windows.filter(|window| window["view"] == "per_minute" && window["key"]["service"] != "closing").collect();
        Some(requests_of(&ours)).filter(|total| *total >= open as i64)
    });
    assert_eq!(total, open as i64);
    assert!(committed(broker.bootstrap(), "bongsu.late").is_empty());
}

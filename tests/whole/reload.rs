//! A new configuration for a running process.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bongsu_testkit::Broker;
use serde_json::Value;

use crate::support::{Bongsu, Request, START_MS, committed, eventually, free_port, produce};

const CONFIG: &str = r##"
kafka: { brokers: "{brokers}" }
defaults: false
sources: [ { topic: shop.requests, format: json, table: requests } ]
time: { max_disorder: 1s, idle_timeout: 10m, allowed_lateness: 1s }
services: { "*": { owner: { slack: "#platform" } } }
views:
  - name: requests_1m
    sql: |
      SELECT service, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors, avg(duration_ms) AS mean_ms
      FROM requests GROUP BY tumble(interval '1 minute'), service
rules:
  - { name: errors, on: requests_1m, when: errors > 2 * mean_ms }
  - { name: slow, on: requests_1m, when: mean_ms > $max_ms, params: { max_ms: {max_ms} } }
dashboard: { listen: "127.0.0.1:{port}" }
"##;

/// A minute of the service `shop`: ten requests of 2 ms, all failed or none; on all partitions, so that event time goes on.
fn minute(number: i64, status: i64) -> Vec<Request> {
    let request = |index: i64| Request {
        partition: (index % 4) as i32,
        time_ms: START_MS + number * 60_000 + index * 6_000,
        service: "shop".to_owned(),
        route: "/".to_owned(),
        status,
        duration_ms: 2.0,
    };
    (0..10).map(request).collect()
}

/// Rule and status of each alert record, in their order.
fn told(bootstrap: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let records = committed(bootstrap, "bongsu.alerts").into_iter().map(|record| record.json().unwrap());
    records.map(|alert| format!("{} {}", text(&alert["rule"]), text(&alert["status"]))).collect()
}

/// Scenario: an alert fires; the threshold of another rule is lowered in the file; then the file is broken, with SIGHUP; then the service
/// is well again.
/// Guarantees: the new threshold holds without a restart, the alert of the unchanged rule goes on and is resolved once, and a bad file is
/// refused while the old configuration goes on.
#[test]
fn a_changed_file_is_taken_and_a_broken_one_refused() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let broker = Broker::start().unwrap();
    broker.create_topic("shop.requests", 4).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bongsu.yaml");
    let text = CONFIG.replace("{brokers}", broker.bootstrap()).replace("{port}", &free_port().to_string());
    let write = |path: &Path, max_ms: &str| std::fs::write(path, text.replace("{max_ms}", max_ms)).unwrap();
    let send = |requests: Vec<Request>| produce(broker.bootstrap(), "shop.requests", &requests);
    let await_told = |expected: &[&str]| {
        eventually(&format!("the alerts {expected:?}"), PATIENCE, || {
            (told(broker.bootstrap()) == expected).then_some(())
        });
    };

    write(&path, "50");
    let mut bongsu = Bongsu::run("processor", &path);
    send([minute(0, 500), minute(1, 500)].concat());
    await_told(&["errors firing"]);

    write(&path, "1");
    let has_log = |bongsu: &Bongsu, part: &str| bongsu.log().contains(part).then_some(());
    eventually("the new configuration to be taken", PATIENCE, || has_log(&bongsu, "a new configuration is taken"));
    send([minute(2, 500), minute(3, 500)].concat());
    await_told(&["errors firing", "slow firing"]);

    write(&path, "[");
    let hangup = Command::new("kill").args(["-HUP", &bongsu.id().to_string()]).status().unwrap();
    assert!(hangup.success());
    eventually("the broken one to be refused", PATIENCE, || has_log(&bongsu, "the new configuration is refused"));
    send([minute(4, 200), minute(5, 200)].concat());
    await_told(&["errors firing", "slow firing", "errors resolved"]);
    assert!(bongsu.is_alive());
}

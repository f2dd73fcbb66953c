//! What `bongsu backtest` and `bongsu explain` say of alerts, and what the processor had said.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use bongsu_testkit::Broker;
use chrono::DateTime;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use serde_json::Value;

use crate::support::{Bongsu, Request, START_MS, committed, eventually, free_port, produce};

const PATIENCE: Duration = Duration::from_secs(120);
const MINUTE_MS: i64 = 60_000;
const MINUTES: i64 = 30;

const CONFIG: &str = r##"
kafka: { brokers: "{brokers}" }
defaults: false
sources: [ { topic: shop.requests, format: json, table: requests } ]
time: { max_disorder: 5s, idle_timeout: 10m, allowed_lateness: 1s }
services:
  careful: { params: { high-error-rate: { max: 0.04 } } }
  "*": { owner: { slack: "#platform" } }
history: { url: "file:./history", flush: 1s }
dashboard: { listen: "127.0.0.1:{port}" }
views:
  - name: requests_1m
    sql: |
      SELECT service, route, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors
      FROM requests GROUP BY tumble(interval '1 minute'), service, route
  - name: requests_3m
    sql: |
      SELECT service, count(*) AS requests, quantile(duration_ms, 0.95) AS p95_ms
      FROM requests GROUP BY hop(interval '1 minute', interval '3 minutes'), service
  - name: requests_15m
    sql: SELECT service, count(*) FILTER (WHERE status >= 500) AS errors FROM requests GROUP BY tumble(interval '15 minutes'), service
rules:
  - name: high-error-rate
    on: requests_1m
    when: requests >= 20 AND errors > $max * requests
    clear: errors < $max * requests / 2
    params: { max: 0.1 }
    for: 2 of 3
    severity: 4
    summary: "{{ service }} {{ route }}: {{ errors }} of {{ requests }} fail"
  - { name: slow, on: requests_3m, when: p95_ms > $max_ms, params: { max_ms: 1000 }, summary: "{{ service }} is slow" }
  - { name: many-errors, on: requests_15m, when: errors >= 50 }
"##;

/// A service whose outage lasts from one minute to another, and which is silent from a third one on.
struct Service {
    name: &'static str,
    outage: std::ops::Range<i64>,
    /// Of 25 requests in each minute of the outage.
    errors: i64,
    duration_ms: f64,
    silent_from: i64,
}

/// 25 requests a minute of each service, every one of them by the clock: the stream is the same each time.
fn stream() -> Vec<Request> {
    #[rustfmt::skip]
    let services = [
        Service { name: "payments", outage: 5..12,  errors: 20, duration_ms: 20.0,    silent_from: MINUTES },
        Service { name: "orders",   outage: 3..4,   errors: 20, duration_ms: 20.0,    silent_from: MINUTES }, // one window is too few
        Service { name: "careful",  outage: 10..14, errors: 2,  duration_ms: 20.0,    silent_from: MINUTES },
        Service { name: "crashed",  outage: 8..16,  errors: 20, duration_ms: 20.0,    silent_from: 16 },
        Service { name: "slow",     outage: 20..22, errors: 1,  duration_ms: 2_000.0, silent_from: MINUTES },
        Service { name: "latest",   outage: 27..30, errors: 20, duration_ms: 20.0,    silent_from: MINUTES },
    ];
    let mut requests = Vec::new();
    for minute in 0..MINUTES {
        for Service { name, outage, errors, duration_ms, silent_from } in &services {
            if minute >= *silent_from {
                continue;
            }
            let is_out = outage.contains(&minute);
            requests.extend((0..25).map(|number| Request {
                partition: (number % 4) as i32,
                time_ms: START_MS + minute * MINUTE_MS + number * 2_000,
                service: (*name).to_owned(),
                route: "/pay/{id}".to_owned(),
                status: if is_out && number < *errors { 500 } else { 200 },
                duration_ms: if is_out { *duration_ms } else { 20.0 },
            }));
        }
    }
    requests
}

/// One event in each partition: nothing before is expected any more.
fn closing(minute: i64) -> Vec<Request> {
    let request = |partition| Request {
        partition,
        time_ms: START_MS + minute * MINUTE_MS,
        service: "closing".to_owned(),
        route: "/".to_owned(),
        status: 200,
        duration_ms: 1.0,
    };
    (0..4).map(request).collect()
}

fn bongsu(config: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bongsu"));
    command.args(arguments).arg("--config").arg(config).output().unwrap()
}

/// What a command prints as JSON.
fn json(config: &Path, arguments: &[&str]) -> Value {
    let output = bongsu(config, &[arguments, &["--format", "json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// How many windows of a view the history has.
fn windows_in_history(folder: &Path, view: &str) -> usize {
    let folder = folder.join(format!("history/windows/view={view}/"));
    let count = async {
        let session = SessionContext::new();
        let rows = session.read_parquet(folder.to_str().unwrap(), ParquetReadOptions::default()).await?;
        rows.count().await
    };
    // There may be none yet.
    tokio::runtime::Runtime::new().unwrap().block_on(count).unwrap_or(0)
}

/// Rule, service, key, end of the window that fired and of the one that resolved, by id.
type Alerts = BTreeMap<String, [Value; 5]>;

/// The alerts in `bongsu.alerts`.
fn told(bootstrap: &str) -> Alerts {
    let mut alerts = Alerts::new();
    for message in committed(bootstrap, "bongsu.alerts") {
        let record = message.json().unwrap();
        let id = record["alert_id"].as_str().unwrap().to_owned();
        let end = record["window_end"].clone();
        if record["status"] == "firing" {
            let alert = [&record["rule"], &record["service"], &record["key"], &end, &Value::Null].map(Value::clone);
            assert!(alerts.insert(id, alert).is_none(), "{record} is there twice");
        } else {
            let alert = alerts.get_mut(&id).unwrap_or_else(|| panic!("{record} did not begin"));
            assert_eq!(std::mem::replace(&mut alert[4], end), Value::Null, "{record} is there twice");
        }
    }
    alerts
}

/// The alerts of a backtest.
fn found(backtest: &Value) -> Alerts {
    let alert = |alert: &Value| {
        let status = if alert["resolved"].is_null() { "firing" } else { "resolved" };
        assert_eq!(alert["status"], status);
        let parts = ["rule", "service", "key", "fired", "resolved"].map(|name| alert[name].clone());
        (alert["alert_id"].as_str().unwrap().to_owned(), parts)
    };
    backtest["alerts"].as_array().unwrap().iter().map(alert).collect()
}

fn rfc3339(minute: i64) -> String {
    let time = DateTime::from_timestamp_millis(START_MS + minute * MINUTE_MS).unwrap();
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Scenario: half an hour with outages of several services, during which the processor is killed; then its history is judged again:
/// as a whole, in part, with other thresholds; and an alert is explained.
/// Guarantees: a backtest lists exactly the alerts of `bongsu.alerts`, with ids, windows and ends; other thresholds make a difference;
/// an explanation has the alert, its incident and where it goes; a Kafka that is away and an id that is unknown are told apart.
#[test]
fn a_backtest_lists_the_alerts_that_fired() {
    let broker = Broker::start().unwrap();
    broker.create_topic("shop.requests", 4).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, brokers: &str| -> PathBuf {
        let path = folder.path().join(name);
        let text = CONFIG.replace("{brokers}", brokers).replace("{port}", &free_port().to_string());
        std::fs::write(&path, text).unwrap();
        path
    };
    let config = write("bongsu.yaml", broker.bootstrap());

    let stream = stream();
    let (first, rest) = stream.split_at(stream.len() / 3);
    produce(broker.bootstrap(), "shop.requests", first);
    let bongsu_run = Bongsu::run("all", &config);
    eventually("an alert", PATIENCE, || (!told(broker.bootstrap()).is_empty()).then_some(()));
    bongsu_run.kill();
    produce(broker.bootstrap(), "shop.requests", rest);
    // The first closes all windows of the stream. The second closes its window in turn, which tells the history how late it was.
    for minute in [MINUTES + 2, MINUTES + 4] {
        produce(broker.bootstrap(), "shop.requests", &closing(minute));
    }
    let bongsu_run = Bongsu::run("all", &config);
    let is_of = |view: &'static str| move |record: &Value| record["view"] == view;
    let windows = |view: &'static str| {
        let messages = committed(broker.bootstrap(), "bongsu.windows");
        messages.iter().map(|message| message.json().unwrap()).filter(is_of(view)).collect::<Vec<_>>()
    };
    let last_start = rfc3339(MINUTES + 2);
    eventually("the last windows", PATIENCE, || {
        let last = windows("requests_1m").into_iter().find(|window| window["window_start"] == last_start.as_str());
        last.filter(|_| windows("requests_15m").len() >= 12)
    });
    for view in ["requests_1m", "requests_3m", "requests_15m"] {
        eventually("the history", PATIENCE, || {
            (windows_in_history(folder.path(), view) == windows(view).len()).then_some(())
        });
    }
    eventually("an incident", PATIENCE, || {
        (!committed(broker.bootstrap(), "bongsu.incidents").is_empty()).then_some(())
    });
    assert_eq!(bongsu_run.signal("TERM").0, Some(0));

    let expected = told(broker.bootstrap());
    let services: Vec<_> =
        expected.values().map(|alert| (alert[0].as_str().unwrap(), alert[1].as_str().unwrap())).collect();
    for alert in [
        ("high-error-rate", "payments"),
        ("high-error-rate", "careful"),
        ("high-error-rate", "crashed"),
        ("slow", "slow"),
    ] {
        assert!(services.contains(&alert), "{alert:?} is not in {services:?}");
    }
    assert!(!services.contains(&("high-error-rate", "orders")), "{services:?}");
    assert!(expected.values().any(|alert| alert[4].is_null()), "nothing fires still: {expected:?}");
    let (from, to) = (rfc3339(0), rfc3339(MINUTES + 10));
    let range = ["backtest", "--from", &from, "--to", &to];
    let backtest = json(&config, &range);
    assert_eq!(found(&backtest), expected);
    assert_eq!(backtest["changed"], Value::Null);

    let (from, to) = (rfc3339(9), rfc3339(16));
    let in_part = found(&json(&config, &["backtest", "--from", &from, "--to", &to]));
    let is_in_part = |end: &Value| (from.as_str()..to.as_str()).contains(&end.as_str().unwrap());
    let mut expected_in_part = expected.clone();
    expected_in_part.retain(|_, alert| is_in_part(&alert[3]));
    for alert in expected_in_part.values_mut().filter(|alert| !alert[4].is_null() && !is_in_part(&alert[4])) {
        alert[4] = Value::Null;
    }
    assert!(!in_part.is_empty());
    assert_eq!(in_part, expected_in_part);

    let with = |param: &str| json(&config, &[&range[..], &["--param", param]].concat());
    let count = |backtest: &Value, what: &str| backtest["changed"][what].as_array().unwrap().len();
    let stricter = with("high-error-rate.max=0.03");
    assert_eq!(found(&stricter), expected, "the alerts themselves are as configured");
    assert!(count(&stricter, "new") > 0 && count(&stricter, "gone") == 0, "{}", stricter["changed"]);
    assert!(stricter["changed"]["new"].as_array().unwrap().iter().all(|alert| alert["service"] == "slow"));
    let looser = with("high-error-rate.max=0.9");
    let of_rule = expected.values().filter(|alert| alert[0] == "high-error-rate" && alert[1] != "careful").count();
    assert_eq!((count(&looser, "gone"), count(&looser, "new")), (of_rule, 0));
    let table = bongsu(&config, &[&range[..], &["--param", "high-error-rate.max=0.9"]].concat());
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("still firing") && table.contains(&format!("{of_rule} gone, 0 new")), "{table}");

    let (id, alert) =
        expected.iter().find(|(_, alert)| alert[0] == "high-error-rate" && alert[1] == "payments").unwrap();
    let explained = json(&config, &["explain", &id[..12]]);
    assert_eq!(
        (&explained["alert"]["alert_id"], &explained["firing"]["window_end"]),
        (&Value::from(id.as_str()), &alert[3])
    );
    assert_eq!(explained["route"]["slack"], "#platform");
    let text = bongsu(&config, &["explain", id]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("requests >= 20 AND errors > $max * requests") && text.contains("$max"), "{text}");
    let mut incident = Value::Null;
    for record in committed(broker.bootstrap(), "bongsu.incidents").iter().map(|message| message.json().unwrap()) {
        if record["alert_ids"].as_array().unwrap().contains(&Value::from(id.as_str())) {
            incident = record["incident_id"].clone();
        }
    }
    assert_eq!(explained["incident"].get("incident_id").cloned().unwrap_or_default(), incident);

    let unknown = bongsu(&config, &["explain", "000000000000"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("35 days"), "{unknown:?}");
    let away = bongsu(&write("away.yaml", &format!("127.0.0.1:{}", free_port())), &["explain", id]);
    assert_eq!(away.status.code(), Some(3), "{away:?}");
}

//! Long, hopping and calendar windows, limits of groups, corrections of late rows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bongsu_testkit::{Broker, Message};
use serde_json::{Value, json};

use crate::support::{Bongsu, Request, START_MS, committed, eventually, free_port, produce, requests};

const PATIENCE: Duration = Duration::from_secs(120);
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// A broker with a topic of requests, and a configuration with these views.
struct Shop {
    broker: Broker,
    folder: tempfile::TempDir,
    config: PathBuf,
}

impl Shop {
    fn with_views(views: &str) -> Shop {
        let broker = Broker::start().unwrap();
        broker.create_topic("shop.requests", 4).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("bongsu.yaml");
        let text = format!(
            r##"
kafka: {{ brokers: "{}" }}
defaults: false
sources: [ {{ topic: shop.requests, format: json, table: requests }} ]
time: {{ max_disorder: 5s, idle_timeout: 10m, allowed_lateness: 1s, zone: Asia/Seoul }}
services: {{ service-7: {{ owner: {{ slack: "#seven" }} }}, "*": {{ owner: {{ slack: "#platform" }} }} }}
dashboard: {{ listen: "127.0.0.1:{}" }}
views:
{views}
"##,
            broker.bootstrap(),
            free_port(),
        );
        std::fs::write(&config, text).unwrap();
        Shop { broker, folder, config }
    }

    fn produce(&self, requests: &[Request]) {
        produce(self.broker.bootstrap(), "shop.requests", requests);
    }

    /// One event in each partition: nothing before `time_ms` is expected any more.
    fn close(&self, time_ms: i64) {
        let closing = |partition| Request {
            partition,
            time_ms,
            service: "closing".to_owned(),
            route: "/".to_owned(),
            status: 200,
            duration_ms: 1.0,
        };
        self.produce(&(0..4).map(closing).collect::<Vec<_>>());
    }

    /// Records of `bongsu.windows` by (view, service, route, window_start), once `enough` says so.
    fn windows(&self, what: &str, enough: impl Fn(&[Message]) -> bool) -> Vec<Value> {
        eventually(what, PATIENCE, || {
            let messages = committed(self.broker.bootstrap(), "bongsu.windows");
            enough(&messages).then(|| messages.iter().map(|message| message.json().unwrap()).collect())
        })
    }
}

type WindowId = (String, String, i64, i64);

/// Counts of requests by (view, service, window). Panics if a window is there twice.
fn counts(windows: &[Value]) -> BTreeMap<WindowId, i64> {
    let mut counts = BTreeMap::new();
    for window in windows {
        let time = |name: &str| {
            chrono::DateTime::parse_from_rfc3339(window[name].as_str().unwrap()).unwrap().timestamp_millis()
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let id = (text(&window["view"]), text(&window["key"]["service"]), time("window_start"), time("window_end"));
        let twice = counts.insert(id.clone(), window["values"]["requests"].as_i64().unwrap());
        assert!(twice.is_none(), "the window {id:?} is there twice");
    }
    counts
}

/// Scenario: half an hour of events; views of one minute, of a quarter of an hour, of half an hour every five minutes, and of the
/// days in Seoul; the processor is killed twice on the way.
/// Guarantees: long windows, rolled up from closed minutes, equal a recount, once each; a day begins at midnight of the zone.
#[test]
fn long_windows_equal_a_recount_after_sigkill() {
    let view = |name: &str, window: &str| {
        format!(
            "  - {{ name: {name}, sql: \"SELECT service, count(*) AS requests FROM requests GROUP BY {window}, service\" }}"
        )
    };
    let shop = Shop::with_views(
        &[
            view("per_minute", "tumble(interval '1 minute')"),
            view("per_quarter", "tumble(interval '15 minutes')"),
            view("per_half_hour", "hop(interval '5 minutes', interval '30 minutes')"),
            view("per_day", "calendar('day')"),
        ]
        .join("\n"),
    );
    let stream = requests(21, 60_000);
    let open: Vec<&Request> = stream.iter().filter(|request| request.service != "closing").collect();
    let third = open.len() / 3;
    for slice in [&stream[..third], &stream[third..2 * third]] {
        shop.produce(slice);
        let bongsu = Bongsu::run("processor", &shop.config);
        let seen = committed(shop.broker.bootstrap(), "bongsu.panes").len();
        eventually("panes to be closed", PATIENCE, || {
            (committed(shop.broker.bootstrap(), "bongsu.panes").len() > seen + 8).then_some(())
        });
        bongsu.kill();
    }
    shop.produce(&stream[2 * third..open.len()]);
    // In two steps: the windows of the last minute close first, those of the day with the second.
    shop.close(START_MS + 45 * MINUTE_MS);
    shop.close(START_MS + 2 * DAY_MS);
    let _bongsu = Bongsu::run("processor", &shop.config);

    let mut expected: BTreeMap<WindowId, i64> = BTreeMap::new();
    let mut count = |view: &str, service: &str, start_ms: i64, end_ms: i64| {
        *expected.entry((view.to_owned(), service.to_owned(), start_ms, end_ms)).or_default() += 1;
    };
    for request in &open {
        let Request { time_ms, service, .. } = request;
        for (view, size_ms) in [("per_minute", MINUTE_MS), ("per_quarter", 15 * MINUTE_MS)] {
            let start_ms = time_ms - time_ms.rem_euclid(size_ms);
            count(view, service, start_ms, start_ms + size_ms);
        }
        let last_start_ms = time_ms - time_ms.rem_euclid(5 * MINUTE_MS);
        for hop in 0..6 {
            let start_ms = last_start_ms - hop * 5 * MINUTE_MS;
            count("per_half_hour", service, start_ms, start_ms + 30 * MINUTE_MS);
        }
        // Seoul is nine hours ahead and has no summer time.
        let local_ms = time_ms + 9 * 60 * MINUTE_MS;
        let start_ms = time_ms - local_ms.rem_euclid(DAY_MS);
        count("per_day", service, start_ms, start_ms + DAY_MS);
    }
    let is_open = |window: &Value| window["key"]["service"] != "closing";
    let windows = shop.windows("all windows", |messages| {
        let ours = messages.iter().filter(|message| is_open(&message.json().unwrap()));
        ours.count() >= expected.len()
    });
    let found = counts(&windows.into_iter().filter(is_open).collect::<Vec<_>>());
    assert_eq!(found, expected);
}

/// Scenario: a view by service and route is limited to 40 groups and sees about 4,000.
/// Guarantees: G1. Every event is in exactly one group, named or `__other__`; a configured service keeps its name; the limit holds.
#[test]
fn groups_past_the_limit_are_counted_as_other() {
    const LIMIT: usize = 40;
    let shop = Shop::with_views(&format!(
        "  - name: by_route
    max_groups: {LIMIT}
    sql: SELECT service, route, count(*) AS requests FROM requests GROUP BY tumble(interval '10 minutes'), service, route"
    ));
    let stream = requests(22, 40_000);
    let open: Vec<Request> = stream.into_iter().filter(|request| request.service != "closing").collect();
    shop.produce(&open);
    shop.close(START_MS + 100 * MINUTE_MS);
    let _bongsu = Bongsu::run("processor", &shop.config);
    let total = |windows: &[Value]| -> i64 {
        let ours = windows.iter().filter(|window| window["key"]["service"] != "closing");
        ours.map(|window| window["values"]["requests"].as_i64().unwrap()).sum()
    };
    let windows = shop.windows("all events", |messages| {
        let windows: Vec<Value> = messages.iter().map(|message| message.json().unwrap()).collect();
        total(&windows) >= open.len() as i64
    });
    assert_eq!(total(&windows), open.len() as i64);

    let mut seen = std::collections::BTreeSet::new();
    let mut named = BTreeMap::<String, usize>::new();
    let mut others = BTreeMap::<String, Vec<String>>::new();
    for window in &windows {
        let start = window["window_start"].as_str().unwrap().to_owned();
        assert!(seen.insert((start.clone(), window["key"].to_string())), "{window} is there twice");
        if window["key"]["route"] == "__other__" {
            others.entry(start).or_default().push(window["key"]["service"].as_str().unwrap().to_owned());
        } else if window["key"]["service"] != "closing" {
            *named.entry(start).or_default() += 1;
        }
    }
    assert_eq!(named.len(), 3);
    // Each of the four partitions has its share.
    assert!(named.values().all(|groups| *groups <= LIMIT), "{named:?}");
    for services in others.values_mut() {
        services.sort();
        assert_eq!(*services, ["__other__", "service-7"], "of a configured service under its own name");
    }
    assert_eq!(others.len(), 3);
}

/// Scenario: an event comes when its window has closed, another when its time for corrections is over.
/// Guarantees: the window is published again with the first, is never `final` then, and has a sequence; both are told as late.
#[test]
fn late_rows_correct_closed_windows_for_a_while() {
    let shop = Shop::with_views(
        "  - name: per_minute
    corrections: 10m
    sql: SELECT service, count(*) AS requests FROM requests GROUP BY tumble(interval '1 minute'), service",
    );
    let request = |partition, time_ms| Request {
        partition,
        time_ms,
        service: "shop".to_owned(),
        route: "/".to_owned(),
        status: 200,
        duration_ms: 1.0,
    };
    let _bongsu = Bongsu::run("processor", &shop.config);
    let of_shop = |messages: &[Message]| -> Vec<Value> {
        let records = messages.iter().map(|message| message.json().unwrap());
        records.filter(|record| record["key"]["service"] == "shop").collect()
    };
    shop.produce(&(0..3).map(|second| request(0, START_MS + second * 1_000)).collect::<Vec<_>>());
    shop.close(START_MS + 5 * MINUTE_MS);
    shop.windows("the window", |messages| of_shop(messages).len() == 1);
    shop.produce(&[request(1, START_MS + 30_000)]);
    shop.windows("the correction", |messages| of_shop(messages).len() == 2);
    shop.close(START_MS + 30 * MINUTE_MS);
    let closing = |messages: &[Message]| messages.len() - of_shop(messages).len();
    shop.windows("time to go on", |messages| closing(messages) >= 1);
    shop.produce(&[request(2, START_MS + 31_000)]);
    let late = eventually("both late rows", PATIENCE, || {
        let late = committed(shop.broker.bootstrap(), "bongsu.late");
        (late.len() >= 2).then_some(late)
    });
    assert!(late.iter().all(|message| message.json().unwrap()["events"] == 1));

    let windows = of_shop(&committed(shop.broker.bootstrap(), "bongsu.windows"));
    let words: Vec<Value> = windows
        .iter()
        .map(|window| json!([window["values"]["requests"], window["final"], window["sequence"].is_i64()]))
        .collect();
    assert_eq!(words, [json!([3, true, false]), json!([4, false, true])]);
    drop(shop.folder);
}

/// Scenario: three of 20,000 events hold a number with which a view cannot be computed, two of them side by side.
/// Guarantees: exactly those three records are dead letters, with their origin; everything else is counted.
#[test]
fn a_poison_record_ends_alone_in_the_dead_letters() {
    let shop = Shop::with_views(
        "  - name: negated
    sql: SELECT service, count(*) AS requests, max(status / -1) AS negated FROM requests
         GROUP BY tumble(interval '10 minutes'), service",
    );
    let mut stream = requests(23, 20_000);
    for index in [1_000, 12_345, 12_346] {
        stream[index].status = i64::MIN;
    }
    shop.produce(&stream);
    let _bongsu = Bongsu::run("processor", &shop.config);
    let good = stream.iter().filter(|request| request.service != "closing" && request.status != i64::MIN).count();
    let total = |messages: &[Message]| -> i64 {
        let windows = messages.iter().map(|message| message.json().unwrap());
        let ours = windows.filter(|window| window["key"]["service"] != "closing");
        ours.map(|window| window["values"]["requests"].as_i64().unwrap()).sum()
    };
    shop.windows("all good events", |messages| total(messages) >= good as i64);
    assert_eq!(total(&committed(shop.broker.bootstrap(), "bongsu.windows")), good as i64);
    let letters = committed(shop.broker.bootstrap(), "bongsu.dead-letter");
    let described: Vec<_> = letters
        .iter()
        .map(|letter| {
            let value = letter.json().unwrap();
            (letter.header("bongsu.reason").unwrap(), letter.header("bongsu.topic").unwrap(), value["status"].clone())
        })
        .collect();
    let expected = ("poison".to_owned(), "shop.requests".to_owned(), json!(i64::MIN));
    assert_eq!(described, [expected.clone(), expected.clone(), expected]);
}

//! Nothing disappears uncounted.

use std::time::Duration;

use bongsu_testkit::Broker;

use crate::support::{Bongsu, START_MS, committed, eventually, free_port, get};

const CONFIG: &str = r##"
kafka: { brokers: "{brokers}" }
defaults: false
sources: [ { topic: shop.requests, format: json, table: requests } ]
time: { max_disorder: 1s, idle_timeout: 10m, allowed_lateness: 2s }
services: { "*": { owner: { slack: "#platform" } } }
views:
  - name: requests_10s
    sql: SELECT service, count(*) AS requests FROM requests GROUP BY tumble(interval '10 seconds'), service
dashboard: { listen: "127.0.0.1:{port}" }
"##;

fn request(service: &str, time_ms: i64) -> (Vec<u8>, String, i64) {
    let json = format!(r#"{{"ts":{time_ms},"service":"{service}","route":"/","status":200,"duration_ms":1}}"#);
    (Vec::new(), json, time_ms)
}

/// The sum of a metric over its labels, from `/metrics`.
fn metric(page: &str, name: &str) -> u64 {
    let of_name = |line: &&str| line.starts_with(&format!("{name} ")) || line.starts_with(&format!("{name}{{"));
    let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64;
    page.lines().filter(of_name).map(value).sum()
}

/// Scenario: events in order, two that come after their window has closed, one just in time, and garbage.
/// Guarantees: in = in windows + late + rejected + filtered; late events are in `bongsu.late` with what they would have contributed, and
/// in no window.
#[test]
fn in_equals_out_and_rejected_and_late() {
    let broker = Broker::start().unwrap();
    broker.create_topic("shop.requests", 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("bongsu.yaml");
    let port = free_port();
    std::fs::write(&config, CONFIG.replace("{brokers}", broker.bootstrap()).replace("{port}", &port.to_string()))
        .unwrap();
    let send = |records: Vec<(Vec<u8>, String, i64)>| {
        bongsu_testkit::produce(broker.bootstrap(), "shop.requests", Some(0), records).unwrap()
    };
    let in_windows = || -> Vec<(String, String, i64)> {
        let records = committed(broker.bootstrap(), "bongsu.windows").into_iter().map(|record| record.json().unwrap());
        records
            .map(|w| {
                (
                    w["window_start"].to_string(),
                    w["key"]["service"].to_string(),
                    w["values"]["requests"].as_i64().unwrap(),
                )
            })
            .collect()
    };

    let _bongsu = Bongsu::run("processor", &config);
    // The watermark comes to START + 12 s, and with the lateness of 2 s the window that ends at START + 10 s is still open.
    send((0..13).map(|second| request("shop", START_MS + second * 1_000 + 999)).collect());
    let ends = || {
        bongsu_testkit::end_offsets(broker.bootstrap(), "bongsu.partials")
            .map(|ends| ends.values().sum::<i64>())
            .unwrap_or(0)
    };
    eventually("the first epoch", Duration::from_secs(60), || (ends() > 0).then_some(()));
    assert_eq!(in_windows(), []);
    send(vec![request("shop", START_MS), request("shop", START_MS + 30_000)]);
    eventually("the windows to close", Duration::from_secs(30), || (in_windows().len() == 2).then_some(()));
    // Their windows have closed.
    send(vec![
        request("shop", START_MS + 1),
        request("shop", START_MS + 2),
        (Vec::new(), "garbage".to_owned(), START_MS + 30_000),
    ]);
    let events =
        |late: &[serde_json::Value]| -> u64 { late.iter().map(|record| record["events"].as_u64().unwrap()).sum() };
    let late = eventually("the late events", Duration::from_secs(30), || {
        let late: Vec<_> =
            committed(broker.bootstrap(), "bongsu.late").iter().map(|record| record.json().unwrap()).collect();
        (events(&late) >= 2).then_some(late)
    });
    send(vec![request("shop", START_MS + 60_000)]);
    let windows = eventually("the last window", Duration::from_secs(30), || {
        Some(in_windows()).filter(|windows| windows.len() == 3)
    });

    let counts: Vec<i64> = windows.iter().map(|(_, _, requests)| *requests).collect();
    assert_eq!(counts, [11, 3, 1], "ten and one just in time; three; one");
    assert_eq!(events(&late), 2, "{late:?}");
    assert_eq!((late[0]["view"].as_str(), late[0]["key"]["service"].as_str()), (Some("requests_10s"), Some("shop")));
    assert_eq!(late[0]["window_start"].as_str(), Some("2025-06-02T00:00:00Z"));

    let page = get(port, "/metrics");
    let still_open = 1;
    let out: i64 = counts.iter().sum::<i64>() + still_open;
    let others = ["bongsu_events_late_total", "bongsu_events_rejected_total", "bongsu_events_filtered_total"]
        .map(|name| metric(&page, name));
    assert_eq!(metric(&page, "bongsu_events_in_total"), out as u64 + others.iter().sum::<u64>(), "{page}");
    assert_eq!(others, [2, 1, 0]);
}

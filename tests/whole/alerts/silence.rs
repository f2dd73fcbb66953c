//! Services that fall silent, and people who want to hear nothing of one.

use std::ops::Range;

use bongsu_schemas::tables::Table;
use chrono::DateTime;
use serde_json::{Value, json};

use super::events::{Event, INNOCENT, MINUTE_MS, at};
use super::scene::{Scene, Seen, burns, is_resolved, only, time_ms};
use crate::support::Random;

const CONFIG: &str = r##"
services:
  lapsing: { owner: { slack: "#lapsing" } }
  muted: { owner: { slack: "#muted" } }
  roller: { owner: { slack: "#roller" } }
  "*": { owner: { slack: "#platform" } }
views:
  - name: pods_1m
    sql: |
      SELECT service, pod, count(*) AS requests
      FROM requests WHERE service = 'roller' GROUP BY tumble(interval '1 minute'), service, pod
rules:
  - { name: gone-quiet, on: requests_1m, no_data: { after: 5m, severity: 3 } }
  - { name: pod-quiet, on: pods_1m, no_data: { after: 5m, per: series } }
"##;

/// Pods and minutes in which they send requests. The pods of `roller` are replaced in minute 8.
#[rustfmt::skip]
const PODS: [(&str, &str, Range<i64>); 10] = [
    (INNOCENT,  "innocent-1", 0..34),
    ("lapsing", "lapsing-1",  0..10),
    ("lapsing", "lapsing-1",  20..34),
    ("muted",   "muted-1",    0..10),
    ("muted",   "muted-1",    20..24),
    ("muted",   "muted-1",    31..34),
    ("roller",  "roller-a1",  0..8),
    ("roller",  "roller-a2",  0..8),
    ("roller",  "roller-b1",  8..34),
    ("roller",  "roller-b2",  8..34),
];
const MINUTES: i64 = 34;

fn traffic(seed: u64) -> Vec<Event> {
    let mut random = Random(seed);
    let mut events = Vec::new();
    for (service, pod, minutes) in PODS {
        for minute in minutes {
            for _ in 0..25 {
                let time_ms = at(minute) + random.below(MINUTE_MS as u64) as i64;
                let fields =
                    json!({ "service": service, "pod": pod, "route": "/", "status": 200, "duration_ms": 15.0 });
                events.push(Event::new(Table::Requests, time_ms, fields));
            }
        }
    }
    events
}

/// What the alerts of a service say, and the minute in which the window of each record ends.
fn transitions(seen: &Seen, service: &str) -> Vec<(Value, i64)> {
    let records = seen.of_service(service).into_iter();
    records.map(|alert| (alert["status"].clone(), (time_ms(&alert["window_end"]) - at(0)) / MINUTE_MS)).collect()
}

fn expected<const N: usize>(transitions: [(&str, i64); N]) -> Vec<(Value, i64)> {
    transitions.map(|(status, minute)| (json!(status), minute)).into()
}

/// Scenario: two services fall silent in minute 10 and come back in minute 20; one of them is silenced from minute 14 to 16, and falls
/// silent again in minute 24. A third one has its pods replaced by a deploy.
/// Guarantees: one notice after five minutes, updated when the service is back; the silence mutes what it matches, while it holds, and
/// nothing else; a pod that is replaced is not missing.
#[test]
fn silence_is_noticed_once_and_a_silence_mutes_only_its_service() {
    let mut scene = Scene::new(&[Table::Requests], CONFIG);
    let time = |minute| DateTime::from_timestamp_millis(at(minute)).unwrap().to_rfc3339();
    let silence = ["silence", "rule=gone-quiet", "service=muted", "--by", "kim", "--reason", "moves"];
    scene.bongsu(&[&silence[..], &["--from", &time(14), "--until", &time(16)]].concat());
    scene.run("all");
    let events = traffic(91);

    scene.play(&events, 0..17);
    let first = scene.wait_for("the notice of the silent service", |seen| {
        let fired = seen.firing("gone-quiet").len() == 2;
        seen.channel("lapsing").first().filter(|message| fired && burns(message, 3)).map(|message| message.ts.clone())
    });
    scene.play(&events, 17..24);
    let seen = scene.wait_for("the services to be back", |seen| seen.is_over().then(|| seen.clone()));
    assert_eq!(transitions(&seen, "muted"), expected([("firing", 15), ("resolved", 21)]), "{seen}");
    assert!(seen.channel("muted").is_empty(), "{seen}");

    scene.play(&events, 24..MINUTES);
    let seen = scene.wait_for("the second notice to be over", |seen| {
        (seen.firing("gone-quiet").len() == 3 && seen.channel("muted").len() == 1 && seen.is_over())
            .then(|| seen.clone())
    });
    assert_eq!(transitions(&seen, "lapsing"), expected([("firing", 15), ("resolved", 21)]), "{seen}");
    let muted = [("firing", 15), ("resolved", 21), ("firing", 29), ("resolved", 32)];
    assert_eq!(transitions(&seen, "muted"), expected(muted), "{seen}");
    for alert in &seen.alerts {
        assert_eq!((&alert["rule"], &alert["reason"]), (&json!("gone-quiet"), &json!("no_data")), "{seen}");
    }
    assert_eq!(seen.alerts.len(), 6, "only of the services that were silent: {seen}");

    let message = only(&seen.channel("lapsing"));
    assert!(message.ts == first && message.edits > 0 && is_resolved(message), "{message:#?}");
    assert!(message.text.contains("lapsing: no data for 5m"), "{message:#?}");
    assert!(is_resolved(only(&seen.channel("muted"))), "{seen}");
    assert_eq!(seen.messages.len(), 2, "{seen}");
}

//! A fault inside a chain of services.

use std::ops::Range;

use bongsu_schemas::tables::Table;
use serde_json::{Value, json};

use super::events::{Event, at, timed_request, trace_id};
use super::scene::{Scene, Seen, everything_in, is_resolved, links, only, time_ms};
use crate::support::Random;

const OWNERS: &str = r##"
services:
  order: { owner: { slack: "#order-alerts" } }
  payment: { owner: { slack: "#payment-alerts" } }
  card-gateway: { owner: { slack: "#gateway-alerts" } }
  "*": { owner: { slack: "#platform" } }
"##;

/// Who calls whom, and the minute from which half of a service's requests are slow and fail.
const SERVICES: [(&str, Option<&str>, i64); 3] =
    [("order", Some("payment"), 7), ("payment", Some("card-gateway"), 6), ("card-gateway", None, 5)];
const CHANNELS: [&str; 3] = ["gateway-alerts", "order-alerts", "payment-alerts"];
const RECOVERS: i64 = 13;
const MINUTES: i64 = 20;

/// Sixty requests a minute of each service, every second of which calls the next one.
fn traffic(seed: u64) -> Vec<Event> {
    let mut random = Random(seed);
    let mut events = Vec::new();
    for minute in 0..MINUTES {
        for (service, callee, fails_from) in SERVICES {
            let is_down = (fails_from..RECOVERS).contains(&minute);
            for number in 0..60 {
                let time_ms = at(minute) + random.below(60_000) as i64;
                let is_error = is_down && number % 4 < 2;
                let duration_ms = if is_error { 3_000.0 } else { 20.0 + random.below(60) as f64 };
                events.push(timed_request(time_ms, service, "/", is_error, duration_ms));
                if let Some(callee) = callee.filter(|_| number % 2 == 0) {
                    let status = if is_error { "error" } else { "ok" };
                    let fields = json!({
                        "service": service, "peer_service": callee, "kind": "client", "name": "POST", "status": status,
                        "duration_ms": duration_ms, "trace_id": trace_id(random.below(1 << 30)),
                        "span_id": format!("{:016x}", 1 + random.below(1 << 30)),
                    });
                    events.push(Event::new(Table::Spans, time_ms, fields));
                }
            }
        }
    }
    events
}

/// The windows that a fault from this minute on lets fire: `for: 2 of 3`.
fn first_alert(fails_from: i64) -> Range<i64> {
    at(fails_from)..at(fails_from + 2)
}

/// Scenario: the last of three services that call each other in a row fails, a minute later its caller, a minute later that one's.
/// Guarantees: one incident whose first-named service is the last of the chain, with the others as affected; each owner has one message
/// in the own channel that says so and links that incident.
#[test]
fn a_fault_inside_a_chain_is_one_incident_of_the_deepest_callee() {
    let mut scene = Scene::new(&[Table::Requests, Table::Spans], OWNERS);
    scene.run("all");
    let events = traffic(81);
    scene.play(&events, 0..5);
    scene.wait_for("the calls to be known", |_| {
        scene.metric("bongsu_reporter_calls_known").filter(|calls| *calls >= 2.0).map(|_| ())
    });
    scene.play(&events, 5..12);
    let is_told = |seen: &Seen| {
        let affects_all =
            |incident: &Value| incident["services"].as_array().is_some_and(|services| services.len() == 3);
        let told = CHANNELS.iter().all(|channel| !seen.channel(channel).is_empty());
        (told && seen.incidents.iter().any(affects_all)).then_some(())
    };
    scene.wait_for("one incident of three services", is_told);
    scene.play(&events, 12..MINUTES);
    let seen = scene.wait_until_over();

    let incident = seen.incident();
    assert_eq!(incident["services"], json!(["card-gateway", "payment", "order"]), "{seen}");
    assert_eq!(incident["evidence"]["cause"]["service"], "card-gateway", "{seen}");
    for (service, _, fails_from) in SERVICES {
        let alerts = seen.firing("high-error-rate").into_iter();
        let alert = only(&alerts.filter(|alert| alert["service"] == service).collect::<Vec<_>>());
        let Range { start, end } = first_alert(fails_from);
        assert_eq!(time_ms(&alert["window_end"]), end, "{seen}");
        assert_eq!(time_ms(&alert["evidence"]["windows"][0]["window_start"]), start, "{seen}");
    }

    let mut told: Vec<&str> = seen.messages.iter().map(|message| message.channel.as_str()).collect();
    told.sort_unstable();
    assert_eq!(told, CHANNELS, "{seen}");
    for message in &seen.messages {
        assert!(is_resolved(message) && links(message, incident), "{message:#?}");
        assert!(everything_in(message).contains("Likely cause: card-gateway"), "{message:#?}");
    }
}

//! Card issuers that fail: one of five, or all alike.

use bongsu_schemas::tables::Table;
use serde_json::{Value, json};

use super::events::{Event, MINUTE_MS, at};
use super::scene::{Scene, Seen, everything_in, is_resolved, links, only, text, time_ms};
use crate::support::Random;

const OWNERS: &str = r##"
services:
  payment-api: { owner: { slack: "#payment-alerts" } }
  order-api: { owner: { slack: "#order-alerts" } }
  "*": { owner: { slack: "#platform" } }
"##;

/// Issuers with their payments a minute, 600 in all: 35, 25, 20, 15 and 5 % of them.
const ISSUERS: [(&str, u64); 5] = [("hanbit", 210), ("garam", 150), ("mirae", 120), ("dalbit", 90), ("byeol", 30)];
/// Ten minutes that begin and end within a window.
const FALL_MS: i64 = at(3) + 20_000;
const RECOVERY_MS: i64 = at(13) + 20_000;
/// The first two windows with failures are those of minutes 3 and 4: `for: 2 of 3` is fulfilled when the latter has ended.
const FIRES_MS: i64 = at(5);
const MINUTES: i64 = 19;

/// Payments, 98 % of which succeed, and of the `failing` issuers' 20 % while they are down; and the order of each payment, which fails
/// with it.
fn sales(seed: u64, failing: &[&str]) -> Vec<Event> {
    let mut random = Random(seed);
    let mut events = Vec::new();
    for minute in 0..MINUTES {
        for (issuer, per_minute) in ISSUERS {
            for _ in 0..per_minute + random.below(1 + per_minute / 10) {
                let time_ms = at(minute) + random.below(MINUTE_MS as u64) as i64;
                let is_down = failing.contains(&issuer) && (FALL_MS..RECOVERY_MS).contains(&time_ms);
                let succeeds = random.below(100) < if is_down { 20 } else { 98 };
                let outcome = if succeeds { "success" } else { "failure" };
                let payment = json!({
                    "service": "payment-api", "event": "payment", "outcome": outcome, "attributes": { "issuer": issuer },
                });
                let order = json!({ "service": "order-api", "event": "order", "outcome": outcome });
                events.push(Event::new(Table::Events, time_ms, payment));
                events.push(Event::new(Table::Events, time_ms, order));
            }
        }
    }
    events
}

/// Plays the sales and gives what came of them.
fn outage(seed: u64, failing: &[&str]) -> Seen {
    let mut scene = Scene::new(&[Table::Events], OWNERS);
    scene.run("all");
    let events = sales(seed, failing);
    // The reporter has seen some windows before anything happens.
    scene.play(&events, 0..3);
    scene.play(&events, 3..13);
    scene.wait_for("the alerts of the issuers and of the orders", |seen| {
        let alerts = failing.len() + 1;
        let joined = |incident: &Value| incident["alert_ids"].as_array().is_some_and(|ids| ids.len() >= alerts);
        (seen.incidents.iter().any(joined) && seen.channel("payment-alerts").len() == 1).then_some(())
    });
    scene.play(&events, 13..MINUTES);
    scene.wait_until_over()
}

/// What holds however many issuers fail: one incident in time, one message, nothing for the owners of the orders.
fn assert_one_incident_of_payments(seen: &Seen) -> &Value {
    const LONGEST_UNTIL_TOLD_MS: i64 = 3 * MINUTE_MS;
    const LONGEST_UNTIL_RESOLVED_MS: i64 = 5 * MINUTE_MS;
    let incident = seen.incident();
    assert_eq!(incident["services"], json!(["payment-api", "order-api"]), "{seen}");
    let (opened_ms, resolved_ms) = (time_ms(&incident["opened_at"]), time_ms(&incident["resolved_at"]));
    assert!(opened_ms == FIRES_MS && opened_ms - FALL_MS <= LONGEST_UNTIL_TOLD_MS, "{seen}");
    assert!((RECOVERY_MS..=RECOVERY_MS + LONGEST_UNTIL_RESOLVED_MS).contains(&resolved_ms), "{seen}");

    assert_eq!(seen.messages.len(), 1, "{seen}");
    let message = only(&seen.channel("payment-alerts"));
    assert!(is_resolved(message) && message.edits > 0 && links(message, incident), "{message:#?}");

    let orders = only(&seen.firing("orders-failing"));
    assert_eq!(time_ms(&orders["window_end"]), FIRES_MS, "{seen}");
    let alerts = incident["evidence"]["alerts"].as_array().unwrap();
    let explained: Vec<&Value> = alerts.iter().filter(|alert| alert["explained_by"].is_string()).collect();
    assert_eq!(only(&explained)["rule"], "orders-failing", "{seen}");
    incident
}

/// Scenario: of five issuers the largest falls from 98 % to 20 % for ten minutes, and orders fail because of it.
/// Guarantees: one incident within three minutes that names the issuer and no other, resolved within five minutes of the recovery; one
/// message, updated in place; no message for the owners of the orders.
#[test]
fn one_issuer_is_named_and_its_orders_are_explained() {
    let seen = outage(31, &["hanbit"]);
    let incident = assert_one_incident_of_payments(&seen);
    let title = text(&incident["title"]);
    let named: Vec<&str> = ISSUERS.iter().map(|(issuer, _)| *issuer).filter(|issuer| title.contains(issuer)).collect();
    assert_eq!(named, ["hanbit"], "{title}");
    assert_eq!(only(&seen.firing("issuer-failing"))["key"]["issuer"], "hanbit");
    assert!(everything_in(only(&seen.channel("payment-alerts"))).contains("hanbit"));
}

/// Scenario: all five issuers fall from 98 % to 20 % at once, for ten minutes.
/// Guarantees: it is one incident and one message all the same, and no single issuer is blamed.
#[test]
fn issuers_that_fail_alike_are_one_incident() {
    let all = ISSUERS.map(|(issuer, _)| issuer);
    let seen = outage(32, &all);
    let incident = assert_one_incident_of_payments(&seen);
    assert!(text(&incident["title"]).starts_with("all 5 issuers"), "{seen}");
    assert_eq!(seen.firing("issuer-failing").len(), all.len(), "{seen}");
}

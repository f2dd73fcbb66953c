//! The same fault on ten services, each with its own threshold and its own channel.

use std::collections::BTreeMap;
use std::ops::Range;

use bongsu_schemas::tables::Table;
use serde_json::json;

use super::events::{Event, at, request};
use super::scene::{Scene, burns, everything_in, links, only, time_ms};
use crate::support::Random;

/// What is above 10 % must not alert, what is below must. `loans` has a rule with two levels, and no other.
const SERVICES: &str = r##"
services:
  cart:   { owner: { slack: "#cart" },   params: { high-error-rate: { max: 0.02 } } }
  search: { owner: { slack: "#search" } }
  login:  { owner: { slack: "#login" },  params: { high-error-rate: { max: 0.08 } } }
  stock:  { owner: { slack: "#stock" },  params: { high-error-rate: { max: 0.13 } } }
  prices: { owner: { slack: "#prices" }, params: { high-error-rate: { max: 0.15 } } }
  mail:   { owner: { slack: "#mail" },   params: { high-error-rate: { max: 0.2 } } }
  ship:   { owner: { slack: "#ship" },   params: { high-error-rate: { max: 0.3 } } }
  rates:
    owner: { slack: "#rates" }
    params: { high-error-rate: { max: 0.5 } }
    series: [ { key: { route: "/quotes" }, params: { high-error-rate: { max: 0.04 } } } ]
  gifts:
    owner: { slack: "#gifts" }
    series: [ { key: { route: "/gifts" }, params: { high-error-rate: { max: 0.25 } } } ]
  loans:  { owner: { slack: "#loans" },  params: { high-error-rate: { max: 0.9 } } }
  "*":    { owner: { slack: "#platform" } }
rules:
  - name: loans-failing
    on: requests_1m
    when: service = 'loans' AND requests >= 20 AND errors > $max * requests
    params: { max: { warn: 0.05, critical: 0.3 } }
    for: 2 of 3
    severity: { warn: 3, critical: 5 }
    summary: "{{ service }}: {{ errors }} of {{ requests }} loans fail"
"##;

#[rustfmt::skip]
const SERIES: [(&str, &str); 11] = [
    ("cart", "/cart"), ("search", "/search"), ("login", "/login"), ("stock", "/stock"), ("prices", "/prices"), ("mail", "/mail"),
    ("ship", "/ship"), ("rates", "/quotes"), ("rates", "/history"), ("gifts", "/gifts"), ("loans", "/loans"),
];
/// Minutes in which 10 % fail, and of these the ones in which half of the loans do.
const FAULT: Range<i64> = 4..12;
const WORSE: Range<i64> = 8..12;
const MINUTES: i64 = 16;

/// A hundred requests a minute and some more of each series; 0.3 % fail on good days.
fn traffic(seed: u64) -> Vec<Event> {
    let mut random = Random(seed);
    let mut events = Vec::new();
    for minute in 0..MINUTES {
        for (service, route) in SERIES {
            for number in 0..100 + random.below(20) {
                let is_error = match minute {
                    minute if WORSE.contains(&minute) && service == "loans" => number % 2 == 0,
                    minute if FAULT.contains(&minute) => number % 10 == 0,
                    _ => random.below(1_000) < 3,
                };
                let time_ms = at(minute) + random.below(60_000) as i64;
                events.push(request(time_ms, service, route, is_error));
            }
        }
    }
    events
}

/// Scenario: 10 % of the requests of ten services fail for eight minutes; thresholds are from 2 to 30 %, one of them of a single route;
/// one service has a rule with two levels, and gets worse.
/// Guarantees: each channel whose own threshold is crossed has one message with it, the others have none; the message of what gets worse
/// is the same one, updated.
#[test]
fn each_service_alerts_at_its_own_threshold_in_its_own_channel() {
    let mut scene = Scene::new(&[Table::Requests], SERVICES);
    scene.run("all");
    let events = traffic(51);
    scene.play(&events, 0..7);
    let warned = scene.wait_for("loans to warn", |seen| {
        seen.channel("loans").first().filter(|message| burns(message, 3)).map(|message| message.ts.clone())
    });
    scene.play(&events, 7..11);
    scene.wait_for("loans to be critical", |seen| {
        seen.channel("loans").first().filter(|message| burns(message, 5)).map(|_| ())
    });
    scene.play(&events, 11..MINUTES);
    let seen = scene.wait_until_over();

    // The threshold of each alert, and of `rates` the route.
    let thresholds: BTreeMap<(&str, &str), f64> = seen
        .firing("high-error-rate")
        .into_iter()
        .map(|alert| {
            assert_eq!(time_ms(&alert["window_end"]), at(FAULT.start + 2), "{seen}");
            let part = |name: &str| alert["key"][name].as_str().unwrap();
            ((part("service"), part("route")), alert["params"]["max"].as_f64().unwrap())
        })
        .collect();
    let crossed =
        [("cart", "/cart", 0.02), ("login", "/login", 0.08), ("rates", "/quotes", 0.04), ("search", "/search", 0.05)];
    assert_eq!(thresholds, crossed.map(|(service, route, max)| ((service, route), max)).into(), "{seen}");

    let mut messages = BTreeMap::<&str, usize>::new();
    for message in &seen.messages {
        *messages.entry(&message.channel).or_default() += 1;
    }
    let told = ["cart", "loans", "login", "rates", "search"];
    assert_eq!(messages, told.map(|channel| (channel, 1)).into(), "{seen}");
    assert_eq!(seen.incidents.len(), told.len(), "{seen}");
    for incident in &seen.incidents {
        let channel = incident["services"][0].as_str().unwrap();
        assert!(links(only(&seen.channel(channel)), incident), "{seen}");
    }
    let rates = everything_in(only(&seen.channel("rates")));
    // Other routes of the service may be named as busy, but only one has an alert.
    assert!(rates.contains("rates /quotes: ") && rates.matches("*high-error-rate*").count() == 1, "{rates}");

    let levels: Vec<_> = seen
        .firing("loans-failing")
        .into_iter()
        .map(|alert| (alert["level"].clone(), alert["severity"].clone(), time_ms(&alert["window_end"])))
        .collect();
    let expected = [("warn", 3, at(FAULT.start + 2)), ("critical", 5, at(WORSE.start + 2))];
    assert_eq!(levels, expected.map(|(level, severity, end_ms)| (json!(level), json!(severity), end_ms)), "{seen}");
    assert_eq!(only(&seen.channel("loans")).ts, warned, "{seen}");
}

//! One type of exception that comes in a burst.

use std::ops::Range;

use bongsu_schemas::tables::Table;
use bongsu_stand_ins::slack::SlackMessage;
use serde_json::{Value, json};

use super::events::{Event, at, trace_id};
use super::scene::{Scene, everything_in, is_resolved, links, only, text, time_ms};
use crate::support::Random;

const OWNERS: &str = r##"
services:
  order-api: { owner: { slack: "#order-alerts" } }
  mail-api: { owner: { slack: "#mail-alerts" } }
  "*": { owner: { slack: "#platform" } }
"##;

const TYPE: &str = "com.shop.order.CouponExpiredException";
const ROUTE: &str = "/orders/{id}/coupons";
/// Minutes in which there are 30 of them, instead of one.
const BURST: Range<i64> = 5..8;
const MINUTES: i64 = 12;

/// Writes reports and counts traces.
struct Reports {
    random: Random,
    traces: u64,
    events: Vec<Event>,
}

impl Reports {
    /// One failure in this minute, reported so many times: by its span, by each retry, by the log.
    fn failure(&mut self, minute: i64, times: i64, exception: &Exception) {
        let Exception { service, name, message, route } = exception;
        self.traces += 1;
        let time_ms = at(minute) + self.random.below(58_000) as i64;
        for number in 0..times {
            let (line, generated) = (self.random.below(900), self.random.below(1 << 31));
            let stacktrace = format!(
                "{name}: {message}\n\tat com.shop.Coupons.redeem(Coupons.java:{line})\n\
                 \tat com.shop.Checkout$$EnhancerBySpringCGLIB$${generated:x}.pay(<generated>)\n\
                 \tat com.shop.Checkout.lambda$pay${line}(Checkout.java:{line})\n\
                 \tat org.springframework.web.method.support.InvocableHandlerMethod.invoke(InvocableHandlerMethod.java:255)\n"
            );
            let fields = json!({
                "service": service, "type": name, "message": message, "route": route, "stacktrace": stacktrace,
                "trace_id": trace_id(self.traces), "pod": format!("{service}-{}", line % 3),
            });
            self.events.push(Event::new(Table::Exceptions, time_ms + number * 500, fields));
        }
    }
}

/// What is thrown, where.
struct Exception {
    service: String,
    name: String,
    message: String,
    route: String,
}

/// Thirty kinds of exceptions on six services, at most three a minute each; six failures a minute that are reported three times each; and
/// the burst, each failure of which is reported twice, with other ids, line numbers and generated classes.
fn reports(seed: u64) -> Vec<Event> {
    let mut reports = Reports { random: Random(seed), traces: 0, events: Vec::new() };
    for minute in 0..MINUTES {
        for kind in 0..30 {
            let usual = Exception {
                service: format!("service-{}", kind % 6),
                name: format!("com.shop.Usual{kind}Exception"),
                message: format!("it happens to customer {}", reports.random.below(10_000)),
                route: format!("/usual/{kind}"),
            };
            for _ in 0..reports.random.below(4) {
                reports.failure(minute, 1, &usual);
            }
        }
        for _ in 0..6 {
            let retried = Exception {
                service: "mail-api".to_owned(),
                name: "com.shop.mail.BounceException".to_owned(),
                message: "no such mailbox".to_owned(),
                route: "/mails".to_owned(),
            };
            reports.failure(minute, 3, &retried);
        }
        for _ in 0..if BURST.contains(&minute) { 30 } else { 1 } {
            let (coupon, customer) = (reports.random.below(100_000), reports.random.below(10_000));
            let expired = Exception {
                service: "order-api".to_owned(),
                name: TYPE.to_owned(),
                message: format!("coupon {coupon} of customer {customer} expired"),
                route: ROUTE.to_owned(),
            };
            reports.failure(minute, 2, &expired);
        }
    }
    reports.events
}

/// Scenario: one type of exception goes from one to thirty a minute for three minutes, among thirty usual ones and one whose failures are
/// reported three times each.
/// Guarantees: one alert in the first minute, whatever ids, line numbers and generated names differ; it names type and route and counts
/// failures, not reports; nobody else is told of a burst.
#[test]
fn a_burst_names_type_and_route() {
    let mut scene = Scene::new(&[Table::Exceptions], OWNERS);
    scene.run("all");
    scene.play(&reports(71), 0..MINUTES);
    // Other rules may have something to say of exceptions, too.
    let tells_burst = |message: &&SlackMessage| everything_in(message).contains("exception-burst");
    let seen = scene.wait_for("the burst to be over", |seen| {
        seen.messages.iter().filter(tells_burst).any(is_resolved).then(|| seen.clone())
    });

    let burst = only(&seen.firing("exception-burst"));
    assert_eq!(time_ms(&burst["window_end"]), at(BURST.start + 1), "{seen}");
    assert_eq!((&burst["key"]["service"], &burst["key"]["type"]), (&json!("order-api"), &json!(TYPE)), "{seen}");
    assert_eq!((&burst["values"]["exceptions"], &burst["values"]["reports"]), (&json!(30), &json!(60)), "{seen}");
    let is_end = |alert: &&Value| alert["alert_id"] == burst["alert_id"] && alert["status"] == "resolved";
    let end = only(&seen.alerts.iter().filter(is_end).collect::<Vec<_>>());
    assert_eq!(time_ms(&end["window_end"]), at(BURST.end + 1), "{seen}");

    let message = only(&seen.messages.iter().filter(tells_burst).collect::<Vec<_>>());
    assert_eq!(message.channel, "order-alerts");
    let told = everything_in(message);
    for part in [TYPE, ROUTE, "coupon", "30 in a minute"] {
        assert!(told.contains(part), "`{part}` is not in {told}");
    }
    let of_burst = |incident: &&Value| {
        incident["alert_ids"].as_array().unwrap().iter().any(|id| text(id) == text(&burst["alert_id"]))
    };
    let incidents: Vec<_> = seen.incidents.iter().filter(of_burst).collect();
    assert!(links(message, only(&incidents)), "{seen}");
}

//! What Slack sees when much happens, when the same thing happens again and again, and when Slack itself is in trouble.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::Duration;

use bongsu_schemas::alert::{AlertRecord, AlertStatus};
use bongsu_schemas::key::key_text;
use bongsu_schemas::window::WindowRecord;
use bongsu_stand_ins::slack::{Fault, SlackMessage, SlackOptions, SlackStandIn};
use bongsu_testkit::{Broker, Record, produce};
use chrono::TimeDelta;
use serde_json::json;

use super::alerts::{alert, of, send};
use super::dashboard::until_has;
use super::{DEADLINE, Running, config, create_topics};

const SERVICES: usize = 50;

fn service(number: usize) -> String {
    format!("service-{number}-x")
}

fn text(message: &SlackMessage) -> String {
    serde_json::to_string(&message.blocks).unwrap()
}

/// In how many messages each of the services is named.
fn named(messages: &[SlackMessage]) -> Vec<usize> {
    let texts: Vec<String> = messages.iter().map(text).collect();
    (0..SERVICES).map(|number| texts.iter().filter(|text| text.contains(&service(number))).count()).collect()
}

fn send_all(broker: &Broker, status: AlertStatus) {
    let records = (0..SERVICES).map(|number| {
        let alert = alert("errors", &service(number), status);
        Record::from((key_text(&alert.key), serde_json::to_string(&alert).unwrap()))
    });
    produce(broker.bootstrap(), "bongsu.alerts", None, records).unwrap();
}

async fn strict_slack() -> SlackStandIn {
    SlackStandIn::start(SlackOptions { one_per_second: true, ..SlackOptions::default() }).await.unwrap()
}

/// Scenario: fifty services fail at once and share a channel; a restart; all of them are over.
/// Guarantees: a few messages instead of fifty, each service in exactly one of them; the ends are shown in place; nothing is told again.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_is_a_few_messages_and_loses_nobody() {
    let broker = Broker::start().unwrap();
    let slack = strict_slack().await;
    let config = config(&broker, &slack);
    create_topics(&broker, &config);
    let running = Running::start(&config);
    running.until_ready(true).await;
    send_all(&broker, AlertStatus::Firing);
    let all = |messages: &[SlackMessage]| named(messages).iter().all(|count| *count > 0);
    let messages = slack.wait_for(all, DEADLINE).await.unwrap();
    assert_eq!(named(&messages), vec![1; SERVICES], "{messages:#?}");
    assert!(messages.len() <= 6, "{messages:#?}");
    running.stop().await;

    let posts = slack.calls("chat.postMessage");
    let running = Running::start(&config);
    running.until_ready(true).await;
    send_all(&broker, AlertStatus::Resolved);
    let over = |messages: &[SlackMessage]| {
        let ends = messages.iter().map(|message| text(message).matches("✅ *").count()).sum::<usize>();
        ends == SERVICES && messages.iter().all(|message| message.text.starts_with("✅ Resolved"))
    };
    let after = slack.wait_for(over, DEADLINE).await.unwrap();
    running.stop().await;
    assert_eq!((after.len(), slack.calls("chat.postMessage")), (messages.len(), posts), "{after:#?}");
    assert_eq!(named(&after), vec![1; SERVICES]);
}

/// Scenario: incidents in three channels change while Slack is away for some seconds, then asks to slow down, fails, and breaks a
/// connection after it has taken a message.
/// Guarantees: every change arrives, in one message for each incident and one reply for what joined it; none comes twice.
#[tokio::test(flavor = "multi_thread")]
async fn slack_s_troubles_lose_and_repeat_nothing() {
    let broker = Broker::start().unwrap();
    let slack = strict_slack().await;
    let config = config(&broker, &slack);
    create_topics(&broker, &config);
    let running = Running::start(&config);
    running.until_ready(true).await;
    let services = ["order-api", "pay-api", "search"];
    let trouble = || {
        slack.fail_next(2, Fault::RateLimited { retry_after_secs: 1 });
        slack.fail_next(1, Fault::ServerError);
        slack.fail_next(1, Fault::DropAfterAccept);
        slack.fail_for(Duration::from_secs(2), Fault::Outage);
    };
    let tell = |rule: &str, status: AlertStatus| {
        for service in services {
            send(&broker, &alert(rule, service, status));
        }
    };
    trouble();
    tell("errors", AlertStatus::Firing);
    let fires = |messages: &[SlackMessage]| messages.len() == 3;
    slack.wait_for(fires, DEADLINE).await.unwrap();
    trouble();
    tell("latency", AlertStatus::Firing);
    let joined = |message: &SlackMessage| message.text.ends_with("(+1)") && message.replies.len() == 1;
    slack.wait_for(|messages| messages.iter().all(joined), DEADLINE).await.unwrap();
    trouble();
    tell("errors", AlertStatus::Resolved);
    tell("latency", AlertStatus::Resolved);
    let over = |message: &SlackMessage| message.text.starts_with("✅ Resolved");
    let messages = slack.wait_for(|messages| messages.iter().all(over), DEADLINE).await.unwrap();
    running.stop().await;
    let channels: BTreeSet<&str> = messages.iter().map(|message| message.channel.as_str()).collect();
    assert_eq!((messages.len(), channels.len()), (3, 3), "{messages:#?}");
    assert!(messages.iter().all(|message| message.replies.len() == 1), "{messages:#?}");
}

/// A turn of one rule and key that goes back and forth every other minute.
fn turn(number: i64) -> AlertRecord {
    let status = if number % 2 == 0 { AlertStatus::Firing } else { AlertStatus::Resolved };
    let mut record = alert("errors", "search", status);
    record.alert_id = format!("turn-{}", number / 2);
    record.window_end = alert("errors", "search", AlertStatus::Firing).window_end + TimeDelta::minutes(number);
    record.window_start = record.window_end - TimeDelta::minutes(1);
    record
}

/// Scenario: an alert that crosses its threshold every other minute for an hour; a restart.
/// Guarantees: one message, three updates, also after the restart; nobody else in the channel waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_flapping_hour_is_one_message_and_three_updates() {
    let broker = Broker::start().unwrap();
    let slack = strict_slack().await;
    let config = config(&broker, &slack);
    create_topics(&broker, &config);
    let running = Running::start(&config);
    for number in 0..4 {
        send(&broker, &turn(number));
        let told = |messages: &[SlackMessage]| messages.first().is_some_and(|first| i64::from(first.edits) == number);
        slack.wait_for(told, DEADLINE).await.unwrap();
    }
    for number in 4..60 {
        send(&broker, &turn(number));
    }
    // Comes after all of them, in the same channel.
    send(&broker, &alert("errors", "basket", AlertStatus::Firing));
    let messages = slack.wait_for(|messages| messages.len() == 2, DEADLINE).await.unwrap();
    assert_eq!(messages[0].edits, 3, "{messages:#?}");
    running.stop().await;

    let running = Running::start(&config);
    send(&broker, &alert("errors", "cart", AlertStatus::Firing));
    let messages = slack.wait_for(|messages| messages.len() == 3, DEADLINE).await.unwrap();
    running.stop().await;
    assert_eq!((messages[0].edits, messages[0].replies.len()), (3, 0), "{messages:#?}");
    assert_eq!(of(&messages, "platform-alerts").len(), 3);
}

/// Scenario: windows of exceptions and requests are there when an alert fires.
/// Guarantees: the message names what was thrown and which URL was busiest at that moment, and links to that time.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_names_what_happened_around_its_alert() {
    let broker = Broker::start().unwrap();
    let slack = strict_slack().await;
    let mut config = config(&broker, &slack);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.dashboard.listen = address;
    config.dashboard.public_url = Some("https://bongsu.example.com".parse().unwrap());
    create_topics(&broker, &config);
    let firing = alert("errors", "order-api", AlertStatus::Firing);
    let window = |view: &str, key: serde_json::Value, values: serde_json::Value| {
        let window = WindowRecord {
            view: view.to_owned(),
            window_start: firing.window_start,
            window_end: firing.window_end,
            key: key.as_object().unwrap().clone(),
            values: values.as_object().unwrap().clone(),
            is_final: true,
            sequence: None,
        };
        produce(broker.bootstrap(), "bongsu.windows", None, [serde_json::to_string(&window).unwrap()]).unwrap();
    };
    window("exceptions_1m", json!({"service": "order-api", "type": "PoolExhausted"}), json!({"exceptions": 42}));
    window("requests_1m", json!({"service": "order-api", "route": "/orders"}), json!({"requests": 4_711, "errors": 9}));
    let running = Running::start(&config);
    for wanted in ["PoolExhausted", "4711"] {
        until_has(address, "/api/windows", wanted).await;
    }
    send(&broker, &firing);
    let messages = slack.wait_for(|messages| messages.len() == 1, DEADLINE).await.unwrap();
    running.stop().await;
    let text = text(&messages[0]);
    for wanted in [
        "`PoolExhausted` 42",
        "`/orders` 4711 requests, 9 failed",
        "owner order team",
        "<https://bongsu.example.com/?from=2026-11-16T12:00:00Z&amp;to=2026-11-16T12:01:00Z#incident-",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

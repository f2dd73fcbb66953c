use std::collections::{BTreeMap, BTreeSet};

use bongsu_schemas::alert::{AlertRecord, AlertStatus, Evidence, alert_id};
use bongsu_schemas::key::key_text;
use bongsu_stand_ins::slack::{Fault, SlackMessage, SlackOptions, SlackStandIn};
use bongsu_testkit::{Broker, Record, produce, read_committed};
use chrono::{TimeDelta, Utc};
use serde_json::{Map, json};

use super::{DEADLINE, Running, config, create_topics};

const ALERTS: &str = "bongsu.alerts";

pub(crate) fn alert(rule: &str, service: &str, status: AlertStatus) -> AlertRecord {
    let key = Map::from_iter([("service".to_owned(), json!(service))]);
    let noon = "2026-11-16T12:00:00Z".parse().unwrap();
    let resolved = status == AlertStatus::Resolved;
    let window_end = noon + TimeDelta::minutes(if resolved { 8 } else { 1 });
    AlertRecord {
        alert_id: alert_id(rule, &key, noon),
        rule: rule.to_owned(),
        status,
        severity: 4,
        service: Some(service.to_owned()),
        key,
        values: Map::from_iter([("errors".to_owned(), json!(12))]),
        params: BTreeMap::new(),
        window_start: window_end - TimeDelta::minutes(1),
        window_end,
        first_event_time: None,
        fired_at: Utc::now(),
        resolved_at: resolved.then(Utc::now),
        summary: format!("{service}: {rule}"),
        evidence: Evidence::default(),
        sequence: if resolved { 2 } else { 1 },
        reason: None,
        level: None,
        explained_by: Vec::new(),
        early: false,
    }
}

pub(crate) fn send(broker: &Broker, alert: &AlertRecord) {
    let record = Record::from((key_text(&alert.key), serde_json::to_string(alert).unwrap()));
    produce(broker.bootstrap(), ALERTS, None, [record]).unwrap();
}

pub(crate) fn of<'a>(messages: &'a [SlackMessage], channel: &str) -> Vec<&'a SlackMessage> {
    messages.iter().filter(|message| message.channel == channel).collect()
}

/// Scenario: two alerts of one service, one of another whose channel does not exist, resolved, a restart, a record that is no JSON.
/// Guarantees: one message in the owner's channel, updated in place, whose thread tells of the second alert; none anywhere else; the
/// missing channel holds up nobody; a restart sends nothing again; a broken record is passed over.
#[tokio::test(flavor = "multi_thread")]
async fn one_message_for_each_incident_updated_in_place() {
    let broker = Broker::start().unwrap();
    let channels = Some(BTreeSet::from(["order-alerts".to_owned(), "platform-alerts".to_owned()]));
    let slack =
        SlackStandIn::start(SlackOptions { channels, one_per_second: true, ..SlackOptions::default() }).await.unwrap();
    let config = config(&broker, &slack);
    create_topics(&broker, &config);
    produce(broker.bootstrap(), ALERTS, None, ["not json"]).unwrap();
    send(&broker, &alert("errors", "pay-api", AlertStatus::Firing));
    send(&broker, &alert("errors", "order-api", AlertStatus::Firing));

    let running = Running::start(&config);
    let sent = |messages: &[SlackMessage]| of(messages, "order-alerts").len() == 1;
    let messages = slack.wait_for(sent, DEADLINE).await.unwrap();
    assert!(messages[0].text.starts_with("🔥🔥🔥🔥 order-api: errors"), "{}", messages[0].text);
    send(&broker, &alert("latency", "order-api", AlertStatus::Firing));
    let both = |messages: &[SlackMessage]| messages[0].text.ends_with("(+1)");
    slack.wait_for(both, DEADLINE).await.unwrap();
    let replied = |messages: &[SlackMessage]| messages[0].replies.len() == 1;
    let messages = slack.wait_for(replied, DEADLINE).await.unwrap();
    assert!(messages[0].replies[0].text.contains("Also fires: *latency*"), "{messages:#?}");
    send(&broker, &alert("errors", "order-api", AlertStatus::Resolved));
    send(&broker, &alert("latency", "order-api", AlertStatus::Resolved));
    let resolved = |messages: &[SlackMessage]| messages[0].text.starts_with("✅ Resolved");
    let messages = slack.wait_for(resolved, DEADLINE).await.unwrap();
    assert_eq!((messages.len(), messages[0].replies.len()), (1, 1), "{messages:#?}");
    running.stop().await;

    let incidents = read_committed(broker.bootstrap(), "bongsu.incidents").unwrap();
    let of_order: Vec<_> =
        incidents.iter().map(|record| record.json().unwrap()).filter(|it| it["services"][0] == "order-api").collect();
    let sequences: Vec<_> = of_order.iter().map(|incident| incident["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, [1, 2, 3, 4]);
    assert_eq!(of_order[3]["status"], "resolved");

    let edits = slack.messages("order-alerts")[0].edits;
    let running = Running::start(&config);
    send(&broker, &alert("errors", "search", AlertStatus::Firing));
    let sent = |messages: &[SlackMessage]| of(messages, "platform-alerts").len() == 1;
    let messages = slack.wait_for(sent, DEADLINE).await.unwrap();
    running.stop().await;
    assert_eq!((messages.len(), slack.messages("order-alerts")[0].edits), (2, edits), "{messages:#?}");
    let again = read_committed(broker.bootstrap(), "bongsu.incidents").unwrap();
    assert_eq!(again.len(), incidents.len() + 1, "incidents are not published again");
}

/// Scenario: a silence of one service is written, alerts of it and of another one come, the silence is taken back.
/// Guarantees: only what the matcher fits is muted, and what still fires afterwards is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_silence_mutes_its_service_until_it_is_taken_back() {
    let broker = Broker::start().unwrap();
    let slack = SlackStandIn::start(SlackOptions::default()).await.unwrap();
    let config = config(&broker, &slack);
    create_topics(&broker, &config);
    let command = |text: &str| produce(broker.bootstrap(), "bongsu.commands", None, [("s1", text)]).unwrap();
    command(
        r#"{"command":"silence","id":"s1","matcher":{"service":"order-api"},"from":"2026-11-16T00:00:00Z",
            "until":"2026-11-17T00:00:00Z","by":"me","reason":"deploy"}"#,
    );
    send(&broker, &alert("errors", "order-api", AlertStatus::Firing));
    send(&broker, &alert("errors", "pay-api", AlertStatus::Firing));
    let running = Running::start(&config);
    let sent = |messages: &[SlackMessage]| of(messages, "pay-alerts").len() == 1;
    let messages = slack.wait_for(sent, DEADLINE).await.unwrap();
    assert_eq!(messages.len(), 1, "{messages:#?}");
    command(r#"{"command":"unsilence","id":"s1","by":"me"}"#);
    let sent = |messages: &[SlackMessage]| of(messages, "order-alerts").len() == 1;
    slack.wait_for(sent, DEADLINE).await.unwrap();
    running.stop().await;
}

/// Scenario: an incident is taken; the reporter is restarted; while it is away an alert joins, and somebody else takes over.
/// Guarantees: the message says who has it; a restart neither repeats nor forgets that, and sequences go on.
#[tokio::test(flavor = "multi_thread")]
async fn an_incident_stays_taken_after_a_restart() {
    let broker = Broker::start().unwrap();
    let slack = SlackStandIn::start(SlackOptions::default()).await.unwrap();
    let config = config(&broker, &slack);
    create_topics(&broker, &config);
    send(&broker, &alert("errors", "order-api", AlertStatus::Firing));
    let running = Running::start(&config);
    slack.wait_for(|messages: &[SlackMessage]| messages.len() == 1, DEADLINE).await.unwrap();
    let incidents = || -> Vec<serde_json::Value> {
        read_committed(broker.bootstrap(), "bongsu.incidents").unwrap().iter().map(|it| it.json().unwrap()).collect()
    };
    let id = incidents()[0]["incident_id"].as_str().unwrap().to_owned();
    let take = |by: &str| {
        let command = json!({ "command": "acknowledge", "incident_id": id, "by": by }).to_string();
        produce(broker.bootstrap(), "bongsu.commands", None, [(format!("{id} {by}"), command)]).unwrap();
    };
    let says = |by: &'static str| {
        let wanted = format!("taken by {by}");
        move |messages: &[SlackMessage]| messages.iter().any(|it| format!("{:?}", it.blocks).contains(&wanted))
    };
    take("Kim");
    slack.wait_for(says("Kim"), DEADLINE).await.unwrap();
    running.stop().await;

    let running = Running::start(&config);
    running.until_ready(true).await;
    running.stop().await;
    assert_eq!(incidents().len(), 2, "a restart publishes nothing again");

    send(&broker, &alert("latency", "order-api", AlertStatus::Firing));
    take("Lee");
    let running = Running::start(&config);
    let messages = slack.wait_for(says("Lee"), DEADLINE).await.unwrap();
    running.stop().await;
    assert_eq!(messages.len(), 1, "{messages:#?}");
    let states: Vec<(u64, Option<String>)> = incidents()
        .iter()
        .map(|it| (it["sequence"].as_u64().unwrap(), it["acknowledged_by"].as_str().map(str::to_owned)))
        .collect();
    assert_eq!(states[..2], [(1, None), (2, Some("Kim".to_owned()))]);
    assert_eq!(states.last(), Some(&(4, Some("Lee".to_owned()))));
    assert!(states.is_sorted_by_key(|(sequence, _)| *sequence), "{states:?}");
}

/// Scenario: Slack accepts a message and the connection breaks; it asks to slow down and fails; the process dies between sending and
/// the ledger (its entry is taken away); the broker is away for a while.
/// Guarantees: the message is there once, whatever happened; work goes on by itself when the broker is back.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_repeated_when_parts_fail() {
    let mut broker = Broker::start().unwrap();
    let slack = SlackStandIn::start(SlackOptions::default()).await.unwrap();
    let config = config(&broker, &slack);
    create_topics(&broker, &config);
    let running = Running::start(&config);
    running.until_ready(true).await;

    slack.fail_next(1, Fault::DropAfterAccept);
    send(&broker, &alert("errors", "order-api", AlertStatus::Firing));
    let searched = async {
        while slack.calls("chat.update") == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, searched).await.unwrap();
    assert_eq!((slack.messages("order-alerts").len(), slack.calls("chat.postMessage")), (1, 1));

    slack.fail_next(1, Fault::RateLimited { retry_after_secs: 1 });
    slack.fail_next(1, Fault::ServerError);
    slack.fail_next(1, Fault::Outage);
    send(&broker, &alert("errors", "pay-api", AlertStatus::Firing));
    let sent = |messages: &[SlackMessage]| of(messages, "pay-alerts").len() == 1;
    slack.wait_for(sent, DEADLINE).await.unwrap();
    running.stop().await;

    let ledger = read_committed(broker.bootstrap(), "bongsu.notifications").unwrap();
    let ids: BTreeSet<Vec<u8>> = ledger.iter().filter_map(|entry| entry.key.clone()).collect();
    assert_eq!(ids.len(), 2);
    let tombstones = ids.into_iter().map(|id| Record { key: Some(id), value: None, timestamp_ms: None });
    produce(broker.bootstrap(), "bongsu.notifications", None, tombstones).unwrap();
    let posts = slack.calls("chat.postMessage");
    let running = Running::start(&config);
    let written = async {
        let fresh = |record: &&bongsu_testkit::Message| record.value.is_some();
        while read_committed(broker.bootstrap(), "bongsu.notifications")
            .unwrap()
            .iter()
            .rev()
            .take(2)
            .filter(fresh)
            .count()
            < 2
        {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(DEADLINE, written).await.unwrap();
    assert_eq!((slack.all_messages().len(), slack.calls("chat.postMessage")), (2, posts));

    broker.kill();
    running.until_ready(false).await;
    broker.restart().unwrap();
    running.until_ready(true).await;
    send(&broker, &alert("errors", "search", AlertStatus::Firing));
    let sent = |messages: &[SlackMessage]| of(messages, "platform-alerts").len() == 1;
    slack.wait_for(sent, DEADLINE).await.unwrap();
    running.stop().await;
    assert_eq!(slack.all_messages().len(), 3);
}

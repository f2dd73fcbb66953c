use std::collections::BTreeSet;

use bongsu_reporter::config::Config;
use bongsu_schemas::alert::AlertStatus::{Firing, Resolved};
use bongsu_stand_ins::slack::{SlackOptions, SlackStandIn};
use bongsu_stand_ins::webhook::{WebhookCall, WebhookFault, WebhookStandIn};
use bongsu_testkit::{Broker, Record, produce, read_committed};
use serde_json::{Value, json};

use super::alerts::{alert, send};
use super::{DEADLINE, Running, config, create_topics};

/// A configuration whose only receivers are these webhooks.
async fn only_webhooks(broker: &Broker, webhooks: Value) -> Config {
    let slack = SlackStandIn::start(SlackOptions::default()).await.unwrap();
    let mut config = config(broker, &slack);
    config.slack = None;
    config.webhooks = serde_json::from_value(webhooks).unwrap();
    config
}

fn accepted<'a>(calls: &'a [WebhookCall], path: &str) -> Vec<&'a WebhookCall> {
    calls.iter().filter(|call| call.accepted() && call.path == path).collect()
}

fn sequences(calls: &[&WebhookCall]) -> Vec<u64> {
    calls.iter().map(|call| call.json()["incident"]["sequence"].as_u64().unwrap()).collect()
}

/// Waits until the ledger has this many entries.
async fn until_remembered(broker: &Broker, count: usize) {
    let remembered = async {
        while read_committed(broker.bootstrap(), "bongsu.notifications").unwrap().len() < count {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, remembered).await.unwrap();
}

/// Scenario: three receivers: one that fails in every way before it accepts, one of another service, Alertmanager; an incident that
/// opens, goes on and ends; a restart; a crash between sending and the ledger (its entries are taken away).
/// Guarantees: each change arrives in order, the resolved one last; nobody is told of others' services; a restart sends nothing again;
/// after the crash everything comes again with the same id and sequence.
#[tokio::test(flavor = "multi_thread")]
async fn an_incident_reaches_its_receivers() {
    let broker = Broker::start().unwrap();
    let stand_in = WebhookStandIn::start(0).await.unwrap();
    // Another one, so that the faults are for one receiver only.
    let alertmanager = WebhookStandIn::start(0).await.unwrap();
    let webhooks = json!([
        { "name": "pager", "url": stand_in.url("/pager"), "severity": 4 },
        { "name": "am", "url": alertmanager.url("/api/v2/alerts"), "format": "alertmanager", "services": ["order-api"] },
        { "name": "pay", "url": alertmanager.url("/pay"), "services": ["pay-api"] },
    ]);
    let config = only_webhooks(&broker, webhooks).await;
    create_topics(&broker, &config);
    let running = Running::start(&config);
    running.until_ready(true).await;

    stand_in.fail_next(1, WebhookFault::Answer { status: 500, body: String::new() });
    stand_in.fail_next(1, WebhookFault::RateLimited { retry_after_secs: 1 });
    stand_in.fail_next(1, WebhookFault::DropAfterRead);
    let changes = [("errors", Firing), ("latency", Firing), ("errors", Resolved), ("latency", Resolved)];
    for (number, (rule, status)) in changes.into_iter().enumerate() {
        send(&broker, &alert(rule, "order-api", status));
        let arrived = |calls: &[WebhookCall]| accepted(calls, "/pager").len() == number + 1;
        stand_in.wait_for(arrived, DEADLINE).await.unwrap();
        let arrived = |calls: &[WebhookCall]| accepted(calls, "/api/v2/alerts").len() == number + 1;
        alertmanager.wait_for(arrived, DEADLINE).await.unwrap();
    }
    until_remembered(&broker, 8).await;
    running.stop().await;
    let calls = stand_in.calls();
    let of_pager = accepted(&calls, "/pager");
    assert_eq!((sequences(&of_pager), calls.len()), (vec![1, 2, 3, 4], 7));
    assert_eq!(of_pager[3].json()["incident"]["status"], "resolved");
    let told = alertmanager.calls();
    assert!(told.iter().all(WebhookCall::accepted) && accepted(&told, "/pay").is_empty(), "{told:#?}");
    let last = told[3].json();
    let ends: Vec<bool> = last.as_array().unwrap().iter().map(|alert| alert["endsAt"].is_string()).collect();
    assert_eq!(ends, [true], "the end of the first one has been told");

    // What is told of another service shows that the restart has done its work.
    let running = Running::start(&config);
    send(&broker, &alert("errors", "pay-api", Firing));
    let arrived = |calls: &[WebhookCall]| accepted(calls, "/pager").len() == 5;
    let again = stand_in.wait_for(arrived, DEADLINE).await.unwrap();
    until_remembered(&broker, 10).await;
    running.stop().await;
    assert_eq!(again[7].json()["incident"]["services"], json!(["pay-api"]));

    let ledger = read_committed(broker.bootstrap(), "bongsu.notifications").unwrap();
    let kinds: BTreeSet<String> = ledger.iter().map(|entry| entry.json().unwrap()["kind"].to_string()).collect();
    assert_eq!(kinds, BTreeSet::from(["\"webhook\"".to_owned()]));
    let ids: BTreeSet<Vec<u8>> = ledger.iter().filter_map(|entry| entry.key.clone()).collect();
    assert_eq!(ids.len(), 4);
    let tombstones = ids.into_iter().map(|id| Record { key: Some(id), value: None, timestamp_ms: None });
    produce(broker.bootstrap(), "bongsu.notifications", None, tombstones).unwrap();
    let running = Running::start(&config);
    let arrived = |calls: &[WebhookCall]| accepted(calls, "/pager").len() == 7;
    let again = stand_in.wait_for(arrived, DEADLINE).await.unwrap();
    running.stop().await;
    let name = |call: &WebhookCall| {
        let headers = ["x-bongsu-notification", "x-bongsu-sequence"];
        headers.map(|header| call.header(header).to_owned())
    };
    let before: BTreeSet<_> = [&again[6], &again[7]].map(name).into();
    let after: BTreeSet<_> = [&again[8], &again[9]].map(name).into();
    assert_eq!(before, after);
}

/// Scenario: a webhook whose secret is in no variable.
/// Guarantees: the reporter does not start, and says which variable is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_an_error() {
    let broker = Broker::start().unwrap();
    let section = json!({ "name": "pager", "url": "http://localhost:9/", "secret_env": "BONGSU_TEST_NO_SUCH_SECRET" });
    let config = only_webhooks(&broker, json!([section])).await;
    let running = Running::start(&config);
    let problem = tokio::time::timeout(DEADLINE, running.task).await.unwrap().unwrap().unwrap_err();
    assert!(format!("{problem:#}").contains("BONGSU_TEST_NO_SUCH_SECRET"), "{problem:#}");
}

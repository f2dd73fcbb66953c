use std::collections::BTreeMap;

use bongsu_schemas::alert::AlertRecord;
use bongsu_schemas::alert::AlertStatus::{Firing, Resolved};
use bongsu_schemas::kafka::Kafka;
use bongsu_stand_ins::webhook::{WebhookCall, WebhookFault, WebhookStandIn};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use serde_json::{Value, json};

use super::*;
use crate::incidents::Correlator;
use crate::incidents::tests::alert;
use crate::kafka::Producer;

/// A machine with two cores may compile something meanwhile.
const DEADLINE: Duration = Duration::from_secs(60);
const AUDIBLE: &dyn Fn(&IncidentAlert) -> bool = &|_| false;

/// Receivers over a ledger in librdkafka's mock: this is about wiring. What is said about Kafka itself is tested with Kafka, in
/// `tests/real`.
struct Bench {
    stand_in: WebhookStandIn,
    kafka: Kafka,
    endpoints: Vec<Arc<Endpoint>>,
    correlator: Correlator,
    _cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Bench {
    async fn new(section: Value) -> Bench {
        let stand_in = WebhookStandIn::start(0).await.unwrap();
        let cluster = MockCluster::new(1).unwrap();
        let kafka = Kafka {
            brokers: cluster.bootstrap_servers(),
            topic_prefix: "bongsu".to_owned(),
            group: "bongsu".to_owned(),
            properties: BTreeMap::new(),
        };
        cluster.create_topic(&kafka.topics().notifications(), 1, 1).unwrap();
        let path = if section["format"] == "alertmanager" { "/api/v2/alerts" } else { "/hook" };
        let mut value = json!({ "name": "pager", "url": stand_in.url(path) });
        value.as_object_mut().unwrap().extend(section.as_object().unwrap().clone());
        let endpoints = endpoints(&[serde_json::from_value(value).unwrap()], |_| None).unwrap();
        Bench { stand_in, kafka, endpoints, correlator: Correlator::default(), _cluster: cluster }
    }

    /// As a process that begins: with what the ledger has.
    async fn start(&self) -> Webhooks {
        let producer = Arc::new(Producer::new(&self.kafka).unwrap());
        let ledger = Ledger::load(&self.kafka, producer, Utc::now()).await.unwrap();
        Webhooks::new(&self.endpoints, ledger, None)
    }

    fn apply(&mut self, record: &AlertRecord) -> Arc<Incident> {
        self.correlator.apply(record).remove(0).incident
    }

    /// Waits for this many accepted calls.
    async fn accepted(&self, count: usize) -> Vec<WebhookCall> {
        let enough = |calls: &[WebhookCall]| calls.iter().filter(|call| call.accepted()).count() >= count;
        let calls = self.stand_in.wait_for(enough, DEADLINE).await.unwrap();
        calls.into_iter().filter(WebhookCall::accepted).collect()
    }
}

/// Waits until the ledger has this sequence, in this process: the answer comes before the entry.
async fn until_remembered(webhooks: &Webhooks, call: &WebhookCall) {
    let id = call.header("x-bongsu-notification").to_owned();
    let sequence = call.json()["incident"]["sequence"].as_u64().unwrap();
    let remembered = async {
        while webhooks.ledger.get(&id).is_none_or(|entry| u64::from(entry.sequence) < sequence) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, remembered).await.unwrap();
}

fn sequences(calls: &[WebhookCall]) -> Vec<u64> {
    calls.iter().map(|call| call.header("x-bongsu-sequence").parse().unwrap()).collect()
}

/// Scenario: a receiver that answers 500, then 429, then reads and breaks the connection, then accepts; the incident goes on; a restart
/// follows, and a restart that missed the last change.
/// Guarantees: H1 and H2: each change arrives, with one id, the resolved one last; a restart sends what the ledger lacks and nothing else.
#[tokio::test]
async fn every_change_arrives() {
    let mut bench = Bench::new(json!({})).await;
    let mut webhooks = bench.start().await;
    bench.stand_in.fail_next(1, WebhookFault::Answer { status: 500, body: String::new() });
    bench.stand_in.fail_next(1, WebhookFault::RateLimited { retry_after_secs: 1 });
    bench.stand_in.fail_next(1, WebhookFault::DropAfterRead);
    let changes = [
        alert("errors", Some("order"), Firing, 1),
        alert("latency", Some("order"), Firing, 2),
        alert("errors", Some("order"), Resolved, 5),
    ];
    for (number, change) in changes.iter().enumerate() {
        let incident = bench.apply(change);
        webhooks.tell(&incident, AUDIBLE);
        let calls = bench.accepted(number + 1).await;
        until_remembered(&webhooks, &calls[number]).await;
    }
    webhooks.finish(DEADLINE).await;
    let all = bench.stand_in.calls();
    let statuses: Vec<_> = all.iter().map(|call| call.status).collect();
    assert_eq!(statuses, [Some(500), Some(429), None, Some(200), Some(200), Some(200)]);
    assert_eq!(sequences(&all), [1, 1, 1, 1, 2, 3]);
    let ids: BTreeSet<&str> = all.iter().map(|call| call.header("x-bongsu-notification")).collect();
    assert_eq!(ids.len(), 1, "{all:#?}");
    assert!(all.iter().all(|call| call.json()["notification_id"] == call.header("x-bongsu-notification")));

    let mut webhooks = bench.start().await;
    webhooks.tell(bench.correlator.incidents().next().unwrap(), AUDIBLE);
    let resolved = bench.apply(&alert("latency", Some("order"), Resolved, 6));
    webhooks.tell(&resolved, AUDIBLE);
    let calls = bench.accepted(4).await;
    assert_eq!(sequences(&calls), [1, 2, 3, 4]);
    let last = calls[3].json();
    assert_eq!((&last["incident"]["status"], &last["version"]), (&json!("resolved"), &json!(1)));
    assert_eq!(last["alerts"].as_array().map(Vec::len), Some(2));
    webhooks.finish(DEADLINE).await;
}

/// Scenario: three changes before the worker gets to send the first one.
/// Guarantees: they fall together while they wait; what arrives is the last one.
#[tokio::test]
async fn changes_that_wait_fall_together() {
    let mut bench = Bench::new(json!({})).await;
    let mut webhooks = bench.start().await;
    let changes = [
        alert("errors", Some("order"), Firing, 1),
        alert("latency", Some("order"), Firing, 2),
        alert("errors", Some("order"), Resolved, 5),
    ];
    // One thread, and nothing is awaited in between.
    for change in changes {
        let incident = bench.apply(&change);
        webhooks.tell(&incident, AUDIBLE);
    }
    let calls = bench.accepted(1).await;
    webhooks.finish(DEADLINE).await;
    assert_eq!(sequences(&calls), [3]);
    assert_eq!(bench.stand_in.calls().len(), 1);
}

/// Scenario: Alertmanager is told that an alert fires and that it ended, of which a second one ends later; a restart in between.
/// Guarantees: bodies that Alertmanager takes; an end is told once by a process; after a restart what fires is told again at once.
#[tokio::test]
async fn alertmanager_is_told_again_what_fires() {
    let mut bench = Bench::new(json!({ "format": "alertmanager" })).await;
    let mut webhooks = bench.start().await;
    let changes = [
        alert("errors", Some("order"), Firing, 1),
        alert("latency", Some("order"), Firing, 2),
        alert("errors", Some("order"), Resolved, 5),
    ];
    for (number, change) in changes.iter().enumerate() {
        let incident = bench.apply(change);
        webhooks.tell(&incident, AUDIBLE);
        bench.accepted(number + 1).await;
    }
    webhooks.finish(DEADLINE).await;

    let mut webhooks = bench.start().await;
    webhooks.tell(bench.correlator.incidents().next().unwrap(), AUDIBLE);
    bench.accepted(4).await;
    let incident = bench.apply(&alert("latency", Some("order"), Resolved, 6));
    webhooks.tell(&incident, AUDIBLE);
    let calls = bench.accepted(5).await;
    webhooks.finish(DEADLINE).await;
    let told = |call: &WebhookCall| -> Vec<(String, bool)> {
        let body = call.json();
        let alerts = body.as_array().unwrap().iter();
        alerts
            .map(|alert| (alert["labels"]["alertname"].as_str().unwrap().to_owned(), alert["endsAt"].is_string()))
            .collect()
    };
    let of = |name: &str, ended: bool| (name.to_owned(), ended);
    let told: Vec<_> = calls.iter().map(told).collect();
    let expected = [
        vec![of("errors", false)],
        vec![of("errors", false), of("latency", false)],
        vec![of("errors", true), of("latency", false)],
        // The restart: the ledger has this sequence, so that only what fires is repeated.
        vec![of("latency", false)],
        vec![of("errors", true), of("latency", true)],
    ];
    assert_eq!(told, expected);
}

/// Scenario: what a worker does with one post after another of the same incident, without a restart.
/// Guarantees: H3: what fires comes back after [`REPEAT`]; an end is told once; what was silenced is no longer repeated.
#[tokio::test]
async fn repetitions_wait_in_the_queue() {
    let mut bench = Bench::new(json!({ "format": "alertmanager" })).await;
    let webhooks = bench.start().await;
    let queue = Arc::new(Queue::default());
    let mut worker = Worker {
        endpoint: Arc::clone(&bench.endpoints[0]),
        queue: Arc::clone(&queue),
        ledger: webhooks.ledger.clone(),
        public_url: None,
        ended: BTreeSet::new(),
    };
    let post = |incident: &Arc<Incident>, alerts: &[usize], telling| Post {
        id: "n-1".to_owned(),
        webhook: "pager".to_owned(),
        incident: Arc::clone(incident),
        alerts: alerts.to_vec(),
        telling,
    };
    bench.apply(&alert("errors", Some("order"), Firing, 1));
    bench.apply(&alert("latency", Some("order"), Firing, 2));
    let ended = bench.apply(&alert("errors", Some("order"), Resolved, 5));
    let both = post(&ended, &[0, 1], 1);
    assert!(matches!(worker.deliver(&both).await, Ok(Next::Repeat)));
    assert!(matches!(worker.deliver(&both).await, Ok(Next::Repeat)));
    let more = bench.apply(&alert("heap", Some("order"), Firing, 6));
    assert!(matches!(worker.deliver(&post(&more, &[0, 1, 2], 2)).await, Ok(Next::Repeat)));
    let counts: Vec<_> = bench.stand_in.calls().iter().map(|call| call.json().as_array().map(Vec::len)).collect();
    assert_eq!(counts, [Some(2), Some(1), Some(2)]);

    let now = Instant::now();
    queue.put(post(&more, &[1, 2], 2), now + REPEAT);
    assert_eq!(queue.take(now).unwrap_err(), Some(now + REPEAT));
    // All of it is silenced: the incident's sequence stays what it is.
    queue.put(post(&more, &[], 3), now);
    queue.put(post(&more, &[1, 2], 2), now + REPEAT);
    let silenced = queue.take(now).unwrap();
    assert!(matches!(worker.deliver(&silenced).await, Ok(Next::Done)));
    assert_eq!((queue.take(now + REPEAT).unwrap_err(), bench.stand_in.calls().len()), (None, 3));
    webhooks.finish(DEADLINE).await;
}

/// Format, service asked for, silenced rules, whether it was told before; places of the alerts that are sent.
type Case<'a> = (WebhookFormat, &'a str, &'a [&'a str], bool, Option<Vec<usize>>);

/// Scenario: an incident of two alerts, of which none, one or both are silenced, before and after it was told; filters.
/// Guarantees: silenced alerts are not sent; whoever was told that something began is told that it ended.
#[test]
fn who_is_told_of_what() {
    let mut correlator = Correlator::default();
    correlator.apply(&alert("errors", Some("order"), Firing, 1));
    correlator.apply(&alert("latency", Some("order"), Firing, 2));
    let incident = correlator.apply(&alert("errors", Some("order"), Resolved, 5)).remove(0).incident;
    let (bongsu, alertmanager) = (WebhookFormat::Bongsu, WebhookFormat::Alertmanager);
    #[rustfmt::skip]
    let cases: [Case<'_>; 9] = [
        (bongsu,       "order", &[],                      false, Some(vec![0, 1])),
        (bongsu,       "order", &["errors"],              false, Some(vec![1])),
        (bongsu,       "order", &["errors", "latency"],   false, None),
        (bongsu,       "order", &["errors", "latency"],   true,  Some(vec![0, 1])),
        (bongsu,       "pay",   &[],                      true,  None),
        (alertmanager, "order", &[],                      false, Some(vec![0, 1])),
        (alertmanager, "order", &["errors", "latency"],   false, Some(vec![])),
        (alertmanager, "order", &["errors", "latency"],   true,  Some(vec![0])),
        (alertmanager, "pay",   &[],                      true,  None),
    ];
    for (format, service, silenced, is_told, expected) in cases {
        let mut webhook: Webhook =
            serde_json::from_value(json!({ "name": "a", "url": "http://localhost/", "services": [service] })).unwrap();
        webhook.format = format;
        let muted = |alert: &IncidentAlert| silenced.contains(&alert.firing.rule.as_str());
        let got = chosen(&webhook, &incident, &muted, is_told);
        assert_eq!(got, expected, "{format:?} {service} {silenced:?} {is_told}");
    }
}

/// Scenario: an alert reaches the severity that a receiver asks for, falls below it, and ends.
/// Guarantees: the receiver is told of the rest as well.
#[test]
fn who_was_told_at_a_level_is_told_of_the_end() {
    let webhook = json!({ "name": "a", "url": "http://localhost/", "severity": 5 });
    let webhook: Webhook = serde_json::from_value(webhook).unwrap();
    let mut correlator = Correlator::default();
    #[rustfmt::skip]
    let steps = [
        (Firing,   3, 1, None),
        (Firing,   5, 2, Some(vec![0])),
        (Firing,   3, 3, Some(vec![0])),
        (Resolved, 3, 4, Some(vec![0])),
    ];
    for (status, severity, sequence, expected) in steps {
        let record = alert("errors", Some("order"), status, i64::from(sequence));
        let incident = correlator.apply(&AlertRecord { severity, sequence, ..record }).remove(0).incident;
        assert_eq!(chosen(&webhook, &incident, AUDIBLE, false), expected, "{sequence}");
    }
}

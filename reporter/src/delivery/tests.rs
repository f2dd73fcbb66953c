use bongsu_schemas::alert::AlertRecord;
use bongsu_schemas::alert::AlertStatus::{Firing, Resolved};
use bongsu_stand_ins::slack::{Fault, SlackMessage, SlackOptions, SlackStandIn};
use chrono::TimeDelta;

use super::desk::MAX_REPLIES;
use super::*;
use crate::config::Slack;
use crate::incidents::tests::alert;
use crate::ledger::Kind;
use crate::notification::tests::after;
use crate::pacing::PACE;

const CHANNEL: &str = "#orders";

/// One channel of a stand-in, and the worker's desk without the pauses between messages.
struct Fixture {
    slack: SlackStandIn,
    ledger: Ledger,
    desk: Desk,
}

impl Fixture {
    async fn start() -> Fixture {
        let slack = SlackStandIn::start(SlackOptions::default()).await.unwrap();
        let ledger = Ledger::in_memory();
        let desk = desk(&slack, &ledger, PACE);
        Fixture { slack, ledger, desk }
    }

    async fn deliver(&mut self, notification: &Notification) -> Result<Done, DeliveryError> {
        self.desk.deliver(&mut [notification.clone()]).await
    }

    async fn sent(&mut self, notification: &Notification) {
        assert_eq!(self.deliver(notification).await.unwrap(), Done::Sent);
    }

    /// The process ends and another one starts, which has not read the entries of `lost`.
    fn restart(&mut self, lost: impl Fn(&crate::ledger::Entry) -> bool) {
        self.ledger = self.ledger.reloaded_without(lost);
        self.desk = desk(&self.slack, &self.ledger, PACE);
    }

    fn messages(&self) -> Vec<SlackMessage> {
        self.slack.messages(CHANNEL)
    }
}

fn desk(slack: &SlackStandIn, ledger: &Ledger, pace: Pace) -> Desk {
    let config = Slack { api_url: Some(slack.api_url().parse().unwrap()), ..Slack::default() };
    let client = Client::new(&config, |_| Some("xoxb-test".to_owned())).unwrap();
    Desk::new(Arc::new(client), ledger.clone(), pace, Look { zone: chrono_tz::Tz::UTC, public_url: None })
}

fn fires(rule: &str, service: &str) -> AlertRecord {
    alert(rule, Some(service), Firing, 1)
}

fn is_over(rule: &str, service: &str) -> AlertRecord {
    alert(rule, Some(service), Resolved, 5)
}

fn storm(count: usize) -> Vec<Notification> {
    (0..count).map(|number| after(&[fires("errors", &format!("service-{number}-x"))], CHANNEL)).collect()
}

fn text(message: &SlackMessage) -> String {
    serde_json::to_string(&message.blocks).unwrap()
}

/// One rule and key that goes back and forth `count` times.
fn turns(count: i64) -> Vec<AlertRecord> {
    let turn = |number: i64| {
        let status = if number % 2 == 0 { Firing } else { Resolved };
        let mut record = alert("errors", Some("order"), status, number + 1);
        record.alert_id = (number / 2).to_string();
        record
    };
    (0..count).map(turn).collect()
}

/// Scenario: 50 new incidents at once; one is over, another gets worse; a restart after each step.
/// Guarantees: S4: one message that names all of them, whose lines change in place; a restart tells nothing again.
#[tokio::test]
async fn a_storm_is_one_message() {
    let mut fixture = Fixture::start().await;
    let mut storm = storm(50);
    assert_eq!(fixture.desk.deliver(&mut storm).await.unwrap(), Done::Sent);
    let messages = fixture.messages();
    assert_eq!(messages.len(), 1);
    assert!(messages[0].text.starts_with("🔥🔥🔥 50 incidents in #orders"), "{}", messages[0].text);
    for number in 0..50 {
        assert!(text(&messages[0]).contains(&format!("*service-{number}-x* errors summary")), "{number}");
    }
    fixture.restart(|_| false);
    storm.iter_mut().for_each(|notification| notification.maybe_sent = true);
    assert_eq!(fixture.desk.deliver(&mut storm).await.unwrap(), Done::Nothing);
    let over = after(&[fires("errors", "service-7-x"), is_over("errors", "service-7-x")], CHANNEL);
    fixture.sent(&over).await;
    let worse = AlertRecord { severity: 5, ..fires("latency", "service-9-x") };
    fixture.sent(&after(&[fires("errors", "service-9-x"), worse], CHANNEL)).await;
    let messages = fixture.messages();
    assert_eq!((messages.len(), messages[0].edits), (1, 2), "not posted again, nor in its thread");
    assert!(messages[0].replies.is_empty());
    assert!(text(&messages[0]).contains("✅ *service-7-x*"), "{}", text(&messages[0]));
    assert!(text(&messages[0]).contains("🔥🔥🔥🔥🔥 *service-9-x*"), "{}", text(&messages[0]));
    assert_eq!(fixture.slack.calls("chat.postMessage"), 1);
}

/// Scenario: the digest's post breaks off before or after Slack has it, and the process dies; or it dies before the ledger has the digest.
/// Guarantees: S4 and S2: the same incidents are in the same digest, which is there once.
#[tokio::test]
async fn a_digest_survives_a_crash() {
    for fault in [Some(Fault::Outage), Some(Fault::DropAfterAccept), None] {
        let mut fixture = Fixture::start().await;
        let mut storm = storm(12);
        fixture.slack.fail_next(usize::from(fault.is_some()), fault.unwrap_or(Fault::Outage));
        let outcome = fixture.desk.deliver(&mut storm).await;
        assert_eq!(outcome.is_err(), fault.is_some(), "{outcome:?}");
        fixture.restart(|entry| entry.kind == Kind::Digest);
        // In another order, and with one that came meanwhile.
        storm.reverse();
        storm.iter_mut().for_each(|notification| notification.maybe_sent = true);
        assert_eq!(group_of(&fixture.ledger, &storm[0]), group_of(&fixture.ledger, &storm[11]));
        storm[0].sequence += 1;
        assert_eq!(fixture.desk.deliver(&mut storm).await.unwrap(), Done::Sent, "{fault:?}");
        let messages = fixture.messages();
        assert_eq!(messages.len(), 1, "{fault:?}");
        assert_eq!(text(&messages[0]).matches("-x* errors summary").count(), 12, "{fault:?}");
    }
}

/// Scenario: of eight incidents that are new to the ledger, two have been posted already before a crash.
/// Guarantees: S2: one look finds both; the rest become a digest, and nothing is there twice.
#[tokio::test]
async fn a_storm_after_a_crash_looks_first() {
    let mut fixture = Fixture::start().await;
    let mut storm = storm(8);
    for notification in &storm[..2] {
        fixture.sent(notification).await;
    }
    fixture.restart(|_| true);
    storm.iter_mut().for_each(|notification| notification.maybe_sent = true);
    assert_eq!(fixture.desk.deliver(&mut storm).await.unwrap(), Done::Again);
    assert_eq!(fixture.slack.calls("conversations.history"), 1);
    for notification in &storm[..2] {
        fixture.sent(notification).await;
    }
    assert_eq!(fixture.desk.deliver(&mut storm[2..]).await.unwrap(), Done::Sent);
    let messages = fixture.messages();
    assert_eq!(messages.len(), 3, "{messages:#?}");
    assert_eq!(text(&messages[2]).matches("errors summary").count(), 6);
}

/// Scenario: further incidents right after a digest: an equally severe one, and a more severe one.
/// Guarantees: the first joins the digest; the second is told by itself, because nobody is told of an edit.
#[tokio::test]
async fn a_digest_takes_what_is_not_more_severe() {
    let mut fixture = Fixture::start().await;
    fixture.desk.deliver(&mut storm(6)).await.unwrap();
    fixture.sent(&after(&[fires("errors", "late")], CHANNEL)).await;
    fixture.sent(&after(&[AlertRecord { severity: 5, ..fires("errors", "severe") }], CHANNEL)).await;
    let messages = fixture.messages();
    assert_eq!(messages.len(), 2, "{messages:#?}");
    assert!(text(&messages[0]).contains("*late* errors") && messages[0].text.contains("7 incidents"), "{messages:#?}");
    assert!(messages[1].text.contains("severe: errors"), "{messages:#?}");
}

/// Scenario: an alert that goes back and forth sixty times, with a restart in between.
/// Guarantees: S5: one message, three updates; the last version waits for its turn and then arrives.
#[tokio::test]
async fn flapping_updates_three_times_an_hour() {
    let mut fixture = Fixture::start().await;
    let records = turns(60);
    let version = |count: usize| after(&records[..count], CHANNEL);
    for count in 1..=4 {
        fixture.sent(&version(count)).await;
    }
    for count in 5..=60 {
        let Done::Later(at) = fixture.deliver(&version(count)).await.unwrap() else {
            panic!("version {count} went out")
        };
        assert!(at > Utc::now() + TimeDelta::minutes(50), "{at}");
        if count == 30 {
            fixture.restart(|_| false);
        }
    }
    assert_eq!((fixture.messages().len(), fixture.messages()[0].edits), (1, 3));
    // An hour later.
    fixture.desk = desk(&fixture.slack, &fixture.ledger, Pace { per: TimeDelta::zero(), ..PACE });
    fixture.sent(&version(60)).await;
    let message = &fixture.messages()[0];
    assert!(message.text.starts_with("✅ Resolved"), "{}", message.text);
    assert!(text(message).contains("flapping: fired 30 times since 12:00"), "{}", text(message));
    assert!(message.replies.is_empty(), "an alert that fires again has not joined");
}

/// Scenario: two alerts join, the reply's connection breaks after Slack has it; another one joins; all are over.
/// Guarantees: S6: one reply for both, found again in the thread; one for the third; none for the end.
#[tokio::test]
async fn what_joins_is_told_in_the_thread_once() {
    let mut fixture = Fixture::start().await;
    let mut records = vec![fires("errors", "order")];
    fixture.sent(&after(&records, CHANNEL)).await;
    records.extend([fires("latency", "order"), fires("cpu", "order")]);
    let mut joined = after(&records, CHANNEL);
    assert_eq!(fixture.deliver(&joined).await.unwrap(), Done::Again);
    fixture.slack.fail_next(1, Fault::DropAfterAccept);
    fixture.deliver(&joined).await.unwrap_err();
    fixture.restart(|_| false);
    joined.maybe_sent = true;
    fixture.sent(&joined).await;
    assert_eq!(fixture.deliver(&joined).await.unwrap(), Done::Nothing);
    assert_eq!(fixture.slack.calls("conversations.replies"), 1);

    records.push(fires("heap", "order"));
    let joined = after(&records, CHANNEL);
    assert_eq!(fixture.deliver(&joined).await.unwrap(), Done::Again);
    fixture.sent(&joined).await;
    records.extend(["errors", "latency", "cpu", "heap"].map(|rule| is_over(rule, "order")));
    fixture.sent(&after(&records, CHANNEL)).await;

    let messages = fixture.messages();
    assert_eq!(messages.len(), 1);
    let replies: Vec<String> = messages[0].replies.iter().map(text).collect();
    assert_eq!(replies.len(), 2, "{replies:?}");
    assert!(replies[0].contains("*latency*") && replies[0].contains("*cpu*"), "{replies:?}");
    assert!(replies[1].contains("*heap*") && !replies[1].contains("*latency*"), "{replies:?}");
}

/// Scenario: a new rule joins thirty times; the message is deleted meanwhile; the thread cannot be read.
/// Guarantees: at most twenty replies; what is refused for good is not tried again.
#[tokio::test]
async fn a_thread_is_bounded() {
    let mut fixture = Fixture::start().await;
    let mut records = vec![fires("errors", "order")];
    fixture.sent(&after(&records, CHANNEL)).await;
    for number in 0..30 {
        records.push(fires(&format!("rule-{number}"), "order"));
        let joined = after(&records, CHANNEL);
        match fixture.deliver(&joined).await.unwrap() {
            Done::Again => fixture.sent(&joined).await,
            done => assert_eq!(done, Done::Sent),
        }
    }
    assert_eq!(fixture.messages()[0].replies.len(), MAX_REPLIES as usize);

    let mut records = vec![fires("errors", "pay")];
    fixture.sent(&after(&records, CHANNEL)).await;
    records.push(fires("latency", "pay"));
    let joined = after(&records, CHANNEL);
    assert_eq!(fixture.deliver(&joined).await.unwrap(), Done::Again);
    fixture.slack.fail_next(1, Fault::Refused { error: "thread_not_found" });
    fixture.sent(&joined).await;
    assert_eq!(fixture.deliver(&joined).await.unwrap(), Done::Nothing);

    records.push(fires("cpu", "pay"));
    let joined = Notification { maybe_sent: true, ..after(&records, CHANNEL) };
    assert_eq!(fixture.deliver(&joined).await.unwrap(), Done::Again);
    fixture.slack.fail_next(1, Fault::Refused { error: "missing_scope" });
    fixture.sent(&joined).await;
    assert_eq!(fixture.messages()[1].replies.len(), 1, "a second reply is better than none");
}

/// Scenario: Slack refuses the blocks of a message, of its update and of a digest; then it refuses the channel.
/// Guarantees: what it says arrives without them, and can be found again; other refusals stay refusals.
#[tokio::test]
async fn refused_blocks_do_not_lose_an_alert() {
    let mut fixture = Fixture::start().await;
    let refused = Fault::Refused { error: "invalid_blocks" };
    let records = [fires("errors", "order"), is_over("errors", "order")];
    for count in 1..=2 {
        fixture.slack.fail_next(1, refused);
        let notification = after(&records[..count], CHANNEL);
        fixture.sent(&notification).await;
        let message = &fixture.messages()[0];
        assert_eq!((message.blocks.len(), &message.blocks[0]["block_id"]), (2, &serde_json::json!(notification.id)));
        assert!(text(message).contains("order: errors summary"), "{}", text(message));
    }
    fixture.slack.fail_next(1, Fault::Refused { error: "msg_too_long" });
    fixture.desk.deliver(&mut storm(6)).await.unwrap();
    assert_eq!(text(&fixture.messages()[1]).matches("errors summary").count(), 6);
    fixture.slack.fail_next(1, Fault::Refused { error: "not_in_channel" });
    let other = AlertRecord { severity: 5, ..fires("errors", "other") };
    let error = fixture.deliver(&after(&[other], CHANNEL)).await.unwrap_err();
    assert!(matches!(&error, DeliveryError::Refused { reason } if reason == "not_in_channel"), "{error}");
    assert_eq!(fixture.messages().len(), 2);
}

/// Scenario: twenty incidents and their ends reach a worker while Slack is away, asks to slow down, and breaks connections.
/// Guarantees: each incident is in exactly one message, which shows its end.
#[tokio::test]
async fn a_worker_outlives_slack_s_troubles() {
    let slack = SlackStandIn::start(SlackOptions { one_per_second: true, ..SlackOptions::default() }).await.unwrap();
    let config = Slack { api_url: Some(slack.api_url().parse().unwrap()), ..Slack::default() };
    let client = Arc::new(Client::new(&config, |_| Some("xoxb-test".to_owned())).unwrap());
    let mut deliveries = Deliveries::new(client, Ledger::in_memory(), PACE, chrono_tz::Tz::UTC, None);
    slack.fail_next(1, Fault::DropAfterAccept);
    slack.fail_next(1, Fault::RateLimited { retry_after_secs: 1 });
    slack.fail_next(1, Fault::ServerError);
    slack.fail_next(1, Fault::Outage);
    for notification in storm(20) {
        deliveries.enqueue(notification);
        // The first one goes out by itself.
        tokio::task::yield_now().await;
    }
    for number in 0..20 {
        let service = format!("service-{number}-x");
        deliveries.enqueue(after(&[fires("errors", &service), is_over("errors", &service)], CHANNEL));
    }
    let all_over = |messages: &[SlackMessage]| {
        let ends = messages.iter().map(|message| text(message).matches("✅ *").count()).sum::<usize>();
        ends == 20 && messages.iter().all(|message| message.text.starts_with("✅ Resolved"))
    };
    let messages = slack.wait_for(all_over, Duration::from_secs(60)).await.unwrap();
    let all: String = messages.iter().map(text).collect();
    for number in 0..20 {
        assert!(all.contains(&format!("service-{number}-x")), "{number}");
    }
    assert!(messages.len() <= 3, "{messages:#?}");
    deliveries.finish(Duration::from_secs(3)).await;
}

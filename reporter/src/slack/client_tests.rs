use bongsu_stand_ins::slack::{Fault, SlackOptions, SlackStandIn};

use super::*;
use crate::slack::message::paragraphs;

async fn client(options: SlackOptions) -> (SlackStandIn, Client) {
    let stand_in = SlackStandIn::start(options).await.unwrap();
    let slack = Slack { api_url: Some(stand_in.api_url().parse().unwrap()), ..Slack::default() };
    let client = Client::new(&slack, |name| (name == "SLACK_BOT_TOKEN").then(|| "xoxb-test".to_owned())).unwrap();
    (stand_in, client)
}

fn message(id: &str, text: &str) -> Message {
    paragraphs(id, "title", &[text.to_owned()])
}

/// Scenario: post, update, look for it by name and id, by a client that has not posted it.
/// Guarantees: one message, updated in place and found again.
#[tokio::test]
async fn posts_updates_and_finds() {
    let (stand_in, client) =
        client(SlackOptions { token: Some("xoxb-test".to_owned()), ..SlackOptions::default() }).await;
    let since = Utc::now() - chrono::TimeDelta::minutes(1);
    let posted = client.post("#orders", &message("id-1", "one")).await.unwrap();
    client.update(&posted, &message("id-1", "two")).await.unwrap();
    let messages = stand_in.messages("orders");
    assert_eq!((messages.len(), messages[0].edits), (1, 1));

    let slack = Slack { api_url: Some(stand_in.api_url().parse().unwrap()), ..Slack::default() };
    let other = Client::new(&slack, |_| Some("xoxb-test".to_owned())).unwrap();
    assert_eq!(other.find("#orders", "id-1", since).await.unwrap(), Some(posted.clone()));
    assert_eq!(other.find("#orders", "id-2", since).await.unwrap(), None);
    assert_eq!(other.find("#nowhere", "id-1", since).await.unwrap(), None);
    assert_eq!(other.find(&posted.channel_id, "id-1", since).await.unwrap(), Some(posted));
}

/// Scenario: 429, 503, a broken connection, a wrong channel.
/// Guarantees: each becomes the reaction that it asks for.
#[tokio::test]
async fn faults_become_reactions() {
    let channels = Some(BTreeSet::from(["orders".to_owned()]));
    let (stand_in, client) = client(SlackOptions { channels, ..SlackOptions::default() }).await;
    let send = async |channel: &str| client.post(channel, &message("id", "text")).await.unwrap_err();
    stand_in.fail_next(1, Fault::RateLimited { retry_after_secs: 7 });
    assert!(matches!(send("#orders").await, DeliveryError::RateLimited { retry_after } if retry_after.as_secs() == 7));
    stand_in.fail_next(1, Fault::ServerError);
    assert!(matches!(send("#orders").await, DeliveryError::Unreachable { .. }));
    stand_in.fail_next(1, Fault::DropAfterAccept);
    assert!(matches!(send("#orders").await, DeliveryError::Unreachable { .. }));
    assert!(
        matches!(send("#elsewhere").await, DeliveryError::Refused { reason } if reason.contains("channel_not_found"))
    );
}

/// Guarantees: without a token there is no client, except for a stand-in on this machine.
#[test]
fn the_token_is_required() {
    let with = |url: &str| Client::new(&Slack { api_url: Some(url.parse().unwrap()), ..Slack::default() }, |_| None);
    let problem = with("http://slack.example.com/api").err().unwrap().to_string();
    assert!(problem.contains("SLACK_BOT_TOKEN"), "{problem}");
    assert!(with("http://127.0.0.1:9/api").is_ok());
}

/// Scenario: replies in a thread that is longer than a page, looked for by a client that has not posted them; a thread that is gone.
/// Guarantees: a reply is found by its id in the thread, and is no message of the channel; what is missing is refused.
#[tokio::test]
async fn replies_are_found_in_their_thread() {
    let (stand_in, client) = client(SlackOptions::default()).await;
    let since = Utc::now() - chrono::TimeDelta::minutes(1);
    let parent = client.post("#orders", &message("id-1", "one")).await.unwrap();
    for number in 0..250 {
        client.reply(&parent, &message(&format!("reply-{number}"), "more")).await.unwrap();
    }
    let last = client.find_reply(&parent, "reply-249").await.unwrap().unwrap();
    assert_eq!(stand_in.calls("conversations.replies"), 2);
    client.update(&last, &message("reply-249", "changed")).await.unwrap();
    let messages = stand_in.messages("orders");
    assert_eq!((messages.len(), messages[0].replies.len(), messages[0].replies[249].edits), (1, 250, 1));
    assert_eq!(client.find_reply(&parent, "reply-250").await.unwrap(), None);
    assert_eq!(client.find("#orders", "reply-1", since).await.unwrap(), None);
    let ids = BTreeSet::from(["id-1", "id-2"]);
    let found = client.find_all("#orders", &ids, since).await.unwrap();
    assert_eq!(found, BTreeMap::from([("id-1", parent.clone())]));
    let gone = Posted { ts: "1.000001".to_owned(), ..parent };
    for refused in [client.reply(&gone, &message("x", "x")).await.err(), client.find_reply(&gone, "x").await.err()] {
        assert!(matches!(refused, Some(DeliveryError::Refused { reason }) if reason == "thread_not_found"));
    }
}

//! The Slack stand-in over HTTP, as a client meets it.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, stop at the first surprise")]

use std::{collections::BTreeSet, time::Duration};

use bongsu_stand_ins::{Fault, SlackOptions, SlackStandIn};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const TOKEN: &str = "Authorization: Bearer xoxb-test\r\n";

/// Status, `Retry-After` and body of one call; an error if the connection breaks.
async fn call(
    slack: &SlackStandIn,
    method: &str,
    headers: &str,
    body: &str,
) -> anyhow::Result<(u16, Option<String>, Value)> {
    let url = slack.api_url();
    let host = url.trim_start_matches("http://").trim_end_matches("/api");
    let mut stream = TcpStream::connect(host).await?;
    let request = format!(
        "POST /api/{method} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| anyhow::anyhow!("no answer"))?;
    let field = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
        line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.to_owned())
    };
    let expected: usize = field("content-length").unwrap_or_default().parse()?;
    anyhow::ensure!(body.len() == expected, "the connection broke");
    let status = head.split(' ').nth(1).unwrap_or_default().parse()?;
    Ok((status, field("retry-after"), serde_json::from_str(body).unwrap_or(Value::Null)))
}

async fn json_call(slack: &SlackStandIn, method: &str, body: Value) -> anyhow::Result<Value> {
    let headers = format!("{TOKEN}Content-Type: application/json; charset=utf-8\r\n");
    Ok(call(slack, method, &headers, &body.to_string()).await?.2)
}

#[tokio::test]
async fn a_message_is_posted_found_and_updated() {
    let slack = SlackStandIn::start(SlackOptions::default()).await.unwrap();
    let block = json!([{"type": "section", "block_id": "n-1", "text": {"type": "mrkdwn", "text": "*down*"}}]);
    let posted =
        json_call(&slack, "chat.postMessage", json!({"channel": "#orders", "text": "a &amp; b", "blocks": block}));
    let posted = posted.await.unwrap();
    assert_eq!(posted["ok"], true);
    let (channel, ts) = (posted["channel"].as_str().unwrap(), posted["ts"].as_str().unwrap());

    let history = json_call(&slack, "conversations.history", json!({"channel": channel, "limit": 5})).await.unwrap();
    assert_eq!(history["messages"][0]["blocks"][0]["block_id"], "n-1");
    let none = json!({"channel": channel, "oldest": ts});
    assert_eq!(json_call(&slack, "conversations.history", none).await.unwrap()["messages"], json!([]));
    let one = json!({"channel": channel, "oldest": ts, "latest": ts, "inclusive": true});
    let found = json_call(&slack, "conversations.history", one).await.unwrap();
    assert_eq!(found["messages"].as_array().map(Vec::len), Some(1));

    let update = json!({"channel": channel, "ts": ts, "text": "over"});
    assert_eq!(json_call(&slack, "chat.update", update).await.unwrap()["ok"], true);
    let message = &slack.messages("#orders")[0];
    assert_eq!((message.text.as_str(), message.edits, message.blocks.len()), ("over", 1, 0));

    let form = format!("{TOKEN}Content-Type: application/x-www-form-urlencoded\r\n");
    let body = "channel=%23orders&text=one+two&blocks=%5B%7B%22type%22%3A%22divider%22%7D%5D";
    assert_eq!(call(&slack, "chat.postMessage", &form, body).await.unwrap().2["ok"], true);
    assert_eq!(slack.messages(channel)[1].text, "one two");
}

#[tokio::test]
async fn slack_s_refusals() {
    let channels = Some(BTreeSet::from(["orders".to_owned()]));
    let options = SlackOptions { token: Some("xoxb-test".to_owned()), channels, ..SlackOptions::default() };
    let slack = SlackStandIn::start(options).await.unwrap();
    let cases = [
        ("chat.postMessage", json!({"text": "x"}), "invalid_arguments"),
        ("chat.postMessage", json!({"channel": "#nowhere", "text": "x"}), "channel_not_found"),
        ("chat.postMessage", json!({"channel": "orders"}), "no_text"),
        (
            "chat.postMessage",
            json!({"channel": "orders", "text": "x", "blocks": [{"type": "header"}]}),
            "invalid_blocks",
        ),
        ("chat.postMessage", json!({"channel": "orders", "text": "x".repeat(40_001)}), "msg_too_long"),
        ("chat.update", json!({"channel": "#orders", "ts": "1.2", "text": "x"}), "channel_not_found"),
        ("chat.update", json!({"channel": "C00000001", "ts": "1.2", "text": "x"}), "message_not_found"),
        ("conversations.history", json!({"channel": "orders"}), "channel_not_found"),
        ("chat.postMessage", json!({"channel": "orders", "text": "x", "thread_ts": "1.2"}), "thread_not_found"),
        ("conversations.replies", json!({"channel": "C00000001"}), "invalid_arguments"),
        ("conversations.replies", json!({"channel": "orders", "ts": "1.2"}), "channel_not_found"),
        ("conversations.replies", json!({"channel": "C00000001", "ts": "1.2"}), "thread_not_found"),
        ("conversations.history", json!({"channel": "C00000001", "cursor": "x"}), "invalid_cursor"),
        ("chat.delete", json!({"channel": "orders"}), "unknown_method"),
    ];
    for (method, body, error) in cases {
        let answer = json_call(&slack, method, body.clone()).await.unwrap();
        assert_eq!((&answer["ok"], &answer["error"]), (&json!(false), &json!(error)), "{method} {body}");
    }
    assert_eq!(call(&slack, "auth.test", "", "").await.unwrap().2["error"], "not_authed");
    assert_eq!(
        call(&slack, "auth.test", "Authorization: Bearer other\r\n", "").await.unwrap().2["error"],
        "invalid_auth"
    );
    assert_eq!(call(&slack, "auth.test", TOKEN, "").await.unwrap().2["ok"], true);
    assert_eq!(slack.calls("chat.update"), 2);
    assert!(slack.all_messages().is_empty());
}

#[tokio::test]
async fn faults_and_the_rate_limit() {
    let slack = SlackStandIn::start(SlackOptions { one_per_second: true, ..SlackOptions::default() }).await.unwrap();
    slack.fail_next(1, Fault::RateLimited { retry_after_secs: 7 });
    slack.fail_next(1, Fault::ServerError);
    slack.fail_next(2, Fault::Outage);
    slack.fail_next(1, Fault::DropAfterAccept);
    let headers = format!("{TOKEN}Content-Type: application/json\r\n");
    let post = || call(&slack, "chat.postMessage", &headers, r##"{"channel":"#a","text":"x"}"##);

    let (status, retry_after, answer) = post().await.unwrap();
    assert_eq!((status, retry_after.as_deref(), &answer["error"]), (429, Some("7"), &json!("ratelimited")));
    assert_eq!(post().await.unwrap().0, 503);
    assert!(post().await.is_err() && post().await.is_err());
    assert!(slack.all_messages().is_empty(), "an outage has no effect");
    assert!(post().await.is_err());
    slack.wait_for(|messages| messages.len() == 1, Duration::from_secs(10)).await.unwrap();
    let error = slack.wait_for(|messages| messages.len() == 2, Duration::ZERO).await.unwrap_err();
    assert!(error.to_string().contains("passed"), "{error}");

    // Two in a row cannot both be a second after the one before.
    let answers = [post().await.unwrap(), post().await.unwrap()];
    assert!(answers.iter().any(|(status, retry_after, _)| *status == 429 && retry_after.as_deref() == Some("1")));
    let other = call(&slack, "chat.postMessage", &headers, r##"{"channel":"#b","text":"x"}"##).await.unwrap();
    assert_eq!(other.0, 200, "the limit is the channel's");
}

/// Scenario: three replies to one of two messages, read in pages, and one of them updated.
/// Guarantees: a thread begins with its message and goes on in order; the history has no replies, but counts them.
#[tokio::test]
async fn threads() {
    let slack = SlackStandIn::start(SlackOptions::default()).await.unwrap();
    let post = async |text: &str, thread_ts: Option<&str>| {
        let body = json!({"channel": "#orders", "text": text, "thread_ts": thread_ts});
        json_call(&slack, "chat.postMessage", body).await.unwrap()
    };
    let parent = post("parent", None).await;
    let (channel, ts) = (parent["channel"].as_str().unwrap(), parent["ts"].as_str().unwrap());
    post("other", None).await;
    for text in ["one", "two", "three"] {
        assert_eq!(post(text, Some(ts)).await["message"]["thread_ts"], ts);
    }
    let texts = |answer: &Value| -> Vec<String> {
        let messages = answer["messages"].as_array().unwrap().iter();
        messages.map(|message| message["text"].as_str().unwrap().to_owned()).collect()
    };
    let first =
        json_call(&slack, "conversations.replies", json!({"channel": channel, "ts": ts, "limit": 2})).await.unwrap();
    assert_eq!(
        (texts(&first), &first["has_more"]),
        (vec!["parent".to_owned(), "one".to_owned(), "two".to_owned()], &json!(true))
    );
    let next = json!({"channel": channel, "ts": ts, "limit": 2, "cursor": first["response_metadata"]["next_cursor"]});
    let second = json_call(&slack, "conversations.replies", next).await.unwrap();
    assert_eq!((texts(&second), &second["has_more"]), (vec!["parent".to_owned(), "three".to_owned()], &json!(false)));
    assert_eq!(second["response_metadata"]["next_cursor"], "");

    let update = json!({"channel": channel, "ts": second["messages"][1]["ts"], "text": "drei"});
    assert_eq!(json_call(&slack, "chat.update", update).await.unwrap()["ok"], true);
    let page = json_call(&slack, "conversations.history", json!({"channel": channel, "limit": 1})).await.unwrap();
    let next = json!({"channel": channel, "cursor": page["response_metadata"]["next_cursor"]});
    let rest = json_call(&slack, "conversations.history", next).await.unwrap();
    assert_eq!((texts(&page), texts(&rest)), (vec!["other".to_owned()], vec!["parent".to_owned()]));
    assert_eq!(rest["messages"][0]["reply_count"], 3);
    let kept = slack.messages("#orders");
    let replies: Vec<&str> = kept[0].replies.iter().map(|reply| reply.text.as_str()).collect();
    assert_eq!((kept.len(), replies), (2, vec!["one", "two", "drei"]));
}

/// Scenario: Slack refuses a call, and then is away for some time.
/// Guarantees: neither has an effect; afterwards everything works.
#[tokio::test]
async fn refusals_and_outages_on_demand() {
    let slack = SlackStandIn::start(SlackOptions::default()).await.unwrap();
    slack.fail_next(1, Fault::Refused { error: "invalid_blocks" });
    let post = async || json_call(&slack, "chat.postMessage", json!({"channel": "#orders", "text": "x"})).await;
    assert_eq!(post().await.unwrap()["error"], "invalid_blocks");
    slack.fail_for(Duration::from_secs(3600), Fault::Outage);
    assert!(post().await.is_err() && post().await.is_err());
    slack.fail_for(Duration::ZERO, Fault::Outage);
    assert_eq!(post().await.unwrap()["ok"], true);
    assert_eq!(slack.all_messages().len(), 1);
}

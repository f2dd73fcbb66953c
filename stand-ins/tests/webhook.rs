//! The webhook stand-in over HTTP, as a client meets it.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, stop at the first surprise")]

use bongsu_stand_ins::{WebhookFault, WebhookStandIn};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Status of one call; an error if the connection breaks.
async fn post(stand_in: &WebhookStandIn, path: &str, body: &str) -> anyhow::Result<u16> {
    let url = stand_in.url(path);
    let host = url.trim_start_matches("http://").trim_end_matches(path);
    let mut stream = TcpStream::connect(host).await?;
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nX-Test: yes\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).ok_or_else(|| anyhow::anyhow!("no answer"))?;
    Ok(status.parse()?)
}

/// Scenario: good calls, each fault, and bodies at Alertmanager's path.
/// Guarantees: all are kept as they came, with what was answered; faults come in their order, each once.
#[tokio::test]
async fn calls_are_kept_and_fail_on_demand() {
    let stand_in = WebhookStandIn::start(0).await.unwrap();
    assert_eq!(post(&stand_in, "/hook", "{}").await.unwrap(), 200);
    stand_in.fail_next(1, WebhookFault::RateLimited { retry_after_secs: 3 });
    stand_in.fail_next(1, WebhookFault::Answer { status: 503, body: "away".to_owned() });
    stand_in.fail_next(1, WebhookFault::Redirect { to: "/elsewhere".to_owned() });
    stand_in.fail_next(1, WebhookFault::DropAfterRead);
    for expected in [429, 503, 307] {
        assert_eq!(post(&stand_in, "/hook", "{}").await.unwrap(), expected);
    }
    assert!(!post(&stand_in, "/hook", "{}").await.is_ok_and(|status| status != 500));
    assert_eq!(post(&stand_in, "/api/v2/alerts", r#"[{"labels":{"a":"b"}}]"#).await.unwrap(), 200);
    assert_eq!(post(&stand_in, "/api/v2/alerts", "{}").await.unwrap(), 400);

    let calls = stand_in.calls();
    let statuses: Vec<_> = calls.iter().map(|call| call.status).collect();
    assert_eq!(statuses, [Some(200), Some(429), Some(503), Some(307), None, Some(200), Some(400)]);
    assert_eq!((calls[0].header("x-test"), calls[0].path.as_str(), calls[0].body.as_str()), ("yes", "/hook", "{}"));
    assert_eq!(calls[5].json()[0]["labels"]["a"], "b");
}

use bongsu_schemas::alert::AlertStatus::Firing;
use bongsu_schemas::health::Health;
use chrono::TimeDelta;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::tests::serve;
use super::*;
use crate::incidents::Correlator;
use crate::incidents::tests::alert;

/// A page that is known as `bongsu.example.com`, and what writes its commands: into a list, or not at all.
struct Page {
    address: std::net::SocketAddr,
    shared: Shared,
    incident_id: String,
    written: tokio::task::JoinHandle<Vec<Command>>,
    stop: CancellationToken,
}

async fn page(kafka_answers: bool) -> Page {
    let dashboard: Dashboard = serde_json::from_value(json!({ "public_url": "https://bongsu.example.com" })).unwrap();
    let (orders, mut ordered) = mpsc::channel::<Order>(MAX_ORDERS);
    let stop = CancellationToken::new();
    let shared = Shared::new(Health::default(), Hosts::of(&dashboard), orders, stop.clone());
    let change = Correlator::default().apply(&alert("errors", Some("order"), Firing, 1)).remove(0);
    shared.board().incident(change.incident.record.clone());
    let ended = stop.clone();
    let written = tokio::spawn(async move {
        let mut commands = Vec::new();
        loop {
            let order = tokio::select! {
                () = ended.cancelled() => return commands,
                order = ordered.recv() => order,
            };
            let Some(Order { command, done, .. }) = order else { return commands };
            commands.push(command);
            let outcome = if kafka_answers { Ok(()) } else { Err(anyhow::anyhow!("nobody answers")) };
            done.send(outcome).unwrap();
        }
    });
    let incident_id = change.incident.record.incident_id.clone();
    Page { address: serve(shared.clone()).await, shared, incident_id, written, stop }
}

impl Page {
    /// Sends a request with these headers, and returns the status and the body.
    async fn call(&self, request: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        let mut head = format!("{request} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        // A body that is too large is not read to its end: the connection may break, but not before the answer.
        let _ = connection.write_all(format!("{head}\r\n{body}").as_bytes()).await;
        let mut answer = Vec::new();
        let _ = connection.read_to_end(&mut answer).await;
        let text = String::from_utf8(answer).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        (status, body.to_owned())
    }

    async fn written(self) -> Vec<Command> {
        self.stop.cancel();
        self.written.await.unwrap()
    }
}

const HOST: (&str, &str) = ("Host", "localhost:7070");
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn error_of(body: &str) -> String {
    serde_json::from_str::<Value>(body).unwrap()["error"].as_str().unwrap().to_owned()
}

/// Scenario: a silence is made, listed and taken back; an incident is taken, by somebody and by nobody in particular.
/// Guarantees: each is one command, as the contract has it; the id comes back.
#[tokio::test]
async fn commands_are_written() {
    let page = page(true).await;
    let body = r#"{"matcher":{"service":"order","rule":"!~late.*"},"until":"2126-11-17T00:00:00Z","reason":"deploy",
        "repeat":{"hours":"Sat,Sun 01:00-03:00","zone":"Asia/Seoul"}}"#;
    let (status, text) = page.call("POST /api/silences", &[HOST, JSON], body).await;
    assert_eq!(status, 201, "{text}");
    let id = serde_json::from_str::<Value>(&text).unwrap()["id"].as_str().unwrap().to_owned();

    let silence = json!({
        "command": "silence", "id": id, "matcher": { "service": "order" }, "from": "2026-11-17T00:00:00Z",
        "until": "2126-11-17T00:00:00Z", "by": "me",
    });
    page.shared.silences().apply(&serde_json::from_value(silence).unwrap());
    let (status, text) = page.call("GET /api/silences", &[HOST], "").await;
    assert_eq!(status, 200);
    let listed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&listed["silences"][0]["id"], &listed["silences"][0]["by"]), (&json!(id), &json!("me")));

    let (status, text) = page.call(&format!("DELETE /api/silences/{id}"), &[HOST], "").await;
    assert_eq!((status, text.as_str()), (204, ""));
    let incident_id = page.incident_id.clone();
    let path = format!("POST /api/incidents/{incident_id}/acknowledge");
    let (status, text) = page.call(&path, &[HOST, JSON], r#"{"by":"Kim"}"#).await;
    assert_eq!((status, serde_json::from_str::<Value>(&text).unwrap()["by"].as_str()), (202, Some("Kim")));
    let kind = ("Content-Type", "Application/JSON; charset=utf-8");
    assert_eq!(page.call(&path, &[HOST, kind], "{}").await.0, 202);

    let written = page.written().await;
    let [Command::Silence(silence), rest @ ..] = &written[..] else { panic!("{written:?}") };
    assert_eq!(
        (silence.id.as_str(), silence.by.as_str(), silence.reason.as_str()),
        (id.as_str(), "dashboard", "deploy")
    );
    assert_eq!(silence.matcher["rule"], "!~late.*");
    assert_eq!(silence.repeat.unwrap().hours.to_string(), "Sat,Sun 01:00-03:00");
    assert!((Utc::now() - silence.from).abs() < TimeDelta::minutes(1));
    let by = |by: &str| by.to_owned();
    let acknowledge = |by| Command::Acknowledge { incident_id: incident_id.clone(), by };
    let expected =
        [Command::Unsilence { id, by: by("dashboard") }, acknowledge(by("Kim")), acknowledge(by("dashboard"))];
    assert_eq!(rest, expected);
}

/// Scenario: requests with headers as browsers send them for this page and for others, and as a rebound name brings them.
/// Guarantees: C1 and C2; what is refused says so in JSON, and is no command.
#[tokio::test]
async fn other_sites_are_refused() {
    let page = page(true).await;
    let of = |host: &'static str| ("Host", host);
    let origin = |origin: &'static str| ("Origin", origin);
    let site = |site: &'static str| ("Sec-Fetch-Site", site);
    #[rustfmt::skip]
    let cases: &[(&[(&str, &str)], u16)] = &[
        (&[HOST, JSON], 202), // no browser
        (&[HOST, JSON, origin("http://localhost:7070"), site("same-origin")], 202),
        (&[of("127.0.0.1:7070"), JSON, origin("http://127.0.0.1:7070")], 202),
        (&[of("[::1]:7070"), JSON, origin("http://[::1]:7070")], 202),
        (&[of("LOCALHOST:7070"), JSON], 202),
        (&[of("bongsu.example.com"), JSON, origin("https://bongsu.example.com"), site("same-origin")], 202),
        // A proxy that puts its own host there.
        (&[of("127.0.0.1:7070"), JSON, origin("https://bongsu.example.com"), site("same-origin")], 202),
        (&[HOST, JSON, origin("https://evil.example"), site("cross-site")], 403),
        (&[HOST, JSON, origin("https://evil.example")], 403),
        (&[HOST, JSON, origin("null")], 403),
        (&[HOST, JSON, origin("http://localhost:3000"), site("same-site")], 403), // another server of the same machine
        (&[HOST, JSON, origin("https://localhost:7070.evil.example")], 403),
        (&[HOST, JSON, site("cross-site")], 403),
        (&[HOST, JSON, site("same-site")], 403),
        // Rebound: the browser takes it for its own origin.
        (&[of("evil.example:7070"), JSON, origin("http://evil.example:7070"), site("same-origin")], 403),
        (&[of("localhost.evil.example"), JSON], 403),
        (&[of("bongsu.example.com.evil.example"), JSON], 403),
        (&[of("10.0.0.1:7070"), JSON], 403),
        (&[of("a b"), JSON], 403),
        // What a form or a beacon can send.
        (&[HOST], 415),
        (&[HOST, ("Content-Type", "text/plain")], 415),
        (&[HOST, ("Content-Type", "application/x-www-form-urlencoded")], 415),
        (&[HOST, ("Content-Type", "text/plain; application/json")], 415),
        (&[HOST, HOST, JSON], 400),
    ];
    let path = format!("POST /api/incidents/{}/acknowledge", page.incident_id);
    let mut accepted = 0;
    for (headers, expected) in cases {
        let (status, text) = page.call(&path, headers, "{}").await;
        assert_eq!(status, *expected, "{headers:?}: {text}");
        accepted += usize::from(status == 202);
        assert!(status == 202 || !text.starts_with('{') || !error_of(&text).is_empty(), "{text}");
    }
    let evil = [of("evil.example"), origin("http://evil.example")];
    assert_eq!(page.call("GET /api/silences", &evil, "").await.0, 403);
    assert_eq!(page.call("DELETE /api/silences/x", &evil, "").await.0, 403);
    assert_eq!(page.call("DELETE /api/silences/x", &[HOST, site("cross-site")], "").await.0, 403);
    assert_eq!(page.written().await.len(), accepted);
}

/// Scenario: bodies that are no JSON, too large, or ask for what cannot be; ids that nobody knows; Kafka that does not answer.
/// Guarantees: each is refused with its own status and a reason, and is no command.
#[tokio::test]
async fn wrong_requests_are_refused() {
    let page = page(true).await;
    let take = format!("POST /api/incidents/{}/acknowledge", page.incident_id);
    let silence = "POST /api/silences";
    let large = format!(r#"{{"by":"{}"}}"#, "x".repeat(MAX_BODY_BYTES));
    #[rustfmt::skip]
    let cases = [
        (silence, "",                                                                        400, "must be a JSON object"),
        (silence, "[]",                                                                      400, "must be a JSON object"),
        (silence, "{}",                                                                      400, "missing field"),
        (silence, r#"{"matcher":{},"until":"2126-11-17T00:00:00Z"}"#,                        400, "needs a matcher"),
        (silence, r#"{"matcher":{"service":"~("},"until":"2126-11-17T00:00:00Z"}"#,          400, "no regular expression"),
        (silence, r#"{"matcher":{"service":"a"},"until":"2006-11-17T00:00:00Z"}"#,           400, "before `until`"),
        (silence, r#"{"matcher":{"service":"a"},"until":"tomorrow"}"#,                       400, "input"),
        (silence, r#"{"id":"a","matcher":{"service":"a"},"until":"2126-11-17T00:00:00Z"}"#,  400, "`id` must not be given"),
        (silence, r#"{"surprise":1,"matcher":{"service":"a"},"until":"2126-11-17T00:00:00Z"}"#, 400, "surprise"),
        (silence, r#"{"by":"","matcher":{"service":"a"},"until":"2126-11-17T00:00:00Z"}"#,   400, "`by` must not be empty"),
        (&take,   r#"{"by":7}"#,                                                             400, "string"),
        (&take,   r#"{"by":"a\nb"}"#,                                                        400, "control characters"),
        (&take,   r#"{"who":"me"}"#,                                                         400, "unknown field"),
        (&take,   &large,                                                                    413, "16384 bytes"),
        ("POST /api/incidents/unknown/acknowledge", "{}",                                    404, "no incident"),
        ("DELETE /api/silences/unknown", "",                                                 404, "no silence"),
    ];
    for (request, body, expected, reason) in cases {
        let (status, text) = page.call(request, &[HOST, JSON], body).await;
        assert_eq!(status, expected, "{request} {text}");
        assert!(error_of(&text).contains(reason), "{request} {text}");
    }
    assert!(page.written().await.is_empty());

    let away = self::page(false).await;
    let take = format!("POST /api/incidents/{}/acknowledge", away.incident_id);
    let (status, text) = away.call(&take, &[HOST, JSON], "{}").await;
    assert_eq!(status, 503);
    assert!(error_of(&text).contains("nobody answers"), "{text}");
}

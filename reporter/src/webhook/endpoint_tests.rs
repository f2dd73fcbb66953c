use bongsu_stand_ins::webhook::{WebhookFault, WebhookStandIn};
use serde_json::{Value, json};

use super::*;

fn environment(name: &str) -> Option<String> {
    let variables = [("SECRET", "s3cret\n"), ("TOKEN", "Bearer hunter2"), ("BLANK", " "), ("LINES", "a\nb")];
    let found = variables.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| value.to_string()).or_else(|| name.strip_prefix("URL_").map(str::to_owned))
}

fn endpoint(section: Value) -> anyhow::Result<Endpoint> {
    Endpoint::new(&serde_json::from_value(section).unwrap(), environment)
}

fn noon() -> DateTime<Utc> {
    "2026-11-18T12:00:00Z".parse().unwrap()
}

async fn send(endpoint: &Endpoint) -> Result<(), DeliveryError> {
    endpoint.post("n-1", 7, r#"{"version":1}"#.to_owned(), noon()).await
}

/// Scenario: a signed POST, one without a secret, one for Alertmanager.
/// Guarantees: the headers of the contract, with a signature that Python has computed; the configured headers; no headers of ours for
/// Alertmanager; the path to the byte.
#[tokio::test]
async fn headers() {
    let stand_in = WebhookStandIn::start(0).await.unwrap();
    let url = stand_in.url("/hook/");
    let signed = json!({ "name": "a", "url": url, "secret_env": "SECRET", "headers": { "Authorization": "$TOKEN" } });
    send(&endpoint(signed).unwrap()).await.unwrap();
    send(&endpoint(json!({ "name": "b", "url": url, "headers": { "X-Tenant": "shop" } })).unwrap()).await.unwrap();
    let alertmanager = json!({ "name": "c", "url": url, "format": "alertmanager" });
    send(&endpoint(alertmanager).unwrap()).await.unwrap();

    let calls = stand_in.calls();
    let signature = "v1=8ecb72cb37e5956df959b64907c49779aff1ac45628b66aba026b08bfe9bb5f5";
    #[rustfmt::skip]
    let expected = [
        ("content-type",          ["application/json", "application/json", "application/json"]),
        ("x-bongsu-notification", ["n-1",              "n-1",              ""]),
        ("x-bongsu-sequence",     ["7",                "7",                ""]),
        ("x-bongsu-timestamp",    ["1795003200",       "1795003200",       ""]),
        ("x-bongsu-signature",    [signature,          "",                 ""]),
        ("authorization",         ["Bearer hunter2",   "",                 ""]),
        ("x-tenant",              ["",                 "shop",             ""]),
    ];
    for (name, values) in expected {
        let got: Vec<&str> = calls.iter().map(|call| call.header(name)).collect();
        assert_eq!(got, values, "{name}");
    }
    assert!(calls.iter().all(|call| call.path == "/hook/" && call.body == r#"{"version":1}"#), "{calls:#?}");
}

/// Scenario: every kind of answer, a connection that breaks, and nobody there.
/// Guarantees: each becomes the reaction that it asks for; a redirect is not followed.
#[tokio::test]
async fn answers_become_reactions() {
    let stand_in = WebhookStandIn::start(0).await.unwrap();
    let hook = endpoint(json!({ "name": "a", "url": stand_in.url("/hook") })).unwrap();
    let answer = |status| WebhookFault::Answer { status, body: "why".to_owned() };
    #[rustfmt::skip]
    let cases = [
        (answer(202),                                         "ok"),
        (answer(500),                                         "unreachable"),
        (answer(503),                                         "unreachable"),
        (answer(408),                                         "unreachable"),
        (answer(400),                                         "refused"),
        (answer(404),                                         "refused"),
        (WebhookFault::RateLimited { retry_after_secs: 7 },   "rate-limited"),
        (WebhookFault::Redirect { to: "/other".to_owned() },  "refused"),
        (WebhookFault::DropAfterRead,                         "unreachable"),
    ];
    for (fault, expected) in cases {
        stand_in.fail_next(1, fault.clone());
        let got = match send(&hook).await {
            Ok(()) => "ok",
            Err(DeliveryError::RateLimited { retry_after }) => {
                assert_eq!(retry_after, Duration::from_secs(7));
                "rate-limited"
            }
            Err(DeliveryError::Unreachable { .. }) => "unreachable",
            Err(DeliveryError::Refused { .. }) => "refused",
        };
        assert_eq!(got, expected, "{fault:?}");
    }
    assert!(stand_in.calls().iter().all(|call| call.path == "/hook"));

    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = endpoint(json!({ "name": "a", "url": format!("http://127.0.0.1:{port}/") })).unwrap();
    assert!(matches!(send(&nobody).await, Err(DeliveryError::Unreachable { .. })));
}

/// Scenario: a receiver that sends back what it was sent, secrets included, with control characters and no end.
/// Guarantees: the log gets its beginning in one line, without the secrets.
#[tokio::test]
async fn refusals_are_printable_and_hold_no_secret() {
    let stand_in = WebhookStandIn::start(0).await.unwrap();
    let section = json!({
        "name": "a", "url": stand_in.url("/"), "secret_env": "SECRET", "headers": { "Authorization": "$TOKEN" },
    });
    let body = format!("bad\u{1b}[31m\nBearer hunter2, hunter2, s3cret {}", "x".repeat(100_000));
    stand_in.fail_next(1, WebhookFault::Answer { status: 403, body });
    let Err(DeliveryError::Refused { reason }) = send(&endpoint(section).unwrap()).await else { panic!("accepted") };
    assert!(reason.starts_with("HTTP status 403 Forbidden: bad [31m ***, ***, *** x"), "{reason}");
    assert!(reason.chars().count() < 250 && !reason.contains(char::is_control), "{reason}");
}

/// Scenario: variables that are not set, blank, or hold what cannot be used.
/// Guarantees: it is said at the start which key needs which variable; no value is repeated.
#[test]
fn variables() {
    let with = |name: &str, value: Value| {
        let mut section = json!({ "name": "pager", "url": "http://localhost/" });
        section[name] = value;
        endpoint(section).map(|_| ())
    };
    #[rustfmt::skip]
    let cases = [
        ("secret_env", json!("MISSING"),                       "secret_env needs the environment variable `MISSING`"),
        ("secret_env", json!("BLANK"),                         "secret_env needs the environment variable `BLANK`"),
        ("headers",    json!({ "Authorization": "$MISSING" }), "headers.Authorization needs the environment variable"),
        ("headers",    json!({ "Authorization": "$LINES" }),   "headers.Authorization cannot be sent"),
        ("url",        json!("$MISSING"),                      "url needs the environment variable `MISSING`"),
        ("url",        json!("$URL_hunter2"),                  "url is not a usable URL"),
    ];
    for (key, value, expected) in cases {
        let problem = format!("{:#}", with(key, value.clone()).unwrap_err());
        assert!(problem.contains("`pager`") && problem.contains(expected), "{value}: {problem}");
        assert!(!problem.contains("hunter2") && !problem.contains("a\nb"), "{value}: {problem}");
    }
}

/// Guarantees: `Retry-After` in both of its forms; a time that has passed asks for no pause.
#[test]
fn retry_after() {
    #[rustfmt::skip]
    let cases = [
        ("120",                           Some(120)),
        (" 5 ",                           Some(5)),
        ("Wed, 18 Nov 2026 12:01:00 GMT", Some(60)),
        ("Wed, 18 Nov 2026 11:00:00 GMT", Some(0)),
        ("soon",                          None),
        ("-1",                            None),
    ];
    for (text, expected) in cases {
        assert_eq!(patience(text, noon()).map(|pause| pause.as_secs()), expected, "{text}");
    }
}

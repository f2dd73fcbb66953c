use bongsu_schemas::alert::AlertStatus::Firing;
use chrono_tz::Asia::Seoul;
use serde_json::json;

use super::*;

fn services() -> Services {
    let services = json!({
        "order-api": { "owner": { "name": "order", "slack": "#order", "email": ["order@example.com"] } },
        "pay-api": { "owner": { "name": "pay", "slack": "#pay", "email": ["pay@example.com"], "alert_email": true } },
        "bare": {},
        "routed": { "owner": {
            "name": "routed", "slack": ["#routed", "#all"], "email": ["routed@example.com"], "alert_email": true,
            "routes": [
                { "environment": ["staging", "test"], "slack": [] },
                { "severity": "4-5", "hours": "Mon-Fri 09:00-18:00", "slack": ["#oncall", "#routed"] },
                { "severity": 5, "slack": "#incidents", "email": ["cto@example.com"] },
                { "rule": "heap", "slack": "#jvm", "email": [] },
                { "severity": 3, "rule": ["errors", "latency"] },
            ],
        } },
        "*": { "owner": { "name": "platform", "slack": "#platform", "email": ["platform@example.com"] } },
    });
    serde_json::from_value(services).unwrap()
}

fn instant(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc)
}

/// A Tuesday's noon in Seoul.
fn question(service: Option<&str>, severity: u8) -> Question<'_> {
    Question { service, severity, environment: None, rule: None, at: instant("2026-11-24T12:00:00+09:00") }
}

/// Scenario: own owner, no own owner, unknown service, no service at all; severities around the e-mail's.
/// Guarantees: nobody else's channel is named, and the fallback gets what nobody owns.
#[test]
fn owners() {
    let services = services();
    #[rustfmt::skip]
    let cases = [
        (Some("order-api"), 5, "#order",    "order-api", 0),
        (Some("pay-api"),   4, "#pay",      "pay-api",   0),
        (Some("pay-api"),   5, "#pay",      "pay-api",   1),
        (Some("bare"),      5, "#platform", "*",         0),
        (Some("unknown"),   1, "#platform", "*",         0),
        (None,              1, "#platform", "*",         0),
    ];
    for (service, severity, channel, entry, emails) in cases {
        let route = route(&services, Seoul, question(service, severity));
        let got = (route.channels, route.entry, route.email.len());
        assert_eq!(got, (&[channel.to_owned()][..], Some(entry), emails), "{service:?} {severity}");
        assert!(!route.is_nobody_on_purpose());
    }
    let nobody = Services::default();
    let route = route(&nobody, Seoul, question(Some("x"), 3));
    assert!(route.channels.is_empty() && route.owner.is_none() && !route.is_nobody_on_purpose());
}

/// Scenario: alerts of a service whose owner has five routes.
/// Guarantees: the first entry that fits decides, and no other; without a fitting one the owner's channels and e-mail hold; an entry that
/// tells nobody sends no e-mail either.
#[test]
fn routes() {
    let services = services();
    let (day, night, weekend) = ("2026-11-24T12:00:00+09:00", "2026-11-24T22:00:00+09:00", "2026-11-28T12:00:00+09:00");
    #[rustfmt::skip]
    let cases = [
        // severity, environment, rule, at -> entry, channels, e-mail
        (5, Some("staging"),    None,           day,     Some(0), "",                  ""),
        (1, Some("test"),       Some("heap"),   night,   Some(0), "",                  ""),
        (4, Some("production"), None,           day,     Some(1), "#oncall #routed",   ""),
        (5, None,               None,           day,     Some(1), "#oncall #routed",   "routed@example.com"),
        (5, Some("production"), None,           night,   Some(2), "#incidents",        "cto@example.com"),
        (5, Some("production"), Some("heap"),   weekend, Some(2), "#incidents",        "cto@example.com"),
        (4, Some("production"), Some("heap"),   night,   Some(3), "#jvm",              ""),
        (3, None,               Some("errors"), night,   Some(4), "#routed #all",      ""),
        (4, Some("production"), None,           weekend, None,    "#routed #all",      ""),
        (3, None,               None,           day,     None,    "#routed #all",      ""),
        (3, None,               Some("other"),  day,     None,    "#routed #all",      ""),
    ];
    for (severity, environment, rule, at, entry, channels, email) in cases {
        let question = Question { service: Some("routed"), severity, environment, rule, at: instant(at) };
        let route = route(&services, Seoul, question);
        let got = (route.decided.map(|(index, _)| index), route.channels.join(" "), route.email.join(" "));
        assert_eq!(got, (entry, channels.to_owned(), email.to_owned()), "{question:?}");
        assert_eq!(route.is_nobody_on_purpose(), entry == Some(0), "{question:?}");
    }
}

/// Scenario: an alert with an environment among its keys, one without, one whose environment is a number.
/// Guarantees: Q1: the question is of the record that fired.
#[test]
fn questions_of_alerts() {
    let mut firing = crate::incidents::tests::alert("errors", Some("routed"), Firing, 7);
    assert_eq!(Question::of(&firing).environment, None);
    firing.key.insert("environment".to_owned(), json!("staging"));
    let question = Question::of(&firing);
    assert_eq!((question.environment, question.rule), (Some("staging"), Some("errors")));
    assert_eq!((question.at, question.service, question.severity), (firing.window_end, Some("routed"), 3));
    firing.key.insert("environment".to_owned(), json!(7));
    assert_eq!(Question::of(&firing).environment, None);
}

/// Scenario: what `bongsu route` prints.
/// Guarantees: it says who, where and why.
#[test]
fn explanations() {
    let services = services();
    let staging = Question { environment: Some("staging"), rule: Some("errors"), ..question(Some("routed"), 4) };
    let questions = [
        question(Some("order-api"), 4),
        question(Some("unknown"), 4),
        question(Some("order-api"), 5),
        question(Some("pay-api"), 4),
        staging,
        question(Some("routed"), 5),
        question(Some("routed"), 2),
    ];
    let texts = questions.map(|question| route(&services, Seoul, question).to_string());
    insta::assert_snapshot!(texts.join("\n\n"));
}

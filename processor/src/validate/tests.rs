use bongsu_ingest::config::Source;
use bongsu_schemas::duration::Span;
use bongsu_schemas::history::History;
use chrono_tz::Tz;
use serde_json::{Value, json};

use super::*;
use crate::config::{Time, View};

const REQUESTS: &str = "SELECT service, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors
    FROM requests GROUP BY tumble(interval '1 minute'), service";

/// A configuration with one source and one view, `requests_1m`.
fn config(rules: Value, services: Value) -> Config {
    Config {
        kafka: serde_json::from_value(json!({ "brokers": "localhost:9092" })).unwrap(),
        sources: vec![Source::json("shop.requests", "requests")],
        time: Time::default(),
        zone: Tz::UTC,
        services: serde_json::from_value(services).unwrap(),
        views: vec![View::new("requests_1m", REQUESTS)],
        rules: serde_json::from_value(rules).unwrap(),
        history: History::default(),
    }
}

fn good_rule() -> Value {
    json!({
        "name": "errors", "on": "requests_1m", "when": "requests >= 20 AND errors > $max * requests",
        "clear": "errors < $max * requests / 2", "params": { "max": 0.05, "hint": "look", "strict": true },
        "summary": "{{ service }}: {{ errors }} of {{ requests }} ({{ max }})",
    })
}

/// The only mistake: its path and its problem.
fn only(config: &Config) -> (String, String) {
    let mistakes = validate(config);
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    let Mistake { path, problem } = mistakes.into_iter().next().unwrap();
    (path, problem)
}

#[test]
fn corrections_have_a_limit() {
    let mut config = config(json!([]), json!({}));
    config.views[0].corrections = Some(Span::from_secs(25 * 3600));
    let (path, problem) = only(&config);
    assert_eq!(path, "views[0].corrections");
    assert!(problem.starts_with("is more than 1d"), "{problem}");
}

#[test]
fn a_good_configuration_has_no_mistakes() {
    let services = json!({ "payments": { "params": { "errors": { "max": 0.5, "hint": "call", "strict": false } } } });
    let config = config(json!([good_rule()]), services);
    let mistakes = validate(&config);
    assert!(mistakes.is_empty(), "{mistakes:?}");
    assert_eq!(plan_views(&config).len(), 1);
    let Compiled { views, rules, .. } = compile(&config).unwrap();
    assert_eq!((views.len(), rules.len(), rules[0].view), (1, 1, 0));
}

/// Scenario: one key of a rule that is right otherwise is wrong.
/// Guarantees: the mistake names that key and what is wrong with it.
#[test]
fn mistakes_of_rules_are_named() {
    #[rustfmt::skip]
    let cases = [
        // key       value                                          path                 problem
        ("on",       json!("nowhere"),                              "rules[0].on",       "`nowhere`, which does not exist"),
        ("when",     Value::Null,                                   "rules[0].when",     "is missing"),
        ("when",     json!("errors > $limit"),                      "rules[0].when",     "`$limit`, which is not among"),
        ("when",     json!("erors > 1"),                            "rules[0].when",     "erors"),
        ("when",     json!("errors >"),                             "rules[0].when",     "Expected"),
        ("when",     json!("errors > 1 requests"),                  "rules[0].when",     "after its end"),
        ("clear",    json!("errors < $limit"),                      "rules[0].clear",    "`$limit`, which is not among"),
        ("clear",    json!("fewer < 1"),                            "rules[0].clear",    "fewer"),
        ("params",   json!({ "max": 0.1, "errors": 1 }),            "rules[0].params",   "the parameter `errors`"),
        ("params",   json!({ "max": 0.1, "rule": "x" }),            "rules[0].params",   "the parameter `rule`"),
        ("params",   json!({ "max": { "warn": 1, "critical": 2 } }), "rules[0].params",  "give `severity: { warn: 3, critical: 5 }` too"),
        ("severity", json!({ "warn": 3, "critical": 5 }),           "rules[0].severity", "give a parameter two values too"),
        ("severity", json!({ "warn": 4, "critical": 4 }),           "rules[0].severity", "two values too"),
        ("summary",  json!("{{ service "),                          "rules[0].summary",  "is not a template"),
        ("summary",  json!("{{ pod }} and {{ service }}"),          "rules[0].summary",  "`pod`, which is neither a column"),
    ];
    for (key, value, path, expected) in cases {
        let mut rule = good_rule();
        rule[key] = value.clone();
        let (found, problem) = only(&config(json!([rule]), json!({})));
        assert_eq!(found, path, "{key}: {value}");
        assert!(problem.contains(expected), "{key}: {value}: {problem}");
    }
}

/// Scenario: rules with two levels, of which one lacks something.
/// Guarantees: a level is given whole.
#[test]
fn levels_are_given_whole() {
    let cases = [
        (json!({ "warn": 3, "critical": 5 }), json!({ "warn": 0.05, "critical": 0.2 }), None),
        (
            json!({ "warn": 5, "critical": 3 }),
            json!({ "warn": 0.05, "critical": 0.2 }),
            Some("must be higher for `critical`"),
        ),
        (json!({ "warn": 3, "critical": 5 }), json!({ "warn": 0.05 }), Some("for one level only")),
        (json!({ "warn": 3, "critical": 5 }), json!({ "warn": 0.05, "critical": true }), Some("values of two types")),
    ];
    for (severity, max, expected) in cases {
        let mut rule = good_rule();
        rule["severity"] = severity;
        rule["params"]["max"] = max.clone();
        let mistakes = validate(&config(json!([rule]), json!({})));
        match expected {
            Some(expected) => assert!(mistakes[0].problem.contains(expected), "{max}: {mistakes:?}"),
            None => assert!(mistakes.is_empty(), "{mistakes:?}"),
        }
    }
}

#[test]
fn mistakes_of_views_and_sources_are_named() {
    let mut broken = config(json!([good_rule()]), json!({}));
    broken.views[0].sql = "SELECT count(*) AS n FROM requests".to_owned();
    let (path, problem) = only(&broken);
    assert_eq!(path, "views[0].sql", "the rule on a broken view is not complained about as well");
    assert!(problem.contains("tumble"), "{problem}");

    let mut broken = config(json!([]), json!({}));
    broken.views[0].sql = REQUESTS.replace("requests GROUP", "spans GROUP").replace("status >= 500", "true");
    let (path, problem) = only(&broken);
    assert_eq!(path, "views[0].sql");
    assert!(problem.contains("no source fills; there are: requests"), "{problem}");
}

/// Scenario: three parts are wrong at once.
/// Guarantees: all are reported, in the order of the file.
#[test]
fn all_mistakes_come_at_once() {
    let mut rules = vec![good_rule(), good_rule()];
    rules[0]["when"] = json!("errors > $limit");
    rules[1]["name"] = json!("other");
    rules[1]["on"] = json!("nowhere");
    let config = config(json!(rules), json!({}));
    let paths: Vec<_> = validate(&config).into_iter().map(|mistake| mistake.path).collect();
    assert_eq!(paths, ["rules[0].when", "rules[1].on"]);
}

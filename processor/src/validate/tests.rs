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
    let (views, rules) = compile(&config).unwrap();
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

#[test]
fn mistakes_of_services_are_named() {
    #[rustfmt::skip]
    let cases = [
        // params of the service "orders"             path                                     problem
        (json!({ "error": { "max": 0.1 } }),          "services.orders.params.error",          "the rule `error`, which does not exist"),
        (json!({ "errors": { "maximum": 0.1 } }),     "services.orders.params.errors.maximum", "no parameter `maximum`"),
        (json!({ "errors": { "max": "much" } }),      "services.orders.params.errors.max",     "must be a number"),
        (json!({ "errors": { "max": true } }),        "services.orders.params.errors.max",     "must be a number"),
        (json!({ "errors": { "hint": 1.0 } }),        "services.orders.params.errors.hint",    "must be text"),
        (json!({ "errors": { "strict": "yes" } }),    "services.orders.params.errors.strict",  "must be true or false"),
    ];
    for (params, path, expected) in cases {
        let services = json!({ "orders": { "params": params } });
        let (found, problem) = only(&config(json!([good_rule()]), services));
        assert_eq!(found, path, "{params}");
        assert!(problem.contains(expected), "{params}: {problem}");
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
    let config = config(json!(rules), json!({ "orders": { "params": { "gone": { "max": 1.0 } } } }));
    let paths: Vec<_> = validate(&config).into_iter().map(|mistake| mistake.path).collect();
    assert_eq!(paths, ["rules[0].when", "rules[1].on", "services.orders.params.gone"]);
}

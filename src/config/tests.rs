//! Properties of the loader as a whole; single mistakes are in `tests/config.rs`, through the binary.

use std::path::Path;

use proptest::prelude::*;

use super::*;

const EVERYTHING: &str = "
kafka: { brokers: 'localhost:9092' }
sources:
  - { topic: requests, format: json, table: requests }
  - { topic: exceptions, format: json, table: exceptions }
  - { topic: metrics, format: json, table: metrics }
  - { topic: events, format: json, table: events }
  - { topic: spans, format: json, table: spans }
services:
  '*': { owner: { name: Platform } }
";

fn load_text(text: &str) -> Result<Config, Mistakes> {
    from_text("bongsu.yaml", text, Path::new("/etc/bongsu"))
}

/// Scenario: only kafka, sources and services.
/// Guarantees: all built-in views and rules can be read, plan, and are in force without a warning.
#[test]
fn the_defaults_are_in_force() {
    let config = load_text(EVERYTHING).unwrap();
    let views: Vec<_> = config.views.iter().map(|view| view.name.as_str()).collect();
    let expected = [
        "requests_1m",
        "calls_1m",
        "exceptions_1m",
        "events_1m",
        "payments_by_issuer_1m",
        "containers_1m",
        "restarts_5m",
        "heap_1m",
    ];
    assert_eq!(views, expected);
    assert_eq!(config.rules.len(), 9);
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(config.history.url, "file:///etc/bongsu/history");
}

/// Scenario: a source for one table only; a view and a rule of a built-in name; defaults switched off.
/// Guarantees: what has no table is left out, what has the same name is replaced, and nothing is there twice.
#[test]
fn defaults_are_merged() {
    let minimal = "kafka: { brokers: 'k:1' }\nsources: [ { topic: requests, format: json, table: requests } ]\n";
    let names = |config: &Config| config.rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>();
    let config = load_text(minimal).unwrap();
    assert_eq!(config.views.len(), 1);
    assert_eq!(names(&config), ["high-error-rate", "slow-requests"]);

    let replaced = "
views:
  - name: requests_1m
    sql: SELECT service, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors
         FROM requests GROUP BY tumble(interval '1 minute'), service
rules:
  - { name: high-error-rate, on: requests_1m, when: errors > 3, summary: 'errors' }
";
    let config = load_text(&format!("{minimal}{replaced}")).unwrap();
    assert_eq!(config.views.len(), 1);
    assert_eq!(names(&config), ["high-error-rate"], "slow-requests needs p95_ms");
    let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    assert!(
        warning.starts_with("bongsu.yaml:6:5: views[0].sql: warning: the built-in `slow-requests` is left out"),
        "{warning}"
    );

    let off = load_text(&format!("{minimal}defaults: false\n")).unwrap();
    assert!(off.views.is_empty() && off.rules.is_empty());
}

/// Scenario: a route without a condition before others; mail of alerts without a sender.
/// Guarantees: what can never happen is said, and nothing else.
#[test]
fn what_is_probably_not_meant_is_said() {
    let with = |owner: &str| {
        let text = format!(
            "{}slack: {{}}\nsmtp: {{ url: 'smtp://localhost:25' }}\n",
            EVERYTHING.replace("name: Platform", owner)
        );
        load_text(&text).unwrap().warnings
    };
    let routes = "slack: '#a', routes: [ { severity: 5, slack: '#b' }, { slack: '#c' }, { severity: 4, slack: '#d' } ]";
    let [warning] = &with(routes)[..] else { panic!("{:?}", with(routes)) };
    assert!(
        warning.contains("services.*.owner.routes[2]: warning: is never reached: routes[1] has no condition"),
        "{warning}"
    );
    let last = "slack: '#a', routes: [ { severity: 5, slack: '#b' }, { slack: '#c' } ]";
    assert_eq!(with(last), Vec::<String>::new());
    let mailed = "slack: '#a', routes: [ { severity: 5, email: [ a@example.com ] } ]";
    assert!(with(mailed)[0].contains("there is no reports.weekly.from"), "{:?}", with(mailed));
}

/// Scenario: a password in a librdkafka property that librdkafka refuses.
/// Guarantees: it is in no message.
#[test]
fn property_values_are_not_repeated() {
    let text = "kafka: { brokers: 'k:1', properties: { security.protocol: hunter2 } }\nsources: []\n";
    let problem = load_text(text).unwrap_err().to_string();
    assert!(problem.contains("kafka.properties.security.protocol") && !problem.contains("hunter2"), "{problem}");
}

/// Pieces of YAML and of our keys, so that random text gets past the parser.
fn fragment() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "kafka", "brokers", "sources", "views", "rules", "time", "services", "name", "sql", "on", "when", "params",
        "owner", "slack", ": ", ":\n  ", "\n", "\n- ", "  - ", "[", "]", "{", "}", ", ", "\"", "'", "|\n", "&a ", "*a",
        "!t ", "#", "---\n", "\t", "null", "true", "-1", "1e999", ".nan", "10s", "2 of 3", "\u{feff}", "\u{e000}",
        "\u{1b}", "\u{202e}", "é",
    ];
    prop_oneof![4 => prop::sample::select(PIECES).prop_map(str::to_owned), 1 => ".{0,6}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Guarantees: no text makes the loader panic, and each complaint is one line without control characters.
    #[test]
    fn arbitrary_text_never_panics(pieces in prop::collection::vec(fragment(), 0..40)) {
        if let Err(mistakes) = load_text(&pieces.concat()) {
            prop_assert!(!mistakes.0.is_empty());
            for mistake in mistakes.0 {
                prop_assert!(!mistake.to_string().contains(char::is_control), "{:?}", mistake);
            }
        }
    }

    /// Guarantees: the same for any change of one byte in a good configuration.
    #[test]
    fn one_changed_character_never_panics(at in 0usize..400, with in any::<char>()) {
        let text: String = EVERYTHING.chars().enumerate().map(|(index, c)| if index == at { with } else { c }).collect();
        let _ = load_text(&text);
    }
}

/// Scenario: nesting as deep as the file is long.
/// Guarantees: refused, no stack overflow.
#[test]
fn deep_nesting_is_refused() {
    for text in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(50_000), "? ".repeat(100_000)] {
        assert!(load_text(&text).unwrap_err().to_string().contains("levels deep"));
    }
}

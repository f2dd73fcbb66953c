use bongsu_schemas::alert::AlertStatus::Firing;
use bongsu_schemas::command::Repeat;
use proptest::prelude::*;

use super::*;
use crate::incidents::tests::alert;

fn silence(id: &str, matcher: &[(&str, &str)], from_minute: i64, until_minute: i64) -> Silence {
    let noon: DateTime<Utc> = "2026-11-16T12:00:00Z".parse().unwrap();
    let at = |minute| noon + TimeDelta::minutes(minute);
    let matcher = matcher.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let (from, until) = (at(from_minute), at(until_minute));
    Silence { id: id.to_owned(), matcher, from, until, repeat: None, by: "me".to_owned(), reason: String::new() }
}

fn repeated(hours: &str, from_minute: i64, until_minute: i64) -> Silence {
    let repeat = Some(Repeat { hours: hours.parse().unwrap(), zone: chrono_tz::Asia::Seoul });
    Silence { repeat, ..silence("a", &[("service", "order")], from_minute, until_minute) }
}

/// Scenario: alerts before, in and after a silence; other services, rules and keys; the silence is taken back.
/// Guarantees: S1 to the end of the window, and S2.
#[test]
fn a_silence_mutes_its_matcher_only() {
    let mut silences = Silences::default();
    assert!(silences.apply(&Command::Silence(silence("a", &[("service", "order"), ("rule", "errors")], 5, 8))));
    let cases = [
        ("errors", "order", 4, false),
        ("errors", "order", 5, true),
        ("errors", "order", 7, true),
        ("errors", "order", 8, false),
        ("errors", "pay", 6, false),
        ("latency", "order", 6, false),
    ];
    for (rule, service, minute, muted) in cases {
        assert_eq!(silences.mute(&alert(rule, Some(service), Firing, minute)), muted, "{rule} {service} {minute}");
    }
    silences.apply(&Command::Silence(silence("b", &[("route", "/orders")], 0, 100)));
    let mut of_route = alert("errors", Some("pay"), Firing, 6);
    assert!(!silences.mute(&of_route), "the alert has no such key");
    of_route.key.insert("route".to_owned(), "/orders".into());
    assert!(silences.mute(&of_route));
    assert!(silences.apply(&Command::Unsilence { id: "a".to_owned(), by: "me".to_owned() }));
    assert!(!silences.mute(&alert("errors", Some("order"), Firing, 6)));
}

/// Scenario: values, expressions and their negations against a service called `order-api`, and against an alert without the key.
/// Guarantees: S2; expressions fit whole values; what cannot be read mutes nobody.
#[test]
fn matchers() {
    #[rustfmt::skip]
    let cases = [
        ("service", "order-api",         true),
        ("service", "order",             false),
        ("service", "!order-api",        false),
        ("service", "!pay-api",          true),
        ("service", "~order-.*",         true),
        ("service", "~order",            false), // not the whole value
        ("service", "~.*api",            true),
        ("service", "~pay-api|order-api", true),
        ("service", "~pay-api|order",    false),
        ("service", "~ORDER-API",        false),
        ("service", "~(?i)ORDER-API",    true),
        ("service", "!~order-.*",        false),
        ("service", "!~pay-.*",          true),
        ("service", "~!order-api",       false), // an expression that begins with an exclamation mark
        ("service", "",                  false),
        ("service", "!",                 true),
        ("service", "~",                 false),
        ("service", "~.*",               true),
        ("rule",    "~err(or)?s",        true),
        ("servcie", "order-api",         false),
        ("servcie", "!order-api",        false), // the alert has no such key
        ("servcie", "~.*",               false),
        ("status",  "500",               true),  // a number as its text
        ("status",  "~5..",              true),
        ("gone",    "!x",                false), // null is no value
        // These cannot be read.
        ("service", "~(",                false),
        ("service", "!~(",               false),
        ("service", "~a)|(.*",           false),
        ("service", "~\\w{1000}{1000}",  false),
    ];
    let mut firing = alert("errors", Some("order-api"), Firing, 6);
    firing.key.insert("status".to_owned(), 500.into());
    firing.key.insert("gone".to_owned(), Value::Null);
    for (name, text, muted) in cases {
        let mut silences = Silences::default();
        silences.apply(&Command::Silence(silence("a", &[(name, text)], 0, 100)));
        assert_eq!(silences.mute(&firing), muted, "{name}={text}");
    }
    firing.key.insert("message".to_owned(), "two\nlines".into());
    let mut silences = Silences::default();
    silences.apply(&Command::Silence(silence("a", &[("message", "~two.*")], 0, 100)));
    assert!(silences.mute(&firing));
}

/// Scenario: a silence of two days that repeats at night, in Seoul (noon in UTC is 21:00 there).
/// Guarantees: it holds in its hours only, and only between its ends.
#[test]
fn a_silence_that_repeats() {
    let mut silences = Silences::default();
    silences.apply(&Command::Silence(repeated("22:00-06:00", 0, 2 * 24 * 60)));
    let cases = [
        (0, false),
        (59, false),
        (60, true),
        (539, true),
        (540, false),
        (60 + 24 * 60, true),
        (2 * 24 * 60 + 60, false),
    ];
    for (minute, muted) in cases {
        assert_eq!(silences.mute(&alert("errors", Some("order"), Firing, minute)), muted, "{minute}");
    }
}

/// Scenario: silences that people may not write.
/// Guarantees: each is refused with what is wrong with it; the others pass.
#[test]
fn checks() {
    let of = |matcher: &[(&str, &str)]| silence("a", matcher, 0, 60);
    let long = "x".repeat(1_000);
    let good = of(&[("service", "order")]);
    let refused = [
        (of(&[]), "needs a matcher"),
        (of(&[("", "x")]), "no name"),
        (of(&[("service", long.as_str())]), "longer than"),
        (of(&[("service", "~(")]), "service: `~(` is no regular expression"),
        (of(&[("service", "~\\w{1000}{1000}")]), "is no regular expression that can be used"),
        (silence("a", &[("service", "order")], 60, 60), "before `until`"),
        (Silence { by: " ".to_owned(), ..good.clone() }, "`by` must not be empty"),
        (Silence { by: "a\nb".to_owned(), ..good.clone() }, "control characters"),
        (Silence { reason: long.clone(), ..good.clone() }, "`reason` is longer"),
        (Silence { id: long, ..good.clone() }, "`id` is longer"),
        // It is a Monday; the hour from 21:00 on.
        (repeated("Tue 21:00-22:00", 0, 60), "never come"),
        (repeated("22:00-23:00", 0, 60), "never come"),
    ];
    for (silence, problem) in refused {
        let error = check(&silence).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
    let many: Vec<(String, &str)> = (0..30).map(|number| (format!("k{number}"), "x")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert!(check(&of(&many)).unwrap_err().contains("20 matchers"));
    for good in [good, repeated("22:00-23:00", 0, 61), repeated("Sun 01:00-03:00", 0, 7 * 24 * 60)] {
        assert_eq!(check(&good), Ok(()), "{good:?}");
    }
}

/// Scenario: more silences than are kept; listing.
/// Guarantees: memory is bounded, and what ends first goes first; the list has what still holds or will, by its end.
#[test]
fn silences_are_bounded_and_listed() {
    let mut silences = Silences::default();
    for number in 0..MAX_SILENCES as i64 + 5 {
        silences.apply(&Command::Silence(silence(&format!("s{number}"), &[("service", "order")], -1, number)));
    }
    assert_eq!(silences.by_id.len(), MAX_SILENCES);
    assert!(silences.get("s4").is_none() && silences.get("s5").is_some());
    let noon: DateTime<Utc> = "2026-11-16T12:00:00Z".parse().unwrap();
    let listed = silences.silences(noon + TimeDelta::minutes(MAX_SILENCES as i64));
    assert_eq!(
        listed.iter().map(|silence| silence.id.as_str()).collect::<Vec<_>>(),
        ["s10001", "s10002", "s10003", "s10004"]
    );
}

/// Guarantees: ids are short, and differ where time, person or matcher do.
#[test]
fn ids() {
    let now = DateTime::UNIX_EPOCH;
    let matcher = silence("", &[("service", "order")], 0, 1).matcher;
    let ids = [
        new_id(now, "me", &matcher),
        new_id(now + TimeDelta::nanoseconds(1), "me", &matcher),
        new_id(now, "you", &matcher),
        new_id(now, "me", &BTreeMap::new()),
    ];
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    assert!(ids.iter().all(|id| id.len() == 12));
}

proptest! {
    /// Guarantees: whatever a matcher says, nothing panics; what fits exactly fits itself, and its negation does not.
    #[test]
    fn any_matcher(text in "[!~()|.*a\\\\-]{0,12}|\\PC{0,20}", service in "\\PC{0,20}") {
        let firing = alert("errors", Some(&service), Firing, 6);
        let mutes = |text: &str| {
            let mut silences = Silences::default();
            silences.apply(&Command::Silence(silence("a", &[("service", text)], 0, 100)));
            silences.mute(&firing)
        };
        let readable = Test::parse(&text).is_ok();
        prop_assert!(readable || !mutes(&text));
        if readable && !text.starts_with('!') {
            prop_assert_ne!(mutes(&text), mutes(&format!("!{text}")));
        }
        let escaped = format!("~{}", regex::escape(&service));
        prop_assert!(mutes(&escaped));
    }
}

use bongsu_schemas::alert::AlertStatus::{Firing, Resolved};
use bongsu_schemas::alert::{AlertLevel, Evidence, EvidenceWindow, NO_DATA};
use chrono_tz::Asia::Seoul;
use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::incidents::Correlator;
use crate::incidents::tests::alert;
use crate::recent::{TopException, TopUrl};

const BASE: &str = "https://bongsu.example.com";

fn render(rendered: &Incident, found: &BTreeMap<String, Arc<Found>>) -> Message {
    let alerts: Vec<_> = rendered.alerts.iter().collect();
    let (id, public_url, owner) = ("0123456789abcdef", Some(BASE), Some("Order team"));
    incident(rendered, &alerts, Context { id, zone: Seoul, public_url, owner, found })
}

fn example(records: &[AlertRecord]) -> Message {
    let mut correlator = Correlator::default();
    let changes: Vec<_> = records.iter().flat_map(|record| correlator.apply(record)).collect();
    let found = Found {
        windows: Vec::new(),
        exceptions: vec![TopException {
            kind: "java.lang.OutOfMemoryError".to_owned(),
            count: 11.0,
            sample: Some("Java heap space".to_owned()),
        }],
        urls: vec![TopUrl { route: "/orders".to_owned(), requests: 1_204.0, errors: Some(12.0) }],
    };
    let found = BTreeMap::from([(fired().alert_id, Arc::new(found))]);
    render(&changes.last().unwrap().incident, &found)
}

fn fired() -> AlertRecord {
    let mut record = alert("high-error-rate", Some("order-api"), Firing, 5);
    record.severity = 4;
    record.summary = "order-api /orders: 10 % of requests fail".to_owned();
    record.params.insert("max".to_owned(), ParamValue::Number(0.02));
    record.values.insert("p95_ms".to_owned(), json!(812.345_678));
    let before = record.window_start - TimeDelta::minutes(1);
    let values = json!({ "errors": 1, "requests": 110 }).as_object().unwrap().clone();
    record.evidence.windows = vec![
        EvidenceWindow { window_start: before, met: false, values },
        EvidenceWindow { window_start: record.window_start, met: true, values: record.values.clone() },
    ];
    record
}

/// Scenario: an incident of two alerts while it is open, and after it.
/// Guarantees: what people read.
#[test]
fn looks() {
    let latency = alert("latency", Some("order-api"), Firing, 6);
    let open = example(&[fired(), latency.clone()]);
    insta::assert_json_snapshot!("open", json!({ "text": open.text, "blocks": open.blocks }));
    let mut resolved = fired();
    (resolved.status, resolved.sequence) = (Resolved, 2);
    resolved.window_end += TimeDelta::minutes(7);
    resolved.resolved_at = Some(resolved.window_end);
    let mut latency_resolved = latency.clone();
    (latency_resolved.status, latency_resolved.sequence) = (Resolved, 2);
    let done = example(&[fired(), latency, latency_resolved, resolved]);
    insta::assert_json_snapshot!("resolved", json!({ "text": done.text, "blocks": done.blocks }));
}

/// Scenario: a series that flaps, and an alert that another one explains although it is more severe.
/// Guarantees: the message counts the firings, says what explains an alert, and is not titled by it.
#[test]
fn flaps_and_explanations_are_told() {
    let first = AlertRecord { severity: 3, ..fired() };
    let over = AlertRecord { status: Resolved, sequence: 2, ..first.clone() };
    let again = AlertRecord { alert_id: "again".to_owned(), ..first.clone() };
    let mut latency = alert("latency", Some("order-api"), Firing, 6);
    (latency.severity, latency.explained_by) = (5, vec![first.rule.clone()]);
    let message = example(&[first, over, again, latency]);
    assert_eq!(message.text, "🔥🔥🔥🔥🔥 order-api /orders: 10 % of requests fail (+1)");
    let texts: Vec<&str> = message.blocks.iter().filter_map(|block| block["text"]["text"].as_str()).collect();
    let place = |end: &str| texts.iter().position(|text| text.ends_with(end));
    let (flaps, explained) = (place(" · fired 2 times"), place("\nExplained by `high-error-rate`"));
    assert!(flaps.is_some() && flaps < explained, "{texts:#?}");
}

/// Scenario: a series fires seven times, each time over at once; then twice; then on two days.
/// Guarantees: it is shown once, with how often it fired and since when; two times are no flapping.
#[test]
fn flapping_is_said() {
    let flaps = |minutes: &[i64]| {
        let turns = minutes.iter().enumerate().flat_map(|(number, minute)| {
            let turn = |status, minute| {
                let mut record = alert("errors", Some("order"), status, minute);
                record.alert_id = number.to_string();
                record
            };
            [turn(Firing, *minute), turn(Resolved, minute + 1)]
        });
        let message = example(&turns.collect::<Vec<_>>());
        (json!(message.blocks).to_string(), message.text)
    };
    let (blocks, text) = flaps(&[3, 5, 7, 9, 11, 13, 15]);
    assert_eq!(text, "✅ Resolved: order: errors summary");
    assert!(blocks.contains("flapping: fired 7 times since 21:02"), "{blocks}");
    assert_eq!(blocks.matches("*errors*").count(), 1, "{blocks}");
    let (blocks, _) = flaps(&[3, 10]);
    assert!(blocks.contains("fired 2 times") && !blocks.contains("flapping"), "{blocks}");
    let (blocks, _) = flaps(&[170, 175, 180, 190]);
    assert!(blocks.contains("flapping: fired 4 times since 2026-11-16 23:49:00 KST"), "{blocks}");
}

/// Scenario: an alert of a rule with two levels in a window that is still open, and one about silence whose series had windows before.
/// Guarantees: the level stands beside the severity; an open window is called so; silence shows the last windows, and compares nothing.
#[test]
fn levels_open_windows_and_silence_are_told() {
    let early = AlertRecord { level: Some(AlertLevel::Critical), early: true, ..fired() };
    let message = example(std::slice::from_ref(&early));
    let text = message.blocks[2]["text"]["text"].as_str().unwrap();
    assert!(text.starts_with("🔥🔥🔥🔥 critical *high-error-rate*\n"), "{text}");
    assert!(text.ends_with("Window 2026-11-16 21:04:00 KST to 21:05:00 · window still open"), "{text}");
    assert!(
        reply_line(&Correlator::default().apply(&early)[0].incident.alerts[0])
            .starts_with("🔥🔥🔥🔥 Also fires: critical *high")
    );

    let values = |errors: i64| json!({ "errors": errors, "requests": 100 }).as_object().unwrap().clone();
    let mut silent = AlertRecord { reason: Some(NO_DATA.to_owned()), values: Map::new(), ..fired() };
    silent.evidence = Evidence::default();
    let windows = vec![(early.window_start - TimeDelta::minutes(9), values(1)), (early.window_start, values(2))];
    let windows = windows.into_iter().map(|(start, values)| (start - TimeDelta::minutes(5), values)).collect();
    let found = Found { windows, ..Found::default() };
    let message = example(std::slice::from_ref(&silent));
    let text = message.blocks[2]["text"]["text"].as_str().unwrap();
    assert!(text.contains("\nFired: no data came\n") && !text.contains("Because"), "{text}");
    let table = alert::table(&silent, Some(&found), Seoul).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    let expected =
        ["```", "time      errors  requests  met", "20:50:00       1       100", "20:59:00       2       100", "```"];
    assert_eq!(lines, expected);
    assert_eq!(alert::table(&silent, None, Seoul), None);
}

/// Scenario: six windows are remembered, two of them stand in the evidence; the deciding one has no row there.
/// Guarantees: at most six rows, the latest, a mark where the condition was met.
#[test]
fn the_table_joins_evidence_and_memory() {
    let mut record = fired();
    record.evidence.windows.pop();
    let windows = (0..6).map(|back| {
        let values = json!({ "errors": f64::from(back), "requests": 100.0 }).as_object().unwrap().clone();
        (record.window_start - TimeDelta::minutes(6 - i64::from(back)), values)
    });
    let found = Found { windows: windows.collect(), ..Found::default() };
    let table = alert::table(&record, Some(&found), Seoul).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2 + 1 + 6, "{table}");
    assert_eq!(lines[1], "time      errors  requests  met");
    assert_eq!(lines[2], "20:59:00       1       100");
    assert_eq!(lines[6], "21:03:00       1       110", "what the rule saw, not what was remembered: {table}");
    assert_eq!(lines[7], "21:04:00      12       120  ●");
}

/// Scenario: event text that tries to mention everybody, to link and to break out of code.
/// Guarantees: M3.
#[test]
fn hostile_text_mentions_nobody() {
    let mut record = fired();
    record.summary = "<!channel> <https://evil.example|click> & `x`\n*bold*\u{202e}".to_owned();
    record.key.insert("route".to_owned(), json!("/a`<!here>`"));
    let message = example(&[record]);
    for block in message.blocks.iter().skip(1) {
        let text = block.to_string();
        assert!(!text.contains("<!") && !text.contains("<https://evil"), "{text}");
    }
    assert!(!message.text.contains('<'), "{}", message.text);
}

pub(crate) fn check_limits(message: &Message) -> Result<(), TestCaseError> {
    prop_assert!(!message.text.is_empty() && message.text.chars().count() <= 4_000);
    prop_assert!(message.blocks.len() <= MAX_BLOCKS);
    for (position, block) in message.blocks.iter().enumerate() {
        let (texts, max) = match block["type"].as_str() {
            Some("header") => (vec![&block["text"]["text"]], MAX_HEADER_CHARS),
            Some("section") => (vec![&block["text"]["text"]], MAX_SECTION_CHARS),
            Some("context") => {
                let elements = block["elements"].as_array().unwrap();
                prop_assert!(!elements.is_empty() && elements.len() <= 10);
                (elements.iter().map(|element| &element["text"]).collect(), MAX_SECTION_CHARS)
            }
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        for text in texts {
            let chars = text.as_str().unwrap().chars().count();
            prop_assert!(chars > 0 && chars <= max, "block {position}: {chars} characters");
        }
    }
    let block_id = message.blocks[0]["block_id"].as_str().unwrap();
    prop_assert!(!block_id.is_empty() && block_id.chars().count() <= MAX_BLOCK_ID_CHARS);
    Ok(())
}

/// No text in Slack's markup links or mentions, but for the page's own links.
pub(crate) fn check_markup(message: &Message) -> Result<(), TestCaseError> {
    let own_link = format!("<{BASE}/?from=");
    let texts = message.blocks.iter().flat_map(|block| {
        let elements = block["elements"].as_array().into_iter().flatten().map(|element| &element["text"]);
        elements
            .chain([&block["text"]["text"]])
            .filter_map(Value::as_str)
            .map(move |text| (block["type"] == "header", text))
    });
    let escaped = texts.filter(|(is_plain, _)| !is_plain).map(|(_, text)| text).chain([message.text.as_str()]);
    for text in escaped {
        prop_assert!(!text.replace(&own_link, "").contains('<'), "{}", text);
    }
    Ok(())
}

/// Any text: words, what Slack's markup is made of, control characters; short, and far over every limit.
pub(crate) fn any_text() -> impl Strategy<Value = String> {
    let unit = "\\PC{0,12}|[<>&`*|]{0,12}|\\x00\n🔥|```|&{12}";
    (unit, prop_oneof![Just(1usize), 1usize..600]).prop_map(|(unit, repeat)| unit.repeat(repeat))
}

fn any_values() -> impl Strategy<Value = Map<String, Value>> {
    let value = prop_oneof![
        any_text().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(Value::Null),
        Just(json!([{ "<!here>": 1 }])),
    ];
    prop::collection::btree_map(prop_oneof![any_text(), Just("errors".to_owned())], value, 0..8)
        .prop_map(|values| values.into_iter().collect())
}

prop_compose! {
    /// An alert with any text in every field.
    fn any_alert()(
        (rule, service, summary) in (any_text(), prop::option::of(any_text()), any_text()),
        when in prop_oneof![any_text(), Just("errors > $max AND requests >= 20".to_owned())],
        (key, values, others) in (any_values(), any_values(), any_values()),
        params in prop::collection::btree_map(prop_oneof![any_text(), Just("max".to_owned())], any_text(), 0..4),
        severity in any::<u8>(),
        is_resolved in any::<bool>(),
    ) -> (AlertRecord, bool) {
        let mut record = alert(&rule, None, Firing, 5);
        (record.service, record.summary, record.severity, record.evidence.when) = (service, summary, severity, when);
        record.params = params.into_iter().map(|(name, text)| (name, ParamValue::Text(text))).collect();
        let before = record.window_start - TimeDelta::minutes(1);
        record.evidence.windows = vec![EvidenceWindow { window_start: before, met: false, values: others }];
        (record.key, record.values) = (key, values);
        (record, is_resolved)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Guarantees: M1 and M3 for any text in every field, any length, and any number of alerts.
    #[test]
    fn limits_hold_for_any_incident(
        records in prop::collection::vec(any_alert(), 1..4),
        count in prop_oneof![0usize..4, 0usize..600],
        (kind, sample, route) in (any_text(), any_text(), any_text()),
        (count_of, flaps) in (any::<f64>(), any::<u32>()),
        services in prop::collection::vec(any_text(), 0..20),
        (incident_id, owner, by, id) in (any_text(), any_text(), any_text(), "[a-z]{1,400}"),
    ) {
        let mut correlator = Correlator::default();
        let mut rendered = Incident::clone(&correlator.apply(&fired())[0].incident);
        let template = rendered.alerts[0].clone();
        rendered.record.services.extend(services);
        rendered.alerts = (0..count).map(|number| {
            let (mut firing, is_resolved) = records[number % records.len()].clone();
            firing.alert_id = number.to_string();
            let mut alert = template.clone();
            alert.resolved = is_resolved.then(|| firing.clone());
            // Most are explained by the first one, whose id the incident knows.
            alert.explained_by = (number % 4 > 0).then(|| template.firing.alert_id.clone());
            (alert.firing, alert.flaps) = (firing, flaps);
            alert
        }).collect();
        (rendered.record.incident_id, rendered.record.acknowledged_by) = (incident_id, Some(by));
        let found = Arc::new(Found {
            windows: vec![(fired().window_start - TimeDelta::minutes(9), records[0].0.values.clone())],
            exceptions: vec![TopException { kind, count: count_of, sample: Some(sample) }; 3],
            urls: vec![TopUrl { route, requests: count_of, errors: Some(count_of) }; 3],
        });
        let found: BTreeMap<_, _> = (0..count).map(|number| (number.to_string(), Arc::clone(&found))).collect();
        let alerts: Vec<_> = rendered.alerts.iter().collect();
        let context = Context { id: &id, zone: Seoul, public_url: Some(BASE), owner: Some(&owner), found: &found };
        let message = incident(&rendered, &alerts, context);
        check_limits(&message)?;
        check_markup(&message)?;
        let plain = message.plain();
        check_limits(&plain)?;
        check_markup(&plain)?;
        prop_assert_eq!(&plain.blocks[0]["block_id"], &message.blocks[0]["block_id"]);
        let lines: Vec<String> = alerts.iter().map(|alert| reply_line(alert)).collect();
        let reply = reply(&id, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        check_limits(&reply)?;
        check_markup(&reply)?;
    }

    /// Guarantees: M1 for digests.
    #[test]
    fn limits_hold_for_paragraphs(title in "\\PC{0,400}", texts in prop::collection::vec("\\PC{0,4000}", 0..70)) {
        check_limits(&paragraphs("id", &format!("x{title}"), &texts))?;
    }
}

/// Guarantees: an entity is not cut in two.
#[test]
fn cuts() {
    assert_eq!(cut("abc", 3), "abc");
    assert_eq!(cut("abcd", 3), "ab…");
    assert_eq!(cut_escaped("ab&amp;cd", 6), "ab…");
    let cases =
        [(59, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3_661, "1 h 1 min"), (90_000, "1 d 1 h"), (-5, "0 s")];
    for (secs, text) in cases {
        assert_eq!(duration(TimeDelta::seconds(secs)), text);
    }
}

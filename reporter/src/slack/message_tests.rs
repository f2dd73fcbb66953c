use bongsu_schemas::alert::AlertStatus::{Firing, Resolved};
use chrono_tz::Asia::Seoul;
use proptest::prelude::*;

use super::*;
use crate::incidents::Correlator;
use crate::incidents::tests::alert;

fn render(incident_with: &Incident) -> Message {
    let alerts: Vec<_> = incident_with.alerts.iter().collect();
    let context = Context { id: "0123456789abcdef", zone: Seoul, public_url: Some("https://bongsu.example.com") };
    incident(incident_with, &alerts, context)
}

fn example(records: &[AlertRecord]) -> Message {
    let mut correlator = Correlator::default();
    let changes: Vec<_> = records.iter().flat_map(|record| correlator.apply(record)).collect();
    render(&changes.last().unwrap().incident)
}

fn fired() -> AlertRecord {
    let mut record = alert("high-error-rate", Some("order-api"), Firing, 5);
    record.severity = 4;
    record.summary = "order-api /orders: 10 % of requests fail".to_owned();
    record.params.insert("max".to_owned(), ParamValue::Number(0.02));
    record.values.insert("p95_ms".to_owned(), json!(812.345_678));
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
    let section = |place: usize| message.blocks[place]["text"]["text"].as_str().unwrap().to_owned();
    assert!(section(2).ends_with(" · fired 2 times"), "{}", section(2));
    assert!(section(3).ends_with("\nExplained by `high-error-rate`"), "{}", section(3));
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

fn check_limits(message: &Message) -> Result<(), TestCaseError> {
    prop_assert!(!message.text.is_empty());
    prop_assert!(message.blocks.len() <= MAX_BLOCKS);
    for (position, block) in message.blocks.iter().enumerate() {
        let (text, max) = match block["type"].as_str() {
            Some("header") => (&block["text"]["text"], MAX_HEADER_CHARS),
            Some("section") => (&block["text"]["text"], MAX_SECTION_CHARS),
            Some("context") => (&block["elements"][0]["text"], MAX_SECTION_CHARS),
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        let chars = text.as_str().unwrap().chars().count();
        prop_assert!(chars > 0 && chars <= max, "block {position}: {chars} characters");
    }
    let block_id = message.blocks[0]["block_id"].as_str().unwrap();
    prop_assert!(!block_id.is_empty() && block_id.chars().count() <= MAX_BLOCK_ID_CHARS);
    Ok(())
}

proptest! {
    /// Guarantees: M1 and M3 for any text, any length and any number of alerts.
    #[test]
    fn limits_hold_for_any_alert(
        unit in "\\PC{0,12}|[<>&`*]{0,12}|\\x00\n🔥",
        repeat in 1usize..600,
        severity in any::<u8>(),
        count in 1usize..80,
        values in prop::collection::btree_map("\\PC{0,80}", "\\PC{0,400}", 0..60),
    ) {
        let text = unit.repeat(repeat);
        let mut correlator = Correlator::default();
        let mut last = None;
        for number in 0..count {
            let mut record = alert(&format!("{text}{number}"), Some(&text), Firing, 5);
            record.severity = severity;
            record.summary = text.clone();
            record.evidence.when = text.clone();
            record.values = values.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            last = correlator.apply(&record).pop();
        }
        let message = render(&last.unwrap().incident);
        check_limits(&message)?;
        let own_link = "<https://bongsu.example.com/#incident-";
        for block in message.blocks.iter().skip(1) {
            let text = block["text"]["text"].as_str().or(block["elements"][0]["text"].as_str()).unwrap();
            prop_assert!(!text.replace(own_link, "").contains('<'), "{}", text);
        }
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

//! Texts that are longer than a column takes.

use super::*;

/// Scenario: texts as long as the limit, longer by a byte, much longer, and with a letter across the limit, in every format.
/// Guarantees: what is longer is cut between two letters and counted, and the event counts all the same (D4).
#[test]
fn long_texts_are_cut() {
    let sound = "x".repeat(MAX_TEXT_BYTES);
    let cases = [
        ("as long as allowed", sound.clone(), MAX_TEXT_BYTES, 0),
        ("a byte more", format!("{sound}y"), MAX_TEXT_BYTES, 1),
        ("600 KB", "z".repeat(600_000), MAX_TEXT_BYTES, 1),
        ("a letter across the limit", format!("{}봉", &sound[1..]), MAX_TEXT_BYTES - 1, 1),
    ];
    let mut json = decoder(&Source::json("t", "exceptions"), &wanted(Table::Exceptions, &["event_time", "message"]));
    let names = ["event_time", "attributes.note"];
    let mut events = decoder(&Source::json("t", "events"), &wanted(Table::Events, &names));
    let mut cloud = decoder(&Source::new("t", Format::Cloudevents), &wanted(Table::Events, &names));
    let mut otlp = decoder(&Source::new("t", Format::OtlpJson), &wanted(Table::Requests, &["event_time", "route"]));
    for (name, text, kept, cut) in &cases {
        let otlp_attributes = serde_json::json!([{"key": "http.route", "value": {"stringValue": text}}]);
        let span = serde_json::json!({"traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": "00f067aa0ba902b7", "name": "GET",
            "kind": 2, "startTimeUnixNano": "5000000", "endTimeUnixNano": "6000000", "attributes": otlp_attributes});
        let rows = [
            (&mut json, "message", serde_json::json!({"ts": 1, "service": "s", "type": "E", "message": text})),
            (
                &mut events,
                "attributes.note",
                serde_json::json!({"ts": 1, "service": "s", "event": "e", "attributes": {"note": text}}),
            ),
            (
                &mut cloud,
                "attributes.note",
                serde_json::json!({"type": "t", "source": "/s", "time": "2026-11-23T07:00:00Z", "data": {"note": text}}),
            ),
            (&mut otlp, "route", serde_json::json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})),
        ];
        for (decoder, column, value) in rows {
            let outcome = decoder.decode(&record(value.to_string().as_bytes()));
            assert_eq!((outcome.rows, outcome.cut, outcome.rejects.len()), (1, *cut, 0), "{name}, {column}");
            let (_, batch) = decoder.finish().unwrap().remove(0);
            assert_eq!(batch[column].as_string_view().value(0), &text[..*kept], "{name}, {column}");
        }
    }
}

/// Guarantees: the whole of a long stack trace's first 64 KiB counts, though its column holds less.
#[test]
fn long_stack_traces_are_analysed_before_they_are_cut() {
    let foreign = "\tat org.apache.catalina.core.Chain.run(Chain.java:1)\n".repeat(250);
    let stacktrace =
        format!("com.shop.Failed: no\n{foreign}\tat com.shop.Cart.total(Cart.java:7)\n{}", "x".repeat(600_000));
    let value = serde_json::json!({"ts": 1, "service": "s", "type": "E", "stacktrace": stacktrace}).to_string();
    let names = ["event_time", "stacktrace", "first_frame"];
    let mut decoder = decoder(&Source::json("t", "exceptions"), &wanted(Table::Exceptions, &names));
    assert_eq!(decoder.decode(&record(value.as_bytes())).cut, 1);
    let (_, batch) = decoder.finish().unwrap().remove(0);
    assert_eq!(batch["stacktrace"].as_string_view().value(0), &stacktrace[..MAX_TEXT_BYTES]);
    assert_eq!(batch["first_frame"].as_string_view().value(0), "com.shop.Cart.total(Cart.java:7)");
}

proptest! {
    /// Guarantees: no text column exceeds the limit, derived ones neither, and exactly what was longer is counted (D4).
    #[test]
    fn no_text_exceeds_the_limit(lengths in proptest::collection::vec(0usize..3 * MAX_TEXT_BYTES, 4), letter in "[aé봉😀]") {
        let text = |index: usize| letter.repeat(lengths[index] / letter.len());
        let value = serde_json::json!({"ts": 1, "service": text(0), "type": text(1), "message": text(2), "route": text(3),
            "stacktrace": format!("{}: no\n\tat com.shop.{}.run(A.java:1)", text(1), text(2))});
        let mut decoder = decoder(&Source::json("t", "exceptions"), &everything());
        let outcome = decoder.decode(&record(value.to_string().as_bytes()));
        prop_assert_eq!((outcome.rows, outcome.rejects), (1, vec![]));
        let (_, batch) = decoder.finish().unwrap().remove(0);
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            if let Some(column) = column.as_string_view_opt() {
                let longest = column.iter().flatten().map(str::len).max().unwrap_or_default();
                prop_assert!(longest <= MAX_TEXT_BYTES, "{} has {longest} bytes", field.name());
            }
        }
        let sent = (0..4).filter(|index| text(*index).len() > MAX_TEXT_BYTES).count() as u32;
        // The stack trace, the root type and the first frame may be cut besides.
        prop_assert!((sent..=sent + 4).contains(&outcome.cut), "{} of {sent}", outcome.cut);
    }
}

use proptest::prelude::*;

use super::*;
use crate::slack::message::tests::{any_text, check_limits, check_markup};

fn line(number: i64, severity: u8, is_resolved: bool) -> Line {
    let since = DateTime::from_timestamp(1_794_830_400 + 60 * number, 0).unwrap();
    Line {
        incident_id: format!("i{number}"),
        severity,
        title: format!("errors of service {number}"),
        service: Some(format!("service-{number}")),
        since,
        until: since + chrono::TimeDelta::minutes(1),
        is_resolved,
        acknowledged_by: (number == 2).then(|| "kim".to_owned()),
    }
}

fn texts(message: &Message) -> String {
    let texts: Vec<&str> = message.blocks.iter().filter_map(|block| block["text"]["text"].as_str()).collect();
    texts.join("\n")
}

/// Scenario: three incidents, one of them over and one taken; then all of them over.
/// Guarantees: what people read.
#[test]
fn looks() {
    let lines = [line(1, 4, false), line(2, 3, false), line(3, 2, true)];
    let message =
        digest("d", "#orders", &lines.iter().collect::<Vec<_>>(), Tz::UTC, Some("https://bongsu.example.com"));
    let expected = "🔥🔥🔥🔥 3 incidents in #orders\n\
        🔥🔥🔥🔥 *service-1* <https://bongsu.example.com/?from=2026-11-16T12:01:00Z&amp;to=2026-11-16T12:02:00Z#incident-i1|\
        errors of service 1> · since 12:01\n\
        🔥🔥🔥 *service-2* <https://bongsu.example.com/?from=2026-11-16T12:02:00Z&amp;to=2026-11-16T12:03:00Z#incident-i2|\
        errors of service 2> · since 12:02 · taken by kim\n\
        ✅ *service-3* <https://bongsu.example.com/?from=2026-11-16T12:03:00Z&amp;to=2026-11-16T12:04:00Z#incident-i3|\
        errors of service 3> · since 12:03";
    assert_eq!(texts(&message), expected);
    let context = &message.blocks[1]["elements"][0]["text"];
    assert!(context.as_str().unwrap().starts_with("2 of 3 open"), "{context}");
    let over = [line(1, 4, true), line(2, 3, true)];
    let message = digest("d", "#orders", &over.iter().collect::<Vec<_>>(), Tz::UTC, None);
    assert!(
        message.text.starts_with("✅ Resolved: 2 incidents in #orders: errors of service 1; errors"),
        "{}",
        message.text
    );
}

/// Scenario: as many incidents as a digest takes, and more of them than a message has room for.
/// Guarantees: with titles of usual length all are named; else the rest are counted.
#[test]
fn all_titles_fit() {
    let lines: Vec<Line> = (0..100).map(|number| line(number, 5, false)).collect();
    let url = Some("https://bongsu.example.com");
    let message = digest("d", "#orders", &lines.iter().collect::<Vec<_>>(), Tz::UTC, url);
    let shown = texts(&message);
    assert!(lines.iter().all(|line| shown.contains(&format!("|{}>", line.title))), "{shown}");
    let extreme: Vec<Line> =
        lines.iter().cloned().map(|line| Line { title: "&".repeat(500), ..line }.bounded()).collect();
    let extreme: Vec<&Line> = extreme.iter().chain(&lines).collect();
    let message = digest("d", "#orders", &extreme, Tz::UTC, url);
    let last = message.blocks.last().unwrap()["elements"][0]["text"].as_str().unwrap().to_owned();
    assert!(last.starts_with("and ") && last.ends_with(" more"), "{last}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Guarantees: Slack's limits and escaping, for any text in every field and any number of lines.
    #[test]
    fn limits_hold_for_any_digest(
        texts in prop::collection::vec((any_text(), prop::option::of(any_text()), any_text(), any::<u8>(), any::<bool>()), 1..6),
        count in 0usize..400,
        (id, channel) in ("[a-z]{1,400}", any_text()),
    ) {
        let lines: Vec<Line> = (0..count).map(|number| {
            let (title, service, by, severity, is_resolved) = texts[number % texts.len()].clone();
            let (title, acknowledged_by, incident_id) = (title, Some(by.clone()), by);
            Line { title, service, acknowledged_by, incident_id, ..line(1, severity, is_resolved) }
        }).collect();
        let message = digest(&id, &channel, &lines.iter().collect::<Vec<_>>(), Tz::Asia__Seoul, Some("https://bongsu.example.com"));
        check_limits(&message)?;
        check_markup(&message)?;
        check_limits(&message.plain())?;
    }
}

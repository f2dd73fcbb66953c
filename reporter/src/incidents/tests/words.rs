use bongsu_schemas::alert::Siblings;

use super::*;

fn of_issuer(issuer: &str, minute: i64, siblings: Option<(u32, u32)>) -> AlertRecord {
    let keys = [("issuer", issuer), ("environment", "production")];
    let mut record = with_keys(fires("issuer-failing", "payment", minute), &keys);
    record.summary = format!("{issuer}: payments fail");
    record.evidence.siblings = siblings.map(|(met, of)| Siblings { met, of });
    record
}

const ISSUERS: [&str; 5] = ["bc", "hana", "kb", "lotte", "samsung"];

/// Scenario: one issuer, two, three and all of five fail, with and without a count of those that do not.
/// Guarantees: from three on the title says how many, and blames none.
#[test]
fn many_alike_are_counted_in_the_title() {
    let firing = |count: usize, siblings: Option<(u32, u32)>| {
        let records: Vec<_> = ISSUERS.iter().take(count).map(|issuer| of_issuer(issuer, 2, siblings)).collect();
        folded(Correlator::default(), &records)[0].record.title.clone()
    };
    #[rustfmt::skip]
    let cases = [
        (1, Some((1, 5)),  "bc: payments fail"),
        (2, Some((2, 5)),  "bc: payments fail (and 1 more)"),
        (3, Some((3, 5)),  "3 of 5 issuers: issuer-failing"),
        (3, Some((4, 5)),  "4 of 5 issuers: issuer-failing"),
        (5, Some((5, 5)),  "all 5 issuers: issuer-failing"),
        // Counted in a window in which some had not failed yet.
        (5, Some((4, 5)),  "all 5 issuers: issuer-failing"),
        (3, None,          "bc: payments fail (and 2 more)"),
    ];
    for (count, siblings, expected) in cases {
        assert_eq!(firing(count, siblings), expected, "{count} {siblings:?}");
    }
}

/// Scenario: all five fail, another rule of the service fires, and all but one recover.
/// Guarantees: the last one to recover is not blamed; others are counted beside.
#[test]
fn the_last_to_recover_is_not_blamed() {
    let records: Vec<_> = ISSUERS.iter().map(|issuer| of_issuer(issuer, 2, Some((5, 5)))).collect();
    let mut all = records.clone();
    all.push(AlertRecord { severity: 1, ..fires("latency", "payment", 3) });
    all.extend(records.iter().take(4).map(|fired| ends(fired, 9)));
    let incidents = folded(Correlator::default(), &all);
    assert_eq!(incidents[0].record.title, "all 5 issuers: issuer-failing (and 1 more)");
    let last = incidents[0].alerts.iter().find(|alert| alert.fires()).unwrap();
    assert_eq!(incidents[0].alike(last).as_deref(), Some("all 5 issuers: issuer-failing"));
}

/// Scenario: the most severe alert is of a service that only suffers; the cause has several; six services suffer.
/// Guarantees: the cause's most severe alert is the title, then its earliest; services beyond three are counted.
#[test]
fn the_title_is_of_the_cause() {
    let calls: Vec<(String, String)> = (0..6).map(|number| (format!("s{number}"), "db".to_owned())).collect();
    let calls: Vec<(&str, &str)> = calls.iter().map(|(caller, callee)| (caller.as_str(), callee.as_str())).collect();
    let mut records = vec![
        fires("slow", "db", 3),
        AlertRecord { severity: 4, ..fires("later", "db", 5) },
        AlertRecord { severity: 4, ..fires("full", "db", 4) },
    ];
    let title = |records: &[AlertRecord]| folded(knowing(&calls), records)[0].record.title.clone();
    assert_eq!(title(&records), "full summary (and 2 more)");
    records.extend((0..6).map(|number| AlertRecord { severity: 5, ..fires("errors", &format!("s{number}"), 5) }));
    assert_eq!(title(&records), "db: full summary (and 8 more in db, s0, s1 and 4 others)");
}

/// Guarantees: a summary that is empty leaves the rule's name, and a long story keeps its beginning and its end.
#[test]
fn little_and_much_is_told() {
    let mut record = fires("errors", "order", 1);
    record.summary = " ".to_owned();
    let incidents = folded(Correlator::default(), &[record]);
    assert_eq!(incidents[0].record.title, "errors");
    assert_eq!(incidents[0].record.timeline[0].text, "order: errors fires");

    let records: Vec<_> = (0..300).map(|number| fires(&format!("r{number}"), "order", number)).collect();
    let incidents = folded(Correlator::default(), &records);
    let timeline = &incidents[0].record.timeline;
    assert_eq!(timeline.len(), MAX_TIMELINE);
    let text = |place: usize| timeline[place].text.split(' ').nth(1).unwrap().to_owned();
    assert_eq!([text(0), text(49), text(50), text(199)], ["r0", "r49", "r150", "r299"]);
}

use std::collections::BTreeMap;

use bongsu_schemas::services::{Owner, Service, Services};
use chrono_tz::Asia::Seoul;
use proptest::prelude::*;

use super::*;
use crate::weekly::counts::{Counts, GroupCounts, ServiceCounts};
use crate::weekly::judge::judge;
use crate::weekly::judge::tests::{group, week};
use crate::weekly::owner::by_owner;

fn services() -> Services {
    let owner = |name: &str| Service {
        owner: Some(Owner { name: Some(name.to_owned()), slack: Some(format!("#{name}").into()), ..Owner::default() }),
        ..Service::default()
    };
    Services(BTreeMap::from([
        ("order-api".to_owned(), owner("Order team")),
        ("order-worker".to_owned(), owner("Order team")),
        ("*".to_owned(), owner("Platform")),
    ]))
}

fn counts(groups: Vec<GroupCounts>) -> Counts {
    let known = ServiceCounts { days: [10, 3, 0, 0, 1_234, 0, 0], requests: Some(52_000) };
    Counts { groups, services: BTreeMap::from([("order-api".to_owned(), known)]), known_since: None }
}

/// Scenario: a team with a noisy and a quiet service; another team's service.
/// Guarantees: what people read, each owner only their own services.
#[test]
fn looks() {
    let mut others = group("Other", 7, 0, None, Some(1));
    others.service = "search".to_owned();
    let groups = vec![
        group("New", 1_200, 0, None, Some(1)),
        group("Back", 40, 0, Some(15), Some(2)),
        group("Known", 7, 9, Some(1), Some(0)),
        group("Past", 0, 3, Some(3), None),
        others,
    ];
    let services = services();
    let report = judge(counts(groups), week(), Seoul, &services, None);
    let owners = by_owner(&report, &services);
    let names: Vec<_> = owners.iter().map(OwnerReport::name).collect();
    assert_eq!(names, ["Order team", "Platform"]);
    let rendered = render(&owners[0], Seoul, true).unwrap();
    insta::assert_snapshot!("report_html", rendered.html);
    insta::assert_snapshot!("report_text", rendered.text);
    let digest = digest(&owners[0], "id", false);
    insta::assert_json_snapshot!("digest", json!({ "text": digest.text, "blocks": digest.blocks }));
    insta::assert_json_snapshot!("report_json", report.to_json());
    assert!(!rendered.html.contains("search") && !rendered.text.contains("search"));
}

/// Scenario: an owner of 400 services with 40 kinds of exceptions each.
/// Guarantees: R2, and the totals still tell all.
#[test]
fn html_stays_below_what_mail_programs_cut() {
    let mut groups = Vec::new();
    for service in 0..400 {
        for kind in 0..40 {
            let mut group = group(&format!("Kind{kind}"), 10, 0, None, Some(0));
            group.service = format!("service-{service}-{}", "x".repeat(90));
            group.message = "<&>\"'".repeat(200);
            groups.push(group);
        }
    }
    let services = services();
    let report = judge(counts(groups), week(), Seoul, &services, None);
    for owner in by_owner(&report, &services) {
        let rendered = render(&owner, Seoul, false).unwrap();
        assert!(rendered.html.len() < MAX_HTML_BYTES, "{}", rendered.html.len());
        assert!(rendered.subject.contains(&thousands(owner.total())));
    }
}

proptest! {
    /// Guarantees: R1 for hostile text.
    #[test]
    fn event_text_is_inert(text in "(<script>|<img src=x onerror=y>|&lt;|\r\nBcc: x@y|\u{1b}\\[2J|\\PC){1,30}") {
        let mut group = group("New", 3, 0, None, Some(1));
        (group.message, group.exception_type, group.first_frame) = (text.clone(), text.clone(), Some(text.clone()));
        group.service = text.clone();
        let services = services();
        let report = judge(counts(vec![group]), week(), Seoul, &services, None);
        for owner in by_owner(&report, &services) {
            let rendered = render(&owner, Seoul, false).unwrap();
            prop_assert!(!rendered.html.contains("<script") && !rendered.html.contains("<img"));
            let control = |text: &str| text.chars().any(|c| c.is_control() && c != '\n');
            prop_assert!(!control(&rendered.html) && !control(&rendered.text));
            prop_assert!(!rendered.subject.chars().any(char::is_control));
            prop_assert!(!owner.file_stem().contains(['/', '\\', '.']));
            let digest = digest(&owner, "id", false);
            prop_assert!(digest.blocks.iter().skip(1).all(|block| !block.to_string().contains('<')));
        }
    }
}

/// Guarantees: numbers as people write them.
#[test]
fn numbers() {
    for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
        assert_eq!(thousands(number), text);
    }
}

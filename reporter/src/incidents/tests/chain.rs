use std::collections::BTreeSet;

use super::*;

const CHAIN: [(&str, &str); 2] = [("order-api", "payment-api"), ("payment-api", "card-gateway")];

/// The fault begins in the last service and reaches the first one.
fn chain() -> [AlertRecord; 3] {
    [fires("errors", "card-gateway", 2), fires("errors", "payment-api", 3), fires("errors", "order-api", 4)]
}

/// Scenario: the last service of a chain fails, and the alerts of all three come in each of the six orders.
/// Guarantees: one incident, with the likely cause first, which its title names; its timeline goes by event time.
#[test]
fn a_fault_inside_a_chain_is_one_incident_whatever_comes_first() {
    let records = chain();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let records = order.map(|index| records[index].clone());
        let incidents = folded(knowing(&CHAIN), &records);
        let [incident] = &incidents[..] else { panic!("{order:?}: {incidents:#?}") };
        let record = &incident.record;
        assert_eq!(record.services, ["card-gateway", "payment-api", "order-api"], "{order:?}");
        assert_eq!(record.title, "card-gateway: errors summary (and 2 more in payment-api, order-api)", "{order:?}");
        assert_eq!(record.evidence["cause"]["service"], "card-gateway");
        assert_eq!(record.evidence["cause"]["rule"], "errors");
        assert_eq!(record.evidence["cause"]["alert_id"], json!(chain()[0].alert_id));
        let lines: Vec<&str> = record.timeline.iter().map(|line| line.text.as_str()).collect();
        let expected = [
            "card-gateway: errors fires: errors summary",
            "payment-api: errors fires: errors summary",
            "order-api: errors fires: errors summary",
        ];
        assert_eq!(lines, expected, "{order:?}");
    }
}

/// Scenario: what is noticed first is the slowest to have begun: the callee's rule wants three windows, and they are its evidence.
/// Guarantees: the onset counts, not the window that fired; the middle of the chain may be silent; the callee is first even where it
/// began last.
#[test]
fn the_deepest_callee_is_the_cause() {
    let mut gateway = fires("latency", "card-gateway", 14);
    let window = |minute, met| bongsu_schemas::alert::EvidenceWindow {
        window_start: noon() + TimeDelta::minutes(minute),
        met,
        values: Map::new(),
    };
    gateway.evidence.windows = vec![window(1, false), window(4, true), window(13, true)];
    assert_eq!(onset(&gateway), noon() + TimeDelta::minutes(4));
    let incidents = folded(knowing(&CHAIN), &[fires("errors", "order-api", 3), gateway]);
    assert_eq!(incidents.len(), 1);
    assert_eq!(incidents[0].record.services, ["card-gateway", "order-api"]);
}

/// Scenario: pairs of alerts that are near in some ways and far in others.
/// Guarantees: all of calls, time and environment must fit; what only shares a callee stays apart.
#[test]
fn what_is_unrelated_stays_apart() {
    let calls = [CHAIN[0], CHAIN[1], ("search", "database"), ("order-api", "database")];
    let of = |service: &str, minute, environment: &str| {
        with_keys(fires("errors", service, minute), &[("environment", environment)])
    };
    #[rustfmt::skip]
    let cases = [
        // name                               one                                   other                                      incidents
        ("the callee",                        fires("errors", "order-api", 5),      fires("errors", "payment-api", 5),         1),
        ("the callee's callee",               fires("errors", "order-api", 5),      fires("errors", "card-gateway", 5),        1),
        ("the caller",                        fires("errors", "payment-api", 5),    fires("latency", "order-api", 5),          1),
        ("no call",                           fires("errors", "order-api", 5),      fires("errors", "search", 5),              2),
        ("a service that nobody calls",       fires("errors", "order-api", 5),      fires("errors", "alone", 5),               2),
        ("ten minutes later",                 fires("errors", "card-gateway", 5),   fires("errors", "order-api", 15),          1),
        ("eleven minutes later",              fires("errors", "card-gateway", 5),   fires("errors", "order-api", 16),          2),
        ("ten minutes earlier",               fires("errors", "card-gateway", 15),  fires("errors", "order-api", 5),           1),
        ("another environment",               of("order-api", 5, "production"),     of("card-gateway", 5, "staging"),          2),
        ("the same environment",              of("order-api", 5, "production"),     of("card-gateway", 5, "production"),       1),
        ("an environment that is not told",   of("order-api", 5, "production"),     fires("errors", "card-gateway", 5),        1),
    ];
    for (name, one, other, expected) in cases {
        assert_eq!(folded(knowing(&calls), &[one, other]).len(), expected, "{name}");
    }
}

/// Scenario: a callee fails whose alert is over; two incidents whose services both are called.
/// Guarantees: only what fires is joined, and of several the one whose onset is nearest.
#[test]
fn the_nearest_firing_alert_is_joined() {
    let over = fires("errors", "card-gateway", 2);
    let incidents = folded(knowing(&CHAIN), &[over.clone(), ends(&over, 3), fires("errors", "order-api", 5)]);
    assert_eq!(incidents.len(), 2);

    let calls = [("order-api", "stock"), ("order-api", "payment-api")];
    let records = [fires("errors", "stock", 1), fires("errors", "payment-api", 6), fires("errors", "order-api", 7)];
    let incidents = folded(knowing(&calls), &records);
    let mut services: Vec<_> = incidents.iter().map(|incident| incident.record.services.clone()).collect();
    services.sort();
    assert_eq!(services, [vec!["payment-api".to_owned(), "order-api".to_owned()], vec!["stock".to_owned()]]);
}

/// Scenario: two services call each other.
/// Guarantees: there is a cause all the same, where it began.
#[test]
fn a_circle_of_calls_has_a_cause() {
    let calls = [("a", "b"), ("b", "a"), ("c", "a")];
    let records = [fires("errors", "a", 4), fires("errors", "b", 3), fires("errors", "c", 2)];
    assert_eq!(folded(knowing(&calls), &records)[0].record.services, ["b", "c", "a"]);
}

/// Takes what each change publishes.
fn publishing(mut correlator: Correlator, records: &[AlertRecord]) -> (Vec<Arc<Incident>>, Published) {
    let mut published = Published::default();
    for change in records.iter().flat_map(|record| correlator.apply(record)) {
        published.take(&change.incident.record);
    }
    (correlator.incidents().cloned().collect(), published)
}

/// Scenario: a fold with a call graph; a restart that knows no calls, and one that knows more than before.
/// Guarantees: I4; without the memory it would be otherwise. An alert that was not published is decided about as ever.
#[test]
fn what_was_published_stays_in_its_incident() {
    let mut records = chain().to_vec();
    records.push(fires("errors", "search", 4));
    let (before, published) = publishing(knowing(&CHAIN), &records);
    assert_eq!(before.len(), 2);
    assert_eq!(folded(Correlator::new(published.clone(), CallGraph::default()), &records), before);
    let mut more = CallGraph::default();
    for (caller, callee) in [CHAIN[0], CHAIN[1], ("search", "order-api"), ("card-gateway", "order-api")] {
        more.saw(caller, callee, noon());
    }
    assert_eq!(folded(Correlator::new(published.clone(), more), &records), before);
    assert_eq!(folded(Correlator::default(), &records).len(), 4);
    records.push(fires("latency", "payment-api", 5));
    let after = folded(Correlator::new(published, CallGraph::default()), &records);
    let ids =
        |incidents: &[Arc<Incident>]| incidents.iter().map(|it| it.record.incident_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&after), ids(&before));
}

/// Scenario: records of the incidents as another program could write them.
/// Guarantees: odd evidence is passed over, and the first of two that claim an alert has it.
#[test]
fn odd_records_of_incidents_do_no_harm() {
    let (incidents, mut published) = publishing(knowing(&CHAIN), &chain());
    let mut odd = incidents[0].record.clone();
    odd.incident_id = "another".to_owned();
    for calls in [json!("x"), json!([1, ["a"], ["a", "b", "c"], [1, 2]]), json!({ "a": "b" }), json!(null)] {
        odd.evidence.insert("calls".to_owned(), calls);
        published.take(&odd);
    }
    assert_eq!(folded(Correlator::new(published, CallGraph::default()), &chain()), incidents);
}

proptest! {
    /// Guarantees: I2 and I4 for any records of services that call each other: the same incidents, word by word, after a restart that
    /// knows no calls; nothing changes where all is read twice.
    #[test]
    fn a_restart_changes_no_incident(
        steps in prop::collection::vec((0..3u8, 0..5u8, 0..40i64, 1..15i64, any::<bool>()), 0..25),
        calls in prop::collection::btree_set((0..5u8, 0..5u8), 0..10),
    ) {
        let mut correlator = Correlator::default();
        for (caller, callee) in &calls {
            correlator.calls().saw(&format!("s{caller}"), &format!("s{callee}"), noon());
        }
        let mut records: Vec<AlertRecord> = Vec::new();
        for (rule, service, minute, lasts, is_explained) in steps {
            let mut fired = fires(&format!("r{rule}"), &format!("s{service}"), minute);
            if is_explained {
                fired.explained_by = vec![format!("r{}", (rule + 1) % 3)];
            }
            let ended = ends(&fired, minute + lasts);
            records.extend([fired, ended]);
        }
        records.sort_by_key(|record| record.window_end);
        let (before, published) = publishing(correlator, &records);
        let twice: Vec<AlertRecord> = records.iter().flat_map(|record| [record.clone(), record.clone()]).collect();
        prop_assert_eq!(&folded(Correlator::new(published.clone(), CallGraph::default()), &twice), &before);
        let again = [records.clone(), records.clone()].concat();
        prop_assert_eq!(&folded(Correlator::new(published, CallGraph::default()), &again), &before);
        for incident in &before {
            let unexplained = incident.alerts.iter().filter(|alert| alert.explained_by.is_none()).count();
            prop_assert!(unexplained > 0 && incident.cause().is_some_and(|cause| cause.explained_by.is_none()));
            let ids: BTreeSet<_> = incident.record.alert_ids.iter().collect();
            prop_assert_eq!(ids.len(), incident.record.alert_ids.len());
        }
    }
}

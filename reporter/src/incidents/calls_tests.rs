use proptest::prelude::*;

use super::*;

fn at(minute: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + 60 * minute, 0).unwrap()
}

/// Scenario: a chain of nine services, a branch, a circle, a service that calls itself.
/// Guarantees: the shortest path along the calls, six at the most, and never against them.
#[test]
fn paths_follow_calls() {
    let mut graph = CallGraph::default();
    for service in 0..8 {
        graph.saw(&format!("s{service}"), &format!("s{}", service + 1), at(0));
    }
    for (caller, callee) in [("s0", "s3"), ("a", "b"), ("b", "a"), ("alone", "alone")] {
        graph.saw(caller, callee, at(0));
    }
    #[rustfmt::skip]
    let cases = [
        ("s0", "s1", Some(1)),
        ("s1", "s3", Some(2)),
        ("s0", "s5", Some(3)),
        ("s0", "s8", Some(6)),
        ("s1", "s7", Some(6)),
        ("s1", "s8", None),
        ("s2", "s1", None),
        ("a", "b", Some(1)),
        ("b", "a", Some(1)),
        ("a", "a", Some(0)),
        ("a", "s0", None),
        ("nobody", "s0", None),
    ];
    for (from, to, expected) in cases {
        assert_eq!(graph.path(from, to), expected, "{from} to {to}");
    }
    assert_eq!(graph.edges(), 11);
    let neighbours = graph.neighbours("s7");
    let names = |names: &BTreeSet<Arc<str>>| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&neighbours.callees), ["s7", "s8"]);
    assert_eq!(names(&neighbours.callers), ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"]);
}

/// Scenario: a call is not seen for a day while others are.
/// Guarantees: it is no call any more, and its memory is freed; a late window brings none back.
#[test]
fn calls_are_forgotten_after_a_day() {
    let mut graph = CallGraph::default();
    graph.saw("order", "old-payment", at(0));
    graph.saw("order", "payment", at(24 * 60 - 1));
    assert_eq!(graph.path("order", "old-payment"), Some(1));
    graph.saw("order", "payment", at(24 * 60));
    assert_eq!(graph.path("order", "old-payment"), None);
    graph.saw("order", "old-payment", at(0));
    assert_eq!(graph.path("order", "old-payment"), None);
    graph.saw("order", "payment", at(25 * 60 + 1));
    assert_eq!((graph.edges(), graph.callers.len()), (1, 1));
}

/// Scenario: twice as many calls as are kept, each later than the one before, then all of one moment; names without end.
/// Guarantees: memory is bounded, and the latest calls stay.
#[test]
fn the_graph_is_bounded() {
    let mut graph = CallGraph::default();
    for number in 0..2 * MAX_EDGES {
        graph.saw(&format!("s{number}"), "payment", at(0) + TimeDelta::milliseconds(number as i64));
        assert!(graph.edges() <= MAX_EDGES);
    }
    assert_eq!(graph.path(&format!("s{}", 2 * MAX_EDGES - 1), "payment"), Some(1));
    assert_eq!(graph.path("s0", "payment"), None);
    let mut graph = CallGraph::default();
    for number in 0..MAX_EDGES + 10 {
        graph.saw(&format!("s{number}"), "payment", at(0));
        assert!(graph.edges() <= MAX_EDGES);
    }
    let before = graph.edges();
    graph.saw("order", &"x".repeat(MAX_NAME_BYTES + 1), at(0));
    graph.saw("", "payment", at(0));
    assert_eq!(graph.edges(), before);
}

proptest! {
    /// Guarantees: a path is as long as the shortest that a plain search finds, in either direction, whatever the order of the calls.
    #[test]
    fn paths_are_shortest(calls in prop::collection::vec((0..8u8, 0..8u8), 0..24), from in 0..8u8, to in 0..8u8) {
        let mut graph = CallGraph::default();
        for (caller, callee) in &calls {
            graph.saw(&caller.to_string(), &callee.to_string(), at(0));
        }
        let mut reached = BTreeSet::from([from]);
        let mut expected = None;
        for hops in 0..=MAX_HOPS {
            if reached.contains(&to) {
                expected = Some(hops);
                break;
            }
            let next: Vec<u8> = calls.iter().filter(|call| reached.contains(&call.0)).map(|call| call.1).collect();
            reached.extend(next);
        }
        prop_assert_eq!(graph.path(&from.to_string(), &to.to_string()), expected);
        let callers = graph.neighbours(&to.to_string()).callers;
        prop_assert_eq!(callers.contains(from.to_string().as_str()), expected.is_some());
        let distinct: BTreeSet<_> = calls.iter().filter(|call| call.0 != call.1).collect();
        prop_assert_eq!(graph.edges(), distinct.len());
    }
}

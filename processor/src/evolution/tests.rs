use std::collections::BTreeMap;

use bongsu_schemas::tables::Table;
use proptest::prelude::*;

use super::*;
use crate::plan::TableColumns;

const MINUTE_MS: i64 = 60_000;
const COUNTS: (i32, i32) = (4, 4);

fn tables() -> Tables {
    let table = Table::Requests;
    let columns = TableColumns { columns: table.columns(), has_attributes: table.has_attributes() };
    BTreeMap::from([(table.name().to_owned(), columns)])
}

fn view(select: &str, window: &str) -> (View, ViewPlan) {
    let sql = format!("SELECT service, {select} AS x FROM requests GROUP BY {window}, service");
    let view = View::new("v", &sql);
    let plan = ViewPlan::new(&view, &tables(), Tz::UTC).unwrap();
    (view, plan)
}

fn extend(known: &[Era], (view, plan): &(View, ViewPlan), counts: (i32, i32), latest_ms: i64) -> Vec<Era> {
    extended(known, view, Tz::UTC, plan, counts, Some(latest_ms))
}

#[test]
fn a_version_begins_with_the_next_window() {
    let first = view("count(*)", "tumble(interval '1 minute')");
    let second = view("max(status)", "tumble(interval '1 minute')");
    let eras = extended(&[], &first.0, Tz::UTC, &first.1, COUNTS, None);
    assert_eq!(extend(&[], &first, COUNTS, 90_000)[0].from_ms, Some(2 * MINUTE_MS), "a new view beside others");
    assert_eq!(eras.iter().map(|era| era.from_ms).collect::<Vec<_>>(), [None]);
    assert_eq!(extend(&eras, &first, COUNTS, 200_000), eras, "nothing changes");

    let changed = extend(&eras, &second, COUNTS, 90_000);
    assert_eq!(changed.iter().map(|era| era.from_ms).collect::<Vec<_>>(), [None, Some(2 * MINUTE_MS)]);
    assert_eq!(extend(&changed, &first, COUNTS, 100_000), eras, "a version that has not begun leaves no trace");

    let more_partitions = extend(&eras, &first, (8, 4), 90_000);
    assert_eq!(more_partitions.len(), 2);
    let (current, earlier) = placed(&more_partitions, "v", &first.1, &tables());
    assert_eq!((current.placement.partials, current.placement.from_ms), (8, 2 * MINUTE_MS));
    assert_eq!((earlier[0].placement.partials, earlier[0].placement.until_ms), (4, 2 * MINUTE_MS));
    assert_ne!(current.version, earlier[0].version);
}

#[test]
fn rows_belong_to_all_windows_that_they_are_in() {
    let hop = WindowSpec::new(5 * MINUTE_MS, MINUTE_MS).unwrap();
    let old = Placement { until_ms: 10 * MINUTE_MS, ..Placement::only(4, 4) };
    let new = Placement { from_ms: 10 * MINUTE_MS, ..Placement::only(4, 4) };
    // The last window of the old version starts at 9 and ends at 14.
    assert_eq!(old.rows(hop), (i64::MIN, 14 * MINUTE_MS));
    assert_eq!(new.rows(hop), (10 * MINUTE_MS, i64::MAX));
}

#[test]
fn only_the_last_versions_are_kept() {
    let mut eras = Vec::new();
    for change in 0..20 {
        let version = view(&format!("count(*) + {change}"), "tumble(interval '1 minute')");
        eras = extend(&eras, &version, COUNTS, change * 10 * MINUTE_MS);
    }
    assert_eq!(eras.len(), MAX_ERAS);
}

proptest! {
    /// Scenario: a view is changed now and then, also back again.
    /// Guarantees: E1. Each window that starts at some time is computed by exactly one version.
    #[test]
    fn each_window_has_one_version(changes in prop::collection::vec((0usize..3, 0i64..600_000, 1i32..3), 1..12), at_ms in 0i64..9_000_000) {
        let versions = [
            view("count(*)", "tumble(interval '1 minute')"),
            view("max(status)", "hop(interval '1 minute', interval '3 minutes')"),
            view("min(status)", "tumble(interval '5 minutes')"),
        ];
        let (mut eras, mut latest_ms, mut last) = (Vec::new(), 0, 0);
        for (version, step_ms, partitions) in changes {
            latest_ms += step_ms;
            eras = extend(&eras, &versions[version], (partitions, 4), latest_ms);
            last = version;
        }
        let (current, earlier) = placed(&eras, "v", &versions[last].1, &tables());
        let covering = earlier.iter().chain([&current]).filter(|plan| plan.placement.has_window(at_ms)).count();
        let first_ms = eras[0].from_ms.unwrap_or(i64::MIN);
        prop_assert_eq!(covering, usize::from(at_ms >= first_ms), "versions at {}", at_ms);
    }
}

use arrow::array::{Float64Array, Int64Array, StringViewArray};
use arrow::util::pretty::pretty_format_batches;
use bongsu_schemas::tables::Table;
use chrono_tz::Tz;
use proptest::prelude::*;

use super::*;

fn tables() -> Tables {
    let columns = |table: Table| TableColumns { columns: table.columns(), has_attributes: table.has_attributes() };
    Table::ALL.into_iter().map(|table| (table.name().to_owned(), columns(table))).collect()
}

fn view(sql: &str) -> Result<ViewPlan, String> {
    ViewPlan::new(&View::new("v", sql), &tables(), Tz::UTC)
}

const REQUESTS: &str = "SELECT service, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors,
    round(100.0 * sum(duration_ms) / count(*)) / 100 AS mean_ms, quantile(duration_ms, 0.5) AS p50_ms, quantile(duration_ms, 1) AS max_ms,
    count(DISTINCT route) AS routes
    FROM requests WHERE status < 600 GROUP BY hop(interval '10 seconds', interval '20 seconds'), service";

type Row = (i64, &'static str, &'static str, i64, f64);

fn rows(plan: &ViewPlan, rows: &[Row]) -> RecordBatch {
    let column = |column: &Column| -> ArrayRef {
        match column.name.as_str() {
            EVENT_TIME => {
                let times = TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.0));
                Arc::new(times.with_timezone("UTC"))
            }
            "service" => Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.1))),
            "route" => Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.2))),
            "status" => Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.3))),
            "duration_ms" => Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.4))),
            other => panic!("the plan wants {other}"),
        }
    };
    let columns = plan.input_columns.iter().map(column).collect();
    RecordBatch::try_new(schema_of(&plan.input_columns), columns).unwrap()
}

/// Scenario: rows of three panes arrive in two batches, and the window over the first two panes is closed.
/// Guarantees: the pane that is not in the window is not counted, batches merge, expressions over aggregates work.
#[test]
fn a_window_is_the_merge_of_its_panes() {
    let plan = view(REQUESTS).unwrap();
    let early = rows(
        &plan,
        &[(0, "a", "/x", 200, 10.0), (9_999, "a", "/x", 500, 30.0), (1, "b", "/x", 200, 7.0), (2, "a", "/x", 700, 7.0)],
    );
    let later = rows(&plan, &[(10_000, "a", "/y", 200, 20.0)]);
    let partials = vec![plan.partial(&early).unwrap(), plan.partial(&later).unwrap()];
    let reduced = plan.reduce(partials).unwrap();
    let results = plan.finish(0, &[reduced]).unwrap();
    let printed: Vec<_> = pretty_format_batches(&[results]).unwrap().to_string().lines().map(str::to_owned).collect();
    let data: Vec<_> =
        printed.iter().filter(|line| line.starts_with("| a") || line.starts_with("| b")).cloned().collect();
    let a = data.iter().find(|line| line.starts_with("| a")).unwrap();
    let cells: Vec<_> = a.split('|').map(str::trim).collect();
    assert_eq!((cells[2], cells[3], cells[4], cells[7]), ("3", "1", "20.0", "2"));
    let p50: f64 = cells[5].parse().unwrap();
    let max: f64 = cells[6].parse().unwrap();
    assert!((p50 - 20.0).abs() <= 0.2 && (max - 30.0).abs() <= 0.3, "{p50} {max}");
    assert_eq!(plan.keys, [0]);
    assert_eq!(plan.values, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn only_the_columns_that_a_view_reads_are_wanted() {
    let plan = view(
        "SELECT service, count(*) AS n FROM requests WHERE status >= 500 GROUP BY tumble(interval '1 minute'), service",
    );
    let names: Vec<_> = plan.unwrap().input_columns.into_iter().map(|column| column.name).collect();
    assert_eq!(names, [EVENT_TIME, "service", "status"]);
}

#[test]
fn mistakes_are_explained() {
    #[rustfmt::skip]
    let cases = [
        ("SELECT service, count(*) AS n FROM nowhere GROUP BY tumble(interval '1 minute'), service", "no source fills"),
        ("SELECT servise, count(*) AS n FROM requests GROUP BY tumble(interval '1 minute'), servise", "servise"),
        ("SELECT count(*) AS n FROM requests GROUP BY tumble(interval '1 minute'), service", "does not select it"),
        ("SELECT service, status FROM requests GROUP BY tumble(interval '1 minute'), service", "status"),
        ("SELECT service, count(*) AS window_end FROM requests GROUP BY tumble(interval '1 minute'), service", "window_end"),
        ("SELECT attributes['x'] AS x, count(*) AS n FROM requests GROUP BY tumble(interval '1 minute'), x", "has none"),
        ("SELECT service, frobnicate(status) AS n FROM requests GROUP BY tumble(interval '1 minute'), service", "frobnicate"),
    ];
    for (sql, expected) in cases {
        let problem = view(sql).unwrap_err();
        assert!(problem.contains(expected), "{sql}: {problem}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Guarantees: any split into batches, with or without reduction on the way, gives the results of one pass.
    #[test]
    fn any_split_gives_the_same_results(
        times in prop::collection::vec((0i64..20_000, 0usize..3, 0usize..2, 190i64..600, 1u32..1000), 1..120),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        reduce in any::<bool>(),
    ) {
        let plan = view(REQUESTS).unwrap();
        let all: Vec<Row> = times.iter()
            .map(|(time_ms, service, route, status, ms)| (*time_ms, ["a", "b", "c"][*service], ["/x", "/y"][*route], *status, f64::from(*ms)))
            .collect();
        let sorted = |results: RecordBatch| {
            let mut lines: Vec<_> = pretty_format_batches(&[results]).unwrap().to_string().lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let once = plan.finish(0, &[plan.partial(&rows(&plan, &all)).unwrap()]).unwrap();
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(all.len())).chain([0, all.len()]).collect();
        ends.sort();
        let mut partials: Vec<_> = ends.windows(2).filter(|cut| cut[0] < cut[1])
            .map(|cut| plan.partial(&rows(&plan, &all[cut[0]..cut[1]])).unwrap()).collect();
        if reduce {
            partials = vec![plan.reduce(partials).unwrap()];
        }
        prop_assert_eq!(sorted(plan.finish(0, &partials).unwrap()), sorted(once));
    }
}

use arrow::array::{ArrayRef, Int64Array, StringViewArray, TimestampMillisecondArray};
use bongsu_schemas::services::ParamValue;
use bongsu_schemas::tables::{Column, EVENT_TIME, Table, schema_of};
use chrono_tz::Tz;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::View;
use crate::plan::{TableColumns, Tables};

const MINUTE_MS: i64 = 60_000;
const REQUESTS: &str = "SELECT service, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors
    FROM requests GROUP BY tumble(interval '1 minute'), service";

/// A row of a window: service, requests, errors.
type Row = (&'static str, usize, usize);

fn view(sql: &str) -> ViewPlan {
    let columns = |table: Table| TableColumns { columns: table.columns(), has_attributes: table.has_attributes() };
    let tables: Tables = Table::ALL.into_iter().map(|table| (table.name().to_owned(), columns(table))).collect();
    ViewPlan::new(&View::new("requests_1m", sql), &tables, Tz::UTC).unwrap()
}

/// The rule that most cases use, with another `for`.
fn errors_rule(for_windows: &str) -> Value {
    json!({
        "name": "errors", "on": "requests_1m", "when": "requests >= 20 AND errors > $max * requests",
        "clear": "errors < $max * requests / 2", "params": { "max": 0.05 }, "for": for_windows,
    })
}

fn engine(plan: &ViewPlan, rule: Value, services: Value) -> RuleEngine {
    let rule: Rule = serde_json::from_value(rule).unwrap();
    let services: Services = serde_json::from_value(services).unwrap();
    let compiled = CompiledRule::new(&rule, rule.when.as_deref().unwrap(), 0, plan).unwrap();
    RuleEngine::new(Arc::new(vec![compiled]), Arc::new(services))
}

/// What the view gives for events that make these rows.
fn results(plan: &ViewPlan, start_ms: i64, rows: &[Row]) -> RecordBatch {
    let events: Vec<(&str, i64)> = rows
        .iter()
        .flat_map(|&(service, requests, errors)| {
            (0..requests).map(move |request| (service, if request < errors { 500 } else { 200 }))
        })
        .collect();
    let column = |column: &Column| -> ArrayRef {
        match column.name.as_str() {
            EVENT_TIME => {
                let times = TimestampMillisecondArray::from_value(start_ms + 7, events.len());
                Arc::new(times.with_timezone("UTC"))
            }
            "service" => Arc::new(StringViewArray::from_iter_values(events.iter().map(|event| event.0))),
            "status" => Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.1))),
            other => panic!("the plan wants {other}"),
        }
    };
    let columns = plan.input_columns.iter().map(column).collect();
    let batch = RecordBatch::try_new(schema_of(&plan.input_columns), columns).unwrap();
    plan.finish(start_ms, &[plan.partial(&batch).unwrap()]).unwrap()
}

/// Closes the window that starts in `minute`. One without rows is never closed, as in stage 2, which has no pane for it.
fn close(engine: &mut RuleEngine, plan: &ViewPlan, minute: i64, rows: &[Row], now_ms: i64, changes: &mut Changes) {
    if rows.is_empty() {
        return;
    }
    let start_ms = minute * MINUTE_MS;
    let results = results(plan, start_ms, rows);
    let end_ms = plan.window.last_window_end(start_ms);
    let window = ClosedWindow { view: 0, plan, start_ms, end_ms, results: &results };
    engine.window_closed(window, time(now_ms), changes).unwrap();
}

/// All windows that end in `minute` or earlier are closed; event time itself is somewhat further.
fn pass(engine: &mut RuleEngine, plan: &ViewPlan, minute: i64, now_ms: i64, changes: &mut Changes) {
    let closed_ms = minute * MINUTE_MS + 12_345;
    engine.time_passed(std::slice::from_ref(plan), closed_ms, time(now_ms), changes);
}

/// `x` met, `.` neither met nor clear, `c` clear, `-` no row.
fn row(service: &'static str, letter: char) -> Option<Row> {
    match letter {
        'x' => Some((service, 20, 10)),
        '.' => Some((service, 20, 1)),
        'c' => Some((service, 20, 0)),
        _ => None,
    }
}

/// One minute for each letter; `F2` is an alert that fires in the window that starts in minute 2.
fn transitions(alerts: &[AlertRecord]) -> String {
    let transition = |alert: &AlertRecord| {
        let letter = if alert.status == AlertStatus::Firing { 'F' } else { 'R' };
        format!("{letter}{}", alert.window_start.timestamp_millis() / MINUTE_MS)
    };
    alerts.iter().map(transition).collect::<Vec<_>>().join(" ")
}

/// Windows of one service, and what becomes of them: see [`row`] and [`transitions`].
#[rustfmt::skip]
pub(crate) const WINDOWS: [(&str, &str, &str, &str); 10] = [
    // name                                     for       windows         transitions
    ("one window is enough",                    "1 of 1", "cxxcx",        "F1 R3 F4"),
    ("two of three",                            "2 of 3", "x.x",          "F2"),
    ("two of three, too far apart",             "2 of 3", "x..x",         ""),
    ("a window without a row is not met",       "2 of 3", "x-x",          "F2"),
    ("three of three are interrupted by it",    "3 of 3", "xx-xxx",       "F5"),
    ("between when and clear nothing changes",  "1 of 1", "x...c",        "F0 R4"),
    ("five windows without a row",              "1 of 1", "x-----",       "F0 R5"),
    ("four are too few",                        "1 of 1", "x----.",       "F0"),
    ("a row starts the count again",            "1 of 1", "x----.-----",  "F0 R10"),
    ("what was met before does not count",      "2 of 3", "xxcx.x",       "F1 R2 F5"),
];

/// Scenario: windows of one service; with and without rows of another one beside it, and with event time passing after every
/// window or only at the end.
/// Guarantees: alerts depend on the series' own windows only.
#[test]
fn windows_become_alerts() {
    let plan = view(REQUESTS);
    for (name, for_windows, windows, expected) in WINDOWS {
        for (others, every_minute) in [(false, true), (true, true), (false, false), (true, false)] {
            let mut engine = engine(&plan, errors_rule(for_windows), json!({}));
            let mut changes = Changes::default();
            for (minute, letter) in (0..).zip(windows.chars()) {
                let rows: Vec<Row> = row("a", letter).into_iter().chain(others.then_some(("b", 20, 0))).collect();
                close(&mut engine, &plan, minute, &rows, 0, &mut changes);
                if every_minute {
                    pass(&mut engine, &plan, minute + 1, 0, &mut changes);
                }
            }
            pass(&mut engine, &plan, windows.len() as i64, 0, &mut changes);
            let found = transitions(&changes.alerts);
            assert_eq!(found, expected, "{name}, others: {others}, event time passes every minute: {every_minute}");
        }
    }
}

/// Guarantees: R3 for the engine; a series that is over leaves no state, here or in Kafka.
#[test]
fn a_series_that_is_over_has_no_state() {
    let plan = view(REQUESTS);
    let mut engine = engine(&plan, errors_rule("2 of 3"), json!({}));
    let mut changes = Changes::default();
    close(&mut engine, &plan, 0, &[("a", 20, 10), ("b", 20, 0)], 0, &mut changes);
    assert_eq!(engine.active_series(), 1, "b met nothing");
    let key = SeriesRecord::kafka_key("errors", r#"{"service":"a"}"#);
    assert_eq!(changes.states.keys().collect::<Vec<_>>(), [&key]);
    assert!(changes.states[&key].is_some());
    pass(&mut engine, &plan, 3, 0, &mut changes);
    assert_eq!(engine.active_series(), 1, "minute 0 is among the last three windows");
    pass(&mut engine, &plan, 4, 0, &mut changes);
    assert_eq!((engine.active_series(), changes.states[&key].is_none()), (0, true));
}

/// Guarantees: each service is judged by its own parameters, and the alert says which they were.
#[test]
fn a_service_has_its_own_threshold() {
    let plan = view(REQUESTS);
    let services = json!({ "payments": { "params": { "errors": { "max": 0.5 } } } });
    let mut engine = engine(&plan, errors_rule("1"), services);
    let mut changes = Changes::default();
    close(&mut engine, &plan, 0, &[("orders", 20, 5), ("payments", 20, 5)], 0, &mut changes);
    close(&mut engine, &plan, 1, &[("orders", 20, 5), ("payments", 20, 15)], 0, &mut changes);
    let told: Vec<_> =
        changes.alerts.iter().map(|alert| (alert.service.as_deref(), alert.params["max"].clone())).collect();
    assert_eq!(
        told,
        [(Some("orders"), ParamValue::Number(0.05)), (Some("payments"), ParamValue::Number(0.5))],
        "{:?}",
        changes.alerts
    );
}

/// Guarantees: what is set for a series comes before what is set for its service, and that before `"*"`; of several the one with the
/// most keys decides.
#[test]
fn a_series_has_its_own_threshold() {
    let plan = view(&REQUESTS.replace("service,", "service, route,").replace("), service", "), service, route"));
    let services = json!({
        "orders": {
            "params": { "errors": { "max": 0.2 } },
            "series": [
                { "key": { "service": "orders" }, "params": { "errors": { "max": 0.3 } } },
                { "key": { "service": "orders", "route": "/slow" }, "params": { "errors": { "max": 0.4 } } },
            ],
        },
        "payments": { "series": [{ "key": { "route": "/other" }, "params": { "errors": { "max": 0.9 } } }] },
        "*": { "series": [{ "key": { "route": "/slow" }, "params": { "errors": { "max": 0.5 } } }] },
    });
    let engine = engine(&plan, errors_rule("1"), services);
    let compiled = &engine.rules[0];
    let max = |service: &str, route: &str| {
        let key = json!({ "service": service, "route": route }).as_object().unwrap().clone();
        compiled.conditions.params_of("errors", Some(service), &key, None, &engine.services)["max"].clone()
    };
    let cases = [
        ("orders", "/slow", 0.4),
        ("orders", "/", 0.3),
        ("payments", "/slow", 0.5),
        ("payments", "/other", 0.9),
        ("payments", "/", 0.05),
        ("unknown", "/slow", 0.5),
    ];
    for (service, route, expected) in cases {
        assert_eq!(max(service, route), ParamValue::Number(expected), "{service} {route}");
    }
}

/// Scenario: a rule with two levels; a service has a threshold of its own for the higher one only.
/// Guarantees: one alert, whose records say how bad it is; its parameters are those of its level.
#[test]
fn an_alert_gets_worse_and_better() {
    let plan = view(REQUESTS);
    let mut rule = errors_rule("1");
    rule["severity"] = json!({ "warn": 2, "critical": 5 });
    rule["params"] = json!({ "max": { "warn": 0.05, "critical": 0.5 } });
    let services = json!({ "payments": { "params": { "errors": { "max": { "critical": 0.25 } } } } });
    let mut engine = engine(&plan, rule, services);
    let mut changes = Changes::default();
    for (minute, errors) in (0..).zip([2, 6, 18, 2, 0]) {
        close(&mut engine, &plan, minute, &[("orders", 20, errors), ("payments", 20, errors)], 0, &mut changes);
    }
    let told = |service: &str| {
        let of_service = changes.alerts.iter().filter(|alert| alert.service.as_deref() == Some(service));
        let said = |alert: &AlertRecord| {
            let level = alert.level.map(|level| format!("{level:?}")).unwrap_or_default();
            format!(
                "{:?} {level} {} {:?} #{}",
                alert.status,
                alert.severity,
                json!(alert.params["max"]),
                alert.sequence
            )
        };
        of_service.map(said).collect::<Vec<_>>()
    };
    assert_eq!(
        told("orders"),
        [
            "Firing Warn 2 Number(0.05) #1",
            "Firing Critical 5 Number(0.5) #2",
            "Firing Warn 2 Number(0.05) #3",
            "Resolved Warn 2 Number(0.05) #4"
        ],
    );
    assert_eq!(told("payments")[1], "Firing Critical 5 Number(0.25) #2");
    let ids: BTreeSet<_> = changes.alerts.iter().map(|alert| &alert.alert_id).collect();
    assert_eq!(ids.len(), 2);
    let critical =
        changes.alerts.iter().find(|alert| alert.severity == 5 && alert.service.as_deref() == Some("payments"));
    assert_eq!(critical.unwrap().window_start, time(MINUTE_MS), "its own threshold is lower");
}

/// Scenario: a count crosses its threshold while its window and the one before are open; then both close.
/// Guarantees: the alert is told at once and once, has the id that it would have had at the end, and ends as others do.
#[test]
fn a_count_need_not_wait_for_the_end_of_its_window() {
    let plan = view(REQUESTS);
    let rule = json!({ "name": "errors", "on": "requests_1m", "when": "errors >= 10" });
    let mut patient = engine(&plan, rule.clone(), json!({}));
    let mut eager = engine(&plan, rule, json!({}));
    let mut told = Changes::default();
    assert!(eager.looks_into_open(0));
    for errors in [9, 10, 12] {
        let results = results(&plan, 3 * MINUTE_MS, &[("a", 20, errors), ("b", 20, 0)]);
        let window =
            ClosedWindow { view: 0, plan: &plan, start_ms: 3 * MINUTE_MS, end_ms: 4 * MINUTE_MS, results: &results };
        eager.window_grew(window, time(7), &mut told).unwrap();
    }
    let [early] = told.alerts.as_slice() else { panic!("{:?}", told.alerts) };
    assert_eq!((early.early, early.values["errors"].clone(), early.fired_at), (true, json!(10), time(7)));

    let mut late = Changes::default();
    for (minute, errors) in [(2, 0), (3, 15), (4, 0)] {
        for (engine, changes) in [(&mut eager, &mut told), (&mut patient, &mut late)] {
            close(engine, &plan, minute, &[("a", 20, errors), ("b", 20, 0)], 0, changes);
        }
    }
    assert_eq!(transitions(&told.alerts), "F3 R4");
    let ids = |changes: &Changes| changes.alerts.iter().map(|alert| alert.alert_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&told), ids(&late));
    assert_eq!(eager.active_series(), 0);
}

#[test]
fn a_view_without_service_alerts_the_service_of_the_rule() {
    let plan = view(
        "SELECT count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors
         FROM requests GROUP BY tumble(interval '1 minute')",
    );
    let mut rule = errors_rule("1");
    rule["service"] = json!("checkout");
    let mut engine = engine(&plan, rule, json!({}));
    let mut changes = Changes::default();
    close(&mut engine, &plan, 0, &[("a", 10, 5), ("b", 10, 5)], 0, &mut changes);
    let alert = &changes.alerts[0];
    assert_eq!((alert.service.as_deref(), alert.key.len()), (Some("checkout"), 0));
    assert_eq!(alert.values, json!({ "requests": 20, "errors": 10 }).as_object().unwrap().clone());
}

/// Guarantees: hopping windows are stepped by their slide, and an alert names the whole window.
#[test]
fn hopping_windows_are_counted_by_their_slide() {
    let plan = view(
        "SELECT service, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors
         FROM requests GROUP BY hop(interval '1 minute', interval '3 minutes'), service",
    );
    let mut engine = engine(&plan, errors_rule("1"), json!({}));
    let mut changes = Changes::default();
    close(&mut engine, &plan, 0, &[("a", 20, 10)], 0, &mut changes);
    pass(&mut engine, &plan, 7, 0, &mut changes);
    assert_eq!(transitions(&changes.alerts), "F0", "windows that end in minutes 4 to 7 are four");
    pass(&mut engine, &plan, 8, 0, &mut changes);
    assert_eq!(transitions(&changes.alerts), "F0 R5");
    let minutes: Vec<_> = changes.alerts.iter().map(|alert| alert.window_end.timestamp_millis() / MINUTE_MS).collect();
    assert_eq!(minutes, [3, 8]);
}

/// Scenario: the same windows at two times of day.
/// Guarantees: an alert's id is a function of rule, key and first window that counted; both of its records have it.
#[test]
fn ids_do_not_depend_on_the_clock() {
    let plan = view(REQUESTS);
    let alerts_at = |now_ms: i64| {
        let mut engine = engine(&plan, errors_rule("2 of 3"), json!({}));
        let mut changes = Changes::default();
        for (minute, letter) in (0..).zip("cx.xcxx".chars()) {
            let rows: Vec<Row> = row("a", letter).into_iter().collect();
            close(&mut engine, &plan, minute, &rows, now_ms, &mut changes);
        }
        changes.alerts
    };
    let ids = |alerts: &[AlertRecord]| alerts.iter().map(|alert| alert.alert_id.clone()).collect::<Vec<_>>();
    let (morning, evening) = (alerts_at(1_000), alerts_at(40_000_000));
    assert_eq!(transitions(&morning), "F3 R4 F6");
    assert_eq!(ids(&morning), ids(&evening));
    let expected = |first_minute: i64| alert_id("errors", &morning[0].key, time(first_minute * MINUTE_MS));
    assert_eq!(ids(&morning), [expected(1), expected(1), expected(5)]);
    assert_eq!(morning.iter().map(|alert| alert.sequence).collect::<Vec<_>>(), [1, 2, 1]);
    assert_eq!(morning[0].first_event_time, Some(time(MINUTE_MS + 7)));
    assert_eq!((morning[1].fired_at, morning[1].resolved_at), (time(1_000), Some(time(1_000))));
    let evidence: Vec<_> = morning[0].evidence.windows.iter().map(|window| window.met).collect();
    assert_eq!(evidence, [true, false, true]);
}

/// Scenario: an alert fires; then the rule is renamed, and another worker restores what Kafka has.
/// Guarantees: the alert is resolved once, with its own id and service, and the state is deleted.
#[test]
fn the_alert_of_a_rule_that_is_gone_is_resolved() {
    let plan = view(REQUESTS);
    let mut rule = errors_rule("1");
    rule["severity"] = json!(5);
    let mut before = engine(&plan, rule.clone(), json!({}));
    let mut changes = Changes::default();
    close(&mut before, &plan, 0, &[("a", 20, 10)], 1_000, &mut changes);
    let fired = changes.alerts.remove(0);
    let (key, state) = changes.states.pop_first().unwrap();

    rule["name"] = json!("renamed");
    let mut after = engine(&plan, rule, json!({}));
    after.stepped_to(std::slice::from_ref(&plan), MINUTE_MS);
    after.restore(serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap());
    assert_eq!(after.active_series(), 0);
    let mut changes = Changes::default();
    pass(&mut after, &plan, 2, 2_000, &mut changes);
    pass(&mut after, &plan, 3, 3_000, &mut changes);
    let [resolved] = changes.alerts.as_slice() else { panic!("{:?}", changes.alerts) };
    assert_eq!((&resolved.alert_id, &resolved.rule, &resolved.key), (&fired.alert_id, &fired.rule, &fired.key));
    assert_eq!((resolved.status, resolved.sequence, resolved.severity), (AlertStatus::Resolved, 2, 5));
    assert_eq!((resolved.service.as_deref(), resolved.resolved_at), (Some("a"), Some(time(2_000))));
    assert_eq!((resolved.fired_at, resolved.first_event_time), (fired.fired_at, fired.first_event_time));
    assert_eq!(changes.states, BTreeMap::from([(key, None)]));
}

#[test]
fn a_state_without_an_alert_whose_rule_is_gone_is_deleted_silently() {
    let plan = view(REQUESTS);
    let mut engine = engine(&plan, errors_rule("1"), json!({}));
    engine.restore(SeriesRecord {
        rule: "gone".to_owned(),
        key: GroupKey::new(),
        state: SeriesState::default(),
        presence: None,
    });
    let mut changes = Changes::default();
    pass(&mut engine, &plan, 1, 0, &mut changes);
    assert!(changes.alerts.is_empty());
    assert_eq!(changes.states, BTreeMap::from([("gone {}".to_owned(), None)]));
}

/// Scenario: the condition divides by the number of errors, and in the second window there are none.
/// Guarantees: a condition that is null is not met and, without an own `clear`, ends the alert.
#[test]
fn a_null_condition_ends_an_alert() {
    let plan = view(REQUESTS);
    let rule = json!({ "name": "errors", "on": "requests_1m", "when": "100 / errors >= 10" });
    let mut engine = engine(&plan, rule, json!({}));
    let mut changes = Changes::default();
    close(&mut engine, &plan, 0, &[("a", 20, 10)], 0, &mut changes);
    close(&mut engine, &plan, 1, &[("a", 20, 0)], 0, &mut changes);
    assert_eq!(transitions(&changes.alerts), "F0 R1");
    assert_eq!(changes.alerts[0].evidence.clear, "(100 / errors >= 10) IS NOT TRUE");
}

/// Guarantees: a service's own parameter hides only the one of the same name.
#[test]
fn parameters_of_all_services_and_of_one_are_merged() {
    let plan = view(REQUESTS);
    let services = json!({
        "*": { "params": { "errors": { "max": 0.5, "min": 10 } } },
        "payments": { "params": { "errors": { "max": 0.9 } } },
    });
    let mut rule = errors_rule("1");
    rule["params"] = json!({ "max": 0.05, "min": 100, "hint": "look" });
    rule["when"] = json!("requests >= $min");
    let mut engine = engine(&plan, rule, services);
    let mut changes = Changes::default();
    close(&mut engine, &plan, 0, &[("orders", 20, 5), ("payments", 20, 5)], 0, &mut changes);
    let told: Vec<_> = changes.alerts.iter().map(|alert| json!(alert.params)).collect();
    let expected =
        [json!({ "max": 0.5, "min": 10.0, "hint": "look" }), json!({ "max": 0.9, "min": 10.0, "hint": "look" })];
    assert_eq!(told, expected);
}

/// A window's letters for the services `a` and `b`, and whether event time passes right after it.
type Minute = (char, char, bool);

/// Plays all minutes; at `cut` the engine is replaced by one that knows only what Kafka does.
fn play(plan: &ViewPlan, rule: &Value, minutes: &[Minute], cut: usize, restart: bool) -> Vec<AlertRecord> {
    let mut running = engine(plan, rule.clone(), json!({}));
    let mut changes = Changes::default();
    for (index, (a, b, passes)) in minutes.iter().enumerate() {
        let minute = index as i64;
        let rows: Vec<Row> = row("a", *a).into_iter().chain(row("b", *b)).collect();
        close(&mut running, plan, minute, &rows, 0, &mut changes);
        if *passes || index == cut {
            pass(&mut running, plan, minute + 1, 0, &mut changes);
        }
        if restart && index == cut {
            let mut restored = engine(plan, rule.clone(), json!({}));
            restored.stepped_to(std::slice::from_ref(plan), (minute + 1) * MINUTE_MS + 12_345);
            for state in changes.states.values().flatten() {
                restored.restore(serde_json::from_slice(&serde_json::to_vec(state).unwrap()).unwrap());
            }
            assert_eq!(restored.series, running.series, "what is written is what is known");
            running = restored;
        }
    }
    pass(&mut running, plan, minutes.len() as i64 + 7, 0, &mut changes);
    assert_eq!(running.active_series(), 0, "everything is over seven minutes later");
    changes.alerts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Scenario: a worker dies at any point and another one restores the states that were committed.
    /// Guarantees: its alerts are those of a worker that never died, ids and evidence included.
    #[test]
    fn a_restored_engine_goes_on_as_if_nothing_had_happened(
        minutes in prop::collection::vec(
            (prop::sample::select(vec!['x', '.', 'c', '-']), prop::sample::select(vec!['x', '.', 'c', '-']), any::<bool>()), 1..14,
        ),
        cut in any::<prop::sample::Index>(),
        needed in 1u32..4,
        more in 0u32..3,
    ) {
        let plan = view(REQUESTS);
        let rule = errors_rule(&format!("{needed} of {}", needed + more));
        let cut = cut.index(minutes.len());
        let calm = play(&plan, &rule, &minutes, cut, false);
        prop_assert_eq!(play(&plan, &rule, &minutes, cut, true), calm);
    }
}

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use bongsu_schemas::services::Services;
use bongsu_schemas::tables::{Table, event_time_type};
use chrono_tz::Tz;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::View;
use crate::plan::{TableColumns, Tables};
use crate::rules::engine::RuleEngine;

const MINUTE_MS: i64 = 60_000;

fn view() -> ViewPlan {
    let columns = |table: Table| TableColumns { columns: table.columns(), has_attributes: table.has_attributes() };
    let tables: Tables = Table::ALL.into_iter().map(|table| (table.name().to_owned(), columns(table))).collect();
    let sql = "SELECT service, count(*) AS sent FROM requests GROUP BY tumble(interval '1 minute'), service";
    ViewPlan::new(&View::new("requests_1m.service", sql), &tables, Tz::UTC).unwrap()
}

fn engine() -> RuleEngine {
    let rule = json!({ "name": "silent", "on": "requests_1m", "no_data": { "after": "3m", "severity": 2 } });
    let rule: Rule = serde_json::from_value(rule).unwrap();
    let no_data = rule.no_data.clone().unwrap();
    let absence = AbsenceRule { rule, no_data, view: 0, keys: vec!["service".to_owned()] };
    let rules = RuleEngine::new(Arc::default(), Arc::new(Services::default()));
    rules.with_absences(Arc::new(vec![absence]))
}

fn results(services: &[&str]) -> RecordBatch {
    let rows = services.len();
    let fields = vec![
        Field::new("service", DataType::Utf8, true),
        Field::new("sent", DataType::Int64, true),
        Field::new("__pane", event_time_type(), false),
    ];
    let pane = TimestampMillisecondArray::from_value(0, rows).with_timezone("UTC");
    let services = StringArray::from_iter(services.iter().map(|name| Some(*name).filter(|name| !name.is_empty())));
    let columns: [arrow::array::ArrayRef; 3] =
        [Arc::new(services), Arc::new(Int64Array::from_value(1, rows)), Arc::new(pane)];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.to_vec()).unwrap()
}

/// The window that starts in `minute` closes with rows of these services.
fn close(engine: &mut RuleEngine, plan: &ViewPlan, minute: i64, services: &[&str], changes: &mut Changes) {
    let results = results(services);
    let (start_ms, end_ms) = (minute * MINUTE_MS, (minute + 1) * MINUTE_MS);
    let window = ClosedWindow { view: 0, plan, start_ms, end_ms, results: &results };
    engine.window_closed(window, time(0), changes).unwrap();
}

fn pass(engine: &mut RuleEngine, plan: &ViewPlan, minute: i64, changes: &mut Changes) {
    engine.time_passed(std::slice::from_ref(plan), minute * MINUTE_MS + 12_345, time(0), changes);
}

/// `F5` fires in the window that ends in minute 5.
fn told(changes: &Changes, service: &str) -> String {
    let of_service = changes.alerts.iter().filter(|alert| alert.service.as_deref() == Some(service));
    let transition = |alert: &AlertRecord| {
        let letter = if alert.status == AlertStatus::Firing { 'F' } else { 'R' };
        format!("{letter}{}", alert.window_end.timestamp_millis() / MINUTE_MS)
    };
    of_service.map(transition).collect::<Vec<_>>().join(" ")
}

/// Scenario: one service stops after minute 0 and comes back in minute 7, another goes on, rows without a service come between.
/// Guarantees: silence is told once, three minutes after the last window with data, and its end with the first new one.
#[test]
fn a_silent_service_is_told_once() {
    let (plan, mut engine, mut changes) = (view(), engine(), Changes::default());
    close(&mut engine, &plan, 0, &["orders", "payments", "", "__other__"], &mut changes);
    for minute in 1..7 {
        close(&mut engine, &plan, minute, &["payments"], &mut changes);
        pass(&mut engine, &plan, minute + 1, &mut changes);
    }
    let fired = changes.alerts[0].clone();
    assert_eq!((fired.reason.as_deref(), fired.severity, fired.values.len()), (Some(NO_DATA), 2, 0));
    assert_eq!(fired.summary, "orders: no data for 3m (since 1970-01-01T00:01:00Z)");
    close(&mut engine, &plan, 7, &["orders", "payments"], &mut changes);
    assert_eq!(told(&changes, "orders"), "F4 R8");
    assert_eq!((changes.alerts.len(), changes.alerts[1].alert_id == fired.alert_id), (2, true));
}

/// Scenario: event time leaps over the silence, as when a backlog is read.
/// Guarantees: the same alert as live, with the same id, and its end.
#[test]
fn a_silence_that_is_over_is_told_all_the_same() {
    let plan = view();
    let alerts = |passes: bool| {
        let (mut engine, mut changes) = (engine(), Changes::default());
        close(&mut engine, &plan, 0, &["orders"], &mut changes);
        for minute in (2..9).filter(|_| passes) {
            pass(&mut engine, &plan, minute, &mut changes);
        }
        close(&mut engine, &plan, 9, &["orders"], &mut changes);
        changes.alerts
    };
    assert_eq!(alerts(false).len(), 2);
    assert_eq!(alerts(false), alerts(true));
}

/// Guarantees: N2; nothing is left of it, here or in Kafka.
#[test]
fn who_is_silent_for_a_day_is_forgotten() {
    let (plan, mut engine, mut changes) = (view(), engine(), Changes::default());
    close(&mut engine, &plan, 0, &["orders"], &mut changes);
    pass(&mut engine, &plan, 24 * 60, &mut changes);
    assert_eq!((told(&changes, "orders").as_str(), engine.active_series()), ("F4", 1));
    pass(&mut engine, &plan, 24 * 60 + 1, &mut changes);
    assert_eq!(told(&changes, "orders"), "F4 R1441");
    assert_eq!(engine.active_series(), 0);
    assert_eq!(changes.states.values().filter(|state| state.is_some()).count(), 0);
}

/// Scenario: silence was judged by other keys before; a worker restores what was known then.
/// Guarantees: nothing is said of those keys, but that an alert is over, and their state is deleted.
#[test]
fn states_of_other_keys_are_let_go() {
    let (plan, mut first, mut changes) = (view(), engine(), Changes::default());
    close(&mut first, &plan, 0, &["orders"], &mut changes);
    pass(&mut first, &plan, 6, &mut changes);
    let mut state = changes.states.into_values().flatten().next().unwrap();
    state.key.insert("route".to_owned(), json!("/"));
    let (mut second, mut changes) = (engine(), Changes::default());
    second.restore(state);
    pass(&mut second, &plan, 9, &mut changes);
    assert_eq!((told(&changes, "orders").as_str(), second.active_series()), ("R9", 0));
    assert!(changes.states.values().all(Option::is_none));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Scenario: a worker dies at any point and another one restores what was committed.
    /// Guarantees: it tells what the first one would have told.
    #[test]
    fn a_restored_worker_watches_on(here in prop::collection::vec(any::<bool>(), 1..24), cut in any::<prop::sample::Index>()) {
        let plan = view();
        let cut = cut.index(here.len());
        let play = |restarts: bool| {
            let (mut running, mut changes) = (engine(), Changes::default());
            for (minute, is_here) in (0..).zip(&here) {
                let services: &[&str] = if *is_here { &["orders", "payments"] } else { &["payments"] };
                close(&mut running, &plan, minute, services, &mut changes);
                pass(&mut running, &plan, minute + 1, &mut changes);
                if restarts && minute == cut as i64 {
                    running = engine();
                    for state in changes.states.values().flatten() {
                        running.restore(serde_json::from_slice(&serde_json::to_vec(state).unwrap()).unwrap());
                    }
                }
            }
            changes.alerts
        };
        prop_assert_eq!(play(true), play(false));
    }
}

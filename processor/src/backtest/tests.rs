use std::path::Path;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMillisecondArray};
use bongsu_ingest::config::Source;
use bongsu_schemas::alert::{AlertRecord, AlertStatus};
use bongsu_schemas::history::History;
use bongsu_schemas::tables::{Column, EVENT_TIME, schema_of};
use bongsu_schemas::window::{WindowRecord, rfc3339};
use chrono_tz::Tz;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::{Time, View};
use crate::history::chains::{Chain, Chains};
use crate::history::files::Files;
use crate::results::RowObject;
use crate::rules::engine::tests::WINDOWS;
use crate::rules::engine::{Changes, RuleEngine};
use crate::validate::compile;

const MINUTE_MS: i64 = 60_000;
/// Ten minutes before midnight, so that windows lie in two days.
const START_MS: i64 = 1_748_821_800_000;
const SERVICES: [&str; 3] = ["a", "b", "c"];

fn sql(window: &str) -> String {
    format!(
        "SELECT service, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors
         FROM requests GROUP BY {window}, service"
    )
}

/// Two views of different windows, each with a rule.
fn config(folder: &Path, for_windows: &str) -> Config {
    let rules = json!([
        {
            "name": "errors", "on": "requests_1m", "when": "requests >= 20 AND errors > $max * requests",
            "clear": "errors < $max * requests / 2", "params": { "max": 0.06 }, "for": for_windows,
            "summary": "{{ service }}: {{ errors }} of {{ requests }}",
        },
        { "name": "many-errors", "on": "requests_3m", "when": "errors > $max", "params": { "max": 10 } },
        { "name": "requests", "on": "requests_1m", "when": "requests >= 1000" },
    ]);
    let history = json!({ "url": format!("file://{}", folder.display()) });
    Config {
        kafka: serde_json::from_value(json!({ "brokers": "localhost:9092" })).unwrap(),
        sources: vec![Source::json("shop.requests", "requests")],
        time: Time::default(),
        zone: Tz::UTC,
        services: Services::default(),
        views: vec![
            View::new("requests_3m", &sql("hop(interval '1 minute', interval '3 minutes')")),
            View::new("requests_1m", &sql("tumble(interval '1 minute')")),
        ],
        rules: serde_json::from_value(rules).unwrap(),
        history: serde_json::from_value::<History>(history).unwrap(),
    }
}

fn minute_ms(minute: usize) -> i64 {
    START_MS + minute as i64 * MINUTE_MS
}

/// A letter for each service and minute: `x` met, `.` neither met nor clear, `c` clear, anything else no row.
fn counts(letter: char) -> Option<(usize, usize)> {
    match letter {
        'x' => Some((20, 10)),
        '.' => Some((20, 1)),
        'c' => Some((20, 0)),
        _ => None,
    }
}

/// What stage 1 makes of the events of a minute; none without events.
fn partial(plan: &ViewPlan, minute: usize, letters: &[(&'static str, char)]) -> Option<RecordBatch> {
    let events: Vec<(&str, i64)> = letters
        .iter()
        .filter_map(|(service, letter)| Some((*service, counts(*letter)?)))
        .flat_map(|(service, (requests, errors))| {
            (0..requests).map(move |request| (service, if request < errors { 500 } else { 200 }))
        })
        .collect();
    if events.is_empty() {
        return None;
    }
    let column = |column: &Column| -> ArrayRef {
        match column.name.as_str() {
            EVENT_TIME => {
                let times = TimestampMillisecondArray::from_value(minute_ms(minute) + 7, events.len());
                Arc::new(times.with_timezone("UTC"))
            }
            "service" => Arc::new(StringViewArray::from_iter_values(events.iter().map(|event| event.0))),
            "status" => Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.1))),
            other => panic!("the plan wants {other}"),
        }
    };
    let columns = plan.input_columns.iter().map(column).collect();
    let batch = RecordBatch::try_new(schema_of(&plan.input_columns), columns).unwrap();
    Some(plan.partial(&batch).unwrap())
}

/// A closed window: its end, the index of its view, its start, its results.
type Closed = (i64, usize, i64, RecordBatch);

/// The windows that a stage 2 closes that reads these services' events, in its order; `series` has a word of letters for each service.
fn closed(views: &[ViewPlan], series: &[(&'static str, &str)]) -> Vec<Closed> {
    let minutes = series.iter().map(|(_, letters)| letters.len()).max().unwrap_or_default();
    let mut closed = Vec::new();
    for (view, plan) in views.iter().enumerate() {
        let partials: Vec<Option<RecordBatch>> = (0..minutes)
            .map(|minute| {
                let letter = |(service, letters): &(&'static str, &str)| Some((*service, letters.chars().nth(minute)?));
                partial(plan, minute, &series.iter().filter_map(letter).collect::<Vec<_>>())
            })
            .collect();
        for end in 1..=minutes {
            let start_ms = plan.window.window_start(minute_ms(end));
            let in_window = (0..end).filter(|minute| minute_ms(*minute) >= start_ms);
            let rows: Vec<RecordBatch> = in_window.filter_map(|minute| partials[minute].clone()).collect();
            if !rows.is_empty() {
                closed.push((minute_ms(end), view, start_ms, plan.finish(start_ms, &rows).unwrap()));
            }
        }
    }
    closed.sort_by_key(|(end_ms, view, ..)| (*end_ms, *view));
    closed
}

/// Rule, end of the window that fired and of the one that resolved, by alert id.
type Alerts = BTreeMap<String, (String, i64, Option<i64>)>;

/// What one engine for each partition says, as live: it knows its own windows only, and time passes after some minutes.
fn live(config: &Config, partitions: &[&[(&'static str, &str)]], passes: impl Fn(usize) -> bool) -> Alerts {
    let Compiled { views, rules, .. } = compile(config).unwrap();
    let rules = Arc::new(rules);
    let mut alerts = Alerts::new();
    for series in partitions {
        let mut engine = RuleEngine::new(rules.clone(), Arc::new(config.services.clone()));
        let mut changes = Changes::default();
        let windows = closed(&views, series);
        let minutes =
            partitions.iter().flat_map(|series| series.iter()).map(|(_, letters)| letters.len()).max().unwrap();
        for minute in 1..=minutes {
            for (end_ms, view, start_ms, results) in windows.iter().filter(|window| window.0 == minute_ms(minute)) {
                let (view, start_ms, end_ms) = (*view, *start_ms, *end_ms);
                let window = ClosedWindow { view, plan: &views[view], start_ms, end_ms, results };
                engine.window_closed(window, time(0), &mut changes).unwrap();
            }
            if passes(minute) || minute == minutes {
                engine.time_passed(&views, minute_ms(minute), time(0), &mut changes);
            }
        }
        for AlertRecord { alert_id, rule, status, window_end, .. } in changes.alerts {
            let end_ms = window_end.timestamp_millis();
            match status {
                AlertStatus::Firing => assert!(alerts.insert(alert_id, (rule, end_ms, None)).is_none()),
                AlertStatus::Resolved => alerts.get_mut(&alert_id).unwrap().2 = Some(end_ms),
            }
        }
    }
    alerts
}

fn summed_up(alerts: &[Alert]) -> Alerts {
    let ms = |time: DateTime<Utc>| time.timestamp_millis();
    let one = |alert: &Alert| (alert.alert_id.clone(), (alert.rule.clone(), ms(alert.fired), alert.resolved.map(ms)));
    alerts.iter().map(one).collect()
}

/// All windows through one engine.
fn replayed(config: &Config, series: &[(&'static str, &str)]) -> Vec<Alert> {
    let Compiled { views, rules, .. } = compile_with(config, nullable).unwrap();
    let mut replay = Replay::new(Arc::new(rules), Arc::new(config.services.clone()), 0..i64::MAX, None);
    for (end_ms, view, start_ms, results) in closed(&views, series) {
        let window = ClosedWindow { view, plan: &views[view], start_ms, end_ms, results: &results };
        replay.window(&views, window).unwrap();
    }
    let minutes = series.iter().map(|(_, letters)| letters.len()).max().unwrap_or_default();
    replay.time_passes(&views, minute_ms(minutes)).unwrap();
    replay.into_alerts()
}

/// `F2` is an alert that fires in the window that starts in minute 2.
fn transitions(alerts: &[Alert], rule: &str) -> String {
    let minute = |end: DateTime<Utc>| (end.timestamp_millis() - START_MS) / MINUTE_MS - 1;
    let mut steps = Vec::new();
    for alert in alerts.iter().filter(|alert| alert.rule == rule) {
        steps.push(format!("F{}", minute(alert.fired)));
        steps.extend(alert.resolved.map(|end| format!("R{}", minute(end))));
    }
    steps.join(" ")
}

/// Scenario: the windows of `rules::engine`'s own table.
/// Guarantees: they become the same alerts.
#[test]
fn windows_become_the_alerts_that_they_became() {
    for (name, for_windows, windows, expected) in WINDOWS {
        let config = config(Path::new("/"), for_windows);
        let quiet = "c".repeat(windows.len());
        for series in [&[("a", windows)][..], &[("a", windows), ("b", quiet.as_str())]] {
            let alerts = replayed(&config, series);
            assert_eq!(transitions(&alerts, "errors"), expected, "{name}, {} services", series.len());
        }
    }
}

/// Guarantees: an alert tells where it began, how bad it was, and what it says to people.
#[test]
fn an_alert_is_told_from_beginning_to_end() {
    let config = config(Path::new("/"), "2 of 3");
    let alerts = replayed(&config, &[("a", "c.x.xx.c")]);
    let alert = alerts.iter().find(|alert| alert.rule == "errors").unwrap();
    let minute = |minute| time(minute_ms(minute));
    assert_eq!((alert.start, alert.fired, alert.resolved), (minute(2), minute(5), Some(minute(8))));
    assert_eq!(Value::from(alert.peak.clone()), json!({ "requests": 20, "errors": 10 }));
    assert_eq!((alert.summary.as_str(), alert.service.as_deref()), ("a: 10 of 20", Some("a")));
    assert_eq!(alert.params, BTreeMap::from([("max".to_owned(), ParamValue::Number(0.06))]));
}

/// Writes the windows of all partitions into Parquet files of a few rows each, as the processor does.
fn write_history(config: &Config, partitions: &[&[(&'static str, &str)]]) {
    let Compiled { views, .. } = compile(config).unwrap();
    let files = Files::open(&config.history, &views.iter().collect::<Vec<_>>()).unwrap();
    for (partition, series) in (0..).zip(partitions) {
        let mut chains = Chains::default();
        let mut windows = closed(&views, series);
        // Two partitions of the partials write into one of the windows, and one of them is behind.
        windows.chunks_mut(3).for_each(<[Closed]>::reverse);
        let mut offset = 0;
        for (end_ms, view, start_ms, results) in windows {
            let plan = &views[view];
            for row in 0..results.num_rows() {
                let record = WindowRecord {
                    view: plan.name.as_str(),
                    window_start: time(start_ms),
                    window_end: time(end_ms),
                    key: RowObject { batch: &results, columns: &plan.keys_by_name, row },
                    values: RowObject { batch: &results, columns: &plan.values, row },
                    is_final: true,
                    sequence: None,
                };
                let chain = Chain { partition, view: plan.name.clone(), date: time(start_ms).date_naive() };
                chains.push(chain, (offset, serde_json::to_vec(&record).unwrap()));
                offset += 1;
                if offset % 5 == 0 {
                    chains.flush(&files).unwrap();
                }
            }
        }
        chains.flush(&files).unwrap();
    }
}

fn question(minutes: std::ops::Range<usize>) -> Question {
    Question {
        from: time(minute_ms(minutes.start)),
        to: time(minute_ms(minutes.end)),
        rules: BTreeSet::new(),
        service: None,
        params: Vec::new(),
    }
}

fn max(rule: &str, value: f64) -> ParamChange {
    ParamChange { rule: rule.to_owned(), name: "max".to_owned(), level: None, value: ParamValue::Number(value) }
}

const HISTORY: &[&[(&str, &str)]] =
    &[&[("a", "cccxxxxccccccxx.xcccccccc"), ("b", "cxcxcxcxcxcccccccccc.....")], &[("c", "xxxxx--------xxxx--------")]];

/// Scenario: a history of two partitions and two days, in files whose windows overlap; it is asked for as a whole, for some minutes of
/// it, for one rule, for one service.
/// Guarantees: B1; an alert is in the answer if and only if it fired in the range.
#[test]
fn the_history_is_judged_as_it_was_live() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "2 of 3");
    write_history(&config, HISTORY);
    let expected = live(&config, HISTORY, |_| true);
    let minutes = HISTORY[0][0].1.len();
    assert!(expected.len() >= 6, "{expected:?}");

    let outcome = run(&config, &question(0..minutes + 100)).unwrap();
    assert_eq!(summed_up(&outcome.alerts), expected);
    assert_eq!((outcome.judged_to, outcome.changed), (time(minute_ms(minutes)), None));
    assert_eq!(outcome.misfits, BTreeMap::new());

    let (from, to) = (4, 17);
    let outcome = run(&config, &question(from..to)).unwrap();
    let mut in_range = expected.clone();
    in_range.retain(|_, (_, fired_ms, resolved_ms)| {
        // What ends later fires still at the end of the range.
        *resolved_ms = resolved_ms.filter(|end_ms| *end_ms < minute_ms(to));
        (minute_ms(from)..minute_ms(to)).contains(fired_ms)
    });
    assert!(!in_range.is_empty() && in_range.len() < expected.len());
    assert_eq!(summed_up(&outcome.alerts), in_range);

    let rules = BTreeSet::from(["many-errors".to_owned()]);
    let outcome = run(&config, &Question { rules, ..question(0..minutes + 1) }).unwrap();
    let of_rule: Alerts = expected.clone().into_iter().filter(|(_, (rule, ..))| rule == "many-errors").collect();
    assert_eq!(summed_up(&outcome.alerts), of_rule);

    let service = Some("c".to_owned());
    let outcome = run(&config, &Question { service, ..question(0..minutes + 1) }).unwrap();
    assert_eq!(summed_up(&outcome.alerts), live(&config, &HISTORY[1..], |_| true));
}

/// Scenario: other thresholds; for all services, for one of them, where `"*"` has its own.
/// Guarantees: the answer tells what they change, and the alerts as they are.
#[test]
fn other_parameters_change_alerts() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), "2 of 3");
    write_history(&config, HISTORY);
    let ask = |config: &Config, service: Option<&str>, params: Vec<ParamChange>| {
        let service = service.map(str::to_owned);
        run(config, &Question { service, params, ..question(0..30) }).unwrap()
    };
    let as_it_is = ask(&config, None, Vec::new()).alerts;
    let of_rule = |rule: &str| as_it_is.iter().filter(|alert| alert.rule == rule).count();

    let outcome = ask(&config, None, vec![max("errors", 0.6)]);
    let changed = outcome.changed.unwrap();
    assert_eq!(outcome.alerts, as_it_is);
    assert_eq!((changed.gone.len(), changed.new.len(), changed.moved.len()), (of_rule("errors"), 0, 0));

    let changed = ask(&config, None, vec![max("errors", 0.01)]).changed.unwrap();
    assert!(!changed.new.is_empty(), "20 requests with one error: {changed:?}");
    assert!(changed.gone.is_empty(), "{changed:?}");

    let changed = ask(&config, Some("c"), vec![max("errors", 0.6)]).changed.unwrap();
    assert!(!changed.gone.is_empty() && changed.gone.iter().all(|alert| alert.service.as_deref() == Some("c")));

    config.services = serde_json::from_value(
        json!({ "*": { "params": { "errors": { "max": 0.07 } } }, "c": { "params": { "errors": { "max": 0.08 } } } }),
    )
    .unwrap();
    let changed = ask(&config, None, vec![max("errors", 0.6)]).changed.unwrap();
    assert!(!changed.gone.is_empty() && changed.gone.iter().all(|alert| alert.service.as_deref() != Some("c")));
    assert!(changed.unchanged > 0, "c has a threshold of its own: {changed:?}");
}

/// Scenario: the view has got a column, and a rule over it, and had windows of five minutes once.
/// Guarantees: what the history does not tell is null; windows that the view does not have are left out and counted.
#[test]
fn history_of_an_older_view_is_used_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), "1");
    config.rules = serde_json::from_value(json!([
        { "name": "errors", "on": "requests_1m", "when": "errors > 5" },
        { "name": "requests", "on": "requests_1m", "when": "requests >= 20" },
    ]))
    .unwrap();
    let mut older = config.clone();
    older.rules.clear();
    older.views = vec![View::new(
        "requests_1m",
        "SELECT service, count(*) AS requests FROM requests GROUP BY tumble(interval '1 minute'), service",
    )];
    write_history(&older, &[&[("a", "x--")]]);
    let Compiled { views, .. } = compile(&older).unwrap();
    let files = Files::open(&config.history, &views.iter().collect::<Vec<_>>()).unwrap();
    let long = format!(
        r#"{{"view":"requests_1m","window_start":"{}","window_end":"{}","key":{{"service":"a"}},"values":{{"requests":90}},"final":true}}"#,
        rfc3339::format(&time(START_MS)),
        rfc3339::format(&time(START_MS + 5 * MINUTE_MS)),
    );
    let mut chains = Chains::default();
    let chain = Chain { partition: 7, view: "requests_1m".to_owned(), date: time(START_MS).date_naive() };
    chains.push(chain, (0, long.into_bytes()));
    chains.flush(&files).unwrap();

    let outcome = run(&config, &question(0..30)).unwrap();
    let fired: Vec<_> = outcome.alerts.iter().map(|alert| alert.rule.as_str()).collect();
    assert_eq!(fired, ["requests"]);
    assert_eq!(Value::from(outcome.alerts[0].values.clone()), json!({ "requests": 20, "errors": null }));
    assert_eq!(outcome.misfits, BTreeMap::from([("requests_1m".to_owned(), 1)]));
}

#[test]
fn no_history_is_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "1");
    let problem = || run(&config, &question(60..90)).unwrap_err().to_string();
    assert!(
        problem().contains("has no windows of requests_3m, requests_1m that end between 2025-06-02T00:50:00Z"),
        "{}",
        problem()
    );
    assert!(problem().contains("it is empty"), "{}", problem());
    write_history(&config, HISTORY);
    assert!(problem().contains("its days are 2025-06-01 to 2025-06-02"), "{}", problem());
    let service = Some("nobody".to_owned());
    let problem = run(&config, &Question { service, ..question(0..30) }).unwrap_err();
    assert!(matches!(&problem, BacktestError::Question(text) if text.contains("of the service `nobody`")), "{problem}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Scenario: services in two partitions whose engines do not know of each other, event time passing at any moment; and one engine
    /// over all of them.
    /// Guarantees: B1, alert by alert.
    #[test]
    fn one_engine_says_what_the_partitions_said(
        words in prop::collection::vec("[x.c-]{14}", 3),
        passes in prop::collection::vec(any::<bool>(), 15),
        needed in 1u32..4,
        more in 0u32..3,
    ) {
        let config = config(Path::new("/"), &format!("{needed} of {}", needed + more));
        let series: Vec<(&'static str, &str)> = SERVICES.into_iter().zip(words.iter().map(String::as_str)).collect();
        let expected = live(&config, &[&series[..1], &series[1..]], |minute| passes[minute]);
        prop_assert_eq!(summed_up(&replayed(&config, &series)), expected);
    }
}

//! The rules of a view, without Kafka: the time that one closed window takes on one core.
//!
//! 10,000 series (200 services with 50 routes) in every window; 50 rules over them. Each rule has a threshold, half of them
//! as a parameter, which 20 services set for themselves for every other of those rules. Half of all rules want 2 of 3 windows,
//! five have two levels.
//!
//! Goals, on a core of 2026:
//!
//! | benchmark | a window in which | goal, milliseconds a window |
//! | --- | --- | ---: |
//! | `firing` | 100 series fire in every rule, as they did in the window before: 5,000 steps | 50 |
//! | `nothing_met` | no rule is met, and no series has a state | 50 |
//!
//! Then the minutes of a day that was missed, 1,440 windows, cost the rules 72 s.

#![allow(clippy::unwrap_used, clippy::panic)] // a benchmark may stop

use std::sync::Arc;

use arrow::array::RecordBatch;
use bongsu_processor::config::Rule;
use bongsu_processor::plan::ViewPlan;
use bongsu_processor::results::time;
use bongsu_processor::rules::engine::{Changes, ClosedWindow, CompiledRule, RuleEngine};
use bongsu_schemas::services::Services;
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Map, Value, json};

// The cost model's events, so that all speak of the same.
#[path = "../tests/cost_model/workload.rs"]
#[allow(dead_code)] // not all of them are needed here
mod workload;

use workload::{Names, Request, START_MS, view};

const SERVICES: usize = 200;
const ROUTES: usize = 50;
const SERIES: usize = SERVICES * ROUTES;
const RULES: usize = 50;
const MINUTE_MS: i64 = 60_000;

/// Every series of this distance is a bad one, in a bad window: 1 %, of as many services as possible.
const BAD_EVERY: usize = 101;
const BAD: usize = SERIES.div_ceil(BAD_EVERY);
/// Services with thresholds of their own: 20.
const OWN_EVERY: usize = 10;

/// What rules look at, and a threshold that bad series exceed even where it is twice as high, and that no other one comes near.
/// `$limit` is a parameter.
const CONDITIONS: [(&str, f64); 10] = [
    ("requests >= 20 AND errors > $limit * requests", 0.3),
    ("errors >= $limit", 9.0),
    ("p95_ms > $limit", 2_000.0),
    ("total_ms / requests > $limit", 1_000.0),
    ("requests >= 20 AND errors > 5 AND p95_ms > $limit", 1_500.0),
    ("errors > {limit}", 8.0),
    ("route LIKE '/api/%' AND errors > {limit}", 7.0),
    ("CASE WHEN requests > 0 THEN 100 * errors / requests ELSE 0 END > {limit}", 30.0),
    ("errors > 0.2 * requests OR p95_ms > {limit}", 2_500.0),
    ("max_ms > {limit} AND min_ms > 400", 2_500.0),
];

/// The rules and two windows that are closed by turns, so that values change from one to the next.
struct Minutes {
    view: ViewPlan,
    engine: RuleEngine,
    results: [RecordBatch; 2],
    closed: usize,
}

impl Minutes {
    fn new(is_bad: impl Fn(usize) -> bool) -> Minutes {
        let view = view();
        let compile = |rule: Rule| CompiledRule::new(&rule, rule.when.as_deref().unwrap(), 0, &view).unwrap();
        let rules = (0..RULES).map(rule).map(compile).collect();
        let results = [20, 24].map(|requests| results(&view, requests, &is_bad));
        Minutes { engine: RuleEngine::new(Arc::new(rules), Arc::new(services())), view, results, closed: 0 }
    }

    /// Closes the next window.
    fn close(&mut self) -> Changes {
        let start_ms = START_MS + self.closed as i64 * MINUTE_MS;
        let end_ms = start_ms + MINUTE_MS;
        let results = &self.results[self.closed % 2];
        let window = ClosedWindow { view: 0, plan: &self.view, start_ms, end_ms, results };
        let mut changes = Changes::default();
        self.engine.window_closed(window, time(end_ms), &mut changes).unwrap();
        self.closed += 1;
        changes
    }
}

fn firing(criterion: &mut Criterion) {
    let mut minutes = Minutes::new(|series| series.is_multiple_of(BAD_EVERY));
    // Enough for `2 of 3`, and for as many windows as states remember.
    let alerts: usize = (0..3).map(|_| minutes.close().alerts.len()).sum();
    assert_eq!((alerts, minutes.engine.active_series()), (RULES * BAD, RULES * BAD));
    let changes = minutes.close();
    assert_eq!((changes.alerts.len(), changes.states.len()), (0, RULES * BAD), "they go on firing");
    run(criterion, "firing", minutes);
}

fn nothing_met(criterion: &mut Criterion) {
    let mut minutes = Minutes::new(|_| false);
    let changes = minutes.close();
    assert_eq!((changes.alerts.len(), changes.states.len()), (0, 0));
    run(criterion, "nothing_met", minutes);
}

fn run(criterion: &mut Criterion, name: &str, mut minutes: Minutes) {
    let mut group = criterion.benchmark_group("rules");
    group.bench_function(name, |bencher| bencher.iter(|| minutes.close()));
    group.finish();
}

fn rule(number: usize) -> Rule {
    let (condition, limit) = condition(number);
    let mut rule = json!({
        "name": rule_name(number), "on": "requests_1m", "when": condition.replace("{limit}", &limit.to_string()),
    });
    if has_param(number) {
        rule["params"] = json!({ "limit": setting(number, limit) });
    }
    if has_levels(number) {
        rule["severity"] = json!({ "warn": 2, "critical": 5 });
        rule["clear"] = json!("errors < $limit * requests / 2");
    }
    // Half of those with each condition, or one more or less.
    if (number + number / CONDITIONS.len()) % 2 == 1 {
        rule["for"] = json!("2 of 3");
    }
    serde_json::from_value(rule).unwrap()
}

/// Those with thresholds of their own.
fn services() -> Services {
    let of_rule = |number: usize| {
        let (_, limit) = condition(number);
        (rule_name(number), json!({ "limit": setting(number, 1.2 * limit) }))
    };
    let params: Map<String, Value> = (0..RULES).filter(|number| has_param(*number)).step_by(2).map(of_rule).collect();
    let own = Names::new(SERVICES, ROUTES).services.into_iter().step_by(OWN_EVERY);
    let services: Map<String, Value> = own.map(|service| (service, json!({ "params": params }))).collect();
    serde_json::from_value(Value::from(services)).unwrap()
}

fn rule_name(number: usize) -> String {
    format!("rule-{number:02}")
}

/// No two rules are the same.
fn condition(number: usize) -> (&'static str, f64) {
    let (condition, limit) = CONDITIONS[number % CONDITIONS.len()];
    (condition, limit * (1.0 + (number / CONDITIONS.len()) as f64 / 20.0))
}

fn has_param(number: usize) -> bool {
    condition(number).0.contains("$limit")
}

fn has_levels(number: usize) -> bool {
    number.is_multiple_of(CONDITIONS.len())
}

/// A parameter as a rule or a service sets it.
fn setting(number: usize, limit: f64) -> Value {
    if has_levels(number) { json!({ "warn": limit, "critical": 1.5 * limit }) } else { json!(limit) }
}

/// What the view gives where each series has so many requests: all of a bad one are slow and fail.
fn results(view: &ViewPlan, requests: usize, is_bad: &impl Fn(usize) -> bool) -> RecordBatch {
    let mut events = Vec::with_capacity(SERIES * requests);
    for group in 0..SERIES {
        for number in 0..requests {
            let (status, slowness) =
                if is_bad(group) { (503, 5_000.0) } else { (200 + 300 * i64::from(number == 0), 1.0) };
            let duration_ms = slowness + ((group + number) % 300) as f64;
            events.push(Request { time_ms: START_MS + number as i64, group, status, duration_ms });
        }
    }
    let rows = Names::new(SERVICES, ROUTES).decoded(view, &events);
    let results = view.finish(START_MS, &[view.partial(&rows).unwrap()]).unwrap();
    assert_eq!(results.num_rows(), SERIES);
    results
}

criterion_group!(benches, firing, nothing_met);
criterion_main!(benches);

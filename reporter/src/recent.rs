//! The latest windows of every series, to show beside an alert what happened around it. Pure, and bounded.
//!
//! Only numbers are kept, and one short text for each kind of exception: texts come from events and can be long.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bongsu_schemas::alert::{AlertRecord, Siblings};
use bongsu_schemas::key::{GroupKey, key_text};
use bongsu_schemas::window::WindowRecord;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use crate::slack::message::cut;

/// Windows kept of each series.
pub const WINDOWS: usize = 6;
/// Series kept; beyond it, the one whose last window is oldest goes.
const MAX_SERIES: usize = 20_000;
/// Columns kept of a view.
const MAX_COLUMNS: usize = 16;
const MAX_NAME_BYTES: usize = 64;
const MAX_KEY_BYTES: usize = 2_048;
const MAX_SAMPLE_CHARS: usize = 160;
/// Exceptions and URLs named beside an alert.
const TOP: usize = 3;
/// "At that moment": windows that end this close to the alert's.
const AROUND: TimeDelta = TimeDelta::minutes(5);
/// Nobody reads how many more there are; each alert of a storm asks.
const MAX_SIBLINGS: usize = 200;
/// Alerts for which it is remembered what was found.
const MAX_FOUND: usize = 4_000;
/// Columns that count exceptions, the first that a view has; else its first column counts.
const COUNTS: [&str; 3] = ["exceptions", "count", "reports"];

/// The latest windows, shared by who reads them and who writes messages.
#[derive(Debug, Clone, Default)]
pub struct SharedRecent(
    // Held for operations on the store only, never across an await.
    Arc<Mutex<RecentWindows>>,
);

impl SharedRecent {
    /// The store, until the guard is dropped.
    pub fn lock(&self) -> MutexGuard<'_, RecentWindows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The latest windows of each view and key.
#[derive(Debug, Default)]
pub struct RecentWindows {
    series: BTreeMap<Arc<SeriesId>, Series>,
    by_age: BTreeSet<(DateTime<Utc>, Arc<SeriesId>)>,
    found: BTreeMap<String, Arc<Found>>,
    /// Alerts in `found`, oldest first.
    found_order: VecDeque<String>,
}

/// Ordered by service, so that those of one service lie together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct SeriesId {
    service: String,
    view: String,
    key: String,
}

#[derive(Debug)]
struct Series {
    key: GroupKey,
    /// Names of the numbers; most windows of a view have the same.
    columns: Arc<[String]>,
    /// Oldest first.
    windows: VecDeque<Window>,
    /// An example of the message, where the view has one.
    sample: Option<String>,
}

#[derive(Debug)]
struct Window {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    columns: Arc<[String]>,
    /// Not a number where the column was null.
    numbers: Box<[f64]>,
}

/// What is known about the moment of an alert.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// Start and numbers of the latest windows of the alert's own series, oldest first.
    pub windows: Vec<(DateTime<Utc>, Map<String, Value>)>,
    /// The most frequent exceptions of its service.
    pub exceptions: Vec<TopException>,
    /// The busiest routes of its service.
    pub urls: Vec<TopUrl>,
}

/// A kind of exception around the moment of an alert.
#[derive(Debug, Clone, PartialEq)]
pub struct TopException {
    /// Class name.
    pub kind: String,
    /// How often.
    pub count: f64,
    /// One of its messages.
    pub sample: Option<String>,
}

/// A route around the moment of an alert.
#[derive(Debug, Clone, PartialEq)]
pub struct TopUrl {
    /// The route.
    pub route: String,
    /// Requests to it.
    pub requests: f64,
    /// Of them failed, where the view counts that.
    pub errors: Option<f64>,
}

impl Found {
    fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.exceptions.is_empty() && self.urls.is_empty()
    }
}

impl RecentWindows {
    /// Of how many series an alert's is one: those of its view, service and environment that had a window of late. None if that is not
    /// known. Whether the others met the condition as well is told by their own alerts.
    pub fn siblings(&self, firing: &AlertRecord) -> Option<Siblings> {
        let (wanted, since) = (text_of(&firing.key, "environment"), firing.window_end - AROUND);
        let service = text_of(&firing.key, "service").unwrap_or_default();
        let of_service =
            SeriesId { service: service.to_owned(), view: firing.evidence.view.clone(), key: String::new() };
        let of_view = self
            .series
            .range(Arc::new(of_service)..)
            .take_while(|(id, _)| id.view == firing.evidence.view && id.service == service);
        let is_like = |series: &Series| series.last_end() > since && text_of(&series.key, "environment") == wanted;
        let of = of_view.filter(|(_, series)| is_like(series)).take(MAX_SIBLINGS).count();
        u32::try_from(of).ok().filter(|of| *of > 0).map(|of| Siblings { met: 1, of })
    }

    /// Takes a window, or the correction of one.
    pub fn take(&mut self, window: &WindowRecord) {
        let key = key_text(&window.key);
        if key.len() > MAX_KEY_BYTES {
            return;
        }
        let service = text_of(&window.key, "service").unwrap_or_default().to_owned();
        let id = Arc::new(SeriesId { service, view: window.view.clone(), key });
        let numbers = numbers(&window.values);
        let sample = window.values.get("message").and_then(Value::as_str).map(|text| cut(text, MAX_SAMPLE_CHARS));
        match self.series.get_key_value(&id).map(|(id, _)| Arc::clone(id)) {
            Some(id) => {
                let Some(series) = self.series.get_mut(&id) else { return };
                let before = series.last_end();
                series.take(window, numbers);
                series.sample = sample.or(series.sample.take());
                let after = series.last_end();
                if before != after {
                    self.by_age.remove(&(before, Arc::clone(&id)));
                    self.by_age.insert((after, id));
                }
            }
            None => {
                let names = numbers.iter().map(|(name, _)| (*name).to_owned());
                // Mostly a neighbour's, which is of the same view.
                let neighbour = self.series.range(..Arc::clone(&id)).next_back().map(|(_, series)| &series.columns);
                let columns = match neighbour.filter(|columns| columns.iter().cloned().eq(names.clone())) {
                    Some(columns) => Arc::clone(columns),
                    None => names.collect(),
                };
                let mut series = Series { key: window.key.clone(), columns, windows: VecDeque::new(), sample };
                series.take(window, numbers);
                self.by_age.insert((series.last_end(), Arc::clone(&id)));
                self.series.insert(id, series);
                self.forget_oldest();
            }
        }
    }

    /// What was known when this was asked first about the alert; asked again as long as nothing was.
    pub fn found(&mut self, alert: &AlertRecord) -> Arc<Found> {
        if let Some(found) = self.found.get(&alert.alert_id) {
            return Arc::clone(found);
        }
        let found = Arc::new(self.look(alert));
        if !found.is_empty() {
            self.found.insert(alert.alert_id.clone(), Arc::clone(&found));
            self.found_order.push_back(alert.alert_id.clone());
            if self.found_order.len() > MAX_FOUND
                && let Some(oldest) = self.found_order.pop_front()
            {
                self.found.remove(&oldest);
            }
        }
        found
    }

    fn look(&self, alert: &AlertRecord) -> Found {
        let service = alert.service.as_deref().or_else(|| text_of(&alert.key, "service"));
        let own = SeriesId {
            service: text_of(&alert.key, "service").unwrap_or_default().to_owned(),
            view: alert.evidence.view.clone(),
            key: key_text(&alert.key),
        };
        let windows = self.series.get(&own).map_or_else(Vec::new, |series| {
            series.windows.iter().map(|window| (window.start, window.values())).collect()
        });
        let Some(service) = service else { return Found { windows, ..Found::default() } };
        let (mut exceptions, mut urls) = (Sums::default(), Sums::default());
        let from = SeriesId { service: service.to_owned(), view: String::new(), key: String::new() };
        for (id, series) in self.series.range(Arc::new(from)..).take_while(|(id, _)| id.service == service) {
            let environment = text_of(&alert.key, "environment");
            if environment.is_some() && text_of(&series.key, "environment") != environment {
                continue;
            }
            let around = series.windows.iter().filter(|window| (window.end - alert.window_end).abs() <= AROUND);
            for window in around {
                if let Some(kind) = text_of(&series.key, "type") {
                    exceptions.add(&id.view, kind, window.count(), None, series.sample.as_deref());
                }
                if let (Some(route), Some(requests)) = (text_of(&series.key, "route"), window.number("requests")) {
                    urls.add(&id.view, route, requests, window.number("errors"), None);
                }
            }
        }
        let exception =
            |(kind, sum): (&str, Sum)| TopException { kind: kind.to_owned(), count: sum.count, sample: sum.sample };
        let url =
            |(route, sum): (&str, Sum)| TopUrl { route: route.to_owned(), requests: sum.count, errors: sum.errors };
        Found {
            windows,
            exceptions: exceptions.top().into_iter().map(exception).collect(),
            urls: urls.top().into_iter().map(url).collect(),
        }
    }

    fn forget_oldest(&mut self) {
        while self.series.len() > MAX_SERIES {
            let Some((_, oldest)) = self.by_age.pop_first() else { return };
            self.series.remove(&oldest);
        }
    }
}

impl Series {
    fn take(&mut self, window: &WindowRecord, numbers: Vec<(&str, f64)>) {
        if !self.columns.iter().map(String::as_str).eq(numbers.iter().map(|(name, _)| *name)) {
            self.columns = numbers.iter().map(|(name, _)| (*name).to_owned()).collect();
        }
        let taken = Window {
            start: window.window_start,
            end: window.window_end,
            columns: Arc::clone(&self.columns),
            numbers: numbers.into_iter().map(|(_, number)| number).collect(),
        };
        match self.windows.binary_search_by_key(&taken.start, |present| present.start) {
            Ok(position) => self.windows[position] = taken,
            Err(position) => self.windows.insert(position, taken),
        }
        if self.windows.len() > WINDOWS {
            self.windows.pop_front();
        }
    }

    fn last_end(&self) -> DateTime<Utc> {
        self.windows.back().map_or(DateTime::UNIX_EPOCH, |window| window.end)
    }
}

impl Window {
    fn number(&self, column: &str) -> Option<f64> {
        let position = self.columns.iter().position(|name| name == column)?;
        self.numbers.get(position).copied().filter(|number| number.is_finite())
    }

    fn count(&self) -> f64 {
        let named = COUNTS.iter().find_map(|column| self.number(column));
        named.or_else(|| self.numbers.first().copied().filter(|number| number.is_finite())).unwrap_or(1.0)
    }

    fn values(&self) -> Map<String, Value> {
        // What is not finite becomes null.
        self.columns.iter().zip(&self.numbers).map(|(name, number)| (name.clone(), json!(number))).collect()
    }
}

/// Sums by view and name. Views may count the same thing, so that of each name the view with the largest sum tells.
#[derive(Default)]
struct Sums<'a>(BTreeMap<(&'a str, &'a str), Sum>);

#[derive(Default)]
struct Sum {
    count: f64,
    errors: Option<f64>,
    sample: Option<String>,
}

impl<'a> Sums<'a> {
    fn add(&mut self, view: &'a str, name: &'a str, count: f64, errors: Option<f64>, sample: Option<&str>) {
        let sum = self.0.entry((view, name)).or_default();
        sum.count += count;
        if let Some(errors) = errors {
            *sum.errors.get_or_insert(0.0) += errors;
        }
        if sum.sample.is_none() {
            sum.sample = sample.map(str::to_owned);
        }
    }

    fn top(self) -> Vec<(&'a str, Sum)> {
        let mut by_name: BTreeMap<&str, Sum> = BTreeMap::new();
        for ((_, name), sum) in self.0 {
            let present = by_name.entry(name).or_default();
            if sum.count > present.count {
                *present = sum;
            }
        }
        let mut all: Vec<(&str, Sum)> = by_name.into_iter().filter(|(_, sum)| sum.count > 0.0).collect();
        all.sort_by(|(_, a), (_, b)| b.count.total_cmp(&a.count));
        all.truncate(TOP);
        all
    }
}

fn numbers(values: &Map<String, Value>) -> Vec<(&str, f64)> {
    let number = |(name, value): (&'_ String, &Value)| {
        match value {
            Value::Number(number) => Some(number.as_f64().unwrap_or(f64::NAN)),
            // A column of numbers has nulls, too; one of texts is kept as a column without any.
            Value::Null => Some(f64::NAN),
            _ => None,
        }
        .filter(|_| name.len() <= MAX_NAME_BYTES)
    };
    let kept = values.iter().filter_map(|pair| number(pair).map(|number| (pair.0.as_str(), number)));
    kept.take(MAX_COLUMNS).collect()
}

fn text_of<'a>(key: &'a GroupKey, name: &str) -> Option<&'a str> {
    key.get(name).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use bongsu_schemas::alert::AlertStatus::Firing;
    use proptest::prelude::*;

    use super::*;
    use crate::incidents::tests::alert;

    fn window(view: &str, key: Value, minute: i64, values: Value) -> WindowRecord {
        let noon: DateTime<Utc> = "2026-11-16T12:00:00Z".parse().unwrap();
        WindowRecord {
            view: view.to_owned(),
            window_start: noon + TimeDelta::minutes(minute - 1),
            window_end: noon + TimeDelta::minutes(minute),
            key: key.as_object().unwrap().clone(),
            values: values.as_object().unwrap().clone(),
            is_final: true,
            sequence: None,
        }
    }

    /// Scenario: an alert of a service; exceptions and routes of it in two environments, of another service, and of an hour before;
    /// later windows after it was asked for the first time.
    /// Guarantees: the top three of this service and environment around that moment; the first answer stays.
    #[test]
    fn an_alert_is_shown_with_what_happened_around_it() {
        let mut recent = RecentWindows::default();
        let mut firing = alert("errors", Some("order"), Firing, 10);
        firing.key.insert("environment".to_owned(), json!("prod"));
        firing.evidence.view = "own_1m".to_owned();
        let exception = |service: &str, environment: &str, kind: &str, minute: i64, count: i64| {
            let key = json!({ "service": service, "environment": environment, "type": kind, "fingerprint": kind });
            window("exceptions_1m", key, minute, json!({ "exceptions": count, "message": "boom", "pod": null }))
        };
        let route = |service: &str, route: &str, requests: i64| {
            let key = json!({ "service": service, "environment": "prod", "route": route });
            window("requests_1m", key, 10, json!({ "requests": requests, "errors": 1 }))
        };
        for taken in [
            exception("order", "prod", "A", 9, 5),
            exception("order", "prod", "A", 10, 6),
            exception("order", "prod", "B", 10, 40),
            exception("order", "prod", "C", 5, 1),
            exception("order", "prod", "D", 10, 2),
            exception("order", "prod", "Old", -50, 99),
            exception("order", "test", "Test", 10, 99),
            exception("pay", "prod", "Other", 10, 99),
            route("order", "/a", 100),
            route("order", "/b", 300),
            route("pay", "/c", 900),
            window("own_1m", Value::Object(firing.key.clone()), 10, json!({ "errors": 12 })),
        ] {
            recent.take(&taken);
        }
        let found = recent.found(&firing);
        let kinds: Vec<_> = found.exceptions.iter().map(|top| (top.kind.as_str(), top.count)).collect();
        assert_eq!(kinds, [("B", 40.0), ("A", 11.0), ("D", 2.0)]);
        assert_eq!(found.exceptions[0].sample.as_deref(), Some("boom"));
        let urls: Vec<_> = found.urls.iter().map(|top| (top.route.as_str(), top.requests, top.errors)).collect();
        assert_eq!(urls, [("/b", 300.0, Some(1.0)), ("/a", 100.0, Some(1.0))]);
        assert_eq!(found.windows.len(), 1);
        assert_eq!(found.windows[0].1["errors"], 12.0);
        recent.take(&exception("order", "prod", "Late", 10, 1_000));
        assert_eq!(recent.found(&firing), found);
    }

    /// Scenario: nothing is known yet when an alert is told, and then something is.
    /// Guarantees: an empty answer is not kept.
    #[test]
    fn nothing_is_asked_for_again() {
        let mut recent = RecentWindows::default();
        let firing = alert("errors", Some("order"), Firing, 10);
        assert!(recent.found(&firing).is_empty());
        recent.take(&window("r", json!({ "service": "order", "route": "/a" }), 10, json!({ "requests": 1 })));
        assert_eq!(recent.found(&firing).urls.len(), 1);
    }

    /// Scenario: more series than are kept, more alerts than are remembered, a key that is longer than any sane one.
    /// Guarantees: memory is bounded; the oldest goes first.
    #[test]
    fn memory_is_bounded() {
        let mut recent = RecentWindows::default();
        for number in 0..MAX_SERIES + 10 {
            let key = json!({ "service": format!("s{number}"), "route": "/" });
            recent.take(&window("r", key, number as i64, json!({ "requests": 1, "text": "x".repeat(100) })));
        }
        recent.take(&window("r", json!({ "service": "x".repeat(MAX_KEY_BYTES) }), 1, json!({})));
        assert_eq!((recent.series.len(), recent.by_age.len()), (MAX_SERIES, MAX_SERIES));
        let oldest = recent.by_age.first().unwrap().1.service.clone();
        assert_eq!(oldest, "s10");
        for number in 0..MAX_FOUND + 10 {
            let mut firing = alert("errors", Some("s100"), Firing, 100);
            firing.alert_id = number.to_string();
            recent.found(&firing);
        }
        assert_eq!((recent.found.len(), recent.found_order.len()), (MAX_FOUND, MAX_FOUND));
    }

    proptest! {
        /// Guarantees: in whatever order windows and their corrections come, a series has the latest of them, in order, once each.
        #[test]
        fn windows_are_the_latest_in_order(minutes in prop::collection::vec(0i64..20, 1..60)) {
            let mut recent = RecentWindows::default();
            for (number, minute) in minutes.iter().enumerate() {
                recent.take(&window("r", json!({ "service": "s" }), *minute, json!({ "n": number })));
            }
            let series = recent.series.values().next().unwrap();
            let starts: Vec<_> = series.windows.iter().map(|window| window.start).collect();
            prop_assert!(starts.is_sorted() && starts.len() <= WINDOWS);
            let last = minutes.iter().max().unwrap();
            let latest = minutes.iter().rposition(|minute| minute == last).unwrap();
            prop_assert_eq!(series.windows.back().unwrap().numbers[0], latest as f64);
            prop_assert_eq!(recent.by_age.len(), 1);
        }
    }
}

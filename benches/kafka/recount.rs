//! What the windows must say, counted in a plain hash map while the events are made: no code in common with the
//! processor.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::request::Request;
use crate::windows::Arrived;
use crate::workload::MINUTE_MS;

/// The promised error of a quantile is 1 %; the rest is for rounding.
const QUANTILE_ERROR: f64 = 0.010_1;

/// All requests of one group and minute.
#[derive(Debug, Default)]
struct Tally {
    errors: u64,
    /// One for each request.
    quarters_ms: Vec<u32>,
}

/// Tallies by group and the minute's start.
#[derive(Debug, Default)]
pub(crate) struct Recount(HashMap<(usize, i64), Tally>);

/// A record of a windows topic.
#[derive(Debug, Deserialize)]
struct Window {
    view: String,
    window_start: DateTime<Utc>,
    window_end: DateTime<Utc>,
    key: Key,
    values: Values,
}

#[derive(Debug, Deserialize)]
struct Key {
    service: String,
    route: String,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Values {
    requests: u64,
    errors: u64,
    sum_ms: f64,
    min_ms: f64,
    max_ms: f64,
    p95_ms: f64,
}

impl Recount {
    pub(crate) fn add(&mut self, request: &Request) {
        let minute_ms = request.time_ms - request.time_ms.rem_euclid(MINUTE_MS);
        let tally = self.0.entry((request.group, minute_ms)).or_default();
        tally.errors += u64::from(request.status >= 500);
        tally.quarters_ms.push(request.quarter_ms);
    }

    /// How many windows there must be.
    pub(crate) fn windows(&self) -> usize {
        self.0.len()
    }

    /// Nothing missing, double or wrong.
    pub(crate) fn compare(&self, windows: &[Arrived]) -> anyhow::Result<()> {
        let groups: HashMap<(String, String), usize> =
            self.0.keys().map(|(group, _)| ((Request::service(*group), Request::route(*group)), *group)).collect();
        let mut seen = HashSet::with_capacity(windows.len());
        for Arrived { value, .. } in windows {
            let text = || String::from_utf8_lossy(value).into_owned();
            let window: Window = serde_json::from_slice(value).with_context(text)?;
            let start_ms = window.window_start.timestamp_millis();
            ensure!(window.view == "requests_1m", "another view: {}", text());
            ensure!(window.window_end.timestamp_millis() == start_ms + MINUTE_MS, "not a minute: {}", text());
            let group = groups.get(&(window.key.service, window.key.route)).with_context(text)?;
            let tally = self.0.get(&(*group, start_ms)).with_context(|| format!("no such window: {}", text()))?;
            ensure!(seen.insert((*group, start_ms)), "twice: {}", text());
            let expected = tally.values();
            ensure!(window.values.agree_with(&expected), "expected {expected:?}, found {}", text());
        }
        ensure!(seen.len() == self.0.len(), "{} windows, expected {}", seen.len(), self.0.len());
        Ok(())
    }
}

impl Tally {
    fn values(&self) -> Values {
        let mut quarters_ms = self.quarters_ms.clone();
        quarters_ms.sort_unstable();
        let ms = |quarters: u32| f64::from(quarters) / 4.0;
        let last = quarters_ms.len() - 1;
        Values {
            requests: quarters_ms.len() as u64,
            errors: self.errors,
            sum_ms: quarters_ms.iter().map(|quarters| u64::from(*quarters)).sum::<u64>() as f64 / 4.0,
            min_ms: ms(quarters_ms[0]),
            max_ms: ms(quarters_ms[last]),
            p95_ms: ms(quarters_ms[(0.95 * last as f64) as usize]),
        }
    }
}

impl Values {
    /// Equal to the last bit, but for the quantile.
    fn agree_with(&self, expected: &Values) -> bool {
        let near = (self.p95_ms - expected.p95_ms).abs() <= QUANTILE_ERROR * expected.p95_ms;
        near && *self == Values { p95_ms: self.p95_ms, ..*expected }
    }
}

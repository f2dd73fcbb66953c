//! How many events each window must count, where that is all that is compared. Kept while the events are made: no code
//! in common with the processor.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::request::{Request, SERVICES};
use crate::windows::Arrived;

/// What the view groups by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Service,
    ServiceAndRoute,
}

/// Events by key and the window's start.
#[derive(Debug)]
pub(crate) struct Counts {
    by: By,
    window_ms: i64,
    /// The key is a service's or a group's number.
    events: HashMap<(usize, i64), u64>,
}

/// A record of a windows topic.
#[derive(Debug, Deserialize)]
struct Window {
    window_start: DateTime<Utc>,
    window_end: DateTime<Utc>,
    key: Key,
    values: Values,
}

#[derive(Debug, Deserialize, PartialEq, Eq, Hash)]
struct Key {
    service: String,
    route: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Values {
    requests: u64,
}

impl Counts {
    pub(crate) fn new(by: By, window_ms: i64) -> Counts {
        Counts { by, window_ms, events: HashMap::new() }
    }

    /// An event of a group.
    pub(crate) fn add(&mut self, group: usize, time_ms: i64) {
        let key = match self.by {
            By::Service => group % SERVICES,
            By::ServiceAndRoute => group,
        };
        *self.events.entry((key, time_ms - time_ms.rem_euclid(self.window_ms))).or_default() += 1;
    }

    /// How many windows there must be.
    pub(crate) fn windows(&self) -> usize {
        self.events.len()
    }

    /// All events in them.
    pub(crate) fn total(&self) -> u64 {
        self.events.values().sum()
    }

    /// No window missing, double or with a wrong count.
    pub(crate) fn compare<'a>(&self, windows: impl IntoIterator<Item = &'a Arrived>) -> anyhow::Result<()> {
        let keys: HashMap<Key, usize> = self.events.keys().map(|(key, _)| (self.name(*key), *key)).collect();
        let mut seen = HashSet::with_capacity(self.events.len());
        for Arrived { value, .. } in windows {
            let text = || String::from_utf8_lossy(value).into_owned();
            let window: Window = serde_json::from_slice(value).with_context(text)?;
            let start_ms = window.window_start.timestamp_millis();
            let length_ms = window.window_end.timestamp_millis() - start_ms;
            ensure!(length_ms == self.window_ms, "{length_ms} ms long: {}", text());
            let key = *keys.get(&window.key).with_context(text)?;
            let expected = *self.events.get(&(key, start_ms)).with_context(|| format!("no such window: {}", text()))?;
            ensure!(seen.insert((key, start_ms)), "twice: {}", text());
            ensure!(window.values.requests == expected, "expected {expected} requests, found {}", text());
        }
        ensure!(seen.len() == self.events.len(), "{} windows, expected {}", seen.len(), self.events.len());
        Ok(())
    }

    fn name(&self, key: usize) -> Key {
        let route = match self.by {
            By::Service => None,
            By::ServiceAndRoute => Some(Request::route(key)),
        };
        Key { service: Request::service(key), route }
    }
}

/// When a window ends that a record belongs to.
pub(crate) fn window_end_ms(window: &Arrived) -> anyhow::Result<i64> {
    let window: Window = serde_json::from_slice(&window.value)?;
    Ok(window.window_end.timestamp_millis())
}

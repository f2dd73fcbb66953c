//! Which service calls which, as far as windows have told. Pure and bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

/// Calls that are known at once; past it, those that were seen longest ago go.
const MAX_EDGES: usize = 50_000;
/// Calls from one service to the next that a path may have. Longer ones connect everything with everything.
const MAX_HOPS: u8 = 6;
/// A call that was not seen for this long, event time, is none any more: the services of last year's design call each other no longer.
const FORGET_AFTER: TimeDelta = TimeDelta::hours(24);
/// Names longer than this are no names of services. Bounds memory and records.
const MAX_NAME_BYTES: usize = 200;

/// A directed graph of services.
#[derive(Debug, Clone, Default)]
pub struct CallGraph {
    /// Event time at which each call was last seen, by caller and callee.
    callees: BTreeMap<Arc<str>, BTreeMap<Arc<str>, DateTime<Utc>>>,
    callers: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    edges: usize,
    /// The latest event time heard of: what is old is old against it.
    latest: Option<DateTime<Utc>>,
    swept: Option<DateTime<Utc>>,
}

/// Which way calls are followed.
#[derive(Debug, Clone, Copy)]
enum Way {
    ToCallees,
    ToCallers,
}

/// The services that a service calls, and those that call it, both at most [`MAX_HOPS`] away.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    pub(super) callees: BTreeSet<Arc<str>>,
    pub(super) callers: BTreeSet<Arc<str>>,
}

impl CallGraph {
    /// `caller` called `callee` at `at`, event time. A service that calls itself says nothing.
    pub fn saw(&mut self, caller: &str, callee: &str, at: DateTime<Utc>) {
        let is_name = |name: &str| !name.is_empty() && name.len() <= MAX_NAME_BYTES;
        if caller == callee || !is_name(caller) || !is_name(callee) {
            return;
        }
        self.latest = self.latest.max(Some(at));
        if let Some(seen) = self.callees.get_mut(caller).and_then(|callees| callees.get_mut(callee)) {
            *seen = at.max(*seen);
        } else {
            if self.edges >= MAX_EDGES {
                self.make_room();
            }
            let (caller, callee): (Arc<str>, Arc<str>) = (caller.into(), callee.into());
            self.callers.entry(Arc::clone(&callee)).or_default().insert(Arc::clone(&caller));
            self.callees.entry(caller).or_default().insert(callee, at);
            self.edges += 1;
        }
        // A sweep visits every edge: once an hour of event time is enough, since questions look at the age themselves.
        let swept = *self.swept.get_or_insert(at);
        if at - swept >= TimeDelta::hours(1) {
            self.swept = Some(at);
            self.forget(at - FORGET_AFTER);
        }
    }

    /// How many calls away `to` is from `from`; none if it is out of reach.
    pub fn path(&self, from: &str, to: &str) -> Option<u8> {
        self.walk(from, Way::ToCallees).get(to).copied()
    }

    /// Number of known calls.
    pub fn edges(&self) -> usize {
        self.edges
    }

    pub(super) fn neighbours(&self, service: &str) -> Neighbours {
        let names = |way| self.walk(service, way).into_keys().map(Arc::<str>::from).collect();
        Neighbours { callees: names(Way::ToCallees), callers: names(Way::ToCallers) }
    }

    /// All services within reach, with their distance: breadth first, so that it is the shortest.
    fn walk<'a>(&'a self, from: &'a str, way: Way) -> BTreeMap<&'a str, u8> {
        let mut distances = BTreeMap::from([(from, 0)]);
        let mut queue = VecDeque::from([(from, 0)]);
        while let Some((service, hops)) = queue.pop_front().filter(|(_, hops)| *hops < MAX_HOPS) {
            for next in self.next(service, way) {
                if !distances.contains_key(next) {
                    distances.insert(next, hops + 1);
                    queue.push_back((next, hops + 1));
                }
            }
        }
        distances
    }

    fn next<'a>(&'a self, service: &'a str, way: Way) -> Box<dyn Iterator<Item = &'a str> + 'a> {
        match way {
            Way::ToCallees => {
                let callees = self.callees.get(service).into_iter().flatten();
                Box::new(callees.filter(|(_, seen)| self.is_fresh(**seen)).map(|(callee, _)| &**callee))
            }
            Way::ToCallers => {
                let callers = self.callers.get(service).into_iter().flatten();
                let seen = move |caller: &str| self.callees.get(caller)?.get(service).copied();
                let is_fresh = move |caller: &&Arc<str>| seen(caller).is_some_and(|seen| self.is_fresh(seen));
                Box::new(callers.filter(is_fresh).map(|caller| &**caller))
            }
        }
    }

    fn is_fresh(&self, seen: DateTime<Utc>) -> bool {
        self.latest.is_none_or(|latest| latest - seen < FORGET_AFTER)
    }

    /// Forgets the tenth that was seen longest ago: a tenth at a time, so that a flood of new names costs little for each.
    fn make_room(&mut self) {
        let mut times: Vec<DateTime<Utc>> = self.callees.values().flat_map(BTreeMap::values).copied().collect();
        times.sort_unstable();
        let Some(newest_to_go) = times.get(MAX_EDGES / 10).copied() else { return };
        self.forget(newest_to_go);
        if self.edges >= MAX_EDGES {
            // All were seen at one moment.
            self.forget(newest_to_go + TimeDelta::milliseconds(1));
        }
    }

    /// Forgets calls that were last seen before `horizon`.
    fn forget(&mut self, horizon: DateTime<Utc>) {
        let (callers, edges) = (&mut self.callers, &mut self.edges);
        self.callees.retain(|caller, callees| {
            callees.retain(|callee, seen| {
                let keep = *seen >= horizon;
                if !keep {
                    *edges -= 1;
                    if let Some(of_callee) = callers.get_mut(callee) {
                        of_callee.remove(caller);
                    }
                }
                keep
            });
            !callees.is_empty()
        });
        callers.retain(|_, of_callee| !of_callee.is_empty());
    }
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;

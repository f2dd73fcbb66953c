//! Two lists of alerts, compared: what is gone, what is new, what begins or ends at another time. Pure.

use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, Utc};

use super::Alert;

/// What other parameters change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Difference {
    /// Would not fire any more.
    pub gone: Vec<Alert>,
    /// Would fire besides.
    pub new: Vec<Alert>,
    /// Would begin or end at another time: before and after.
    pub moved: Vec<(Alert, Alert)>,
    /// Would fire and end as before.
    pub unchanged: usize,
}

/// An alert and one of the same series after the change are the same if they have one id, or fire at a common time. Both lists are in
/// the order in which alerts fire, and so is what is returned.
pub(super) fn difference(before: Vec<Alert>, after: Vec<Alert>) -> Difference {
    let mut difference = Difference::default();
    let mut after_by_id: BTreeMap<String, Alert> =
        after.into_iter().map(|alert| (alert.alert_id.clone(), alert)).collect();
    let mut others: BTreeMap<_, (VecDeque<Alert>, VecDeque<Alert>)> = BTreeMap::new();
    for old in before {
        match after_by_id.remove(&old.alert_id) {
            Some(new) if (new.fired, new.resolved) == (old.fired, old.resolved) => difference.unchanged += 1,
            Some(new) => difference.moved.push((old, new)),
            None => others.entry(old.series()).or_default().0.push_back(old),
        }
    }
    for new in after_by_id.into_values() {
        others.entry(new.series()).or_default().1.push_back(new);
    }
    for (mut old, mut new) in others.into_values() {
        new.make_contiguous().sort_by_key(|alert| alert.fired);
        pair(&mut old, &mut new, &mut difference);
    }
    difference.gone.sort_by_cached_key(place);
    difference.new.sort_by_cached_key(place);
    difference.moved.sort_by_cached_key(|(old, _)| place(old));
    difference
}

/// Alerts of one series never fire at the same time, so that the earlier one of two that do not meet meets no other.
fn pair(old: &mut VecDeque<Alert>, new: &mut VecDeque<Alert>, difference: &mut Difference) {
    loop {
        match (old.pop_front(), new.pop_front()) {
            (Some(was), Some(is)) if was.fired < end(&is) && is.fired < end(&was) => difference.moved.push((was, is)),
            (Some(was), Some(is)) if was.fired <= is.fired => {
                difference.gone.push(was);
                new.push_front(is);
            }
            (Some(was), Some(is)) => {
                difference.new.push(is);
                old.push_front(was);
            }
            (Some(was), None) => difference.gone.push(was),
            (None, Some(is)) => difference.new.push(is),
            (None, None) => return,
        }
    }
}

fn end(alert: &Alert) -> DateTime<Utc> {
    alert.resolved.unwrap_or(DateTime::<Utc>::MAX_UTC)
}

fn place(alert: &Alert) -> (DateTime<Utc>, (String, String)) {
    (alert.fired, alert.series())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Map;

    use super::*;
    use crate::results::time;

    const MINUTE_MS: i64 = 60_000;

    /// `key id fired-resolved`, in minutes, such as `a 1 3-5`; `a 1 3-` fires still.
    fn alert(text: &str) -> Alert {
        let mut words = text.split(' ');
        let (key, id) = (words.next().unwrap(), words.next().unwrap());
        let (fired, resolved) = words.next().unwrap().split_once('-').unwrap();
        let minute = |text: &str| time(text.parse::<i64>().unwrap() * MINUTE_MS);
        Alert {
            alert_id: format!("{key}{id}"),
            rule: "errors".to_owned(),
            severity: 3,
            service: None,
            key: Map::from_iter([("service".to_owned(), key.into())]),
            values: Map::new(),
            params: BTreeMap::new(),
            summary: String::new(),
            start: minute(fired),
            fired: minute(fired),
            resolved: (!resolved.is_empty()).then(|| minute(resolved)),
            peak: Map::new(),
        }
    }

    fn ids(alerts: &[Alert]) -> String {
        alerts.iter().map(|alert| alert.alert_id.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn alerts_are_gone_new_or_moved() {
        #[rustfmt::skip]
        let cases = [
            // name                              before               after                gone  new   moved    unchanged
            ("nothing changes",                  "a 1 3-5, b 1 4-",   "a 1 3-5, b 1 4-",   "",   "",   "",      2),
            ("gone",                             "a 1 3-5",           "",                  "a1", "",   "",      0),
            ("new",                              "",                  "a 1 3-5",           "",   "a1", "",      0),
            ("ends later",                       "a 1 3-5",           "a 1 3-7",           "",   "",   "a1 a1", 0),
            ("does not end",                     "a 1 3-5",           "a 1 3-",            "",   "",   "a1 a1", 0),
            ("begins earlier, under another id", "a 1 3-5",           "a 2 2-5",           "",   "",   "a1 a2", 0),
            ("at another time altogether",       "a 1 3-5",           "a 2 5-7",           "a1", "a2", "",      0),
            ("of another series",                "a 1 3-5",           "b 1 3-5",           "a1", "b1", "",      0),
            ("two become one",                   "a 1 3-5, a 2 6-8",  "a 3 2-9",           "a2", "",   "a1 a3", 0),
            ("one becomes two",                  "a 1 2-9",           "a 2 3-5, a 3 6-8",  "",   "a3", "a1 a2", 0),
            ("ids go before times",              "a 1 3-5, a 2 6-8",  "a 2 4-8",           "a1", "",   "a2 a2", 0),
        ];
        for (name, before, after, gone, new, moved, unchanged) in cases {
            let list = |texts: &str| texts.split(", ").filter(|text| !text.is_empty()).map(alert).collect::<Vec<_>>();
            let found = difference(list(before), list(after));
            let pairs: Vec<_> = found.moved.iter().map(|(old, new)| ids(&[old.clone(), new.clone()])).collect();
            let found = (ids(&found.gone), ids(&found.new), pairs.join(" "), found.unchanged);
            assert_eq!(found, (gone.to_owned(), new.to_owned(), moved.to_owned(), unchanged), "{name}");
        }
    }

    proptest! {
        /// Guarantees: every alert of both lists is accounted for once.
        #[test]
        fn no_alert_is_lost(
            before in prop::collection::vec((0u8..2, 1i64..5, 1i64..5), 0..8), after in prop::collection::vec((0u8..2, 1i64..5, 1i64..5), 0..8),
        ) {
            // Alerts of a series one after the other, named after the minute in which they fire.
            let list = |steps: &[(u8, i64, i64)]| {
                let mut ends = [0, 0];
                let mut one = |&(series, pause, length): &(u8, i64, i64)| {
                    let fired = ends[usize::from(series)] + pause;
                    ends[usize::from(series)] = fired + length;
                    alert(&format!("{} {fired} {fired}-{}", ["a", "b"][usize::from(series)], fired + length))
                };
                steps.iter().map(&mut one).collect::<Vec<_>>()
            };
            let (before, after) = (list(&before), list(&after));
            let found = difference(before.clone(), after.clone());
            prop_assert_eq!(found.gone.len() + found.moved.len() + found.unchanged, before.len());
            prop_assert_eq!(found.new.len() + found.moved.len() + found.unchanged, after.len());
            prop_assert_eq!(difference(before.clone(), before.clone()).unchanged, before.len());
        }
    }
}

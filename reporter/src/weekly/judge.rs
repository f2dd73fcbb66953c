//! From counts to a report: which kinds of exceptions are new, back, more frequent or gone. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bongsu_schemas::services::{FALLBACK, Services};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;

use super::counts::{Counts, GroupCounts};
use super::model::{Group, GroupState, ServiceReport, WeeklyReport};
use super::week::Week;

/// A kind that was silent for this long before it came back has regressed.
pub(crate) const REGRESSED_AFTER: TimeDelta = TimeDelta::days(14);

/// The report of `week` from `counts`. Configured services are in it even where nothing is known of them; `service` limits it to one.
pub(crate) fn judge(counts: Counts, week: Week, zone: Tz, services: &Services, service: Option<&str>) -> WeeklyReport {
    let (start, end) = (week.start(zone), week.end(zone));
    let previous = Previous::new(counts.known_since, week.previous().start(zone), start, end);
    let mut groups: BTreeMap<String, Vec<Group>> = BTreeMap::new();
    for group in counts.groups {
        let Some(state) = state(&group, &previous) else { continue };
        groups.entry(group.service.clone()).or_default().push(described(group, state));
    }
    let configured = services.0.keys().filter(|name| *name != FALLBACK);
    let names: BTreeSet<String> = configured.chain(counts.services.keys()).chain(groups.keys()).cloned().collect();
    let wanted = names.into_iter().filter(|name| service.is_none_or(|service| service == name));
    let report = |name: String| {
        let mut groups = groups.remove(&name).unwrap_or_default();
        groups.sort_by(|a, b| {
            let key = |group: &Group| (group.state, std::cmp::Reverse(group.count.max(group.previous_count)));
            key(a).cmp(&key(b)).then_with(|| a.fingerprint.cmp(&b.fingerprint))
        });
        let known = counts.services.get(&name).cloned().unwrap_or_default();
        ServiceReport {
            owner: services.owner_of(Some(&name)).map_or("nobody", |found| found.owner.display_name()).to_owned(),
            total: groups.iter().map(|group| group.count).sum(),
            previous_total: groups.iter().map(|group| group.previous_count).sum(),
            requests: known.requests,
            hours: u32::try_from((end - start).num_hours()).unwrap_or(168),
            days: known.days,
            groups,
            service: name,
        }
    };
    WeeklyReport { week, services: wanted.map(report).collect() }
}

/// How much of the week before history covers.
struct Previous {
    /// What the counts of the week before are multiplied by to be comparable; none where nothing of it is known.
    scale: Option<f64>,
}

impl Previous {
    fn new(
        known_since: Option<DateTime<Utc>>,
        from: DateTime<Utc>,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
    ) -> Previous {
        let known = start - known_since.unwrap_or(start).max(from);
        let scale = (end - start).num_seconds() as f64 / known.num_seconds() as f64;
        Previous { scale: (known > TimeDelta::zero()).then_some(scale) }
    }
}

/// The state of a group; none if it has nothing to do with this week.
fn state(group: &GroupCounts, previous: &Previous) -> Option<GroupState> {
    if group.count == 0 {
        return (group.previous_count > 0).then_some(GroupState::Gone);
    }
    let Some(last_before) = group.last_before else { return Some(GroupState::New) };
    if group.first_in_week.is_some_and(|first| first - last_before >= REGRESSED_AFTER) {
        return Some(GroupState::Regressed);
    }
    let escalates =
        previous.scale.is_some_and(|scale| escalates(group.count as f64, scale * group.previous_count as f64));
    Some(if escalates { GroupState::Escalating } else { GroupState::Ongoing })
}

/// At least twice as often, and by more than chance: counts of rare events vary by their square root, and three times that of the
/// difference happens to one group in a thousand.
fn escalates(count: f64, previous: f64) -> bool {
    count >= 2.0 * previous && count - previous >= 3.0 * (count + previous).sqrt()
}

fn described(group: GroupCounts, state: GroupState) -> Group {
    let GroupCounts {
        fingerprint,
        exception_type,
        message,
        first_frame,
        count,
        previous_count,
        first_seen,
        last_seen,
        ..
    } = group;
    Group { fingerprint, state, exception_type, message, first_frame, count, previous_count, first_seen, last_seen }
}

#[cfg(test)]
pub(crate) mod tests {
    use chrono_tz::Asia::Seoul;

    use super::*;
    use crate::weekly::counts::ServiceCounts;

    pub(crate) fn week() -> Week {
        "2026-W47".parse().unwrap()
    }

    /// `days_before` and `day_in` count from the start of the week.
    pub(crate) fn group(
        name: &str,
        count: u64,
        previous_count: u64,
        days_before: Option<i64>,
        day_in: Option<i64>,
    ) -> GroupCounts {
        let start = week().start(Seoul);
        let last_before = days_before.map(|days| start - TimeDelta::days(days));
        let first_in_week = day_in.map(|days| start + TimeDelta::days(days));
        GroupCounts {
            service: "order-api".to_owned(),
            fingerprint: name.to_owned(),
            exception_type: format!("shop.{name}Exception"),
            message: format!("{name} went wrong"),
            first_frame: Some(format!("shop.Orders.{name}(Orders.java)")),
            count,
            previous_count,
            last_before,
            first_in_week,
            first_seen: last_before.or(first_in_week).unwrap_or(start),
            last_seen: first_in_week.or(last_before).unwrap_or(start),
        }
    }

    /// Scenario: kinds of exceptions around each border between states.
    /// Guarantees: new, regressed after 14 days exactly, escalating only beyond chance, gone, and nothing older.
    #[test]
    fn states() {
        let start = week().start(Seoul);
        let previous =
            Previous::new(Some(start - TimeDelta::days(28)), week().previous().start(Seoul), start, week().end(Seoul));
        #[rustfmt::skip]
        let cases = [
            ("never seen before",        group("a", 1, 0, None, Some(0)),        Some(GroupState::New)),
            ("back after 14 days",       group("b", 5, 0, Some(14), Some(0)),    Some(GroupState::Regressed)),
            ("back after 13 days",       group("c", 5, 0, Some(13), Some(0)),    Some(GroupState::Ongoing)),
            ("8 + 6 days of silence",    group("d", 5, 0, Some(8), Some(6)),     Some(GroupState::Regressed)),
            ("twice, and many",          group("e", 200, 100, Some(1), Some(0)), Some(GroupState::Escalating)),
            ("twice, but few",           group("f", 4, 2, Some(1), Some(0)),     Some(GroupState::Ongoing)),
            ("many, but not twice",      group("g", 1900, 1000, Some(1), Some(0)), Some(GroupState::Ongoing)),
            ("silent this week",         group("h", 0, 3, Some(1), None),        Some(GroupState::Gone)),
            ("silent for two weeks",     group("i", 0, 0, Some(9), None),        None),
        ];
        for (name, group, expected) in cases {
            assert_eq!(state(&group, &previous), expected, "{name}");
        }
    }

    /// Scenario: history begins in the middle of the week before, so that half of its exceptions are unknown.
    /// Guarantees: the same rate is not called escalating.
    #[test]
    fn half_a_week_before_is_not_an_escalation() {
        let start = week().start(Seoul);
        let known_since = Some(start - TimeDelta::hours(84));
        let previous = Previous::new(known_since, week().previous().start(Seoul), start, week().end(Seoul));
        assert_eq!(state(&group("a", 200, 100, Some(1), Some(0)), &previous), Some(GroupState::Ongoing));
    }

    /// Scenario: two services, one of them configured but silent.
    /// Guarantees: totals are sums of groups, and the silent one is there.
    #[test]
    fn totals() {
        let groups =
            vec![group("a", 3, 0, None, Some(0)), group("b", 4, 5, Some(1), Some(0)), group("c", 0, 2, Some(1), None)];
        let known = ServiceCounts { days: [7, 0, 0, 0, 0, 0, 0], requests: Some(1_000) };
        let counts = Counts { groups, services: BTreeMap::from([("order-api".to_owned(), known)]), known_since: None };
        let services =
            Services(BTreeMap::from([("quiet".to_owned(), Default::default()), ("*".to_owned(), Default::default())]));
        let report = judge(counts.clone(), week(), Seoul, &services, None);
        let names: Vec<_> = report.services.iter().map(|service| service.service.as_str()).collect();
        assert_eq!(names, ["order-api", "quiet"]);
        let order = &report.services[0];
        assert_eq!((order.total, order.previous_total, order.rate_per_1000()), (7, 7, Some(7.0)));
        let states: Vec<_> = order.groups.iter().map(|group| group.state.name()).collect();
        assert_eq!(states, ["new", "ongoing", "gone"]);
        assert_eq!(judge(counts, week(), Seoul, &services, Some("quiet")).services.len(), 1);
    }
}

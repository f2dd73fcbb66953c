//! Event-time alignment: on a backlog no partition runs further ahead of the slowest one than `time.max_drift`.
//!
//! Without it a partition that is read faster would open windows that cannot close for a long time, and stage 2 would have to keep all of
//! them. After the watermark alignment of Apache Flink (FLIP-182). Pure.
//!
//! - A1: the slowest partition is never held up, so that there is always progress.

/// What alignment needs to know of a source partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Latest event time that was read, epoch milliseconds; none before the first event.
    pub(super) event_time_ms: Option<i64>,
    /// There is nothing to read at present: it is not what others would wait for.
    pub(super) at_end: bool,
}

/// The event time up to which partitions are read at present; none if nothing holds them up.
///
/// `merged_ms` is the event time up to which all partitions were read, those of other workers included, as far as it is known.
pub(super) fn limit(
    positions: impl IntoIterator<Item = Position>,
    merged_ms: Option<i64>,
    max_drift_ms: i64,
) -> Option<i64> {
    let waited_for = positions.into_iter().filter(|position| !position.at_end);
    let slowest_ms = waited_for.filter_map(|position| position.event_time_ms).min();
    let floor_ms = match (slowest_ms, merged_ms) {
        (Some(own_ms), Some(merged_ms)) => Some(own_ms.min(merged_ms)),
        (own_ms, merged_ms) => own_ms.or(merged_ms),
    };
    floor_ms.map(|floor_ms| floor_ms.saturating_add(max_drift_ms))
}

/// Whether a partition may be read on.
pub(super) fn may_read(position: Position, limit_ms: Option<i64>) -> bool {
    match (position.event_time_ms, limit_ms) {
        (Some(event_time_ms), Some(limit_ms)) => event_time_ms <= limit_ms,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_up_to(event_time_ms: i64) -> Position {
        Position { event_time_ms: Some(event_time_ms), at_end: false }
    }

    #[test]
    fn who_is_too_far_ahead_waits() {
        let at_end = |event_time_ms| Position { event_time_ms: Some(event_time_ms), at_end: true };
        let unread = Position { event_time_ms: None, at_end: false };
        #[rustfmt::skip]
        let cases = [
            // name                                   partitions                              merged      who is read on
            ("within the drift",                      vec![read_up_to(0), read_up_to(100)],   None,       vec![true, true]),
            ("one is too far ahead",                  vec![read_up_to(0), read_up_to(101)],   None,       vec![true, false]),
            ("the slow one has no backlog",           vec![at_end(0), read_up_to(101)],       None,       vec![true, true]),
            ("nothing was read of one yet",           vec![unread, read_up_to(101)],          None,       vec![true, true]),
            ("another worker is behind",              vec![read_up_to(500)],                  Some(399),  vec![false]),
            ("another worker is a little behind",     vec![read_up_to(500)],                  Some(400),  vec![true]),
            ("nothing is known",                      vec![unread],                           None,       vec![true]),
        ];
        for (name, positions, merged_ms, expected) in cases {
            let limit_ms = limit(positions.iter().copied(), merged_ms, 100);
            let read: Vec<_> = positions.iter().map(|position| may_read(*position, limit_ms)).collect();
            assert_eq!(read, expected, "{name}");
        }
    }

    proptest! {
        /// Scenario: the partitions of several workers; each knows the positions of its own and the least of all.
        /// Guarantees: A1.
        #[test]
        fn the_slowest_of_all_is_read_on(
            workers in prop::collection::vec(prop::collection::vec(-1_000_000i64..1_000_000, 1..8), 1..5), max_drift_ms in 0i64..1_000,
        ) {
            let least_ms = workers.iter().flatten().copied().min();
            let is_read = |own: &Vec<i64>| {
                let limit_ms = limit(own.iter().map(|time_ms| read_up_to(*time_ms)), least_ms, max_drift_ms);
                own.iter().any(|time_ms| Some(*time_ms) == least_ms && may_read(read_up_to(*time_ms), limit_ms))
            };
            prop_assert!(workers.iter().any(is_read));
        }
    }
}

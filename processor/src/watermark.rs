//! Event time's progress: pure, with the wall clock as an argument.
//!
//! Stage 1 keeps a [`PartitionClock`] for each source partition it reads and says in *markers* how far that partition is. Stage 2
//! merges the markers of all partitions into one watermark ([`Watermarks`]).
//!
//! - M1: the merged watermark is the minimum over the partitions that are not idle; a partition never heard of holds it at minus
//!   infinity.
//! - M2: a partition's watermark never falls, whatever a restarted worker says.
//! - M3: when all partitions are idle the watermark is the greatest of theirs, which move on at the speed of the clock.

use std::collections::BTreeMap;

/// A source topic and one of its partitions.
pub type SourcePartition = (String, i32);

/// How far a source partition is, as stage 1 saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// No event earlier than this is expected; none before the first event.
    pub watermark_ms: Option<i64>,
    /// Whether the partition is at its end and has been silent.
    pub idle: bool,
}

/// Event time of one source partition, in stage 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionClock {
    max_event_time_ms: Option<i64>,
    last_record_at_ms: i64,
    idle_since_ms: Option<i64>,
}

impl PartitionClock {
    /// A partition that was acquired at `now_ms` (wall clock).
    pub fn new(now_ms: i64) -> PartitionClock {
        PartitionClock { max_event_time_ms: None, last_record_at_ms: now_ms, idle_since_ms: None }
    }

    /// A record came; `event_time_ms` is the latest of its events, none if all were rejected.
    pub fn on_record(&mut self, event_time_ms: Option<i64>, now_ms: i64) {
        self.max_event_time_ms = self.max_event_time_ms.max(event_time_ms);
        self.last_record_at_ms = now_ms;
        self.idle_since_ms = None;
    }

    /// Whether the partition has been silent for `idle_timeout_ms`, so that it is worth asking whether it is at its end.
    pub fn is_silent(&self, now_ms: i64, idle_timeout_ms: i64) -> bool {
        self.idle_since_ms.is_none() && now_ms - self.last_record_at_ms >= idle_timeout_ms
    }

    /// The partition is silent and at its end.
    pub fn set_idle(&mut self, now_ms: i64) {
        self.idle_since_ms.get_or_insert(now_ms);
    }

    /// What to tell stage 2.
    pub fn mark(&self, max_disorder_ms: i64, now_ms: i64) -> Mark {
        let idle_for_ms = self.idle_since_ms.map_or(0, |since_ms| now_ms - since_ms);
        Mark {
            watermark_ms: self.max_event_time_ms.map(|time_ms| time_ms - max_disorder_ms + idle_for_ms),
            idle: self.idle_since_ms.is_some(),
        }
    }
}

/// Event time of all source partitions, in stage 2.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// How many partitions each source topic is known to have.
    partition_counts: BTreeMap<String, i32>,
    partitions: BTreeMap<SourcePartition, PartitionWatermark>,
}

/// What stage 2 remembers of a source partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartitionWatermark {
    /// The greatest watermark while it was active.
    pub active_ms: Option<i64>,
    /// Its watermark while it is idle; none while it is active.
    pub idle_ms: Option<Option<i64>>,
}

impl Watermarks {
    /// A marker says how many partitions a topic has; the number never shrinks.
    pub fn know_topic(&mut self, topic: &str, partitions: i32) {
        let known = self.partition_counts.entry(topic.to_owned()).or_default();
        *known = partitions.max(*known);
    }

    /// A marker says how far a partition is.
    pub fn advance(&mut self, partition: SourcePartition, mark: Mark) {
        let known = self.partitions.entry(partition).or_default();
        if mark.idle {
            known.idle_ms = Some(mark.watermark_ms);
        } else {
            known.idle_ms = None;
            known.active_ms = known.active_ms.max(mark.watermark_ms);
        }
    }

    /// The watermark over all partitions (M1, M3); none while some partition holds it back entirely.
    pub fn merged_ms(&self) -> Option<i64> {
        let expected: i32 = self.partition_counts.values().sum();
        if expected == 0 || (self.partitions.len() as i64) < i64::from(expected) {
            return None;
        }
        let mut active = self.partitions.values().filter(|partition| partition.idle_ms.is_none()).peekable();
        if active.peek().is_none() {
            return self
                .partitions
                .values()
                .filter_map(|partition| partition.idle_ms.flatten().max(partition.active_ms))
                .max();
        }
        // `None` is less than any time, so a partition without one holds all back.
        active.map(|partition| partition.active_ms).min().flatten()
    }

    /// Topics with their number of partitions.
    pub fn topics(&self) -> impl Iterator<Item = (&str, i32)> {
        self.partition_counts.iter().map(|(topic, count)| (topic.as_str(), *count))
    }

    /// What is known of a partition.
    pub fn partition(&self, partition: &SourcePartition) -> Option<PartitionWatermark> {
        self.partitions.get(partition).copied()
    }

    /// Puts back what [`Watermarks::partition`] gave.
    pub fn restore(&mut self, partition: SourcePartition, watermark: PartitionWatermark) {
        self.partitions.insert(partition, watermark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active(watermark_ms: i64) -> Mark {
        Mark { watermark_ms: Some(watermark_ms), idle: false }
    }

    /// Guarantees: M1, M2 and M3.
    #[test]
    fn the_slowest_active_partition_decides() {
        let mut watermarks = Watermarks::default();
        let partition = |number| ("t".to_owned(), number);
        assert_eq!(watermarks.merged_ms(), None, "nothing is known");
        watermarks.know_topic("t", 2);
        watermarks.advance(partition(0), active(100));
        assert_eq!(watermarks.merged_ms(), None, "partition 1 was never heard of");
        watermarks.advance(partition(1), active(50));
        assert_eq!(watermarks.merged_ms(), Some(50));
        watermarks.advance(partition(1), active(20));
        assert_eq!(watermarks.merged_ms(), Some(50), "a worker that restarted has forgotten");
        watermarks.advance(partition(1), Mark { watermark_ms: Some(60), idle: true });
        assert_eq!(watermarks.merged_ms(), Some(100), "an idle partition holds nothing back");
        watermarks.advance(partition(0), Mark { watermark_ms: Some(170), idle: true });
        assert_eq!(watermarks.merged_ms(), Some(170), "all idle: the clock");
        watermarks.advance(partition(1), active(90));
        assert_eq!(watermarks.merged_ms(), Some(90));
        watermarks.know_topic("t", 3);
        assert_eq!(watermarks.merged_ms(), None, "a new partition");
        watermarks.advance(partition(2), Mark { watermark_ms: None, idle: true });
        assert_eq!(watermarks.merged_ms(), Some(90), "an empty partition is idle");
    }

    #[test]
    fn an_idle_partition_moves_on_with_the_clock_until_a_record_comes() {
        let mut clock = PartitionClock::new(0);
        assert_eq!(clock.mark(5, 0), Mark { watermark_ms: None, idle: false });
        clock.on_record(Some(1_000), 10);
        clock.on_record(Some(900), 20);
        clock.on_record(None, 30);
        assert_eq!(clock.mark(5, 30), active(995));
        assert!(!clock.is_silent(39, 10));
        assert!(clock.is_silent(40, 10));
        clock.set_idle(40);
        clock.set_idle(45);
        assert_eq!(clock.mark(5, 100), Mark { watermark_ms: Some(1_055), idle: true });
        clock.on_record(Some(1_010), 110);
        assert_eq!(clock.mark(5, 110), active(1_005));
    }
}

//! Event time's progress: pure, with the wall clock as an argument.
//!
//! Stage 1 keeps a [`PartitionClock`] for each source partition it reads and says in *markers* how far that partition is. Stage 2
//! merges the markers of all partitions into one watermark ([`Watermarks`]).
//!
//! - M1: the merged watermark is the minimum over the partitions that are not idle; a partition never heard of holds it at minus
//!   infinity.
//! - M2: a partition's watermark never falls, whatever a restarted worker says.
//! - M3: when all partitions are idle the watermark is the greatest of theirs, each as many milliseconds further as the partition has
//!   been idle; what a partition's last event was, stage 2 remembers even if the worker has forgotten.

use std::collections::BTreeMap;

/// A source topic and one of its partitions.
pub type SourcePartition = (String, i32);

/// How far a source partition is, as stage 1 saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// No event earlier than this is expected; none if the worker has seen no event yet.
    pub watermark_ms: Option<i64>,
    /// How long the partition has been silent at its end; none while it is active.
    pub idle_for_ms: Option<i64>,
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

    /// A record came; `event_time_ms` is the latest of its events. A record without any event that could be used says nothing of
    /// event time and does not make the partition active: a topic of nothing but garbage must not hold all others back.
    pub fn on_record(&mut self, event_time_ms: Option<i64>, now_ms: i64) {
        if event_time_ms.is_none() {
            return;
        }
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

    /// Whether it is idle.
    pub fn is_idle(&self) -> bool {
        self.idle_since_ms.is_some()
    }

    /// The latest event time; none before the first event.
    pub fn max_event_time_ms(&self) -> Option<i64> {
        self.max_event_time_ms
    }

    /// What to tell stage 2.
    pub fn mark(&self, max_disorder_ms: i64, now_ms: i64) -> Mark {
        Mark {
            watermark_ms: self.max_event_time_ms.map(|time_ms| time_ms - max_disorder_ms),
            idle_for_ms: self.idle_since_ms.map(|since_ms| now_ms - since_ms),
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
    /// The greatest watermark of its events.
    pub active_ms: Option<i64>,
    /// How long it has been idle; none while it is active.
    pub idle_for_ms: Option<i64>,
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
        known.active_ms = known.active_ms.max(mark.watermark_ms);
        known.idle_for_ms = mark.idle_for_ms;
    }

    /// Lets go of topics that are not sources any more; they would hold the watermark back for ever.
    pub fn retain_topics(&mut self, is_source: impl Fn(&str) -> bool) {
        self.partition_counts.retain(|topic, _| is_source(topic));
        self.partitions.retain(|(topic, _), _| is_source(topic));
    }

    /// The watermark over all partitions (M1, M3); none while some partition holds it back entirely.
    pub fn merged_ms(&self) -> Option<i64> {
        let mut partitions = Vec::new();
        for (topic, count) in &self.partition_counts {
            for number in 0..*count {
                partitions.push(self.partitions.get(&(topic.clone(), number))?);
            }
        }
        let mut active = partitions.iter().filter(|partition| partition.idle_for_ms.is_none()).peekable();
        if active.peek().is_none() {
            let moved_on = |partition: &&PartitionWatermark| Some(partition.active_ms? + partition.idle_for_ms?);
            return partitions.iter().copied().filter_map(|partition| moved_on(&partition)).max();
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
        Mark { watermark_ms: Some(watermark_ms), idle_for_ms: None }
    }

    fn idle(watermark_ms: Option<i64>, idle_for_ms: i64) -> Mark {
        Mark { watermark_ms, idle_for_ms: Some(idle_for_ms) }
    }

    fn partition(number: i32) -> SourcePartition {
        ("t".to_owned(), number)
    }

    /// Guarantees: M1, M2 and M3.
    #[test]
    fn the_slowest_active_partition_decides() {
        let mut watermarks = Watermarks::default();
        assert_eq!(watermarks.merged_ms(), None, "nothing is known");
        watermarks.know_topic("t", 2);
        watermarks.advance(partition(0), active(100));
        assert_eq!(watermarks.merged_ms(), None, "partition 1 was never heard of");
        watermarks.advance(partition(1), active(50));
        assert_eq!(watermarks.merged_ms(), Some(50));
        watermarks.advance(partition(1), active(20));
        assert_eq!(watermarks.merged_ms(), Some(50), "a worker that restarted has forgotten");
        watermarks.advance(partition(1), idle(Some(60), 5));
        assert_eq!(watermarks.merged_ms(), Some(100), "an idle partition holds nothing back");
        watermarks.advance(partition(0), idle(Some(110), 60));
        assert_eq!(watermarks.merged_ms(), Some(170), "all idle: the clock");
        watermarks.advance(partition(1), active(90));
        assert_eq!(watermarks.merged_ms(), Some(90));
        watermarks.know_topic("t", 3);
        assert_eq!(watermarks.merged_ms(), None, "a new partition");
        watermarks.advance(partition(2), idle(None, 1));
        assert_eq!(watermarks.merged_ms(), Some(90), "an empty partition is idle");
    }

    /// Scenario: a worker restarts on partitions that are at their end, and has seen no event itself.
    /// Guarantees: M3; the last windows close all the same.
    #[test]
    fn a_restarted_worker_lets_time_go_on() {
        let mut watermarks = Watermarks::default();
        watermarks.know_topic("t", 1);
        watermarks.advance(partition(0), active(1_000));
        watermarks.advance(partition(0), idle(None, 500));
        assert_eq!(watermarks.merged_ms(), Some(1_500));
    }

    /// Scenario: more marks of one topic than another topic lacks; and a topic that is not a source any more.
    /// Guarantees: M1, by topic.
    #[test]
    fn each_topic_counts_for_itself() {
        let mut watermarks = Watermarks::default();
        watermarks.know_topic("u", 2);
        watermarks.advance(partition(0), active(100));
        watermarks.advance(partition(1), active(100));
        assert_eq!(watermarks.merged_ms(), None, "nothing was heard of u");
        watermarks.know_topic("t", 2);
        watermarks.retain_topics(|topic| topic == "t");
        assert_eq!(watermarks.merged_ms(), Some(100));
    }

    #[test]
    fn a_partition_is_idle_until_an_event_comes() {
        let mut clock = PartitionClock::new(0);
        assert_eq!(clock.mark(5, 0), Mark { watermark_ms: None, idle_for_ms: None });
        clock.on_record(Some(1_000), 10);
        clock.on_record(Some(900), 20);
        assert_eq!(clock.mark(5, 30), active(995));
        assert!(!clock.is_silent(29, 10));
        clock.on_record(None, 30);
        assert!(clock.is_silent(30, 10), "a record of nothing but rejects");
        clock.set_idle(40);
        clock.set_idle(45);
        assert_eq!(clock.mark(5, 100), idle(Some(995), 60));
        clock.on_record(Some(1_010), 110);
        assert_eq!(clock.mark(5, 110), active(1_005));
    }
}

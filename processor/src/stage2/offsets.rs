//! [`Progress`] as the metadata of a committed offset, which brokers limit to 4 KB.
//!
//! JSON: `{"v":1,"to":processed_to,"closed":closed_ms,"topics":{"t":[mark, ...]}}` with one mark for each partition of the topic,
//! `[active_ms]`, `[active_ms, idle_for_ms]` while idle, or null for one not heard of. Where that is too long, the marks are left out
//! and closing waits for each partition's next marker.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::state::Progress;
use crate::watermark::{PartitionWatermark, Watermarks};

/// Kafka's default for `offset.metadata.max.bytes`.
const MAX_METADATA_BYTES: usize = 4096;

/// Version of the metadata; another one is refused.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Metadata {
    v: u32,
    to: i64,
    closed: i64,
    topics: BTreeMap<String, Marks>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Marks {
    /// By partition.
    Known(Vec<Option<Vec<Option<i64>>>>),
    /// Only the number of partitions.
    LeftOut(i32),
}

/// The metadata that goes with `progress.low_water_offset`.
pub(crate) fn encode(progress: &Progress) -> anyhow::Result<String> {
    let text = serde_json::to_string(&metadata(progress, true))?;
    if text.len() <= MAX_METADATA_BYTES {
        return Ok(text);
    }
    Ok(serde_json::to_string(&metadata(progress, false))?)
}

fn metadata(progress: &Progress, with_marks: bool) -> Metadata {
    let marks = |topic: &str, count: i32| {
        let mark = |partition| {
            let mark = progress.watermarks.partition(&(topic.to_owned(), partition))?;
            Some(match mark.idle_for_ms {
                None => vec![mark.active_ms],
                idle_for_ms => vec![mark.active_ms, idle_for_ms],
            })
        };
        if with_marks { Marks::Known((0..count).map(mark).collect()) } else { Marks::LeftOut(count) }
    };
    let topics = progress.watermarks.topics().map(|(topic, count)| (topic.to_owned(), marks(topic, count)));
    Metadata { v: VERSION, to: progress.processed_to, closed: progress.closed_ms, topics: topics.collect() }
}

/// What was committed: the offset and its metadata.
pub(crate) fn decode(low_water_offset: i64, metadata: &str) -> anyhow::Result<Progress> {
    let metadata: Metadata =
        serde_json::from_str(metadata).context("the metadata of a committed offset is not ours")?;
    ensure!(
        metadata.v == VERSION,
        "a committed offset has version {} of the metadata, this program knows {VERSION}",
        metadata.v
    );
    let mut watermarks = Watermarks::default();
    for (topic, marks) in metadata.topics {
        let marks = match marks {
            Marks::LeftOut(count) => {
                watermarks.know_topic(&topic, count);
                continue;
            }
            Marks::Known(marks) => marks,
        };
        watermarks.know_topic(&topic, i32::try_from(marks.len()).unwrap_or(i32::MAX));
        for (partition, mark) in (0..).zip(marks) {
            if let Some(mark) = mark {
                let watermark = PartitionWatermark {
                    active_ms: mark.first().copied().flatten(),
                    idle_for_ms: mark.get(1).copied().flatten(),
                };
                watermarks.restore((topic.clone(), partition), watermark);
            }
        }
    }
    Ok(Progress { low_water_offset, processed_to: metadata.to, closed_ms: metadata.closed, watermarks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watermark::Mark;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_committed_is_restored(
            marks in prop::collection::vec((0..5i32, any::<Option<i32>>(), any::<Option<u16>>()), 0..30), to in 0i64..1000, closed in any::<i32>(),
        ) {
            let mut watermarks = Watermarks::default();
            watermarks.know_topic("orders", 5);
            for (partition, watermark_ms, idle_for_ms) in marks {
                watermarks.advance(("orders".to_owned(), partition), Mark { watermark_ms: watermark_ms.map(i64::from), idle_for_ms: idle_for_ms.map(i64::from) });
            }
            let progress = Progress { low_water_offset: 7, processed_to: to, closed_ms: i64::from(closed), watermarks };
            prop_assert_eq!(decode(7, &encode(&progress).unwrap()).unwrap(), progress);
        }
    }

    #[test]
    fn too_many_partitions_are_left_out() {
        let mut watermarks = Watermarks::default();
        watermarks.know_topic("t", 1_000);
        for partition in 0..1_000 {
            watermarks.advance(
                ("t".to_owned(), partition),
                Mark { watermark_ms: Some(1_700_000_000_000), idle_for_ms: None },
            );
        }
        let progress = Progress { low_water_offset: 0, processed_to: 1, closed_ms: 2, watermarks };
        let text = encode(&progress).unwrap();
        assert!(text.len() <= MAX_METADATA_BYTES);
        let restored = decode(0, &text).unwrap();
        assert_eq!(restored.watermarks.merged_ms(), None, "closing waits for every partition's next marker");
        assert_eq!(restored.watermarks.topics().next(), Some(("t", 1_000)));
    }
}

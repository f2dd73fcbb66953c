//! What an installation costs, as formulas. `docs/scaling.md` says the same in words; `simulation.rs` counts.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use bongsu_processor::plan::ViewPlan;
use bongsu_processor::sketch;

use crate::workload::{Names, duration_ms};

// Constants of the program that are private to it.
/// `stage1/source.rs`: what ends an epoch.
pub(crate) const EPOCH_ROWS: usize = 100_000;
const EPOCH_BYTES: f64 = 64.0 * 1024.0 * 1024.0;
const EPOCH_WAIT_SECS: f64 = 0.25;
/// `partials.rs`: about how large a record of rows may become.
pub(crate) const RECORD_BYTES: usize = 512 * 1024;
/// `stage2/partition.rs`: so many batches of a pane are merged if they have as many rows as what was merged before ...
pub(crate) const MERGE_FROM: usize = 64;
/// ... and so many in any case.
pub(crate) const MERGE_AT: usize = 512;
/// `stage2/offsets.rs`: Kafka's limit of what goes with a committed offset.
pub(crate) const METADATA_BYTES: usize = 4096;

/// The view's window, and the defaults of `time.max_disorder`, `time.allowed_lateness` and `time.max_drift`.
pub(crate) const PANE_SECS: f64 = 60.0;
pub(crate) const DISORDER_SECS: f64 = 5.0;
pub(crate) const LATENESS_SECS: f64 = 30.0;
pub(crate) const DRIFT_SECS: f64 = 300.0;

/// The one source topic.
pub(crate) const TOPIC: &str = "shop.requests";
/// Bytes of an event in it.
const EVENT_BYTES: f64 = 215.0;

/// What an operator chooses, and what comes in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Installation {
    pub(crate) events_per_sec: u32,
    pub(crate) workers: u32,
    pub(crate) services: u32,
    pub(crate) routes: u32,
    pub(crate) source_partitions: u32,
    pub(crate) partials_partitions: u32,
    pub(crate) panes_partitions: u32,
    /// Views of the same kind over the same groups.
    pub(crate) views: u32,
    /// How long an epoch may take: a constant of the program, here to say what another would cost.
    pub(crate) epoch_wait_secs: f64,
}

impl Installation {
    /// 20,000 events a second of 4,000 groups, as in `benches/kafka`.
    pub(crate) const ORDINARY: Installation = Installation {
        events_per_sec: 20_000,
        workers: 2,
        services: 200,
        routes: 20,
        source_partitions: 4,
        partials_partitions: 4,
        panes_partitions: 4,
        views: 1,
        epoch_wait_secs: EPOCH_WAIT_SECS,
    };

    /// A million events a second of a million groups.
    pub(crate) const LARGE: Installation = Installation {
        events_per_sec: 1_000_000,
        workers: 64,
        services: 1_000,
        routes: 1_000,
        source_partitions: 256,
        partials_partitions: 64,
        panes_partitions: 4,
        views: 1,
        epoch_wait_secs: EPOCH_WAIT_SECS,
    };

    pub(crate) fn groups(&self) -> usize {
        self.services as usize * self.routes as usize
    }

    pub(crate) fn events_per_sec_and_worker(&self) -> f64 {
        f64::from(self.events_per_sec) / f64::from(self.workers)
    }

    /// Length of an epoch. The time that its commit takes comes on top, so that this is a lower bound.
    pub(crate) fn epoch_secs(&self) -> f64 {
        let events_per_sec = self.events_per_sec_and_worker();
        let full_secs = (EPOCH_ROWS as f64).min(EPOCH_BYTES / EVENT_BYTES) / events_per_sec;
        self.epoch_wait_secs.min(full_secs)
    }

    /// Of all workers; each is one transaction.
    pub(crate) fn epochs_per_sec(&self) -> f64 {
        f64::from(self.workers) / self.epoch_secs()
    }

    pub(crate) fn events_in_epoch(&self) -> f64 {
        self.events_per_sec_and_worker() * self.epoch_secs()
    }

    /// The braces and the topic's size take about as much as one mark.
    pub(crate) fn marker_bytes(&self) -> f64 {
        const BYTES_BESIDE_TOPIC: usize = 27;
        let marks = f64::from(self.source_partitions) / f64::from(self.workers);
        (marks + 1.0) * (TOPIC.len() + BYTES_BESIDE_TOPIC) as f64
    }
}

/// `1 + 1/2 + ... + 1/groups`.
pub(crate) fn harmonic(groups: usize) -> f64 {
    (1..=groups).map(|rank| 1.0 / rank as f64).sum()
}

/// Groups, each with its share of all events.
pub(crate) struct Popularity {
    classes: Vec<Class>,
}

/// Groups that are about equally popular, so that a sum over a million groups has few terms.
struct Class {
    share: f64,
    groups: f64,
}

impl Popularity {
    /// Zipf's law with exponent 1.
    pub(crate) fn zipf(groups: usize) -> Popularity {
        const EXACT: usize = 1_000;
        let total = harmonic(groups);
        let (mut classes, mut rank) = (Vec::new(), 1);
        while rank <= groups {
            // In a class shares differ by half a percent at most.
            let width = if rank <= EXACT { 1 } else { (rank / 200).min(groups - rank + 1) };
            let weight: f64 = (rank..rank + width).map(|rank| 1.0 / rank as f64).sum();
            classes.push(Class { share: weight / total / width as f64, groups: width as f64 });
            rank += width;
        }
        Popularity { classes }
    }

    /// Some groups, by their shares.
    pub(crate) fn of(shares: impl Iterator<Item = f64>) -> Popularity {
        Popularity { classes: shares.map(|share| Class { share, groups: 1.0 }).collect() }
    }

    /// The average partition: of every class the same part.
    pub(crate) fn part(&self, parts: u32) -> Popularity {
        let part = |class: &Class| Class { share: class.share, groups: class.groups / f64::from(parts) };
        Popularity { classes: self.classes.iter().map(part).collect() }
    }

    /// How many different groups `events` events of all groups are expected to name: `D(n)` of the page.
    pub(crate) fn distinct(&self, events: f64) -> f64 {
        self.sum(|share| distinct_of_one(share, events))
    }

    /// The same for (pane, group) in an epoch. For as long as disorder reaches back into the pane before, an epoch has
    /// events of both, in a proportion that moves from one to the other: the mean over that time, by Simpson's rule.
    fn distinct_in_epoch(&self, events: f64) -> f64 {
        let both = (DISORDER_SECS / PANE_SECS).min(1.0);
        let part = |fraction: f64| self.distinct(events * fraction);
        let mean_of_one = (4.0 * part(0.25) + 2.0 * part(0.5) + 4.0 * part(0.75) + part(1.0)) / 12.0;
        (1.0 - both) * part(1.0) + both * 2.0 * mean_of_one
    }

    /// How many pairs of a group and a bucket of its sketch `events` events are expected to fill.
    fn filled_buckets(&self, events: f64, buckets: &Buckets) -> f64 {
        self.sum(|share| buckets.distinct(events * share))
    }

    fn sum(&self, of_group: impl Fn(f64) -> f64) -> f64 {
        self.classes.iter().map(|class| class.groups * of_group(class.share)).sum()
    }
}

/// The probability that at least one of `events` events is of a group with this share: `1 - (1 - share)^events`.
pub(crate) fn distinct_of_one(share: f64, events: f64) -> f64 {
    -(events * (-share).ln_1p()).exp_m1()
}

/// The buckets of a sketch by their shares of the durations.
pub(crate) struct Buckets {
    shares: Vec<f64>,
}

impl Buckets {
    pub(crate) fn new() -> Buckets {
        const STEPS: u32 = 20_000;
        let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
        for step in 0..STEPS {
            let duration_ms = duration_ms((f64::from(step) + 0.5) / f64::from(STEPS));
            *counts.entry(sketch::bucket(duration_ms).unwrap()).or_default() += 1;
        }
        Buckets { shares: counts.into_values().map(|count| f64::from(count) / f64::from(STEPS)).collect() }
    }

    fn distinct(&self, values: f64) -> f64 {
        self.shares.iter().map(|share| -(-values * share).exp_m1()).sum()
    }
}

/// What rows of partials take as an Arrow IPC message; in memory they take about the same.
pub(crate) struct RowSize {
    /// The places of the buffers, and what is missing behind each: the same in every record of the view.
    pub(crate) frame_bytes: f64,
    /// Without the buckets of sketches.
    bytes_per_row: f64,
}

impl RowSize {
    /// `one_row` is a record of one row.
    pub(crate) fn new(view: &ViewPlan, names: &Names, one_row: &[u8]) -> RowSize {
        // `partials.rs`: every buffer is padded to a multiple of this.
        const ALIGNMENT_BYTES: usize = 16;
        // Most buffers are multiples of 8 bytes: 0 or 8 are missing to the next 16.
        const PADDING_BYTES: f64 = 4.0;
        // A view of a text that is no longer than this holds it; others are in a buffer of their own.
        const INLINE_BYTES: usize = 12;
        let mut texts = [&names.services[0], &names.routes[0]].into_iter();
        // Bytes of a row in each.
        let mut buffers: Vec<usize> = Vec::new();
        for field in view.partial_schema.fields() {
            match field.data_type() {
                DataType::Utf8View => match texts.next().unwrap().len() {
                    0..=INLINE_BYTES => buffers.push(16),
                    bytes => buffers.extend([16, bytes]),
                },
                // Where a sketch ends; and its first bucket takes four bytes more than others.
                DataType::Binary => buffers.extend([4, 4]),
                fixed => buffers.push(fixed.primitive_width().unwrap()),
            }
        }
        // Of one row there are two offsets, and a sketch of six bytes: the padding has room for both.
        let padded: usize = buffers.iter().map(|bytes| bytes.next_multiple_of(ALIGNMENT_BYTES)).sum();
        RowSize {
            frame_bytes: (one_row.len() - padded) as f64 + PADDING_BYTES * buffers.len() as f64,
            bytes_per_row: buffers.iter().sum::<usize>() as f64,
        }
    }

    /// Each bucket of a sketch takes two bytes, for distance and count.
    fn content_bytes(&self, rows: f64, filled_buckets: f64) -> f64 {
        rows * self.bytes_per_row + 2.0 * filled_buckets
    }
}

/// Stage 1 and the topic.
pub(crate) struct Model<'a> {
    pub(crate) installation: Installation,
    pub(crate) popularity: Popularity,
    pub(crate) buckets: &'a Buckets,
    pub(crate) row: &'a RowSize,
}

impl<'a> Model<'a> {
    pub(crate) fn new(installation: Installation, buckets: &'a Buckets, row: &'a RowSize) -> Model<'a> {
        Model { installation, popularity: Popularity::zipf(installation.groups()), buckets, row }
    }

    pub(crate) fn rows_in_epoch(&self) -> f64 {
        self.views() * self.popularity.distinct_in_epoch(self.installation.events_in_epoch())
    }

    /// One for each view and partition, unless there is no row for it; as many as its bytes need where it would be too
    /// large.
    pub(crate) fn records_in_epoch(&self) -> f64 {
        let partitions = f64::from(self.installation.partials_partitions);
        let rows = self.rows_in_epoch() / self.views() / partitions;
        let bytes = self.content_bytes_in_epoch() / self.views() / partitions;
        self.views() * partitions * (1.0 - (-rows).exp()) * (bytes / RECORD_BYTES as f64).ceil().max(1.0)
    }

    /// Of the records of rows.
    pub(crate) fn bytes_in_epoch(&self) -> f64 {
        self.records_in_epoch() * self.row.frame_bytes + self.content_bytes_in_epoch()
    }

    fn content_bytes_in_epoch(&self) -> f64 {
        let events = self.installation.events_in_epoch();
        let filled_buckets = self.views() * self.popularity.filled_buckets(events, self.buckets);
        self.row.content_bytes(self.rows_in_epoch(), filled_buckets)
    }

    pub(crate) fn rows_per_sec(&self) -> f64 {
        self.rows_in_epoch() * self.installation.epochs_per_sec()
    }

    pub(crate) fn records_per_sec(&self) -> f64 {
        self.records_in_epoch() * self.installation.epochs_per_sec()
    }

    pub(crate) fn markers_per_sec(&self) -> f64 {
        f64::from(self.installation.partials_partitions) * self.installation.epochs_per_sec()
    }

    /// In the panes: every partition of the partials tells every partition of the panes once a second how far it is.
    pub(crate) fn markers_of_panes_per_sec(&self) -> f64 {
        f64::from(self.installation.partials_partitions) * f64::from(self.installation.panes_partitions)
    }

    /// Values of the partials topic, as they are before lz4.
    pub(crate) fn bytes_per_sec(&self) -> f64 {
        let rows = self.bytes_in_epoch() * self.installation.epochs_per_sec();
        rows + self.installation.marker_bytes() * self.markers_per_sec()
    }

    /// Groups that have an event in a window.
    pub(crate) fn windows_per_pane(&self) -> f64 {
        self.views() * self.popularity.distinct(f64::from(self.installation.events_per_sec) * PANE_SECS)
    }

    fn views(&self) -> f64 {
        f64::from(self.installation.views)
    }
}

/// How the batches of a pane become one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Merging {
    /// What was merged before included.
    pub(crate) rows_read: f64,
    /// Records beside what is merged, at most.
    pub(crate) most_waiting: f64,
}

/// Stage 2: one partition of the partials.
pub(crate) struct PartitionModel<'a> {
    pub(crate) model: &'a Model<'a>,
    /// Of the partition's groups; shares are still of all events.
    pub(crate) popularity: Popularity,
}

impl PartitionModel<'_> {
    /// Of one view, as everything here but memory and what is read again; away from the beginning of a pane.
    pub(crate) fn rows_per_sec(&self) -> f64 {
        self.rows_in_epoch() * self.model.installation.epochs_per_sec()
    }

    pub(crate) fn records_per_sec(&self) -> f64 {
        (1.0 - (-self.rows_in_epoch()).exp()) * self.model.installation.epochs_per_sec()
    }

    /// Every worker's every marker.
    pub(crate) fn markers_per_sec(&self) -> f64 {
        self.model.installation.epochs_per_sec()
    }

    fn rows_in_epoch(&self) -> f64 {
        self.popularity.distinct(self.model.installation.events_in_epoch())
    }

    fn rows_in_record(&self) -> f64 {
        self.rows_per_sec() / self.records_per_sec()
    }

    /// Groups of a pane that is filling for `secs`.
    pub(crate) fn groups_after(&self, secs: f64) -> f64 {
        self.popularity.distinct(f64::from(self.model.installation.events_per_sec) * secs)
    }

    /// Merging of a pane in its first `secs`, merge by merge: each reads what the last one made and all batches since.
    /// Their numbers are few, so that a `secs` close to a merge would give one more, or less, than there are.
    pub(crate) fn merging_in(&self, secs: f64) -> Merging {
        let (records_per_sec, rows_in_record) = (self.records_per_sec(), self.rows_in_record());
        let mut merging = Merging { rows_read: 0.0, most_waiting: 0.0 };
        // The first batch is what the others are merged with.
        let (mut merged_rows, mut batches) = (rows_in_record, 1.0);
        loop {
            let as_many_rows = (merged_rows / rows_in_record).ceil();
            let waiting = as_many_rows.clamp((MERGE_FROM - 1) as f64, (MERGE_AT - 1) as f64);
            let there_are = (secs * records_per_sec - batches).max(0.0);
            merging.most_waiting = merging.most_waiting.max(waiting.min(there_are));
            if waiting > there_are {
                return merging;
            }
            merging.rows_read += merged_rows + waiting * rows_in_record;
            batches += waiting;
            merged_rows = self.groups_after(batches / records_per_sec);
        }
    }

    /// A pane after `secs`, merged.
    pub(crate) fn pane_bytes_after(&self, secs: f64) -> f64 {
        let events = f64::from(self.model.installation.events_per_sec) * secs;
        let filled_buckets = self.popularity.filled_buckets(events, self.model.buckets);
        self.model.row.content_bytes(self.groups_after(secs), filled_buckets)
    }

    /// Panes of all views, all of them full, each with as much beside the merged rows as there may be.
    pub(crate) fn memory_bytes(&self) -> f64 {
        let waiting_bytes = self.merging_in(PANE_SECS).most_waiting * self.record_bytes();
        self.model.views() * open_panes() * (self.pane_bytes_after(PANE_SECS) + waiting_bytes)
    }

    fn record_bytes(&self) -> f64 {
        let events = self.model.installation.events_in_epoch();
        let records = self.records_per_sec() / self.model.installation.epochs_per_sec();
        let filled_buckets = self.popularity.filled_buckets(events, self.model.buckets) / records;
        self.model.row.frame_bytes + self.model.row.content_bytes(self.rows_in_record(), filled_buckets)
    }

    /// Rows and markers since the oldest open pane began, at most.
    pub(crate) fn records_read_again(&self) -> f64 {
        self.read_again_secs() * (self.model.views() * self.records_per_sec() + self.markers_per_sec())
    }

    pub(crate) fn bytes_read_again(&self) -> f64 {
        let rows = self.model.views() * self.records_per_sec() * self.record_bytes();
        let markers = self.markers_per_sec() * self.model.installation.marker_bytes();
        self.read_again_secs() * (rows + markers)
    }

    fn read_again_secs(&self) -> f64 {
        open_secs() + self.model.installation.epoch_secs()
    }
}

/// From a pane's beginning until it is let go, while events come in time.
pub(crate) fn open_secs() -> f64 {
    PANE_SECS + DISORDER_SECS + LATENESS_SECS
}

/// Panes of a view that are open at once, at most.
pub(crate) fn open_panes() -> f64 {
    (open_secs() / PANE_SECS).ceil()
}

/// The same while source partitions drift apart as far as they may.
pub(crate) fn open_panes_on_a_backlog() -> f64 {
    ((open_secs() + DRIFT_SECS) / PANE_SECS).ceil()
}

/// Source partitions of one topic whose marks, none of them idle, fit the metadata of a committed offset.
pub(crate) fn marks_that_fit() -> f64 {
    const MARK_BYTES: usize = "[1795420560000],".len();
    const OTHER_BYTES: usize = 62;
    ((METADATA_BYTES - OTHER_BYTES - TOPIC.len()) / MARK_BYTES) as f64
}

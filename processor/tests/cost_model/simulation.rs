//! What `model.rs` predicts, counted: the real plan, records, markers and open windows over generated requests.

use std::collections::BTreeSet;

use arrow::array::{AsArray, RecordBatch};
use bongsu_processor::partials::{Marker, decode_rows, split_rows};
use bongsu_processor::plan::ViewPlan;
use bongsu_processor::stage2::state::{OpenWindows, Progress, ViewWindows};
use bongsu_processor::watermark::Mark;
use datafusion::common::utils::memory::get_record_batch_memory_size;

use crate::model::{
    DISORDER_SECS, DRIFT_SECS, EPOCH_ROWS, Installation, LATENESS_SECS, MERGE_AT, MERGE_FROM, METADATA_BYTES, Merging,
    PANE_SECS, TOPIC, open_secs,
};
use crate::workload::{Names, Random, Request, START_MS, Zipf};

/// The groups and the plan of one installation.
pub(crate) struct Simulation<'a> {
    installation: Installation,
    view: &'a ViewPlan,
    names: Names,
    zipf: Zipf,
}

/// Means over the epochs of one worker.
pub(crate) struct EpochCounts {
    pub(crate) rows: f64,
    pub(crate) records: f64,
    pub(crate) bytes: f64,
    pub(crate) marker_bytes: f64,
}

/// One partition of the partials, over some seconds of one pane.
pub(crate) struct PartitionCounts {
    pub(crate) rows: f64,
    pub(crate) records: f64,
    pub(crate) markers: f64,
    pub(crate) merging: Merging,
    /// What the pane holds in the end, merged.
    pub(crate) groups: f64,
    pub(crate) pane_bytes: f64,
    /// The same as it lies in memory, spare capacity included.
    pub(crate) allocated_bytes: f64,
}

/// How far stage 2 must remember.
pub(crate) struct LogCounts {
    pub(crate) open_panes: f64,
    pub(crate) records_read_again: f64,
}

impl<'a> Simulation<'a> {
    pub(crate) fn new(installation: Installation, view: &'a ViewPlan) -> Simulation<'a> {
        Simulation {
            installation,
            view,
            names: Names::new(installation.services as usize, installation.routes as usize),
            zipf: Zipf::among((0..installation.groups()).collect()),
        }
    }

    /// One worker's stage 1, during a minute of event time.
    pub(crate) fn worker(&self) -> EpochCounts {
        let mut random = Random(2026);
        let marker = self.marker(0, START_MS).encode().unwrap();
        let epochs = self.epochs(PANE_SECS);
        let (mut rows, mut records, mut bytes) = (0, 0, 0);
        for epoch in 0..epochs {
            let requests: Vec<Request> = (0..self.events_in(epoch))
                .map(|_| {
                    let late_ms = random.below((DISORDER_SECS * 1e3) as u64) as i64;
                    let time_ms = self.time_in(epoch, &mut random) - late_ms;
                    Request::new(time_ms, self.zipf.pick(&mut random), &mut random)
                })
                .collect();
            let partial = self.partial(&requests);
            rows += partial.num_rows();
            for record in split_rows(self.view, &partial, self.partitions()).unwrap() {
                records += 1;
                bytes += record.value.len();
            }
        }
        let mean = |count: usize| count as f64 / epochs as f64;
        EpochCounts { rows: mean(rows), records: mean(records), bytes: mean(bytes), marker_bytes: marker.len() as f64 }
    }

    /// A full epoch of a worker that is behind, inside of a pane.
    pub(crate) fn full_epoch(&self, seed: u64) -> RecordBatch {
        let mut random = Random(seed);
        let request = |_| Request::new(START_MS, self.zipf.pick(&mut random), &mut random);
        self.partial(&(0..EPOCH_ROWS).map(request).collect::<Vec<_>>())
    }

    /// A record of one row.
    pub(crate) fn one_row(&self) -> Vec<u8> {
        let partial = self.partial(&[Request { time_ms: START_MS, group: 0, status: 200, duration_ms: 100.0 }]);
        split_rows(self.view, &partial, 1).unwrap().remove(0).value
    }

    /// The partition of every group, which stage 1 decides.
    pub(crate) fn partitions_of_groups(&self) -> Vec<i32> {
        const AT_ONCE: usize = 100_000;
        let groups: Vec<usize> = (0..self.installation.groups()).collect();
        let mut partitions = vec![-1; groups.len()];
        for groups in groups.chunks(AT_ONCE) {
            let request = |group: &usize| Request { time_ms: START_MS, group: *group, status: 200, duration_ms: 1.0 };
            let partial = self.partial(&groups.iter().map(request).collect::<Vec<_>>());
            for record in split_rows(self.view, &partial, self.partitions()).unwrap() {
                let rows = decode_rows(self.view, &record.value).unwrap();
                let (services, routes) = (rows.column(1).as_string_view(), rows.column(2).as_string_view());
                for (service, route) in services.iter().zip(routes) {
                    let service = number_in(service.unwrap());
                    let route = number_in(route.unwrap());
                    partitions[route * self.names.services.len() + service] = record.partition;
                }
            }
        }
        partitions
    }

    /// One partition in stage 2, whose groups have this share of all events, while all workers fill a pane for `secs`.
    pub(crate) fn partition(&self, number: i32, groups: Vec<usize>, share: f64, secs: f64) -> PartitionCounts {
        let mut random = Random(2027);
        let zipf = Zipf::among(groups);
        let mut pane: Vec<RecordBatch> = Vec::new();
        let (mut rows, mut records, mut rows_read, mut most_waiting) = (0, 0, 0, 0_usize);
        let epochs = self.epochs(secs);
        for epoch in 0..epochs {
            for _ in 0..self.installation.workers {
                // Each event of the worker's epoch is this partition's with the probability `share`.
                let mine = (0..self.events_in(epoch)).filter(|_| random.fraction() < share).count();
                let request = |_| {
                    let time_ms = self.time_in(epoch, &mut random);
                    Request::new(time_ms, zipf.pick(&mut random), &mut random)
                };
                let requests: Vec<Request> = (0..mine).map(request).collect();
                if requests.is_empty() {
                    continue;
                }
                for record in split_rows(self.view, &self.partial(&requests), self.partitions()).unwrap() {
                    assert_eq!(record.partition, number);
                    let batch = decode_rows(self.view, &record.value).unwrap();
                    records += 1;
                    rows += batch.num_rows();
                    pane.push(batch);
                    most_waiting = most_waiting.max(pane.len() - 1);
                    if is_worth_merging(&pane) {
                        rows_read += rows_of(&pane);
                        pane = vec![self.view.reduce(pane).unwrap()];
                    }
                }
            }
        }
        let merged = self.view.reduce(pane).unwrap();
        let records_of_pane = split_rows(self.view, &merged, 1).unwrap();
        PartitionCounts {
            rows: rows as f64,
            records: records as f64,
            markers: f64::from(self.installation.workers) * epochs as f64,
            merging: Merging { rows_read: rows_read as f64, most_waiting: most_waiting as f64 },
            groups: merged.num_rows() as f64,
            pane_bytes: records_of_pane.iter().map(|record| record.value.len()).sum::<usize>() as f64,
            allocated_bytes: get_record_batch_memory_size(&merged) as f64,
        }
    }

    /// The log of one partition, as far as panes and offsets go: every worker's rows and marker in turn.
    pub(crate) fn log(&self) -> LogCounts {
        let window = self.view.window;
        let mut open = open_windows(self.view);
        let (mut offset, mut open_panes, mut records_read_again) = (0_i64, 0_usize, 0_i64);
        let (workers, epoch_ms) = (self.installation.workers, self.epoch_ms());
        for epoch in 1..=self.epochs(open_secs() + PANE_SECS) {
            for worker in 0..workers {
                let now_ms = START_MS + epoch * epoch_ms + i64::from(worker) * epoch_ms / i64::from(workers);
                let watermark_ms = now_ms - (DISORDER_SECS * 1e3) as i64;
                let panes = [watermark_ms - epoch_ms, now_ms - 1].map(|time_ms| window.pane_start(time_ms));
                for pane_start_ms in BTreeSet::from(panes) {
                    assert!(open.rows(offset, (0, pane_start_ms), ()).is_none(), "rows in time are not late");
                }
                open.advance_past(offset);
                open.marker(offset + 1, &self.marker(worker, watermark_ms));
                open.forget_closed();
                open.advance_past(offset + 1);
                offset += 2;
            }
            open_panes = open_panes.max(open.open_panes());
            let progress = open.progress().unwrap();
            records_read_again = records_read_again.max(progress.processed_to - progress.low_water_offset);
        }
        LogCounts { open_panes: open_panes as f64, records_read_again: records_read_again as f64 }
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Source partitions are dealt out one by one.
    fn marker(&self, worker: u32, watermark_ms: i64) -> Marker {
        let source_partitions = self.installation.source_partitions;
        let mut marker = Marker { topics: [(TOPIC.to_owned(), source_partitions as i32)].into(), marks: Vec::new() };
        for partition in (worker..source_partitions).step_by(self.installation.workers as usize) {
            let mark = Mark { watermark_ms: Some(watermark_ms), idle_for_ms: None };
            marker.push((TOPIC.to_owned(), partition as i32), mark);
        }
        marker
    }

    fn partial(&self, requests: &[Request]) -> RecordBatch {
        self.view.partial(&self.names.decoded(self.view, requests)).unwrap()
    }

    fn partitions(&self) -> i32 {
        self.installation.partials_partitions as i32
    }

    fn epoch_ms(&self) -> i64 {
        (self.installation.epoch_secs() * 1e3) as i64
    }

    fn epochs(&self, secs: f64) -> i64 {
        (secs / self.installation.epoch_secs()).round() as i64
    }

    /// Epochs differ by one event where the rate is not a whole number of events an epoch.
    fn events_in(&self, epoch: i64) -> u64 {
        let before = |epoch: i64| (self.installation.events_in_epoch() * epoch as f64) as u64;
        before(epoch + 1) - before(epoch)
    }

    fn time_in(&self, epoch: i64, random: &mut Random) -> i64 {
        let epoch_ms = self.epoch_ms();
        START_MS + epoch * epoch_ms + random.below(epoch_ms as u64) as i64
    }
}

/// As in `stage2/partition.rs`.
fn is_worth_merging(batches: &[RecordBatch]) -> bool {
    let (merged, since) = batches.split_first().unwrap();
    let is_many = batches.len() >= MERGE_FROM && rows_of(since) >= merged.num_rows();
    is_many || batches.len() >= MERGE_AT
}

fn rows_of(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

/// Nothing is kept of the rows but that there are some.
fn open_windows(view: &ViewPlan) -> OpenWindows<()> {
    let windows = ViewWindows { spec: view.window, corrections_ms: 0 };
    OpenWindows::restore(vec![windows], (LATENESS_SECS * 1e3) as i64, Progress::default())
}

/// Panes that are open at once while one source partition is as far ahead of another as `time.max_drift` allows.
pub(crate) fn open_panes_on_a_backlog(view: &ViewPlan) -> f64 {
    const STEP_MS: i64 = 250;
    let (mut open, mut most, mut offset) = (open_windows(view), 0_usize, 0_i64);
    let drift_ms = (DRIFT_SECS * 1e3) as i64;
    for step in 0..4 * drift_ms / STEP_MS {
        let slow_ms = START_MS + step * STEP_MS;
        for (partition, event_time_ms) in [(0, slow_ms), (1, slow_ms + drift_ms)] {
            let watermark_ms = event_time_ms - (DISORDER_SECS * 1e3) as i64;
            let pane_start_ms = view.window.pane_start(event_time_ms);
            assert!(open.rows(offset, (0, pane_start_ms), ()).is_none(), "rows in time are not late");
            let mut marker = Marker { topics: [(TOPIC.to_owned(), 2)].into(), marks: Vec::new() };
            let mark = Mark { watermark_ms: Some(watermark_ms), idle_for_ms: None };
            marker.push((TOPIC.to_owned(), partition), mark);
            open.marker(offset + 1, &marker);
            open.forget_closed();
            open.advance_past(offset + 1);
            offset += 2;
            most = most.max(open.open_panes());
        }
    }
    most as f64
}

/// `service-012` and `/api/orders-012/{id}` are number 12.
fn number_in(name: &str) -> usize {
    name.bytes().filter(u8::is_ascii_digit).fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}

/// Source partitions of one topic whose marks fit the metadata that `stage2/offsets.rs` describes.
pub(crate) fn marks_that_fit() -> f64 {
    let fits = |partitions: &usize| {
        let marks = vec![[START_MS]; *partitions];
        let metadata =
            serde_json::json!({ "v": 1, "to": 1_000_000_000, "closed": START_MS, "topics": { TOPIC: marks } });
        metadata.to_string().len() <= METADATA_BYTES
    };
    (1..METADATA_BYTES).take_while(fits).count() as f64
}

//! The steps between the topics, without Kafka: elements per second on one core.
//!
//! One view over 4,000 groups (200 services with 20 routes, Zipf 1.0): count, count with a filter, sum, minimum,
//! maximum and a quantile by the minute.
//!
//! Goals, on a core of 2026:
//!
//! | benchmark | elements | goal, million a second |
//! | --- | --- | ---: |
//! | `partial` | events of one epoch, two panes | 3: no slower than native JSON is decoded |
//! | `encode` | rows of its partials, to Arrow IPC for 4 partitions | 2 |
//! | `decode_partials` | the same rows, read again | 20: all buffers are copied at once |
//! | `merge` | rows of 64 batches, the fewest that stage 2 merges | 2 |
//! | `close` | windows, each from 8 batches | 0.2: a million groups in five seconds |
//! | `sketch` | 95th percentiles, each of one sketch of 10,000 values | 0.3: less than the rest of closing a window |

#![allow(clippy::unwrap_used, clippy::panic)] // a benchmark may stop

use std::collections::BTreeMap;
use std::hint::black_box;

use arrow::array::RecordBatch;
use bongsu_processor::partials::{decode_rows, split_rows};
use bongsu_processor::plan::ViewPlan;
use bongsu_processor::sketch;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};

// The cost model's events, so that both speak of the same.
#[path = "../tests/cost_model/workload.rs"]
mod workload;

use workload::{Names, Random, Request, START_MS, Zipf, duration_ms, view};

const SERVICES: usize = 200;
const ROUTES: usize = 20;
const PARTITIONS: i32 = 4;
const PANE_MS: u64 = 60_000;

/// Makes epochs of decoded rows.
struct Epochs {
    view: ViewPlan,
    names: Names,
    zipf: Zipf,
    random: Random,
}

impl Epochs {
    fn new() -> Epochs {
        Epochs {
            view: view(),
            names: Names::new(SERVICES, ROUTES),
            zipf: Zipf::among((0..SERVICES * ROUTES).collect()),
            random: Random(2026),
        }
    }

    fn decoded(&mut self, events: usize, panes: u64) -> RecordBatch {
        let mut requests = Vec::with_capacity(events);
        for _ in 0..events {
            let time_ms = START_MS + self.random.below(panes * PANE_MS) as i64;
            requests.push(Request::new(time_ms, self.zipf.pick(&mut self.random), &mut self.random));
        }
        self.names.decoded(&self.view, &requests)
    }

    /// Partials of `count` epochs within one pane.
    fn partials(&mut self, count: usize, events: usize) -> Vec<RecordBatch> {
        (0..count)
            .map(|_| {
                let rows = self.decoded(events, 1);
                self.view.partial(&rows).unwrap()
            })
            .collect()
    }
}

fn group(criterion: &mut Criterion, elements: usize) -> BenchmarkGroup<'_, WallTime> {
    let mut group = criterion.benchmark_group("stages");
    group.throughput(Throughput::Elements(elements as u64));
    group
}

/// A full epoch of stage 1.
fn partial(criterion: &mut Criterion) {
    const EVENTS: usize = 100_000;
    let mut epochs = Epochs::new();
    let rows = epochs.decoded(EVENTS, 2);
    let mut group = group(criterion, EVENTS);
    group.bench_function("partial", |bencher| bencher.iter(|| epochs.view.partial(black_box(&rows)).unwrap()));
    group.finish();
}

/// What such an epoch becomes on its way to stage 2.
fn encode(criterion: &mut Criterion) {
    let mut epochs = Epochs::new();
    let rows = epochs.decoded(100_000, 2);
    let partial = epochs.view.partial(&rows).unwrap();
    let mut group = group(criterion, partial.num_rows());
    group.bench_function("encode", |bencher| {
        bencher.iter(|| split_rows(&epochs.view, black_box(&partial), PARTITIONS).unwrap());
    });
    group.finish();
}

fn decode_partials(criterion: &mut Criterion) {
    let mut epochs = Epochs::new();
    let rows = epochs.decoded(100_000, 2);
    let partial = epochs.view.partial(&rows).unwrap();
    let records = split_rows(&epochs.view, &partial, PARTITIONS).unwrap();
    let mut group = group(criterion, partial.num_rows());
    group.bench_function("decode_partials", |bencher| {
        bencher.iter(|| {
            for record in &records {
                black_box(decode_rows(&epochs.view, &record.value).unwrap());
            }
        });
    });
    group.finish();
}

/// Epochs of 250 ms at 10,000 events a second.
fn merge(criterion: &mut Criterion) {
    let mut epochs = Epochs::new();
    let partials = epochs.partials(64, 2_500);
    let mut group = group(criterion, partials.iter().map(RecordBatch::num_rows).sum());
    group.bench_function("merge", |bencher| {
        // Cloning shares the buffers; stage 2 does it, too.
        bencher.iter(|| epochs.view.reduce(black_box(&partials).clone()).unwrap());
    });
    group.finish();
}

fn close(criterion: &mut Criterion) {
    let mut epochs = Epochs::new();
    // So many events that no group is missing.
    let partials = epochs.partials(8, 100_000);
    let windows = epochs.view.finish(START_MS, &partials).unwrap().num_rows();
    assert_eq!(windows, SERVICES * ROUTES);
    let mut group = group(criterion, windows);
    group.bench_function("close", |bencher| {
        bencher.iter(|| epochs.view.finish(START_MS, black_box(&partials)).unwrap());
    });
    group.finish();
}

fn quantile(criterion: &mut Criterion) {
    let mut random = Random(2026);
    let mut buckets: BTreeMap<u32, u64> = BTreeMap::new();
    for _ in 0..10_000 {
        *buckets.entry(sketch::bucket(duration_ms(random.fraction())).unwrap()).or_default() += 1;
    }
    let mut bytes = Vec::new();
    sketch::encode(buckets.into_iter(), &mut bytes);
    let mut group = group(criterion, 1);
    group.bench_function("sketch", |bencher| bencher.iter(|| sketch::quantile(black_box(&bytes), 0.95)));
    group.finish();
}

criterion_group!(benches, partial, encode, decode_partials, merge, close, quantile);
criterion_main!(benches);

//! What many workers and groups cost: the formulas of `docs/scaling.md`, held against counts of the real code over
//! generated requests.
//!
//! `model.rs` has the formulas, `simulation.rs` counts, `page.rs` writes the page's tables. There is neither Kafka nor
//! a clock: what happens when is decided by event time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, too, stop at the first surprise and say why")]

mod comparison;
mod model;
mod page;
mod simulation;
mod workload;

use std::path::Path;
use std::sync::LazyLock;
use std::thread;

use bongsu_processor::partials::split_rows;

use comparison::{Line, compare};
use model::{Buckets, Installation, MERGE_AT, Model, PartitionModel, Popularity, RECORD_BYTES, RowSize};
use simulation::Simulation;

/// How far a prediction may be from its count.
const TOLERANCE: f64 = 0.05;

/// Both installations, for two tests to look at. Of the large one's pane ten seconds are enough: a minute would be more
/// of the same, and takes seconds of a processor.
static LINES: LazyLock<[Vec<Line>; 2]> = LazyLock::new(|| {
    [(Installation::ORDINARY, 60.0), (Installation::LARGE, 10.0)]
        .map(|(installation, pane_secs)| {
            thread::spawn(move || compare(installation, &workload::view(), &Buckets::new(), pane_secs))
        })
        .map(|thread| thread.join().unwrap())
});

/// Scenario: 20,000 events a second on 2 workers with 4,000 groups; a million on 64 workers with a million groups.
/// Guarantees: every formula of the page is within 5 % of what the real plan, records, markers and open windows make of
/// such events.
#[test]
fn formulas_predict_what_is_counted() {
    for (name, lines) in ["ordinary", "large"].iter().zip(LINES.iter()) {
        for line in lines {
            if let Line::Value { what, model, counted: Some(counted) } = line {
                assert!(is_close(*model, *counted), "{name}, {what}: the model says {model}, there were {counted}");
            }
        }
    }
}

/// Scenario: a worker is behind and reads full epochs of a million groups for few partitions.
/// Guarantees: records are split, none is larger than is said, and there are as many as their bytes need. Where that
/// makes them nearly full there are one or two more: they have equally many rows, but popular groups, with more in
/// their sketches, are together in the first.
#[test]
fn large_records_are_split() {
    let view = workload::view();
    let large = Installation { epoch_wait_secs: f64::INFINITY, ..Installation::LARGE };
    let simulation = Simulation::new(large, &view);
    let epoch = simulation.full_epoch(1);
    let buckets = Buckets::new();
    let row = RowSize::new(&view, simulation.names(), &simulation.one_row());
    #[rustfmt::skip]
    let cases = [
        // partitions, how full, records more than predicted
        (4, "three quarters", 0),
        (1, "95 %",           2),
    ];
    for (partials_partitions, how_full, more) in cases {
        let installation = Installation { partials_partitions, ..large };
        let predicted = Model::new(installation, &buckets, &row).records_in_epoch().round() as usize;
        let records = split_rows(&view, &epoch, partials_partitions as i32).unwrap();
        for record in &records {
            assert!(record.value.len() <= RECORD_BYTES, "{how_full}: {} bytes", record.value.len());
        }
        let counted = records.len();
        let expected = predicted..=predicted + more;
        assert!(expected.contains(&counted), "{how_full}: the model says {predicted}, there were {counted}");
    }
}

/// Scenario: a thousand workers with five events an epoch each, so that a pane soon has more groups than 511 records
/// have rows.
/// Guarantees: then 511 records are merged, and the formulas know it.
#[test]
fn small_records_do_not_wait_long() {
    // In the middle between two merges.
    const SECS: f64 = 1.0;
    let view = workload::view();
    let installation =
        Installation { workers: 1_000, services: 200, routes: 200, partials_partitions: 1, ..Installation::ORDINARY };
    let simulation = Simulation::new(installation, &view);
    let buckets = Buckets::new();
    let row = RowSize::new(&view, simulation.names(), &simulation.one_row());
    let model = Model::new(installation, &buckets, &row);
    let popularity = Popularity::zipf(installation.groups());
    let predicted = PartitionModel { model: &model, popularity }.merging_in(SECS);
    let counted = simulation.partition(0, (0..installation.groups()).collect(), 1.0, SECS).merging;
    for merging in [predicted, counted] {
        assert_eq!(merging.most_waiting as usize, MERGE_AT - 1);
    }
    let (predicted, counted) = (predicted.rows_read, counted.rows_read);
    assert!(is_close(predicted, counted), "the model says {predicted} rows, there were {counted}");
}

/// Scenario: a formula, the format of partials or a constant changes.
/// Guarantees: the page says so, or this fails. `BONGSU_UPDATE=1` rewrites it.
#[test]
fn the_page_is_current() {
    const BEGIN: &str = "<!-- generated: cost model -->\n";
    const END: &str = "<!-- end -->";
    let view = workload::view();
    let simulation = Simulation::new(Installation { services: 1, routes: 1, ..Installation::LARGE }, &view);
    let row = RowSize::new(&view, simulation.names(), &simulation.one_row());
    let [ordinary, large] = &*LINES;
    let tables = format!(
        "\n{}\nWhat one change makes of the large installation, by the model alone:\n\n{}\n",
        page::comparison([ordinary, large]),
        page::alternatives(&Buckets::new(), &row)
    );

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scaling.md");
    let written = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = written.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let current = format!("{before}{BEGIN}{tables}{END}{after}");
    if std::env::var_os("BONGSU_UPDATE").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written == current, "docs/scaling.md is stale: run with BONGSU_UPDATE=1");
}

#[test]
fn numbers_have_three_digits_that_count() {
    #[rustfmt::skip]
    let cases = [
        (0.0, "0"), (0.60312, "0.603"), (4.0, "4"), (9.999, "10"), (64.0, "64"), (64.31, "64.3"), (118.4, "118"),
        (999.7, "1,000"), (2_354.1, "2,350"), (16_384.0, "16,400"), (602_655.2, "603,000"), (1_000_000.0, "1,000,000"),
    ];
    for (value, expected) in cases {
        assert_eq!(page::number(value), expected, "{value}");
    }
}

fn is_close(model: f64, counted: f64) -> bool {
    (model / counted - 1.0).abs() <= TOLERANCE
}

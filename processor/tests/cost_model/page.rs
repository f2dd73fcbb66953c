//! The tables of `docs/scaling.md`.

use std::fmt::Write;

use crate::comparison::Line;
use crate::model::{Buckets, Installation, Model, PANE_SECS, PartitionModel, RowSize};

/// Both installations, line by line.
pub(crate) fn comparison([ordinary, large]: [&[Line]; 2]) -> String {
    let mut out =
        String::from("| | ordinary: model | counted | large: model | counted |\n| --- | ---: | ---: | ---: | ---: |\n");
    for lines in ordinary.iter().zip(large) {
        match lines {
            (Line::Heading(heading), Line::Heading(_)) => writeln!(out, "| **{heading}** | | | | |").unwrap(),
            (
                Line::Value { what, model, counted },
                Line::Value { what: same, model: large_model, counted: large_counted },
            ) => {
                assert_eq!(what, same);
                let counted = [*counted, *large_counted].map(|counted| counted.map(number).unwrap_or_default());
                let (model, large_model) = (number(*model), number(*large_model));
                writeln!(out, "| {what} | {model} | {} | {large_model} | {} |", counted[0], counted[1]).unwrap();
            }
            (one, other) => panic!("{one:?} beside {other:?}"),
        }
    }
    out
}

/// What changes with one thing in the large installation.
pub(crate) fn alternatives(buckets: &Buckets, row: &RowSize) -> String {
    const LARGE: Installation = Installation::LARGE;
    let alternatives = [
        ("the large installation", LARGE),
        ("32 workers", Installation { workers: 32, ..LARGE }),
        ("16 workers", Installation { workers: 16, ..LARGE }),
        ("16 partitions of the partials", Installation { partials_partitions: 16, ..LARGE }),
        ("both: 16 workers, 16 partitions", Installation { workers: 16, partials_partitions: 16, ..LARGE }),
        ("1,000 groups: by service alone", Installation { routes: 1, ..LARGE }),
        ("two views", Installation { views: 2, ..LARGE }),
        ("epochs of a second (not to be had)", Installation { epoch_wait_secs: 1.0, ..LARGE }),
    ];
    let mut out = String::from(
        "| all partitions | rows/s | records of rows/s | markers/s | MB/s | rows merged/s | memory, MB |\n",
    );
    out.push_str("| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for (what, installation) in alternatives {
        let model = Model::new(installation, buckets, row);
        let partitions = f64::from(installation.partials_partitions);
        let average =
            PartitionModel { model: &model, popularity: model.popularity.part(installation.partials_partitions) };
        let merged_per_sec = average.merging_in(PANE_SECS).rows_read / PANE_SECS * f64::from(installation.views);
        let values = [
            model.rows_per_sec(),
            model.records_per_sec(),
            model.markers_per_sec(),
            model.bytes_per_sec() / 1e6,
            merged_per_sec * partitions,
            average.memory_bytes() / 1e6 * partitions,
        ];
        writeln!(out, "| {what} | {} |", values.map(number).join(" | ")).unwrap();
    }
    out
}

/// Three digits that count: `0.603`, `16`, `118`, `2,350`. More would not be the same on every machine.
pub(crate) fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let decimals = 2 - value.abs().log10().floor() as i32;
    let scale = 10_f64.powi(decimals);
    let rounded = (value * scale).round() / scale;
    if let Ok(places @ 1..) = usize::try_from(decimals) {
        let text = format!("{rounded:.places$}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{rounded:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

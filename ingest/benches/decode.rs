//! Decoding: events per second on one core.
//!
//! Goals: native JSON near the speed of parsing into a struct of borrowed fields with serde_json (measured beside it); a million
//! spans per second. Seen on a busy core of 2026: 2.7 million requests (serde_json alone 3.9), 2.4 million spans to `requests`,
//! 1.7 million to `requests` and `spans`.

#![allow(clippy::unwrap_used)] // a benchmark may stop

use std::{fs, hint::black_box, path::Path};

use bongsu_ingest::{
    config::{Format, Source},
    decode::{Decoder, Wanted},
    record::RawRecord,
};
use bongsu_schemas::tables::Table;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde::Deserialize;

const RECORDS: usize = 10_000;

fn wanted(table: Table, names: &[&str]) -> Wanted {
    let columns = table.columns().into_iter().filter(|column| names.contains(&column.name.as_str())).collect();
    Wanted::from([(table.name().into(), columns)])
}

fn record(value: &[u8]) -> RawRecord<'_> {
    RawRecord { topic: "t", partition: 0, offset: 0, timestamp_ms: None, key: None, value: Some(value), headers: &[] }
}

/// Requests of 215 bytes, of 40 services with 5 routes each.
fn requests() -> Vec<Vec<u8>> {
    let request = |number: usize| {
        let (service, route, status) = (number % 40, number % 5, if number.is_multiple_of(50) { 503 } else { 200 });
        let mut text = format!(
            r#"{{"ts":{},"service":"service-{service:02}-api","route":"/orders/{route}/{{id}}","status":{status},"duration_ms":{}.25,"method":"GET","environment":"production","pod":"service-{service:02}-7d9f8b6c5-x2x4z","trace_id":"{number:032x}"}}"#,
            1_795_420_557_000usize + number,
            number % 300,
        );
        while text.len() < 215 {
            text.insert(1, ' ');
        }
        text.into_bytes()
    };
    (0..RECORDS).map(request).collect()
}

/// What a program would do that has one purpose only.
#[derive(Deserialize)]
struct Borrowed<'a> {
    ts: i64,
    service: &'a str,
    route: &'a str,
    status: i64,
    duration_ms: f64,
}

fn native_json(criterion: &mut Criterion) {
    let records = requests();
    let mut group = criterion.benchmark_group("native json, 215 bytes");
    group.throughput(Throughput::Elements(RECORDS as u64));
    let columns = ["event_time", "service", "route", "status", "duration_ms"];
    let mut decoder =
        Decoder::new(&Source::json("t", "requests"), &wanted(Table::Requests, &columns), 300_000).unwrap();
    group.bench_function("decode to arrow", |bencher| {
        bencher.iter(|| {
            for value in &records {
                black_box(decoder.decode(&record(value)));
            }
            decoder.finish().unwrap()
        });
    });
    group.bench_function("serde_json to a borrowed struct", |bencher| {
        bencher.iter(|| {
            for value in &records {
                let request: Borrowed<'_> = serde_json::from_slice(value).unwrap();
                black_box((request.ts, request.service, request.route, request.status, request.duration_ms));
            }
        });
    });
    group.finish();
}

fn otlp_spans(criterion: &mut Criterion) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/spans-out-of-memory.binpb");
    let value = fs::read(path).unwrap();
    let columns = ["event_time", "service", "environment", "route", "status", "duration_ms", "trace_id", "name"];
    let mut both = wanted(Table::Requests, &columns);
    both.extend(wanted(Table::Spans, &columns));
    let mut group = criterion.benchmark_group("otlp spans");
    for (name, wanted) in [("requests", wanted(Table::Requests, &columns[..6])), ("requests and spans", both)] {
        let mut decoder = Decoder::new(&Source::new("t", Format::OtlpProto), &wanted, 300_000).unwrap();
        let spans = decoder.decode(&record(&value)).events;
        decoder.finish().unwrap();
        group.throughput(Throughput::Elements(u64::from(spans) * 1000));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for _ in 0..1000 {
                    black_box(decoder.decode(&record(&value)));
                }
                decoder.finish().unwrap()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, native_json, otlp_spans);
criterion_main!(benches);

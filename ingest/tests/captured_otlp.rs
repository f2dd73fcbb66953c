//! Real OpenTelemetry records, decoded: counts against an independent decoder's, which stand beside the captures.
//!
//! The captures are larger than a repository should hold. Where the folder is absent, only the small samples are tested.

#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may stop, and says what it left out

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::{Float64Type, Int64Type},
};
use bongsu_ingest::{
    config::{Format, Source},
    decode::{Decoder, Outcome, Wanted},
    okr::OkrReader,
    record::RawRecord,
};
use bongsu_schemas::tables::{Column, Table};

/// Everything that OpenTelemetry can fill.
fn all() -> Wanted {
    let mut wanted = Wanted::new();
    for table in [Table::Requests, Table::Spans, Table::Exceptions, Table::Metrics] {
        let mut columns = table.columns();
        if table.has_attributes() {
            columns.push(Column::attribute("jvm.memory.type"));
            columns.push(Column::attribute("host.name"));
        }
        wanted.insert(table.name().into(), columns);
    }
    wanted
}

fn record<'a>(topic: &'a str, value: &'a [u8]) -> RawRecord<'a> {
    RawRecord { topic, partition: 0, offset: 0, timestamp_ms: None, key: None, value: Some(value), headers: &[] }
}

/// Rows by table, and events, of the records of each signal.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    records: usize,
    events: u32,
    filtered: u32,
    rows: BTreeMap<String, usize>,
}

struct Decoded {
    by_signal: BTreeMap<&'static str, Counts>,
    tables: BTreeMap<String, Vec<RecordBatch>>,
}

fn decode(path: &Path, format: Format) -> Decoded {
    let mut decoder = Decoder::new(&Source::new("otlp", format), &all(), 300_000).unwrap();
    let mut decoded = Decoded { by_signal: BTreeMap::new(), tables: BTreeMap::new() };
    for captured in OkrReader::open(path).unwrap() {
        let captured = captured.unwrap();
        let signals = ["spans", "metrics", "logs"];
        let signal = signals.into_iter().find(|signal| captured.topic.contains(signal)).unwrap();
        let mut raw = record(&captured.topic, captured.value.as_deref().unwrap());
        raw.timestamp_ms = Some(captured.timestamp_ms);
        let outcome = decoder.decode(&raw);
        assert_eq!(outcome.rejects, [], "{}-{}", captured.topic, captured.offset);
        let counts = decoded.by_signal.entry(signal).or_default();
        counts.records += 1;
        counts.events += outcome.events;
        counts.filtered += outcome.filtered;
        let mut rows = 0;
        for (table, batch) in decoder.finish().unwrap() {
            *counts.rows.entry(table.clone()).or_default() += batch.num_rows();
            rows += batch.num_rows();
            decoded.tables.entry(table).or_default().push(batch);
        }
        assert_eq!(outcome.rows as usize, rows);
    }
    decoded
}

fn capture(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/otlp").join(name);
    if !path.is_file() {
        eprintln!("not tested: there is no capture at {}", path.display());
        return None;
    }
    Some(path)
}

/// Guarantees: as many spans, requests, exceptions and points as another decoder found, in protobuf and in JSON.
#[test]
fn captured_records_give_the_counts_of_an_independent_decoder() {
    #[rustfmt::skip]
    let cases = [
        // file              format              spans records, spans, server, exceptions | logs records, logs, exceptions | metrics records, points
        ("a.okr.zst",        Format::OtlpProto, (266, 47_221, 10_857, 578), (577, 279_558, 165), (201, 743 + 12_900 + 3_571)),
        ("a-keyed.okr.zst",  Format::OtlpProto, (5_145, 8_061, 1_830, 226), (182, 46_698, 97),   (60, 108 + 1_866 + 521)),
        ("a-json.okr.zst",   Format::OtlpJson,  (19, 3_673, 879, 42),       (56, 28_515, 44),    (17, 63 + 1_079 + 324)),
        ("smoke.okr.zst",    Format::OtlpProto, (25, 2_896, 659, 135),      (43, 18_586, 83),    (39, 168 + 2_906 + 664)),
    ];
    for (file, format, spans, logs, metrics) in cases {
        let Some(path) = capture(file) else { continue };
        let decoded = decode(&path, format);
        let rows =
            |signal: &str, table: Table| decoded.by_signal[signal].rows.get(table.name()).copied().unwrap_or_default();
        let found = &decoded.by_signal["spans"];
        let tables = (rows("spans", Table::Spans), rows("spans", Table::Requests), rows("spans", Table::Exceptions));
        assert_eq!((found.records, tables.0, tables.1, tables.2), spans, "{file}: spans");
        assert_eq!((found.events as usize, found.filtered), (spans.1 + spans.3, 0), "{file}: spans add up");
        let found = &decoded.by_signal["logs"];
        assert_eq!((found.records, found.events, rows("logs", Table::Exceptions)), logs, "{file}: logs");
        assert_eq!(found.filtered as usize + logs.2, logs.1 as usize, "{file}: logs add up");
        let found = &decoded.by_signal["metrics"];
        assert_eq!((found.records, rows("metrics", Table::Metrics)), metrics, "{file}: metrics");
        assert_eq!(found.events as usize, metrics.1, "{file}: metrics add up");
    }
}

/// Guarantees: services, status codes, routes and derived columns of a real run.
#[test]
fn captured_requests_and_exceptions_by_service() {
    let Some(path) = capture("a.okr.zst") else { return };
    let decoded = decode(&path, Format::OtlpProto);
    let table = |table: Table| {
        let batches = &decoded.tables[table.name()];
        concat_batches(&batches[0].schema(), batches).unwrap()
    };
    let requests = table(Table::Requests);
    let mut found: BTreeMap<&str, (u32, u32, u32)> = BTreeMap::new();
    let services = requests["service"].as_string_view();
    for (service, status) in services.iter().zip(requests["status"].as_primitive::<Int64Type>()) {
        let counts = found.entry(service.unwrap()).or_default();
        counts.0 += 1;
        counts.1 += u32::from(status.unwrap() >= 500);
    }
    let exceptions = table(Table::Exceptions);
    for service in exceptions["service"].as_string_view().iter().flatten() {
        found.entry(service).or_default();
    }
    let log_exceptions = decoded.by_signal["logs"].rows[Table::Exceptions.name()];
    assert_eq!(exceptions.num_rows() - log_exceptions, 578);
    let expected = [
        ("api-gateway", (3_670, 67)),
        ("customers-service", (2_558, 48)),
        ("petclinic", (1_545, 102)),
        ("vets-service", (553, 0)),
        ("visits-service", (2_531, 0)),
    ];
    for (service, (server_spans, failed)) in expected {
        let (requests, errors, _) = found[service];
        assert_eq!((requests, errors), (server_spans, failed), "{service}");
    }
    for column in ["type", "fingerprint", "root_type", "occurrence"] {
        assert_eq!(exceptions[column].null_count(), 0, "{column}");
    }
    let routes: Vec<_> = exceptions["route"].as_string_view().iter().flatten().collect();
    assert!(routes.contains(&"/oups"), "the failing page is named");
    let frames: Vec<_> = exceptions["first_frame"].as_string_view().iter().flatten().collect();
    assert!(frames.iter().any(|frame| frame.contains("CrashController.triggerException")), "one's own code is named");
    let occurrences: std::collections::HashSet<_> =
        exceptions["occurrence"].as_string_view().iter().flatten().collect();
    assert!(occurrences.len() * 2 < exceptions.num_rows(), "reports of one failure are one occurrence");
}

fn fixture(name: &str, format: Format) -> (Outcome, BTreeMap<String, RecordBatch>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let value = fs::read(path).unwrap();
    let mut decoder = Decoder::new(&Source::new("otlp", format), &all(), 300_000).unwrap();
    let outcome = decoder.decode(&record("otlp", &value));
    (outcome, decoder.finish().unwrap().into_iter().collect())
}

#[test]
fn samples_of_each_signal() {
    let (spans, tables) = fixture("spans-out-of-memory.binpb", Format::OtlpProto);
    assert_eq!(spans.rejects, []);
    let exceptions = &tables["exceptions"];
    let types: Vec<_> = exceptions["root_type"].as_string_view().iter().flatten().collect();
    assert!(types.contains(&"java.lang.OutOfMemoryError"), "{types:?}");

    let (logs, tables) = fixture("logs-with-exceptions.json", Format::OtlpJson);
    assert_eq!(logs.rejects, []);
    let exceptions = &tables["exceptions"];
    assert_eq!(exceptions.num_rows() as u32 + logs.filtered, logs.events);
    assert!(exceptions.num_rows() > 0);

    let (metrics, tables) = fixture("metrics-jvm.binpb", Format::OtlpProto);
    assert_eq!((metrics.rejects.len(), metrics.filtered), (0, 0));
    let points = &tables["metrics"];
    let names = points["name"].as_string_view();
    let types = points["attributes.jvm.memory.type"].as_string_view();
    let has_heap =
        (0..points.num_rows()).any(|row| names.value(row) == "jvm.memory.used" && types.value(row) == "heap");
    assert!(has_heap, "attributes of points");
    assert_eq!(points["attributes.host.name"].null_count(), 0, "attributes of the resource");
    assert!(points["value"].as_primitive::<Float64Type>().iter().flatten().all(f64::is_finite));

    let (kubelet, tables) = fixture("metrics-kubelet.binpb", Format::OtlpProto);
    assert_eq!(kubelet.rejects, []);
    let points = &tables["metrics"];
    assert_eq!(points["pod"].null_count(), 0);
    assert!(points["service"].as_string_view().iter().flatten().all(|service| !service.is_empty()));
}

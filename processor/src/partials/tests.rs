use std::collections::{BTreeSet, HashMap};

use arrow::array::{Float64Array, Int64Array, StringViewArray, TimestampMillisecondArray};
use arrow::compute::concat_batches;
use arrow::util::display::array_value_to_string;
use bongsu_schemas::tables::{Column, EVENT_TIME, Table, schema_of};
use chrono_tz::Tz;
use proptest::prelude::*;

use super::*;
use crate::config::View;
use crate::plan::{TableColumns, Tables};

const REQUESTS: &str = "SELECT service, environment, route, count(*) AS requests, sum(status) AS statuses,
    quantile(duration_ms, 0.95) AS p95_ms, count(DISTINCT status) AS kinds
    FROM requests GROUP BY tumble(interval '1 minute'), service, environment, route";

/// Kafka's usual limit of a record.
const KAFKA_LIMIT_BYTES: usize = 1_000_000;

/// Event time, service, environment, route.
type Event = (i64, String, Option<String>, String);

fn plan() -> ViewPlan {
    let columns = |table: Table| TableColumns { columns: table.columns(), has_attributes: table.has_attributes() };
    let tables: Tables = Table::ALL.into_iter().map(|table| (table.name().to_owned(), columns(table))).collect();
    ViewPlan::new(&View::new("requests_1m", REQUESTS), &tables, Tz::UTC).unwrap()
}

fn partial(plan: &ViewPlan, events: &[Event]) -> RecordBatch {
    let numbers = 0..events.len() as i64;
    let column = |column: &Column| -> ArrayRef {
        match column.name.as_str() {
            EVENT_TIME => {
                let times = TimestampMillisecondArray::from_iter_values(events.iter().map(|event| event.0));
                Arc::new(times.with_timezone("UTC"))
            }
            "service" => Arc::new(StringViewArray::from_iter_values(events.iter().map(|event| &event.1))),
            "environment" => Arc::new(StringViewArray::from_iter(events.iter().map(|event| event.2.as_deref()))),
            "route" => Arc::new(StringViewArray::from_iter_values(events.iter().map(|event| &event.3))),
            "status" => Arc::new(Int64Array::from_iter_values(numbers.clone().map(|number| 200 + number % 3))),
            "duration_ms" => Arc::new(Float64Array::from_iter_values(numbers.clone().map(|number| number as f64))),
            other => panic!("the plan wants {other}"),
        }
    };
    let columns = plan.input_columns.iter().map(column).collect();
    plan.partial(&RecordBatch::try_new(schema_of(&plan.input_columns), columns).unwrap()).unwrap()
}

/// The group key of a row of partials as text; a null is told from an empty text.
fn key(plan: &ViewPlan, rows: &RecordBatch, row: usize) -> Vec<Option<String>> {
    let keys = &rows.columns()[1..=plan.partial_keys];
    keys.iter().map(|key| key.is_valid(row).then(|| array_value_to_string(key, row).unwrap())).collect()
}

fn event() -> impl Strategy<Value = Event> {
    // Short texts lie inside a string view, long ones in its buffer.
    let service =
        prop_oneof![Just("a".to_owned()), Just("order-api".to_owned()), Just("a-service-with-a-long-name".to_owned())];
    let environment = prop_oneof![Just(None), Just(Some(String::new())), Just(Some("production".to_owned()))];
    let route = prop_oneof![Just("/".to_owned()), Just("/orders/{id}/items/{item}".to_owned())];
    (0i64..180_000, service, environment, route)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Scenario: two workers aggregate different events of the same groups.
    /// Guarantees: P2; a group key, null or not, has one partition whichever batch it came in, and no row is lost or repeated.
    #[test]
    fn a_group_key_has_one_partition(
        first in prop::collection::vec(event(), 1..40),
        second in prop::collection::vec(event(), 1..40),
        partitions in 1i32..9,
    ) {
        let plan = plan();
        let mut partition_of = HashMap::new();
        for events in [first, second] {
            let partial = partial(&plan, &events);
            let mut rows_split = 0;
            for record in split_rows(&plan, &partial, partitions).unwrap() {
                prop_assert!((0..partitions).contains(&record.partition));
                let rows = decode_rows(&plan, &record.value).unwrap();
                rows_split += rows.num_rows();
                for row in 0..rows.num_rows() {
                    let known = *partition_of.entry(key(&plan, &rows, row)).or_insert(record.partition);
                    prop_assert_eq!(known, record.partition);
                }
            }
            prop_assert_eq!(rows_split, partial.num_rows());
        }
    }

    /// Guarantees: what stage 2 reads is what stage 1 wrote, states of aggregates included.
    #[test]
    fn rows_survive_the_topic(events in prop::collection::vec(event(), 1..40)) {
        let plan = plan();
        let partial = partial(&plan, &events);
        let records = split_rows(&plan, &partial, 1).unwrap();
        let rows: Vec<_> = records.iter().map(|record| decode_rows(&plan, &record.value).unwrap()).collect();
        let rows = concat_batches(&plan.partial_schema, &rows).unwrap();
        prop_assert_eq!(rows.columns(), partial.columns());
    }
}

/// Guarantees: the placement is part of the format. Another hash would split groups while an old and a new version run together.
#[test]
fn the_same_rows_are_split_alike_every_time() {
    let plan = plan();
    let events: Vec<Event> = (0..200).map(|n| (0, format!("service-{n}"), None, "/".to_owned())).collect();
    let placed = || {
        let records = split_rows(&plan, &partial(&plan, &events), 4).unwrap();
        let rows = records.iter().map(|record| (record.partition, decode_rows(&plan, &record.value).unwrap()));
        let mut placed: Vec<_> = rows
            .flat_map(|(partition, rows)| {
                (0..rows.num_rows()).map(|row| (key(&plan, &rows, row), partition)).collect::<Vec<_>>()
            })
            .collect();
        placed.sort();
        placed
    };
    let first = placed();
    assert_eq!(first, placed());
    let used: BTreeSet<i32> = first.iter().map(|(_, partition)| *partition).collect();
    assert_eq!(used.len(), 4, "200 keys are spread over all partitions");
}

/// Scenario: 4,000 groups with 500 bytes of text each, 2 MB together, all in one partition.
/// Guarantees: no record exceeds Kafka's limit, and a record holds the text of its own rows only.
#[test]
fn large_batches_are_split() {
    let plan = plan();
    let events: Vec<Event> = (0..4_000).map(|n| (0, "a".to_owned(), None, format!("/{n:0499}"))).collect();
    let partial = partial(&plan, &events);
    let records = split_rows(&plan, &partial, 1).unwrap();
    assert!(records.len() > 1);
    for record in &records {
        assert!(record.value.len() < KAFKA_LIMIT_BYTES, "{} bytes", record.value.len());
    }
    let rows: usize = records.iter().map(|record| decode_rows(&plan, &record.value).unwrap().num_rows()).sum();
    assert_eq!(rows, 4_000);
}

#[test]
fn what_is_no_batch_of_the_view_is_an_error() {
    let plan = plan();
    let other = RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    let cases = [
        ("empty", Vec::new(), "no Arrow IPC message"),
        ("cut off", b"\xff\xff\xff\xff\xff\xff\0\0hello".to_vec(), "no Arrow IPC message"),
        ("something else", b"\xff\xff\xff\xff\x05\0\0\0hello".to_vec(), "no Arrow IPC message"),
        ("another view", encode_rows(&other).unwrap(), "does not fit the view"),
    ];
    for (name, value, expected) in cases {
        let problem = format!("{:#}", decode_rows(&plan, &value).unwrap_err());
        assert!(problem.contains(expected), "{name}: {problem}");
    }
}

#[test]
fn markers_survive_the_topic() {
    let mut marker = Marker { topics: [("orders".to_owned(), 3)].into(), marks: Vec::new() };
    marker.push(("orders".to_owned(), 0), Mark { watermark_ms: Some(-5), idle_for_ms: None });
    marker.push(("orders".to_owned(), 2), Mark { watermark_ms: None, idle_for_ms: Some(0) });
    let read = Marker::decode(&marker.encode().unwrap()).unwrap();
    assert_eq!(read, marker);
    assert_eq!(read.marks().count(), 2);
    assert!(Marker::decode(b"[]x").is_err());
}

use std::collections::BTreeMap;

use arrow::{
    array::{Array, AsArray},
    datatypes::{Float64Type, Int64Type, TimestampMillisecondType},
};
use bongsu_schemas::{
    native::{Event, Exception, Outcome as EventOutcome, Request, Time},
    tables::{ColumnType, Table, schema_of},
};
use opentelemetry_proto::tonic::trace::v1::TracesData;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::config::{FieldType, Signal};

mod long_texts;

const NOW_MS: i64 = 1_795_420_557_000;

fn wanted(table: Table, names: &[&str]) -> Wanted {
    let mut columns: Vec<_> =
        table.columns().into_iter().filter(|column| names.contains(&column.name.as_str())).collect();
    columns.extend(names.iter().filter_map(|name| name.strip_prefix("attributes.")).map(Column::attribute));
    Wanted::from([(table.name().into(), columns)])
}

fn everything() -> Wanted {
    Table::ALL.into_iter().map(|table| (table.name().to_owned(), table.columns())).collect()
}

fn decoder(source: &Source, wanted: &Wanted) -> Decoder {
    Decoder::new(source, wanted, 300_000).unwrap()
}

fn record(value: &[u8]) -> RawRecord<'_> {
    let timestamp_ms = Some(NOW_MS);
    RawRecord { topic: "t", partition: 1, offset: 7, timestamp_ms, key: None, value: Some(value), headers: &[] }
}

fn adds_up(outcome: &Outcome, accepted: u32) {
    let rejected: u32 = outcome.rejects.iter().map(|reject| reject.events).sum();
    assert_eq!(outcome.events, accepted + outcome.filtered + rejected, "D1: {outcome:?}");
}

/// Scenario: one JSON record each, sound or not.
/// Guarantees: each fault has its reason and says where it is; D1 and D2 hold.
#[test]
fn json_records_and_what_is_wrong_with_them() {
    let good = r#"{"ts":1795420557000,"service":"a","route":"/","status":200,"duration_ms":1.5"#;
    let with = |more: &str| format!("{good}{more}}}");
    let replaced = |from: &str, to: &str| with("").replace(from, to);
    let large = with(&format!(",\"note\":\"{}\"", "x".repeat(2 * 1024 * 1024)));
    let too_large = with(&format!(",\"note\":\"{}\"", "x".repeat(MAX_RECORD_BYTES)));
    let nested = with(&format!(",\"note\":{}{}", "[".repeat(100_000), "]".repeat(100_000)));
    use Reason::*;
    type Case<'a> = (&'a str, String, u32, Option<(Reason, &'a str)>);
    #[rustfmt::skip]
    let cases: &[Case<'_>] = &[
        ("sound",                      with(""), 1, None),
        ("unknown fields",             with(r#","x":{"y":[1,{"z":null}]},"méthode":1"#), 1, None),
        ("escapes and NUL",            with(r#","method":"G\u0000\"T""#), 1, None),
        ("null is absent",             with(r#","method":null"#), 1, None),
        ("an integral float",          replaced("200", "2e2"), 1, None),
        ("an integer for a float",     replaced("1.5", "2"), 1, None),
        ("RFC 3339",                   replaced("1795420557000", r#""2026-11-23T09:00:00+09:00""#), 1, None),
        ("before 1970",                replaced("1795420557000", "-5"), 1, None),
        ("a 2 MB record",              large, 1, None),
        ("deep, in an ignored field",  nested, 1, None),
        ("spaces around",              format!(" \n{}\t", with("")), 1, None),
        ("nothing",                    "".into(), 0, Some((Malformed, "not JSON: EOF while parsing a value at line 1 column 0"))),
        ("garbage",                    "\u{1}\u{2}garbage".into(), 0, Some((Malformed, "not JSON: expected value at line 1 column 1"))),
        ("breaks off",                 good.into(), 0, Some((Malformed, "not JSON: EOF while parsing an object at line 1 column 76"))),
        ("two objects",                format!("{0}{0}", with("")), 0, Some((Malformed, "not JSON: trailing characters at line 1 column 78"))),
        ("a number",                   "42".into(), 0, Some((Malformed, "expected an object, or an array of objects, found a number"))),
        ("a string",                   "\"x\"".into(), 0, Some((Malformed, "expected an object, or an array of objects, found a string"))),
        ("no time",                    replaced("\"ts\"", "\"time\""), 0, Some((MissingField, "field `ts` is missing"))),
        ("no service",                 replaced("service", "servis"), 0, Some((MissingField, "field `service` is missing"))),
        ("null for a required field",  replaced("\"a\"", "null"), 0, Some((MissingField, "field `service` is missing"))),
        ("no unread required field",   replaced("\"route\"", "\"path\""), 0, Some((MissingField, "field `route` is missing"))),
        ("text for an integer",        replaced("200", "\"200\""), 0, Some((WrongType, "field `status` must be an integer, found a string"))),
        ("a fraction for an integer",  replaced("200", "200.5"), 0, Some((WrongType, "field `status` must be an integer, found a number with a fraction, or too large"))),
        ("a huge integer",             replaced("200", "18446744073709551615"), 0, Some((WrongType, "field `status` must be an integer, found a number of more than 63 bits"))),
        ("an object for text",         replaced("\"a\"", "{\"b\":[1]}"), 0, Some((WrongType, "field `service` must be a string, found an object"))),
        ("a time that is none",        replaced("1795420557000", "\"yesterday\""), 0, Some((BadTime, "field `ts` must be epoch milliseconds or RFC 3339, found another text"))),
        ("nanoseconds",                replaced("1795420557000", "1795420557000000000"), 0, Some((BadTime, "event time 1795420557000000000 ms lies outside of the years 1 to 9999"))),
        ("the year 2099",              replaced("1795420557000", "\"2099-01-01T00:00:00Z\""), 0, Some((Future, "event time 2099-01-01T00:00:00.000Z is 2275488243000 ms later than the record's timestamp"))),
        ("more than 8 MiB",            too_large, 0, Some((TooLarge, "the value has 8388695 bytes, more than 8388608"))),
    ];
    let columns = ["event_time", "service", "status", "duration_ms", "method"];
    let mut decoder = decoder(&Source::json("t", "requests"), &wanted(Table::Requests, &columns));
    for (name, value, rows, expected) in cases {
        let outcome = decoder.decode(&record(value.as_bytes()));
        let found = outcome.rejects.first().map(|reject| (reject.reason, reject.detail.as_str()));
        assert_eq!(found, *expected, "{name}");
        assert_eq!((outcome.events, outcome.rows), (1, *rows), "{name}");
        assert_eq!(decoder.pending_rows(), *rows as usize, "{name}");
        assert_eq!(outcome.max_event_time_ms.is_some(), *rows == 1, "{name}");
        adds_up(&outcome, *rows);
        let batches = decoder.finish().unwrap();
        assert_eq!(batches.len(), *rows as usize, "{name}");
    }
    let null = decoder.decode(&RawRecord { value: None, ..record(b"") });
    assert_eq!((null.events, null.rejects[0].reason), (1, Null));
    let no_utf8 = decoder.decode(&record(b"{\"ts\":\xff}"));
    assert_eq!(no_utf8.rejects[0].detail, "not UTF-8 after 6 bytes");
    let untimed = RawRecord {
        timestamp_ms: None,
        ..record(br#"{"ts":"2099-01-01T00:00:00Z","service":"a","route":"/","status":1,"duration_ms":1}"#)
    };
    assert_eq!(decoder.decode(&untimed).rows, 1, "without a timestamp there is nothing to compare with");
}

/// Guarantees: the bad elements of an array are rejected singly; an array that breaks off gives no rows at all.
#[test]
fn arrays_are_batches() {
    let good = r#"{"ts":1795420557000,"service":"a","route":"/","status":200,"duration_ms":1.5}"#;
    let bad_type = good.replace("200", "true");
    let mut decoder = decoder(&Source::json("t", "requests"), &wanted(Table::Requests, &["event_time", "status"]));
    let array = format!(" [{good},{bad_type},7,{good},{{}},[{good}],{bad_type}]");
    let outcome = decoder.decode(&record(array.as_bytes()));
    assert_eq!((outcome.events, outcome.rows, decoder.pending_rows()), (7, 2, 2));
    let rejects: Vec<_> = outcome.rejects.iter().map(|reject| (reject.reason, reject.events)).collect();
    assert_eq!(rejects, [(Reason::WrongType, 2), (Reason::Malformed, 2), (Reason::MissingField, 1)]);
    adds_up(&outcome, 2);
    decoder.finish().unwrap();

    let broken = format!("[{good},{good},");
    let outcome = decoder.decode(&record(broken.as_bytes()));
    assert_eq!((outcome.events, outcome.rows, decoder.pending_rows()), (1, 0, 0));
    assert_eq!(decoder.decode(&record(b"[]")), Outcome::default());
}

#[test]
fn attributes_declared_tables_and_own_time_fields() {
    let names = ["event_time", "event", "attributes.issuer", "attributes.n", "attributes.b", "attributes.gone"];
    let mut events = decoder(&Source::json("t", "events"), &wanted(Table::Events, &names));
    let value =
        br#"{"ts":1,"service":"s","event":"payment","attributes":{"issuer":"h\u0061na","n":1.5,"b":true,"x":{}}}"#;
    assert_eq!(events.decode(&record(value)).rows, 1);
    let (_, batch) = events.finish().unwrap().remove(0);
    let text = |name: &str| batch[name].as_string_view().iter().next().flatten();
    assert_eq!(
        [text("attributes.issuer"), text("attributes.n"), text("attributes.b"), text("attributes.gone")],
        [Some("hana"), Some("1.5"), Some("true"), None]
    );
    let wrong = events.decode(&record(br#"{"ts":1,"service":"s","event":"e","attributes":[]}"#));
    assert_eq!(wrong.rejects[0].detail, "field `attributes` must be an object, found an array");

    let columns = BTreeMap::from([
        ("cart_id".into(), FieldType::Text),
        ("items".into(), FieldType::Integer),
        ("seen".into(), FieldType::Time),
    ]);
    let source = Source { columns, time_field: Some("at".into()), ..Source::json("t", "carts") };
    let table = source.tables().unwrap().remove(0);
    let mut carts = decoder(&source, &Wanted::from([("carts".into(), table.columns.clone())]));
    assert_eq!(carts.decode(&record(br#"{"at":5,"cart_id":"c","items":3,"seen":"1970-01-01T00:00:01Z"}"#)).rows, 1);
    assert_eq!(carts.decode(&record(br#"{"at":6}"#)).rows, 1);
    assert_eq!(carts.decode(&record(br#"{"at":6,"items":"3"}"#)).rejects[0].reason, Reason::WrongType);
    let (_, batch) = carts.finish().unwrap().remove(0);
    assert_eq!(batch.schema(), schema_of(&table.columns));
    assert_eq!(batch["items"].as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(3), None]);
    assert_eq!(batch["seen"].as_primitive::<TimestampMillisecondType>().value(0), 1_000);
}

/// Guarantees: events that nobody reads are judged and counted, and move the watermark.
#[test]
fn unread_tables_are_filtered() {
    let mut decoder = decoder(&Source::json("t", "events"), &Wanted::new());
    let outcome = decoder.decode(&record(br#"[{"ts":5,"service":"s","event":"e"},{"ts":6,"service":"s"}]"#));
    assert_eq!((outcome.filtered, outcome.rows, outcome.max_event_time_ms), (1, 0, Some(5)));
    adds_up(&outcome, 0);
    assert!(decoder.finish().unwrap().is_empty());
}

#[test]
fn mistakes_in_sources_and_wanted_columns() {
    let declared = |column: &str, field_type| Source {
        columns: BTreeMap::from([(column.into(), field_type)]),
        ..Source::json("t", "carts")
    };
    #[rustfmt::skip]
    let cases = [
        (Source::new("t", Format::Json), "`table` is missing"),
        (Source::new("", Format::OtlpProto), "`topic` is empty"),
        (Source::json("t", "carts"), "`columns` are missing"),
        (Source::json("t", "Carts"), "`table` must be of lower-case"),
        (Source { columns: declared("a", FieldType::Text).columns, ..Source::json("t", "requests") }, "`columns` of the built-in table"),
        (declared("ts", FieldType::Time), "`columns.ts` is the event time"),
        (declared("service", FieldType::Integer), "`columns.service` must be text"),
        (Source { signal: Some(Signal::Logs), ..Source::json("t", "events") }, "`signal` has no meaning for format `json`"),
        (Source { table: Some("spans".into()), ..Source::new("t", Format::OtlpProto) }, "`table` has no meaning"),
    ];
    for (source, expected) in cases {
        let problem = source.tables().unwrap_err();
        assert!(problem.starts_with(expected), "{problem}");
    }
    let source = Source::json("t", "events");
    let mut unknown = wanted(Table::Events, &["event_time"]);
    unknown.get_mut("events").unwrap().push(Column::optional("colour", ColumnType::Text));
    assert!(Decoder::new(&source, &unknown, 0).is_err());
    assert!(Decoder::new(&source, &wanted(Table::Events, &["service"]), 0).is_err());
}

#[test]
fn cloud_events_structured_and_binary() {
    let names = ["event_time", "service", "event", "outcome", "amount", "reason", "attributes.issuer"];
    let mut decoder = decoder(&Source::new("t", Format::Cloudevents), &wanted(Table::Events, &names));
    let structured =
        br#"{"specversion":"1.0","type":"payment","source":"/shop/payment-api","time":"2026-11-23T07:00:00Z",
        "data":{"outcome":"failure","amount":12,"reason":"declined","attributes":{"issuer":"hana"}}}"#;
    assert_eq!(decoder.decode(&record(structured)).rows, 1);
    let headers: &[(&str, Option<&[u8]>)] =
        &[("ce_type", Some(b"order")), ("ce_source", Some(b"https://shop/order-api/"))];
    let binary = RawRecord { headers, ..record(br#"{"service":"orders","issuer":7}"#) };
    assert_eq!(decoder.decode(&binary).rows, 1);
    assert_eq!(decoder.decode(&RawRecord { headers, ..record(b"") }).rows, 1, "no data");
    let (_, batch) = decoder.finish().unwrap().remove(0);
    let text = |name: &str| batch[name].as_string_view().iter().map(|value| value.unwrap_or("-")).collect::<Vec<_>>();
    assert_eq!(text("service"), ["payment-api", "orders", "order-api"]);
    assert_eq!(text("event"), ["payment", "order", "order"]);
    assert_eq!(text("outcome"), ["failure", "-", "-"]);
    assert_eq!(text("attributes.issuer"), ["hana", "7", "-"]);
    assert_eq!(batch["amount"].as_primitive::<Float64Type>().iter().next().flatten(), Some(12.0));
    assert_eq!(batch["event_time"].as_primitive::<TimestampMillisecondType>().value(1), NOW_MS);

    #[rustfmt::skip]
    let cases: &[(&[u8], Reason)] = &[
        (b"nonsense", Reason::Malformed),
        (b"7", Reason::Malformed),
        (br#"{"source":"/s"}"#, Reason::MissingField),
        (br#"{"type":"t","source":"/"}"#, Reason::MissingField),
        (br#"{"type":7,"source":"/s"}"#, Reason::WrongType),
        (br#"{"type":"t","source":"/s","time":"soon"}"#, Reason::BadTime),
        (br#"{"type":"t","source":"/s","time":"2099-01-01T00:00:00Z"}"#, Reason::Future),
        (br#"{"type":"t","source":"/s","data":{"amount":"12"}}"#, Reason::WrongType),
    ];
    for (value, reason) in cases {
        let outcome = decoder.decode(&record(value));
        assert_eq!(outcome.rejects[0].reason, *reason, "{}", String::from_utf8_lossy(value));
        adds_up(&outcome, 0);
    }
    assert_eq!(decoder.pending_rows(), 0);
}

#[test]
fn otlp_payloads_that_are_none() {
    let mut proto = decoder(&Source::new("t", Format::OtlpProto), &everything());
    for value in [&b"{\"resourceSpans\":[]}"[..], b"\x0a\xff", b"\x7a\x01x", b"garbage", &[0xff; 40]] {
        let outcome = proto.decode(&record(value));
        assert_eq!(outcome.rejects[0].reason, Reason::Malformed, "{value:?}");
        assert_eq!(outcome.events, 1);
    }
    assert_eq!(proto.decode(&record(b"")), Outcome::default(), "an empty message is a sound one");
    let mut json = decoder(&Source::new("t", Format::OtlpJson), &everything());
    for value in [
        &b"{}"[..],
        b"[]",
        b"x",
        b"{\"resourceSpans\":7}",
        b"{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{\"traceId\":\"xyz\"}]}]}]}",
    ] {
        let outcome = json.decode(&record(value));
        assert_eq!(outcome.rejects[0].reason, Reason::Malformed, "{}", String::from_utf8_lossy(value));
    }
}

/// Guarantees: what cannot be read inside of an entry costs that entry only (D2); the frame is all or nothing.
#[test]
fn a_damaged_resource_costs_its_own_spans() {
    let sample = include_bytes!("../../tests/fixtures/spans-out-of-memory.binpb");
    let mut decoder = decoder(&Source::new("t", Format::OtlpProto), &everything());
    let sound = decoder.decode(&record(sample));
    decoder.finish().unwrap();
    // An entry with a resource that is no message, and one scope entry with two spans.
    let damaged = [&b"\x0a\x0b"[..], b"\x0a\x01\xff", b"\x12\x06\x12\x01\x0a\x12\x01\x0a"].concat();
    let both = decoder.decode(&record(&[&sample[..], &damaged].concat()));
    assert_eq!((both.rows, both.events), (sound.rows, sound.events + 2));
    assert_eq!((both.rejects[0].reason, both.rejects[0].events), (Reason::Malformed, 2));
    decoder.finish().unwrap();
    let cut = decoder.decode(&record(&sample[..sample.len() - 1]));
    assert_eq!((cut.events, cut.rows, decoder.pending_rows()), (1, 0, 0));
}

/// Guarantees: a bad span is rejected alone, its exception counts, and the number of SQL rows comes from the named attribute.
#[test]
fn spans_are_judged_one_by_one() {
    let span = |trace_id: &str, start: u64| {
        serde_json::json!({
            "traceId": trace_id, "spanId": "00f067aa0ba902b7", "name": "GET /orders", "kind": 2, "startTimeUnixNano": start.to_string(),
            "endTimeUnixNano": (start + 1_500_000).to_string(), "status": {"code": 2},
            "attributes": [{"key": "app.rows", "value": {"intValue": "30000"}}, {"key": "empty", "value": {"arrayValue": {}}}, {"key": "none"}],
            "events": [{"name": "exception", "timeUnixNano": start.to_string(), "attributes": [
                {"key": "exception.message", "value": {"stringValue": "boom"}}]}, {"name": "other"}]
        })
    };
    let now = NOW_MS as u64 * 1_000_000;
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let spans = [span(id, now), span("", now), span(id, 0), span(id, now + 301_000_000_000)];
    let payload = serde_json::json!({"resourceSpans": [{
        "resource": {"attributes": [], "entityRefs": [{"type": "service"}]}, "scopeSpans": [{"spans": spans}]}]});
    let source = Source { db_rows: Some("app.rows".into()), ..Source::new("t", Format::OtlpJson) };
    let mut decoder = decoder(&source, &everything());
    let outcome = decoder.decode(&record(payload.to_string().as_bytes()));
    let mut rejects: Vec<_> = outcome.rejects.iter().map(|reject| (reject.reason, reject.events)).collect();
    rejects.sort();
    // The span of the future, and its exception, and one without a time, and its exception.
    assert_eq!(rejects, [(Reason::MissingField, 1), (Reason::BadTime, 2), (Reason::Future, 2)]);
    assert_eq!((outcome.events, outcome.rows), (8, 1 + 1 + 2));
    let tables: BTreeMap<_, _> = decoder.finish().unwrap().into_iter().collect();
    let requests = &tables["requests"];
    assert_eq!(requests["db_rows"].as_primitive::<Int64Type>().value(0), 30_000);
    assert_eq!(requests["status"].as_primitive::<Int64Type>().value(0), 500, "a failed span without a status code");
    assert_eq!(requests["service"].as_string_view().value(0), "unknown_service");
    assert_eq!(requests["trace_id"].as_string_view().value(0), id);
    assert_eq!(tables["spans"]["duration_ms"].as_primitive::<Float64Type>().value(0), 1.5);
    let exceptions = &tables["exceptions"];
    assert_eq!(exceptions["route"].as_string_view().value(0), "GET /orders", "of the server span");
    assert_eq!(exceptions["occurrence"].as_string_view().value(1), "t-1-7-3", "without a trace: its place in the log");
}

/// Scenario: spans of several kinds, with the attributes that agents of several years send.
/// Guarantees: `peer_service` is whom a client or producer called, by the best name there is, and nothing for other spans.
#[test]
fn a_span_tells_whom_it_called() {
    #[rustfmt::skip]
    let cases = [
        // name                     kind  attributes                                          peer_service
        ("the name of today",          3, "peer.service=old service.peer.name=payment",       Some("payment")),
        ("the name of before",         3, "server.address=10.0.0.1 peer.service=payment",     Some("payment")),
        ("a host",                     3, "server.address=db.example.com",                    Some("db.example.com")),
        ("a Kubernetes service",       3, "server.address=payment.shop.svc.cluster.local",    Some("payment")),
        ("its short form",             3, "net.peer.name=payment.shop.svc",                   Some("payment")),
        ("no such service",            3, "net.peer.name=.shop.svc",                          Some(".shop.svc")),
        ("gRPC",                       3, "rpc.service=shop.Payment",                         Some("shop.Payment")),
        ("a producer",                 4, "server.address=kafka",                             Some("kafka")),
        ("nothing said",               3, "http.route=/pay",                                  None),
        ("a server's own address",     2, "server.address=order-api peer.service=gateway",    None),
        ("a consumer",                 5, "server.address=kafka",                             None),
    ];
    for (name, kind, attributes, expected) in cases {
        let attribute = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap();
            serde_json::json!({"key": key, "value": {"stringValue": value}})
        };
        let attributes: Vec<_> = attributes.split(' ').map(attribute).collect();
        let start = NOW_MS as u64 * 1_000_000;
        let payload = serde_json::json!({"resourceSpans": [{"resource": {"attributes": []}, "scopeSpans": [{"spans": [{
            "traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": "00f067aa0ba902b7", "name": "call", "kind": kind,
            "startTimeUnixNano": start.to_string(), "endTimeUnixNano": start.to_string(), "attributes": attributes}]}]}]});
        let mut decoder = decoder(&Source::new("t", Format::OtlpJson), &everything());
        decoder.decode(&record(payload.to_string().as_bytes()));
        let tables: BTreeMap<_, _> = decoder.finish().unwrap().into_iter().collect();
        let peers = tables["spans"]["peer_service"].as_string_view();
        assert_eq!(peers.iter().next().flatten(), expected, "{name}");
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{0,20}", ".{0,30}", Just("\"\\\u{0}\u{7f}é😀".to_owned())]
}

fn time() -> impl Strategy<Value = (Time, i64)> {
    let millis = -1_000_000_000_000i64..NOW_MS;
    (millis, any::<bool>()).prop_map(|(ms, as_text)| {
        let time = if as_text { Time::Rfc3339(time::text(ms)) } else { Time::EpochMillis(ms) };
        (time, ms)
    })
}

proptest! {
    /// Guarantees: what a producer writes is what stands in the columns.
    #[test]
    fn requests_survive((ts, time_ms) in time(), service in text(), route in text(), status: i64, duration in -1e9f64..1e9,
        method in proptest::option::of(text()), db_rows: Option<i64>) {
        let request = Request {
            ts, service: service.clone(), route: route.clone(), status, duration_ms: duration, method: method.clone(), environment: None,
            pod: None, container: None, error_type: None, db_rows, db_calls: None, trace_id: None, span_id: None, parent_span_id: None,
        };
        let value = serde_json::to_vec(&request).unwrap();
        let mut decoder = decoder(&Source::json("t", "requests"), &everything());
        let outcome = decoder.decode(&record(&value));
        prop_assert_eq!((outcome.rows, outcome.max_event_time_ms, outcome.rejects), (1, Some(time_ms), vec![]));
        let (_, batch) = decoder.finish().unwrap().remove(0);
        prop_assert_eq!(batch["event_time"].as_primitive::<TimestampMillisecondType>().value(0), time_ms);
        prop_assert_eq!(batch["service"].as_string_view().value(0), service);
        prop_assert_eq!(batch["route"].as_string_view().value(0), route);
        prop_assert_eq!(batch["status"].as_primitive::<Int64Type>().value(0), status);
        prop_assert_eq!(batch["duration_ms"].as_primitive::<Float64Type>().value(0), duration);
        prop_assert_eq!(batch["method"].as_string_view().iter().next().flatten(), method.as_deref());
        prop_assert_eq!(batch["db_rows"].as_primitive::<Int64Type>().iter().next().flatten(), db_rows);
        prop_assert!(batch["pod"].is_null(0));
    }

    #[test]
    fn events_and_exceptions_survive((ts, _) in time(), service in text(), name in text(), issuer in text(), amount in proptest::option::of(0f64..1e6)) {
        let event = Event {
            ts: ts.clone(), service: service.clone(), event: name.clone(), outcome: Some(EventOutcome::Success), amount, reason: None,
            attributes: BTreeMap::from([("issuer".into(), issuer.clone())]),
        };
        let mut events = decoder(&Source::json("t", "events"), &wanted(Table::Events, &["event_time", "event", "outcome", "amount", "attributes.issuer"]));
        prop_assert_eq!(events.decode(&record(&serde_json::to_vec(&event).unwrap())).rows, 1);
        let (_, batch) = events.finish().unwrap().remove(0);
        prop_assert_eq!(batch["event"].as_string_view().value(0), &name);
        prop_assert_eq!(batch["outcome"].as_string_view().value(0), "success");
        prop_assert_eq!(batch["amount"].as_primitive::<Float64Type>().iter().next().flatten(), amount);
        prop_assert_eq!(batch["attributes.issuer"].as_string_view().value(0), issuer);

        let exception = Exception {
            ts, service, exception_type: name.clone(), message: Some("no stock of 7".into()), stacktrace: None, environment: None,
            pod: None, container: None, route: None, trace_id: None, handled: Some(false),
        };
        let mut exceptions = decoder(&Source::json("t", "exceptions"), &wanted(Table::Exceptions, &["event_time", "fingerprint", "handled", "occurrence"]));
        prop_assert_eq!(exceptions.decode(&record(&serde_json::to_vec(&exception).unwrap())).rows, 1);
        let (_, batch) = exceptions.finish().unwrap().remove(0);
        let expected = crate::fingerprint::analyse(&name, Some("no stock of 12"), None).fingerprint;
        prop_assert_eq!(batch["fingerprint"].as_string_view().value(0), expected);
        prop_assert!(!batch["handled"].as_boolean().value(0));
        prop_assert_eq!(batch["occurrence"].as_string_view().value(0), "t-1-7-0");
    }

    /// Guarantees: no bytes make any decoder panic, lose count or give a batch that cannot be built.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        "[\\[\\]{}\",:0-9a-z ]{0,80}".prop_map(String::into_bytes),
        damaged_sample(),
    ]) {
        let mut sources = vec![
            Source::new("t", Format::OtlpProto), Source::new("t", Format::OtlpJson), Source::new("t", Format::Cloudevents),
        ];
        sources.extend([Signal::Traces, Signal::Metrics, Signal::Logs].map(|signal| Source { signal: Some(signal), ..Source::new("t", Format::OtlpProto) }));
        sources.extend(Table::ALL.map(|table| Source::json("t", table.name())));
        for source in sources {
            let mut decoder = decoder(&source, &everything());
            let outcome = decoder.decode(&record(&bytes));
            let rejected: u32 = outcome.rejects.iter().map(|reject| reject.events).sum();
            prop_assert!(outcome.events >= rejected + outcome.filtered);
            prop_assert!(outcome.rejects.iter().all(|reject| reject.detail.len() <= MAX_DETAIL_BYTES + 4));
            prop_assert_eq!(decoder.pending_rows(), outcome.rows as usize);
            let rows: usize = decoder.finish().unwrap().iter().map(|(_, batch)| batch.num_rows()).sum();
            prop_assert_eq!(rows, outcome.rows as usize);
        }
    }

    /// Guarantees: JSON and protobuf of the same payload give the same rows.
    #[test]
    fn both_encodings_agree(kind in 0i32..6, start in 1u64..u64::from(u32::MAX), status in 0i32..3, service in "[a-z]{1,20}", name in ".{0,20}") {
        let payload = serde_json::json!({"resourceSpans": [{
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]},
            "scopeSpans": [{"spans": [{"traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": "00f067aa0ba902b7", "name": name, "kind": kind,
                "startTimeUnixNano": (start * 1_000_000).to_string(), "endTimeUnixNano": (start * 1_000_001).to_string(), "status": {"code": status},
                "attributes": [{"key": "http.response.status_code", "value": {"intValue": "404"}}]}]}]}]}).to_string();
        let proto = serde_json::from_str::<TracesData>(&payload).unwrap().encode_to_vec();
        let mut from_json = decoder(&Source::new("t", Format::OtlpJson), &everything());
        let mut from_proto = decoder(&Source::new("t", Format::OtlpProto), &everything());
        prop_assert_eq!(from_json.decode(&record(payload.as_bytes())), from_proto.decode(&record(&proto)));
        prop_assert_eq!(from_json.finish().unwrap(), from_proto.finish().unwrap());
    }
}

/// A real payload with some bytes changed, or cut off.
fn damaged_sample() -> impl Strategy<Value = Vec<u8>> {
    let samples = [
        include_bytes!("../../tests/fixtures/spans-out-of-memory.binpb").as_slice(),
        include_bytes!("../../tests/fixtures/metrics-kubelet.binpb"),
        include_bytes!("../../tests/fixtures/logs-with-exceptions.json"),
    ];
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (prop::sample::select(samples.to_vec()), changes, proptest::option::of(any::<prop::sample::Index>())).prop_map(
        |(sample, changes, cut)| {
            let mut bytes = sample.to_vec();
            for (index, byte) in changes {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes
        },
    )
}

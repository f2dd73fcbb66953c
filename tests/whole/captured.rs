//! Real OpenTelemetry records of a real application, replayed into real Kafka.
//!
//! The captures are not part of the repository: the test reads them from `../shared/otlp` where a checkout has that folder, and says
//! so where it has not. The reader's own fixtures are under `ingest/tests/fixtures`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bongsu_ingest::okr::OkrReader;
use bongsu_testkit::Broker;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use serde_json::Value;

use crate::support::{Bongsu, committed, eventually, free_port};

const CONFIG: &str = r##"
kafka: { brokers: "{brokers}" }
sources:
  - { topic: otlp_spans, format: otlp_proto }
  - { topic: otlp_metrics, format: otlp_proto }
  - { topic: otlp_logs, format: otlp_proto }
time: { max_disorder: 10s, idle_timeout: 1s, allowed_lateness: 30s }
services:
  customers-service: { owner: { slack: "#customers" } }
  "*": { owner: { slack: "#platform" } }
dashboard: { listen: "127.0.0.1:{port}" }
"##;

fn capture() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/otlp/a.okr.zst");
    path.exists().then_some(path)
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value?;
    match value {
        Any::StringValue(text) => Some(text),
        Any::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Requests and errors by (service, route, minute), by way of the protobuf classes instead of our decoder.
fn independent_count(capture: &Path) -> BTreeMap<(String, String, String), (i64, i64)> {
    let mut counts = BTreeMap::new();
    for record in OkrReader::open(capture).unwrap().map(Result::unwrap).filter(|record| record.topic == "otlp_spans") {
        let request = ExportTraceServiceRequest::decode(record.value.unwrap().as_slice()).unwrap();
        for resource_spans in request.resource_spans {
            let resource = resource_spans.resource.unwrap().attributes;
            let service = attribute(&resource, "service.name").unwrap();
            let spans = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
            for span in spans.filter(|span| span.kind == SpanKind::Server as i32) {
                let route = attribute(&span.attributes, "http.route").unwrap_or(span.name);
                let status: i64 = attribute(&span.attributes, "http.response.status_code")
                    .and_then(|s| s.parse().ok())
                    .unwrap_or(200);
                let minute = span.start_time_unix_nano / 60_000_000_000 * 60;
                let start = chrono::DateTime::from_timestamp(minute as i64, 0)
                    .unwrap()
                    .format("%Y-%m-%dT%H:%M:%SZ")
                    .to_string();
                let count: &mut (i64, i64) = counts.entry((service.clone(), route, start)).or_default();
                count.0 += 1;
                count.1 += i64::from(status >= 500);
            }
        }
    }
    counts
}

/// Scenario: seven minutes of a shop's real telemetry, with errors that somebody caused on purpose.
/// Guarantees: windows per service and route equal an independent count, nothing is late or dead, and the repeated exception
/// alerts with type, message and route.
#[test]
fn real_telemetry_becomes_windows_and_alerts() {
    let Some(capture) = capture() else {
        eprintln!("no captures in ../shared/otlp: not tested here");
        return;
    };
    let broker = Broker::start().unwrap();
    for topic in ["otlp_spans", "otlp_metrics", "otlp_logs"] {
        broker.create_topic_with(topic, 4, &[("max.message.bytes", "3145728")]).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("bongsu.yaml");
    let text = CONFIG.replace("{brokers}", broker.bootstrap()).replace("{port}", &free_port().to_string());
    std::fs::write(&config, text).unwrap();
    for topic in ["otlp_spans", "otlp_metrics", "otlp_logs"] {
        let mut replay = Command::new(env!("CARGO_BIN_EXE_bongsu"));
        replay.args(["replay", "--shift", "now", "--topic", topic, "--only", topic, "--in"]).arg(&capture);
        let output = replay.arg("--config").arg(&config).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    let expected = independent_count(&capture);
    let spans: i64 = expected.values().map(|count| count.0).sum();
    assert_eq!(spans, 10_857, "server spans in the capture");
    let _bongsu = Bongsu::run("processor", &config);
    // All windows close: the partitions are idle, and event time goes on at the speed of the clock.
    let found = eventually("all windows per service and route", Duration::from_secs(150), || {
        let mut found = BTreeMap::new();
        for message in committed(broker.bootstrap(), "bongsu.windows") {
            let record = message.json().unwrap();
            if record["view"] == "requests_1m" {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let id =
                    (text(&record["key"]["service"]), text(&record["key"]["route"]), text(&record["window_start"]));
                let counts =
                    (record["values"]["requests"].as_i64().unwrap(), record["values"]["errors"].as_i64().unwrap());
                assert!(found.insert(id, counts).is_none());
            }
        }
        (found.len() >= expected.len()).then_some(found)
    });
    assert_eq!(found, expected);
    for topic in ["bongsu.late", "bongsu.dead-letter"] {
        assert_eq!(committed(broker.bootstrap(), topic).len(), 0, "{topic}");
    }

    let alerts: Vec<Value> =
        committed(broker.bootstrap(), "bongsu.alerts").iter().map(|alert| alert.json().unwrap()).collect();
    let expected_parts =
        ["RuntimeException", "Expected: controller used to showcase what happens when an exception is thrown", "/oups"];
    let names_it = |alert: &&Value| {
        let summary = alert["summary"].as_str().unwrap_or_default();
        alert["rule"] == "exception-burst" && expected_parts.iter().all(|part| summary.contains(part))
    };
    let summaries: Vec<_> = alerts.iter().map(|alert| alert["summary"].clone()).collect();
    assert!(alerts.iter().any(|alert| names_it(&alert)), "{summaries:#?}");
}

//! A stream of requests on its way through Bongsu, and what a batch query says about the same requests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMillisecondType};
use bongsu_testkit::{Message, consume_committed};
use datafusion::prelude::SessionContext;
use serde_json::json;

use crate::support::{Request, Windows, committed, eventually, free_port, produce, requests, windows};

const CONFIG: &str = r##"
kafka: { brokers: "{brokers}" }
defaults: false
sources: [ { topic: shop.requests, format: json, table: requests } ]
time: { max_disorder: 5s, idle_timeout: 10m, allowed_lateness: 1s }
services: { "*": { owner: { slack: "#platform" } } }
views:
  - name: requests_1m
    sql: |
      SELECT service, route, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors,
             sum(duration_ms) AS sum_ms, min(duration_ms) AS min_ms, max(duration_ms) AS max_ms,
             quantile(duration_ms, 0.95) AS p95_ms
      FROM requests GROUP BY tumble(interval '1 minute'), service, route
dashboard: { listen: "127.0.0.1:{port}" }
"##;

/// Processes and brokers may have to come back, and to find each other again.
const PATIENCE: Duration = Duration::from_secs(180);

/// How times are published.
const TIME_FORMAT: &str = "%Y-%m-%dT%H:%M:%SZ";

/// Requests for one topic, and what Bongsu is to make of them.
pub(crate) struct Stream {
    bootstrap: String,
    folder: tempfile::TempDir,
    pub(crate) requests: Vec<Request>,
    pub(crate) expected: Windows,
}

impl Stream {
    /// The topic `shop.requests` must be there, with four partitions.
    pub(crate) fn new(bootstrap: &str, seed: u64, events: usize) -> Stream {
        let requests = requests(seed, events);
        let expected = batch(&requests);
        Stream { bootstrap: bootstrap.to_owned(), folder: tempfile::tempdir().unwrap(), requests, expected }
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.config_named("bongsu")
    }

    /// One of several processes: each has its own file, since each has its own port.
    pub(crate) fn config_named(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{name}.yaml"));
        let port = free_port();
        let text = CONFIG.replace("{brokers}", &self.bootstrap).replace("{port}", &port.to_string());
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn produce(&self, requests: &[Request]) {
        produce(&self.bootstrap, "shop.requests", requests);
    }

    /// Writes requests, and returns when stage 1 is in the middle of them.
    pub(crate) fn produce_until_begun(&self, requests: &[Request]) {
        let partials = self.records_in("bongsu.partials");
        self.produce(requests);
        eventually("the requests to be begun", PATIENCE, || {
            (self.records_in("bongsu.partials") > partials).then_some(())
        });
    }

    /// Writes requests of several minutes, and returns when stage 2 is past the middle of them: a window that began
    /// there is out.
    pub(crate) fn produce_until_out(&self, requests: &[Request]) {
        self.produce_until_begun(requests);
        let middle = window_start(requests[requests.len() / 2].time_ms);
        let mut seen = 0;
        let is_out = |messages: &[Message]| {
            let new = &messages[seen..];
            seen = messages.len();
            new.iter().any(|message| message.json().unwrap()["window_start"].as_str().unwrap() >= middle.as_str())
        };
        consume_committed(&self.bootstrap, "bongsu.windows", is_out, PATIENCE).unwrap();
    }

    pub(crate) fn records_in(&self, topic: &str) -> i64 {
        let ends = bongsu_testkit::end_offsets(&self.bootstrap, topic);
        ends.map(|ends| ends.values().sum()).unwrap_or(0)
    }

    /// The windows once they are all there.
    pub(crate) fn complete(&self) -> Windows {
        eventually("all windows", PATIENCE, || {
            if self.records_in("bongsu.windows") < self.expected.len() as i64 {
                return None;
            }
            let found = windows(&committed(&self.bootstrap, "bongsu.windows"), "requests_1m");
            (found.len() >= self.expected.len()).then_some(found)
        })
    }
}

/// The windows by DataFusion in one query, without the quantile.
fn batch(requests: &[Request]) -> Windows {
    let closed = || requests.iter().filter(|request| request.service != "closing");
    let rows = RecordBatch::try_from_iter([
        (
            "event_time",
            Arc::new(TimestampMillisecondArray::from_iter_values(closed().map(|r| r.time_ms))) as Arc<dyn Array>,
        ),
        ("service", Arc::new(StringArray::from_iter_values(closed().map(|r| &r.service)))),
        ("route", Arc::new(StringArray::from_iter_values(closed().map(|r| &r.route)))),
        ("status", Arc::new(Int64Array::from_iter_values(closed().map(|r| r.status)))),
        ("duration_ms", Arc::new(Float64Array::from_iter_values(closed().map(|r| r.duration_ms)))),
    ])
    .unwrap();
    let query = async {
        let session = SessionContext::new();
        session.register_batch("requests", rows).unwrap();
        let sql =
            "SELECT service, route, date_bin(interval '1 minute', event_time) AS window_start, count(*) AS requests,
                          count(*) FILTER (WHERE status >= 500) AS errors, sum(duration_ms) AS sum_ms,
                          min(duration_ms) AS min_ms, max(duration_ms) AS max_ms
                   FROM requests GROUP BY 1, 2, 3";
        session.sql(sql).await.unwrap().collect().await.unwrap()
    };
    let results = tokio::runtime::Runtime::new().unwrap().block_on(query);
    let mut expected = Windows::new();
    for batch in results {
        for row in 0..batch.num_rows() {
            let text = |column: usize| batch.column(column).as_string::<i32>().value(row).to_owned();
            let integer = |column: usize| batch.column(column).as_primitive::<Int64Type>().value(row);
            let float = |column: usize| batch.column(column).as_primitive::<Float64Type>().value(row);
            let start = batch.column(2).as_primitive::<TimestampMillisecondType>().value_as_datetime(row).unwrap();
            let id = (text(0), text(1), start.format(TIME_FORMAT).to_string());
            let values = json!({
                "requests": integer(3), "errors": integer(4),
                "sum_ms": float(5), "min_ms": float(6), "max_ms": float(7),
            });
            expected.insert(id, values);
        }
    }
    expected
}

/// Everything but the quantile is equal to the last bit; the quantile is within 1 % of the exact one.
pub(crate) fn assert_equal(found: &Windows, expected: &Windows, requests: &[Request]) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "the windows differ");
    let mut durations = BTreeMap::<_, Vec<f64>>::new();
    for request in requests {
        let id = (request.service.clone(), request.route.clone(), window_start(request.time_ms));
        durations.entry(id).or_default().push(request.duration_ms);
    }
    for (id, values) in found {
        let mut values = values.clone();
        let p95 = values.as_object_mut().unwrap().remove("p95_ms").and_then(|p95| p95.as_f64()).unwrap();
        assert_eq!(values, expected[id], "{id:?}");
        let durations = durations.get_mut(id).unwrap();
        durations.sort_by(f64::total_cmp);
        let exact = durations[(0.95 * (durations.len() - 1) as f64) as usize];
        assert!((p95 - exact).abs() <= 0.0101 * exact, "{id:?}: p95 is {p95}, exactly {exact}");
    }
}

/// Start of the window that an event lies in, as it is published.
fn window_start(time_ms: i64) -> String {
    let start = chrono::DateTime::from_timestamp_millis(time_ms - time_ms.rem_euclid(60_000)).unwrap();
    start.format(TIME_FORMAT).to_string()
}

//! Requests as stage 1 has decoded them, the same each time. The benchmarks use this file, too.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampMillisecondArray};
use bongsu_processor::config::View;
use bongsu_processor::plan::{TableColumns, Tables, ViewPlan};
use bongsu_schemas::tables::{Column, EVENT_TIME, Table, schema_of};
use chrono_tz::Tz;

/// The view that everything here is about: two keys, one aggregate of each kind.
const VIEW: &str = "SELECT service, route, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors,
    sum(duration_ms) AS total_ms, min(duration_ms) AS min_ms, max(duration_ms) AS max_ms,
    quantile(duration_ms, 0.95) AS p95_ms
    FROM requests GROUP BY tumble(interval '1 minute'), service, route";

/// Here begins a minute.
pub(crate) const START_MS: i64 = 1_795_420_560_000;

pub(crate) fn view() -> ViewPlan {
    let table = Table::Requests;
    let columns = TableColumns { columns: table.columns(), has_attributes: table.has_attributes() };
    let tables = Tables::from([(table.name().to_owned(), columns)]);
    ViewPlan::new(&View::new("requests_1m", VIEW), &tables, Tz::UTC).unwrap()
}

/// One request; its group is a number that [`Names`] understands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) time_ms: i64,
    pub(crate) group: usize,
    pub(crate) status: i64,
    pub(crate) duration_ms: f64,
}

impl Request {
    pub(crate) fn new(time_ms: i64, group: usize, random: &mut Random) -> Request {
        let status = [200, 200, 200, 200, 200, 201, 302, 404, 500, 503][random.below(10) as usize];
        Request { time_ms, group, status, duration_ms: duration_ms(random.fraction()) }
    }
}

/// The duration that a share `fraction` of the requests stays below: exponential about 100 ms, in quarters of one.
pub(crate) fn duration_ms(fraction: f64) -> f64 {
    (8.0 - 400.0 * (1.0 - fraction).ln()).floor() / 4.0
}

/// The group keys. Group `n` is the route `n / services` of the service `n % services`.
pub(crate) struct Names {
    pub(crate) services: Vec<String>,
    pub(crate) routes: Vec<String>,
}

impl Names {
    pub(crate) fn new(services: usize, routes: usize) -> Names {
        Names {
            services: (0..services).map(|number| format!("service-{number:03}")).collect(),
            routes: (0..routes).map(|number| format!("/api/orders-{number:03}/{{id}}")).collect(),
        }
    }

    /// The columns that the view wants of the requests.
    pub(crate) fn decoded(&self, view: &ViewPlan, requests: &[Request]) -> RecordBatch {
        let services = self.services.len();
        let service = |request: &Request| self.services[request.group % services].as_str();
        let route = |request: &Request| self.routes[request.group / services].as_str();
        let column = |column: &Column| -> ArrayRef {
            match column.name.as_str() {
                EVENT_TIME => {
                    let times = requests.iter().map(|request| request.time_ms);
                    Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC"))
                }
                "service" => Arc::new(StringViewArray::from_iter_values(requests.iter().map(service))),
                "route" => Arc::new(StringViewArray::from_iter_values(requests.iter().map(route))),
                "status" => Arc::new(Int64Array::from_iter_values(requests.iter().map(|request| request.status))),
                "duration_ms" => {
                    Arc::new(Float64Array::from_iter_values(requests.iter().map(|request| request.duration_ms)))
                }
                other => panic!("the view wants {other}"),
            }
        };
        let columns = view.input_columns.iter().map(column).collect();
        RecordBatch::try_new(schema_of(&view.input_columns), columns).unwrap()
    }
}

/// Chooses among groups: group `n` with a probability proportional to `1 / (n + 1)`, Zipf's law with exponent 1.
pub(crate) struct Zipf {
    groups: Vec<usize>,
    cumulated: Vec<f64>,
}

impl Zipf {
    pub(crate) fn among(groups: Vec<usize>) -> Zipf {
        let weights = groups.iter().scan(0.0, |sum: &mut f64, group| {
            *sum += 1.0 / (*group as f64 + 1.0);
            Some(*sum)
        });
        Zipf { cumulated: weights.collect(), groups }
    }

    pub(crate) fn pick(&self, random: &mut Random) -> usize {
        let last = self.groups.len() - 1;
        let at = random.fraction() * self.cumulated[last];
        self.groups[self.cumulated.partition_point(|sum| *sum <= at).min(last)]
    }
}

/// Numbers that look random and are the same each time (xorshift64*). The seed must not be 0.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 33) % bound
    }

    /// At least 0, less than 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

//! One event, as native JSON.

use std::io::Write as _;
use std::ops::Range;

use anyhow::ensure;

use crate::random::{Random, Zipf};

/// Bytes of one event.
pub(crate) const EVENT_BYTES: usize = 215;
pub(crate) const SERVICES: usize = 200;
pub(crate) const ROUTES: usize = 20;
pub(crate) const GROUPS: usize = SERVICES * ROUTES;

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) time_ms: i64,
    pub(crate) group: usize,
    pub(crate) status: u16,
    /// Durations are multiples of a quarter of a millisecond, so that sums are exact in any order.
    pub(crate) quarter_ms: u32,
}

impl Request {
    /// One of many, less than `disorder_ms` before `in_order_ms`.
    pub(crate) fn random(in_order_ms: i64, disorder_ms: u64, random: &mut Random, zipf: &Zipf) -> Request {
        // Most are quick, some slow, as latencies are: exponential about 100 ms.
        let quarter_ms = (8.0 - 400.0 * (1.0 - random.fraction()).ln()) as u32;
        Request {
            time_ms: in_order_ms - random.below(disorder_ms) as i64,
            group: zipf.group(random.fraction()),
            status: [200, 200, 200, 200, 200, 201, 302, 404, 500, 503][random.below(10) as usize],
            quarter_ms,
        }
    }

    /// The name of a group's service.
    pub(crate) fn service(group: usize) -> String {
        format!("service-{:03}", group % SERVICES)
    }

    /// The name of a group's route.
    pub(crate) fn route(group: usize) -> String {
        format!("/api/orders-{:02}/{{id}}", group / SERVICES)
    }

    pub(crate) fn duration_ms(&self) -> f64 {
        f64::from(self.quarter_ms) / 4.0
    }

    /// Writes the event as JSON of [`EVENT_BYTES`]; the length of `trace_id` makes up for that of the numbers. A
    /// `trace` of 12 hexadecimal digits or fewer fits whatever the duration's length.
    pub(crate) fn write_json(&self, trace: u64, json: &mut Vec<u8>) -> anyhow::Result<()> {
        json.clear();
        let (service, route, time_ms) = (Request::service(self.group), Request::route(self.group), self.time_ms);
        let (status, duration_ms) = (self.status, self.duration_ms());
        write!(json, r#"{{"ts":{time_ms},"service":"{service}","route":"{route}","status":{status},"#)?;
        write!(json, r#""duration_ms":{duration_ms},"method":"GET","environment":"production","#)?;
        write!(json, r#""pod":"{service}-7d9f8b6c5-x2x4z","trace_id":""#)?;
        let digits = EVENT_BYTES.saturating_sub(json.len() + 2);
        write!(json, r#"{trace:0digits$x}"}}"#)?;
        ensure!(json.len() == EVENT_BYTES, "an event has {} bytes: {self:?}", json.len());
        Ok(())
    }
}

/// Requests that were written beforehand: only their time is filled in, so that millions a second can be produced.
pub(crate) struct Templates {
    /// With the group of each.
    requests: Vec<(usize, Vec<u8>)>,
    next: usize,
}

/// Enough for thousands of groups; together larger than what lz4 looks back to, so that they compress like other
/// events.
const TEMPLATES: usize = 20_000;
/// Where the time stands: behind `{"ts":`. It has thirteen digits from 2001 to 2286.
const TIME_AT: Range<usize> = 6..19;

impl Templates {
    pub(crate) fn new() -> anyhow::Result<Templates> {
        let (mut random, zipf) = (Random::new(2027), Zipf::new());
        let mut requests = Vec::with_capacity(TEMPLATES);
        for _ in 0..TEMPLATES {
            let request = Request::random(1_700_000_000_000, 1, &mut random, &zipf);
            let mut json = Vec::with_capacity(EVENT_BYTES);
            request.write_json(random.bits() >> 16, &mut json)?;
            requests.push((request.group, json));
        }
        Ok(Templates { requests, next: 0 })
    }

    /// The next one at that time, with its group.
    pub(crate) fn at(&mut self, time_ms: i64) -> (usize, &[u8]) {
        let index = self.next;
        self.next = (index + 1) % self.requests.len();
        let (group, json) = &mut self.requests[index];
        let mut rest = time_ms;
        for digit in json[TIME_AT].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        (*group, json.as_slice())
    }
}

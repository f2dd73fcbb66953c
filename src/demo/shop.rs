//! The simulated shop: a pure function of a seed and the time, so that each run of a seed sells the same.

use std::collections::BTreeMap;

use bongsu_schemas::native::{Event, Exception, Metric, Outcome, Request, Time};

use super::random::Random;

const ENVIRONMENT: &str = "production";
const PODS: u64 = 3;
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
/// Metrics are sent this often, like the agents' default would be in a hurry.
const METRICS_EVERY_MS: i64 = 5_000;

/// A service, its routes with their share of the traffic, and how it does.
struct Service {
    name: &'static str,
    requests_per_sec: f64,
    routes: &'static [(&'static str, &'static str, f64)],
    /// Median of the duration.
    median_ms: f64,
    /// SQL rows per request, about.
    db_rows: f64,
    exception: (&'static str, &'static str),
}

#[rustfmt::skip]
const SERVICES: [Service; 8] = [
    Service { name: "order-api", requests_per_sec: 40.0, median_ms: 35.0, db_rows: 12.0, exception: ("io.shop.order.StockMismatchException", "reserved more than is in stock"),
        routes: &[("POST", "/orders", 0.5), ("GET", "/orders/{id}", 0.4), ("DELETE", "/orders/{id}", 0.1)] },
    Service { name: "payment-api", requests_per_sec: 36.0, median_ms: 80.0, db_rows: 6.0, exception: ("io.shop.payment.DuplicatePaymentException", "this order is paid already"),
        routes: &[("POST", "/payments", 0.8), ("GET", "/payments/{id}", 0.2)] },
    Service { name: "catalog-api", requests_per_sec: 60.0, median_ms: 12.0, db_rows: 30.0, exception: ("java.util.NoSuchElementException", "No value present"),
        routes: &[("GET", "/products", 0.5), ("GET", "/products/{id}", 0.4), ("GET", "/categories", 0.1)] },
    Service { name: "cart-api", requests_per_sec: 30.0, median_ms: 9.0, db_rows: 4.0, exception: ("java.lang.IllegalStateException", "cart is closed"),
        routes: &[("PUT", "/cart/{id}", 0.6), ("GET", "/cart/{id}", 0.4)] },
    Service { name: "search-api", requests_per_sec: 25.0, median_ms: 45.0, db_rows: 0.0, exception: ("org.elasticsearch.ElasticsearchTimeoutException", "search timed out"),
        routes: &[("GET", "/search", 1.0)] },
    Service { name: "coupon-api", requests_per_sec: 8.0, median_ms: 18.0, db_rows: 20.0, exception: ("java.sql.SQLTransientConnectionException", "no connection within 30000 ms"),
        routes: &[("GET", "/coupons", 0.7), ("POST", "/coupons/{id}/redeem", 0.3)] },
    Service { name: "user-api", requests_per_sec: 20.0, median_ms: 15.0, db_rows: 2.0, exception: ("io.jsonwebtoken.ExpiredJwtException", "JWT expired"),
        routes: &[("POST", "/login", 0.3), ("GET", "/me", 0.7)] },
    Service { name: "shipping-api", requests_per_sec: 6.0, median_ms: 60.0, db_rows: 8.0, exception: ("feign.RetryableException", "Read timed out executing POST"),
        routes: &[("POST", "/shipments", 0.4), ("GET", "/shipments/{id}", 0.6)] },
];

/// A card issuer: its share of the payments, and of these the share that succeeds.
struct Issuer {
    name: &'static str,
    share: f64,
    success: f64,
}

const ISSUERS: [Issuer; 5] = [
    Issuer { name: "hanbit-card", share: 0.35, success: 0.985 },
    Issuer { name: "garam-card", share: 0.25, success: 0.98 },
    Issuer { name: "mirae-card", share: 0.20, success: 0.99 },
    Issuer { name: "dalbit-card", share: 0.15, success: 0.975 },
    Issuer { name: "byeol-card", share: 0.05, success: 0.97 },
];
/// What is left of the success of an issuer that is down.
const SUCCESS_WHEN_DOWN: f64 = 0.2;
/// Issuers large enough that each short window sees a failure of theirs.
const LIKELY_TO_FAIL: u64 = 3;

/// What happened in the shop.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Happening {
    /// For `shop.requests`
    Request(Request),
    /// For `shop.events`
    Event(Event),
    /// For `shop.exceptions`
    Exception(Exception),
    /// For `shop.metrics`
    Metric(Metric),
}

/// The shop. Time is given, never asked for.
pub(super) struct Shop {
    random: Random,
    /// Position in [`ISSUERS`].
    victim: usize,
    next_metrics_ms: i64,
    orders: u64,
}

impl Shop {
    pub(super) fn new(seed: u64) -> Shop {
        let mut random = Random::new(seed);
        let victim = random.below(LIKELY_TO_FAIL) as usize;
        Shop { random, victim, next_metrics_ms: i64::MIN, orders: 0 }
    }

    /// The issuer whose payments fail in this shop's outage.
    pub(super) fn victim(&self) -> &'static str {
        ISSUERS[self.victim].name
    }

    /// What happens in `[from_ms, to_ms)`, times since the epoch, in no particular order.
    pub(super) fn sell(&mut self, from_ms: i64, to_ms: i64, is_outage: bool) -> Vec<Happening> {
        let mut happenings = Vec::new();
        let secs = (to_ms - from_ms).max(0) as f64 / 1000.0;
        for service in &SERVICES {
            for _ in 0..self.random.poisson(service.requests_per_sec * secs) {
                self.request(service, from_ms, to_ms, is_outage, &mut happenings);
            }
        }
        if to_ms > self.next_metrics_ms {
            self.next_metrics_ms = to_ms + METRICS_EVERY_MS;
            for service in &SERVICES {
                self.metrics(service, from_ms, &mut happenings);
            }
        }
        happenings
    }

    fn request(&mut self, service: &Service, from_ms: i64, to_ms: i64, is_outage: bool, out: &mut Vec<Happening>) {
        let random = &mut self.random;
        let ts = Time::EpochMillis(from_ms + random.below((to_ms - from_ms).max(1) as u64) as i64);
        let (method, route, _) = service.routes[random.weighted(service.routes.iter().map(|(.., share)| *share))];
        let fails = random.chance(0.001);
        let pod = format!("{}-{}", service.name, random.below(PODS));
        let (trace_id, span_id) = (random.hex(32), random.hex(16));
        let duration_ms = random.log_normal(service.median_ms, 0.5);
        let db_rows = (service.db_rows > 0.0).then(|| random.poisson(service.db_rows) as i64);
        if fails {
            let (exception_type, message) = service.exception;
            let class = exception_type.rsplit('.').next().unwrap_or(exception_type);
            let package = service.name.replace("-api", "");
            out.push(Happening::Exception(Exception {
                ts: ts.clone(),
                service: service.name.to_owned(),
                exception_type: exception_type.to_owned(),
                message: Some(message.to_owned()),
                stacktrace: Some(format!(
                    "{exception_type}: {message}\n\tat io.shop.{package}.{class}Source.check({class}Source.java:{})\n\t\
                     at io.shop.{package}.web.Controller.handle(Controller.java:88)",
                    40 + random.below(4)
                )),
                environment: Some(ENVIRONMENT.to_owned()),
                pod: Some(pod.clone()),
                container: Some("app".to_owned()),
                route: Some(route.to_owned()),
                trace_id: Some(trace_id.clone()),
                handled: Some(false),
            }));
        }
        match (service.name, method, route) {
            ("order-api", "POST", "/orders") => {
                self.orders += 1;
                out.push(self.business(&ts, "order-api", "order", fails, BTreeMap::new()));
            }
            ("payment-api", "POST", "/payments") => out.push(self.payment(&ts, is_outage)),
            _ => {}
        }
        out.push(Happening::Request(Request {
            ts,
            service: service.name.to_owned(),
            route: route.to_owned(),
            status: if fails { 500 } else { 200 },
            duration_ms,
            method: Some(method.to_owned()),
            environment: Some(ENVIRONMENT.to_owned()),
            pod: Some(pod),
            container: Some("app".to_owned()),
            error_type: fails.then(|| service.exception.0.to_owned()),
            db_rows,
            db_calls: db_rows.map(|rows| 1 + rows / 10),
            trace_id: Some(trace_id),
            span_id: Some(span_id),
            parent_span_id: None,
        }));
    }

    fn payment(&mut self, ts: &Time, is_outage: bool) -> Happening {
        let position = self.random.weighted(ISSUERS.iter().map(|issuer| issuer.share));
        let issuer = &ISSUERS[position];
        let success = if is_outage && position == self.victim { SUCCESS_WHEN_DOWN } else { issuer.success };
        let fails = !self.random.chance(success);
        let attributes = BTreeMap::from([("issuer".to_owned(), issuer.name.to_owned())]);
        self.business(ts, "payment-api", "payment", fails, attributes)
    }

    fn business(
        &mut self,
        ts: &Time,
        service: &str,
        event: &str,
        fails: bool,
        attributes: BTreeMap<String, String>,
    ) -> Happening {
        Happening::Event(Event {
            ts: ts.clone(),
            service: service.to_owned(),
            event: event.to_owned(),
            outcome: Some(if fails { Outcome::Failure } else { Outcome::Success }),
            amount: Some(self.random.log_normal(32_000.0, 0.6).round()),
            reason: fails.then(|| "no answer".to_owned()),
            attributes,
        })
    }

    /// A healthy heap: a sawtooth up to 70 %, a third of it still in use after each collection.
    fn metrics(&mut self, service: &Service, at_ms: i64, out: &mut Vec<Happening>) {
        let heap = BTreeMap::from([("jvm.memory.type".to_owned(), "heap".to_owned())]);
        let none = BTreeMap::new();
        for pod in 0..PODS {
            let sawtooth = (at_ms / 1000 + pod as i64 * 13).rem_euclid(40) as f64 / 40.0;
            let cpu = 0.25 + 0.15 * self.random.unit();
            let measured = [
                ("container.cpu.usage", cpu * 2.0, Some(2.0), &none),
                (
                    "container.memory.working_set",
                    (0.55 + 0.02 * self.random.unit()) * 2.0 * GIB,
                    Some(2.0 * GIB),
                    &none,
                ),
                ("jvm.memory.used", (0.3 + 0.4 * sawtooth) * GIB, None, &heap),
                ("jvm.memory.used_after_last_gc", 0.3 * GIB, None, &heap),
                ("jvm.memory.limit", GIB, None, &heap),
                ("k8s.container.restarts", 0.0, None, &none),
            ];
            for (name, value, limit, attributes) in measured {
                out.push(Happening::Metric(Metric {
                    ts: Time::EpochMillis(at_ms),
                    service: service.name.to_owned(),
                    name: name.to_owned(),
                    value,
                    environment: Some(ENVIRONMENT.to_owned()),
                    pod: Some(format!("{}-{pod}", service.name)),
                    container: Some("app".to_owned()),
                    unit: None,
                    limit,
                    attributes: attributes.clone(),
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Payments and failures by issuer in a minute.
    fn payments(shop: &mut Shop, is_outage: bool) -> BTreeMap<String, (u32, u32)> {
        let mut counts: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        for happening in shop.sell(0, 60_000, is_outage) {
            if let Happening::Event(event) = happening
                && event.event == "payment"
            {
                let (attempts, failures) = counts.entry(event.attributes["issuer"].clone()).or_default();
                *attempts += 1;
                *failures += u32::from(event.outcome == Some(Outcome::Failure));
            }
        }
        counts
    }

    #[test]
    fn a_seed_sells_the_same_again() {
        let sell = |seed| Shop::new(seed).sell(1_000, 2_000, false);
        assert_eq!(sell(7), sell(7));
        assert_ne!(sell(7), sell(8));
    }

    /// Scenario: a minute without and a minute with the outage, for several seeds.
    /// Guarantees: the outage is the victim's alone, and large enough to be seen in five seconds.
    #[test]
    fn only_the_victim_fails() {
        for seed in 0..20 {
            let mut shop = Shop::new(seed);
            for is_outage in [false, true] {
                for (issuer, (attempts, failures)) in payments(&mut shop, is_outage) {
                    let is_down = is_outage && issuer == shop.victim();
                    let failing = f64::from(failures) / f64::from(attempts);
                    assert_eq!(failing > 0.3, is_down, "seed {seed}, {issuer}: {failures} of {attempts}");
                    assert!(!is_down || attempts > 12 * 15, "seed {seed}, {issuer}: {attempts} a minute");
                }
            }
        }
    }

    #[test]
    fn all_tables_are_filled() {
        let (mut requests, mut events, mut exceptions, mut metrics) = (0, 0, 0, 0);
        for happening in Shop::new(1).sell(0, 60_000, false) {
            match happening {
                Happening::Request(_) => requests += 1,
                Happening::Event(_) => events += 1,
                Happening::Exception(_) => exceptions += 1,
                Happening::Metric(_) => metrics += 1,
            }
        }
        assert!((10_000..17_000).contains(&requests), "{requests}");
        assert!(events > 2_000 && exceptions > 3 && metrics > 100, "{events} {exceptions} {metrics}");
    }
}

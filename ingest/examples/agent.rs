//! An agent: reports ten requests and a payment, and waits until Kafka has them.
//!
//! ```text
//! cargo run -p bongsu-ingest --example agent -- localhost:9092
//! ```

#![allow(clippy::print_stderr)] // it is a program, and says what it did

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bongsu_ingest::producer::{EventProducer, Options};
use bongsu_schemas::native::{Event, Outcome, Request, Time};

fn main() -> Result<(), Box<dyn Error>> {
    let brokers = env::args().nth(1).unwrap_or_else(|| "localhost:9092".into());
    let producer = EventProducer::new(&Options::new(brokers))?;
    for number in 0..10 {
        let request = Request {
            ts: now()?,
            service: "order-api".into(),
            route: "/orders/{id}".into(),
            status: if number == 9 { 503 } else { 200 },
            duration_ms: 12.5 + f64::from(number),
            method: Some("GET".into()),
            environment: Some("production".into()),
            pod: None,
            container: None,
            error_type: None,
            db_rows: Some(3),
            db_calls: Some(1),
            trace_id: None,
            span_id: None,
            parent_span_id: None,
        };
        // In a service: `try_send`, which never waits. A program that has nothing better to do may wait for room.
        producer.send("shop.requests", &request, Duration::from_secs(1))?;
    }
    let payment = Event {
        ts: now()?,
        service: "payment-api".into(),
        event: "payment".into(),
        outcome: Some(Outcome::Success),
        amount: Some(129_000.0),
        reason: None,
        attributes: BTreeMap::from([("issuer".into(), "hana".into())]),
    };
    producer.send("shop.events", &payment, Duration::from_secs(1))?;
    let counts = producer.shutdown(Duration::from_secs(10))?;
    eprintln!("{} events delivered, {} failed", counts.delivered, counts.failed);
    Ok(())
}

fn now() -> Result<Time, Box<dyn Error>> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(Time::EpochMillis(i64::try_from(since_epoch.as_millis())?))
}

//! How a process ends when it is asked to.

use std::time::Duration;

use bongsu_testkit::Broker;

use crate::support::{Bongsu, committed, eventually, free_port, produce, requests, windows};

const CONFIG: &str = r##"
kafka: { brokers: "{brokers}" }
sources: [ { topic: shop.requests, format: json, table: requests } ]
services: { "*": { owner: { slack: "#platform" } } }
dashboard: { listen: "127.0.0.1:{port}" }
"##;

/// Scenario: SIGTERM and Ctrl-C in the middle of the work.
/// Guarantees: the process commits what it has and ends with 0 within five seconds.
#[test]
fn signals_drain_and_commit() {
    let broker = Broker::start().unwrap();
    broker.create_topic("shop.requests", 4).unwrap();
    produce(broker.bootstrap(), "shop.requests", &requests(5, 20_000));
    for signal in ["TERM", "INT"] {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("bongsu.yaml");
        std::fs::write(
            &config,
            CONFIG.replace("{brokers}", broker.bootstrap()).replace("{port}", &free_port().to_string()),
        )
        .unwrap();
        let bongsu = Bongsu::run("all", &config);
        eventually("windows", Duration::from_secs(60), || {
            let ends = bongsu_testkit::end_offsets(broker.bootstrap(), "bongsu.windows").ok()?;
            // The second process finds windows of the first: it must have begun its own work, too.
            let begun = bongsu.log().contains("partitions rebalanced flow=\"stage2\"");
            (begun && ends.values().sum::<i64>() > 0).then_some(())
        });
        let (code, took) = bongsu.signal(signal);
        assert_eq!(code, Some(0), "SIG{signal}");
        assert!(took < Duration::from_secs(6), "SIG{signal} took {took:?}");
    }
    let partials = bongsu_testkit::end_offsets(broker.bootstrap(), "bongsu.partials").unwrap();
    assert!(partials.values().sum::<i64>() > 0);
    // What the first committed, the second did not write again: `windows` refuses a window that is there twice.
    assert!(!windows(&committed(broker.bootstrap(), "bongsu.windows"), "requests_1m").is_empty());
}

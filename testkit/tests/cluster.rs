//! A cluster keeps what it has acknowledged, whoever dies.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, stop at the first surprise")]

use std::{ops::Range, time::Duration};

use bongsu_testkit::{Cluster, consume_committed, produce};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Scenario: one of three nodes is killed, records are written and read without it, it comes back, and then all three
/// are killed and restarted.
/// Guarantees: every acknowledged record is there once, while one node is dead and after all of them were.
#[test]
fn acknowledged_records_outlive_one_node_and_all_processes() {
    let mut cluster = Cluster::start(3).unwrap();
    cluster.create_topic("orders", 4).unwrap();
    let bootstrap = cluster.bootstrap().to_owned();
    assert_eq!(bootstrap.split(',').count(), 3);

    write(&bootstrap, 0..1_000);
    cluster.kill(0);
    write(&bootstrap, 1_000..2_000);
    assert_eq!(read(&bootstrap, 2_000), (0..2_000).collect::<Vec<u64>>());

    cluster.restart(0).unwrap();
    write(&bootstrap, 2_000..3_000);
    cluster.restart_all().unwrap();
    assert_eq!(cluster.bootstrap(), bootstrap);
    assert_eq!(read(&bootstrap, 3_000), (0..3_000).collect::<Vec<u64>>());
    write(&bootstrap, 3_000..4_000);
    assert_eq!(read(&bootstrap, 4_000), (0..4_000).collect::<Vec<u64>>());
}

fn write(bootstrap: &str, numbers: Range<u64>) {
    let count = numbers.end - numbers.start;
    let records = numbers.map(|number| (number.to_string(), number.to_string()));
    assert_eq!(produce(bootstrap, "orders", None, records).unwrap(), count);
}

/// All records, in order. At least `count` are awaited: a leader that has just started does not know at once how much
/// is committed.
fn read(bootstrap: &str, count: usize) -> Vec<u64> {
    let messages = consume_committed(bootstrap, "orders", |messages| messages.len() >= count, TIMEOUT).unwrap();
    let mut numbers: Vec<u64> = messages.iter().map(|message| message.json().unwrap().as_u64().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

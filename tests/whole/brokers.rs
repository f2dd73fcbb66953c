//! Brokers die, and Bongsu goes on.

use bongsu_testkit::Cluster;

use crate::stream::{Stream, assert_equal};
use crate::support::Bongsu;

const EVENTS: usize = 200_000;

/// Scenario: in the middle of the stream one of three brokers is killed, and windows close without it; it comes back;
/// then all three are killed and started again.
/// Guarantees: P1 and P2 whatever the brokers do; the one processor recovers by itself, and nothing is missing, double
/// or wrong.
#[test]
fn windows_equal_a_batch_query_although_brokers_die() {
    let mut cluster = Cluster::start(3).unwrap();
    cluster.create_topic("shop.requests", 4).unwrap();
    let stream = Stream::new(cluster.bootstrap(), 16, EVENTS);
    let mut slices = stream.requests.chunks(stream.requests.len().div_ceil(6));
    let mut next_slice = || slices.next().unwrap();

    let mut bongsu = Bongsu::run("processor", &stream.config());
    stream.produce_until_out(next_slice());

    stream.produce_until_begun(next_slice());
    cluster.kill(0);
    stream.produce_until_out(next_slice());
    cluster.restart(0).unwrap();

    stream.produce_until_begun(next_slice());
    cluster.restart_all().unwrap();
    stream.produce_until_out(next_slice());

    stream.produce(next_slice());
    assert_equal(&stream.complete(), &stream.expected, &stream.requests);
    assert!(bongsu.is_alive());
}

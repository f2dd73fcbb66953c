//! A process has a name, and only one process has it.

use std::time::Duration;

use bongsu_testkit::Broker;

use crate::stream::{Stream, assert_equal};
use crate::support::{Bongsu, eventually};

/// Scenario: a second process starts under the name of the first, as when a node comes back that was thought dead.
/// Guarantees: the first ends by itself with exit code 3 and says why; the second goes on, and the windows are whole.
#[test]
fn a_process_that_is_replaced_ends_and_says_so() {
    let broker = Broker::start().unwrap();
    broker.create_topic("shop.requests", 4).unwrap();
    let stream = Stream::new(broker.bootstrap(), 17, 60_000);
    let (first_half, second_half) = stream.requests.split_at(30_000);
    let name = [("BONGSU_INSTANCE", "node-7")];
    let mut first = Bongsu::run_with("processor", &stream.config_named("first"), &name);
    stream.produce_until_out(first_half);
    let _second = Bongsu::run_with("processor", &stream.config_named("second"), &name);
    stream.produce(second_half);
    let code = eventually("the first to end", Duration::from_secs(60), || first.exit_code());
    assert_eq!(code, Some(3));
    assert!(first.log().contains("another process has taken over the name `node-7`"), "{}", first.log());
    assert_equal(&stream.complete(), &stream.expected, &stream.requests);
}

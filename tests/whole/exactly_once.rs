//! What is in `bongsu.windows` is what a batch query over the same events says, also after SIGKILL.

use std::time::Duration;

use bongsu_processor::kill_point::STEPS;
use bongsu_testkit::Broker;

use crate::stream::{Stream, assert_equal};
use crate::support::{Bongsu, Random, eventually};

const EVENTS: usize = 1_000_000;

/// A stream, and the broker that it is to be written to.
fn stream(seed: u64, events: usize) -> (Broker, Stream) {
    let broker = Broker::start().unwrap();
    broker.create_topic("shop.requests", 4).unwrap();
    let stream = Stream::new(broker.bootstrap(), seed, events);
    (broker, stream)
}

/// Scenario: one million events.
/// Guarantees: P1 without crashes.
#[test]
fn windows_equal_a_batch_query() {
    let (_broker, stream) = stream(11, EVENTS);
    stream.produce(&stream.requests);
    let _bongsu = Bongsu::run("processor", &stream.config());
    assert_equal(&stream.complete(), &stream.expected, &stream.requests);
}

/// Scenario: one million events; the process is killed when the windows of the first half are out and it has begun with the
/// second half, and is started again.
/// Guarantees: P1; nothing is missing, double or wrong.
#[test]
fn windows_equal_a_batch_query_after_sigkill() {
    let (_broker, stream) = stream(12, EVENTS);
    let config = stream.config();
    let (first_half, second_half) = stream.requests.split_at(EVENTS / 2);
    stream.produce(first_half);
    let bongsu = Bongsu::run("processor", &config);
    eventually("windows of the first half", Duration::from_secs(120), || {
        (stream.records_in("bongsu.windows") > 0).then_some(())
    });
    stream.produce_until_begun(second_half);
    bongsu.kill();
    let _again = Bongsu::run("processor", &config);
    assert_equal(&stream.complete(), &stream.expected, &stream.requests);
}

/// Scenario: the process is killed at every named place of both stages' commits, one after the other, while the stream goes on.
/// Guarantees: P1 and P3 at each step of a commit.
#[test]
fn windows_equal_a_batch_query_after_a_kill_at_every_step_of_a_commit() {
    let (_broker, stream) = stream(13, EVENTS / 5);
    let config = stream.config();
    let places: Vec<String> =
        ["stage1", "stage2"].iter().flat_map(|flow| STEPS.iter().map(move |step| format!("{flow}.{step}"))).collect();
    let mut slices = stream.requests.chunks(stream.requests.len() / (places.len() + 1));
    for place in &places {
        stream.produce(slices.next().unwrap());
        let mut bongsu = Bongsu::run_with("processor", &config, &[("BONGSU_KILL_AT", place)]);
        eventually(place, Duration::from_secs(60), || (!bongsu.is_alive()).then_some(()));
    }
    slices.for_each(|slice| stream.produce(slice));
    let _bongsu = Bongsu::run("processor", &config);
    assert_equal(&stream.complete(), &stream.expected, &stream.requests);
}

/// Scenario: SIGKILL at random moments while the stream goes on: four times over a million events, `BONGSU_KILLS` and `BONGSU_EVENTS` say
/// otherwise.
/// Guarantees: P1 and P3 wherever it strikes.
#[test]
fn windows_equal_a_batch_query_after_kills_at_random_moments() {
    let from_environment = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<usize>().ok());
    let (kills, events) =
        (from_environment("BONGSU_KILLS").unwrap_or(4), from_environment("BONGSU_EVENTS").unwrap_or(EVENTS));
    let (_broker, stream) = stream(14, events);
    let config = stream.config();
    let mut random = Random(99);
    let mut slices = stream.requests.chunks(stream.requests.len() / (kills + 1));
    for _ in 0..kills {
        stream.produce(slices.next().unwrap());
        let bongsu = Bongsu::run("processor", &config);
        // The moment is what is random: some kills come before the first poll, some in the middle of the work, some after it.
        std::thread::sleep(Duration::from_millis(300 + random.below(3_000)));
        bongsu.kill();
    }
    slices.for_each(|slice| stream.produce(slice));
    let _bongsu = Bongsu::run("processor", &config);
    assert_equal(&stream.complete(), &stream.expected, &stream.requests);
}

/// Scenario: one process, then three, then two, while the stream goes on.
/// Guarantees: P1 and P2 when partitions change hands.
#[test]
fn windows_equal_a_batch_query_while_processes_join_and_leave() {
    let (_broker, stream) = stream(15, EVENTS / 2);
    let mut slices = stream.requests.chunks(stream.requests.len() / 6);
    let mut next_slice = || {
        stream.produce_until_begun(slices.next()?);
        Some(())
    };
    let _first = Bongsu::run("processor", &stream.config_named("first"));
    next_slice();
    let second = Bongsu::run("processor", &stream.config_named("second"));
    let _third = Bongsu::run("processor", &stream.config_named("third"));
    let owns_partitions = |bongsu: &Bongsu| bongsu.log().contains("partitions rebalanced flow=\"stage2\"");
    eventually("the second to own partitions", Duration::from_secs(60), || owns_partitions(&second).then_some(()));
    next_slice();
    next_slice();
    assert_eq!(second.signal("TERM").0, Some(0));
    while next_slice().is_some() {}
    assert_equal(&stream.complete(), &stream.expected, &stream.requests);
}

//! The reporter is killed, again and again, while Slack has a bad day.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use bongsu_schemas::tables::Table;
use bongsu_stand_ins::slack::{Fault, SlackStandIn};

use super::events::{Event, at, request};
use super::scene::{Scene, Seen, is_resolved, links, lives, reporter, text, until_live};
use crate::support::Random;

/// Three incidents for each channel: what many at once become is another matter.
const SERVICES: usize = 30;
const CHANNELS: usize = 10;
/// So many services have a second route, which fails with the first: forty alerts in all.
const WITH_TWO_ROUTES: usize = 10;
const MINUTES: i64 = 22;

fn channel_of(service: usize) -> String {
    format!("channel-{}", service % CHANNELS)
}

fn owners() -> String {
    let owner = |service| format!("  service-{service}: {{ owner: {{ slack: \"#{}\" }} }}\n", channel_of(service));
    let owners: String = (0..SERVICES).map(owner).collect();
    format!("services:\n{owners}  \"*\": {{ owner: {{ slack: \"#platform\" }} }}\n")
}

/// 24 requests a minute of each route. Half of a service's fail for four minutes; a few services begin with each minute.
fn traffic(seed: u64) -> Vec<Event> {
    let mut random = Random(seed);
    let mut events = Vec::new();
    for minute in 0..MINUTES {
        for service in 0..SERVICES {
            let fails_from = 2 + service as i64 % 12;
            let is_down = (fails_from..fails_from + 4).contains(&minute);
            let routes = if service < WITH_TWO_ROUTES { &["/a", "/b"][..] } else { &["/a"] };
            for route in routes {
                events.extend((0..24).map(|number| {
                    let time_ms = at(minute) + number * 2_500 + random.below(2_500) as i64;
                    request(time_ms, &format!("service-{service}"), route, is_down && number % 2 == 0)
                }));
            }
        }
    }
    events
}

/// A 429 storm, a server that fails, connections that break after the message was taken, an outage of some seconds: one after the other.
fn trouble(slack: &SlackStandIn, round: usize, random: &mut Random) {
    let more = random.below(5) as usize;
    match round % 4 {
        0 => slack.fail_next(3 + more, Fault::DropAfterAccept),
        1 => slack.fail_next(15 + more, Fault::RateLimited { retry_after_secs: 1 }),
        2 => slack.fail_next(10 + more, Fault::Outage),
        _ => slack.fail_next(5 + more, Fault::ServerError),
    }
}

/// Scenario: forty alerts in ten channels fire and are resolved while the reporter is killed and started again, six times at random moments
/// (`BONGSU_REPORTER_KILLS` says otherwise), and Slack limits, fails, breaks connections after it took a message, and is away.
/// Guarantees: in the end each channel has each of its incidents exactly once, resolved.
#[test]
fn every_transition_arrives_once_although_the_reporter_is_killed() {
    let kills = std::env::var("BONGSU_REPORTER_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(6_usize);
    let mut scene = Scene::new(&[Table::Requests], &owners());
    let (config, _) = scene.write_config("reporter");
    scene.run("processor");
    let events = traffic(101);
    let mut random = Random(102);
    let until = |slice: usize| MINUTES * slice as i64 / (kills as i64 + 1);
    for kill in 0..kills {
        let slice = until(kill)..until(kill + 1);
        trouble(&scene.slack, kill, &mut random);
        let bongsu = reporter(&config);
        let alive = lives(&bongsu) + 1;
        // It dies while it works on what is new, while it catches up, or before it has begun.
        match kill % 3 {
            0 => {
                until_live(&bongsu, alive);
                scene.play(&events, slice);
            }
            1 => {
                scene.play(&events, slice);
                until_live(&bongsu, alive);
            }
            _ => scene.play(&events, slice),
        }
        // The moment is what is random.
        thread::sleep(Duration::from_millis(random.below(2_500)));
        bongsu.kill();
    }
    for round in 0..2 {
        trouble(&scene.slack, round, &mut random);
    }
    let bongsu = reporter(&config);
    scene.play(&events, until(kills)..MINUTES);
    let seen = scene.wait_for("all incidents in their channels", |seen| {
        (seen.is_over() && seen.incidents.len() >= SERVICES && seen.messages.len() >= SERVICES).then(|| seen.clone())
    });
    assert_eq!(bongsu.signal("TERM").0, Some(0));

    assert_eq!(seen.firing("high-error-rate").len(), SERVICES + WITH_TWO_ROUTES, "{seen}");
    assert_eq!(scene.slack.all_messages().len(), SERVICES, "{seen}");
    assert_each_incident_is_told_once(&seen);
}

fn assert_each_incident_is_told_once(seen: &Seen) {
    assert_eq!(seen.incidents.len(), SERVICES, "{seen}");
    let mut expected = BTreeMap::<String, BTreeSet<String>>::new();
    for incident in &seen.incidents {
        let service = text(&incident["services"][0]);
        let number: usize = service.strip_prefix("service-").and_then(|number| number.parse().ok()).unwrap();
        expected.entry(channel_of(number)).or_default().insert(text(&incident["incident_id"]));
    }
    let mut told = BTreeMap::<String, BTreeSet<String>>::new();
    for message in &seen.messages {
        let mut linked = seen.incidents.iter().filter(|incident| links(message, incident));
        let (incident, other) = (linked.next().unwrap(), linked.next());
        assert!(other.is_none() && is_resolved(message), "{message:#?}");
        let is_first = told.entry(message.channel.clone()).or_default().insert(text(&incident["incident_id"]));
        assert!(is_first, "twice in #{}: {seen}", message.channel);
    }
    assert_eq!(told, expected, "{seen}");
    assert_eq!(expected.len(), CHANNELS);
}

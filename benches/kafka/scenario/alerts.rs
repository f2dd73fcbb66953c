//! A live stream: how long after the event that makes a rule's condition true its message is in Slack.
//!
//! The rule wants some number of requests in a minute. Services of the benchmark's own get all of them but one; the last
//! one is produced at a random moment. That is t0: just before the producer gets it. At t1 the stand-in for Slack has the
//! message. Both are of this machine's clock on the wall, which is not to be set meanwhile.
//!
//! No minute ends in between: what is measured is a rule that fires within its open window.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::iter;
use std::slice;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bongsu_schemas::alert::{AlertRecord, AlertStatus};
use bongsu_testkit::Broker;
use chrono::Utc;
use rdkafka::producer::BaseProducer;
use serde::{Deserialize, Serialize};

use crate::counts::By;
use crate::installation::{Installation, ONLY, Role, json_source};
use crate::processor::Processor;
use crate::producer::{backlog_config, flush, live_config, send};
use crate::random::Random;
use crate::report::{Delays, progress};
use crate::slack::Slack;
use crate::stream::{DISORDER_MS, EVENTS_PER_SEC, Plan, Produced, Stream};
use crate::windows::{Arrived, Windows};
use crate::workload::{MINUTE_MS, TOPIC, close_windows, create_topic};

/// Services that cross the threshold, each once and with a channel of its own.
const CROSSINGS: usize = 200;
/// So many requests in a minute cross it.
const THRESHOLD: usize = 50;
const WARM_UP_SECS: u64 = 10;
/// The crossings are spread over this.
const MEASURED_SECS: u64 = 100;
/// All requests of a crossing but the last one come so long before it.
const PREPARED_BEFORE_MS: i64 = 2_000;
/// No crossing is nearer than this to the beginning or the end of a minute.
const FROM_MINUTE_MS: i64 = 3_000;
/// For the last messages. Whoever waits for the end of a minute, 5 s of disorder and 30 s of lateness is later than that.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);
/// The closing events are later than all others by more than windows stay open.
const CLOSING_AFTER_MS: i64 = 2 * MINUTE_MS;

/// Services of this name are not the stream's.
const CROSSING: &str = "crossing-";
/// What `"*"` is told: nothing, or the benchmark fails.
const PLATFORM: &str = "platform";
/// `time` is the default: 5 s of disorder, 30 s of lateness.
const SECTIONS: &str = r##"
slack: { api_url: "{slack}" }
views:
  - name: requests_1m
    sql: |
      SELECT service, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors,
             quantile(duration_ms, 0.95) AS p95_ms
      FROM requests GROUP BY tumble(interval '1 minute'), service
rules:
  - name: many-requests
    on: requests_1m
    when: requests >= $min
    params: { min: 1000000000 } # the stream's services never have so many
services:
  "*": { owner: { slack: "#{platform}" } }
"##;

#[derive(Debug, Serialize)]
pub(crate) struct Alerts {
    crossings: usize,
    windows: usize,
    /// Until the rule looked at the event's row.
    fired: Delays,
    /// Until the message was there.
    told: Delays,
}

pub(crate) fn run() -> anyhow::Result<Alerts> {
    progress(format_args!(
        "alerts: starting Kafka, then {EVENTS_PER_SEC} events per second and {CROSSINGS} alerts within {MEASURED_SECS} s"
    ));
    let broker = Broker::start()?;
    create_topic(&broker, TOPIC)?;
    let bootstrap = broker.bootstrap();
    let slack = Slack::start((0..CROSSINGS).map(service).chain([PLATFORM.to_owned()]).collect())?;
    let sections = sections(&slack.api_url());
    let installation = Installation::with_role(Role::All, bootstrap, "alerts", &json_source(TOPIC), &sections)?;
    installation.explain(measure(bootstrap, &installation, &slack))
}

fn measure(bootstrap: &str, installation: &Installation, slack: &Slack) -> anyhow::Result<Alerts> {
    let mut processor = installation.start(ONLY)?;
    let at_most = 2 * Duration::from_secs(WARM_UP_SECS + MEASURED_SECS) + ARRIVES_WITHIN;
    let plan = Plan { topic: TOPIC, by: By::Service, window_ms: MINUTE_MS, behind_ms: 0, at_most };
    let stream = Stream::start(bootstrap, plan)?;
    let handed_over_us = cross(bootstrap, &mut processor)?;
    await_messages(slack, &mut processor)?;
    let mut windows = installation.windows()?;
    let produced = settle(bootstrap, stream, &mut windows, processor)?;
    compare(&produced, windows.arrived())?;
    installation.check_nothing_late()?;

    let fired_us = fired_us(bootstrap, &installation.alerts_topic())?;
    let told_us = told_us(slack)?;
    let delays = |until_us: &BTreeMap<String, i64>| -> anyhow::Result<Delays> {
        let ms = |(service, from_us): (&String, &i64)| -> anyhow::Result<f64> {
            let until_us = until_us.get(service).with_context(|| format!("nothing was heard of {service}"))?;
            Ok((until_us - from_us) as f64 / 1e3)
        };
        Delays::of(handed_over_us.iter().map(ms).collect::<anyhow::Result<_>>()?)
    };
    Ok(Alerts {
        crossings: CROSSINGS,
        windows: windows.arrived().len(),
        fired: delays(&fired_us)?,
        told: delays(&told_us)?,
    })
}

/// Makes all crossings. Gives for each service when its last request was handed over, microseconds since the epoch.
fn cross(bootstrap: &str, processor: &mut Processor) -> anyhow::Result<BTreeMap<String, i64>> {
    let producer: BaseProducer = live_config(bootstrap).create()?;
    let mut random = Random::new(2032);
    // As in the stream, not the clock on the wall: a step of it would put events into other minutes.
    let (started, from_ms) = (Instant::now(), Utc::now().timestamp_millis());
    let mut handed_over_us = BTreeMap::new();
    for Step { at_ms, service, requests } in steps(&crossings_ms(from_ms, &mut random)) {
        let due = Duration::from_millis(at_ms.abs_diff(from_ms));
        thread::sleep(due.saturating_sub(started.elapsed()));
        let json = request(&service, at_ms);
        let partitions: Vec<i32> = (0..requests).map(|_| random.partition()).collect();
        let now_us = Utc::now().timestamp_micros();
        for partition in partitions {
            send(&producer, TOPIC, partition, at_ms, json.as_bytes())?;
        }
        // The last step of a service is its crossing.
        handed_over_us.insert(service, now_us);
        producer.poll(Duration::ZERO);
        processor.check_alive()?;
    }
    flush(&producer)?;
    Ok(handed_over_us)
}

/// Requests of a service at a time.
struct Step {
    at_ms: i64,
    service: String,
    requests: usize,
}

/// What is to be done for crossings at these times, in the order of time.
fn steps(crossings_ms: &[i64]) -> Vec<Step> {
    let of_service = |(number, crossing_ms): (usize, &i64)| {
        let prepared_ms = *crossing_ms - PREPARED_BEFORE_MS;
        [
            Step { at_ms: prepared_ms, service: service(number), requests: THRESHOLD - 1 },
            Step { at_ms: *crossing_ms, service: service(number), requests: 1 },
        ]
    };
    let mut steps: Vec<Step> = crossings_ms.iter().enumerate().flat_map(of_service).collect();
    steps.sort_by_key(|step| step.at_ms);
    steps
}

/// Random times after the warm-up.
fn crossings_ms(from_ms: i64, random: &mut Random) -> Vec<i64> {
    let begin_ms = from_ms + WARM_UP_SECS as i64 * 1_000;
    let moments = iter::repeat_with(|| begin_ms + random.below(MEASURED_SECS * 1_000) as i64);
    let within = FROM_MINUTE_MS..MINUTE_MS - FROM_MINUTE_MS;
    moments.filter(|moment_ms| within.contains(&moment_ms.rem_euclid(MINUTE_MS))).take(CROSSINGS).collect()
}

/// Until every service's channel has one.
fn await_messages(slack: &Slack, processor: &mut Processor) -> anyhow::Result<()> {
    let deadline = Instant::now() + ARRIVES_WITHIN;
    loop {
        let channels = slack.arrivals_us()?.len();
        if channels >= CROSSINGS {
            return Ok(());
        }
        processor.check_alive()?;
        ensure!(
            Instant::now() < deadline,
            "{channels} of {CROSSINGS} channels had a message {ARRIVES_WITHIN:?} after the last crossing"
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// Ends the stream, closes all windows, and ends the process: whatever it still had to tell, it has told.
fn settle(
    bootstrap: &str,
    stream: Stream,
    windows: &mut Windows,
    mut processor: Processor,
) -> anyhow::Result<Produced> {
    let produced = stream.finish()?;
    let producer: BaseProducer = backlog_config(bootstrap).create()?;
    close_windows(&producer, TOPIC, produced.to_ms + CLOSING_AFTER_MS)?;
    windows.await_count(produced.counts.windows() + CROSSINGS, slice::from_mut(&mut processor))?;
    processor.terminate()?;
    windows.check_complete()?;
    Ok(produced)
}

/// A record of the windows topic, as far as crossings need it.
#[derive(Debug, Deserialize)]
struct Window {
    key: Key,
    values: Values,
}

#[derive(Debug, Deserialize)]
struct Key {
    service: String,
}

#[derive(Debug, Deserialize)]
struct Values {
    requests: usize,
}

/// That windows count what was produced, each crossing in one window.
fn compare(produced: &Produced, windows: &[Arrived]) -> anyhow::Result<()> {
    let (mut of_stream, mut crossed) = (Vec::new(), Vec::new());
    for window in windows {
        let Window { key, values } = serde_json::from_slice(&window.value)?;
        if key.service.starts_with(CROSSING) {
            crossed.push((key.service, values.requests));
        } else {
            of_stream.push(window);
        }
    }
    crossed.sort();
    let expected: Vec<(String, usize)> = (0..CROSSINGS).map(|number| (service(number), THRESHOLD)).collect();
    ensure!(crossed == expected, "windows of crossings are wrong: {crossed:?}");
    produced.counts.compare(of_stream)
}

/// When the rule fired for each service: once, in the open window, and for nobody else.
fn fired_us(bootstrap: &str, topic: &str) -> anyhow::Result<BTreeMap<String, i64>> {
    let mut fired_us = BTreeMap::new();
    for record in bongsu_testkit::read_committed(bootstrap, topic)? {
        let alert: AlertRecord = serde_json::from_slice(record.value.as_deref().unwrap_or_default())?;
        if alert.status == AlertStatus::Firing {
            let service = alert.service.unwrap_or_default();
            ensure!(alert.early, "the alert of {service} waited for the end of its window");
            let before = fired_us.insert(service.clone(), alert.fired_at.timestamp_micros());
            ensure!(before.is_none(), "{service} has two alerts");
        }
    }
    let fired: BTreeSet<String> = fired_us.keys().cloned().collect();
    let crossed: BTreeSet<String> = (0..CROSSINGS).map(service).collect();
    ensure!(fired == crossed, "alerts of other services than those that crossed: {fired:?}");
    Ok(fired_us)
}

/// When the message of each service came: one in each channel, and none elsewhere.
fn told_us(slack: &Slack) -> anyhow::Result<BTreeMap<String, i64>> {
    let mut told_us = BTreeMap::new();
    for (channel, arrivals_us) in slack.arrivals_us()? {
        let [at_us] = arrivals_us[..] else { bail!("#{channel} has {} messages", arrivals_us.len()) };
        ensure!(channel != PLATFORM, "#{channel} has a message");
        told_us.insert(channel, at_us);
    }
    ensure!(told_us.len() == CROSSINGS, "{} channels have a message, expected {CROSSINGS}", told_us.len());
    Ok(told_us)
}

/// The rest of the configuration: whom to tell of what.
fn sections(api_url: &str) -> String {
    let owned = |number| {
        let (name, rule) = (service(number), format!("many-requests: {{ min: {THRESHOLD} }}"));
        format!("  {name}: {{ owner: {{ slack: \"#{name}\" }}, params: {{ {rule} }} }}\n")
    };
    let services: String = (0..CROSSINGS).map(owned).collect();
    SECTIONS.replace("{slack}", api_url).replace("{platform}", PLATFORM) + &services
}

/// A crossing's service; its channel has the same name.
fn service(number: usize) -> String {
    format!("{CROSSING}{number:03}")
}

fn request(service: &str, time_ms: i64) -> String {
    format!(r#"{{"ts":{time_ms},"service":"{service}","route":"/api/orders","status":200,"duration_ms":12.5}}"#)
}

impl fmt::Display for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Alerts { crossings, windows, fired, told } = self;
        writeln!(
            f,
            "{EVENTS_PER_SEC} events per second, up to {DISORDER_MS} ms out of order; {crossings} services besides, each of \
             which reaches {THRESHOLD} requests in a minute at a random moment of {MEASURED_SECS} s, after {WARM_UP_SECS} s \
             of warm-up"
        )?;
        writeln!(f, "Each has one message in its channel. All {windows} windows count what was produced.\n")?;
        writeln!(
            f,
            "{:<48}{:>9}{:>9}{:>9}{:>9}",
            "ms from the last event to the producer", "p50", "p90", "p99", "max"
        )?;
        for (title, delays) in [("until the rule fired", fired), ("until the message was in Slack", told)] {
            let Delays { p50_ms, p90_ms, p99_ms, max_ms, .. } = delays;
            writeln!(f, "{title:<48}{p50_ms:>9.0}{p90_ms:>9.0}{p99_ms:>9.0}{max_ms:>9.0}")?;
        }
        Ok(())
    }
}

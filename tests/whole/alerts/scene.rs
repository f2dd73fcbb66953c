//! A shop on a real Kafka, the real binary, and a stand-in for Slack: events go in, messages come out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use bongsu_schemas::tables::Table;
use bongsu_stand_ins::slack::{SlackMessage, SlackOptions, SlackStandIn};
use bongsu_testkit::Broker;
use serde_json::Value;

use super::events::{Event, at, innocent};
use crate::support::{Bongsu, committed, eventually, free_port};

const CONFIG: &str = r##"
kafka: { brokers: "{brokers}" }
sources: [ {sources} ]
time: { max_disorder: 5s, idle_timeout: 10m, allowed_lateness: 30s }
slack: { api_url: "{slack}" }
dashboard: { listen: "127.0.0.1:{port}", public_url: "https://bongsu.example.com" }
"##;

const PARTITIONS: i32 = 2;
/// A channel takes one message a second, and tests share their machine with compilers.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long after a minute an event must be for the windows before that minute to close, and a little more: 5 s and 30 s.
const CLOSES_AFTER_MS: i64 = 40_000;
/// What a reporter logs when it begins to tell people.
const LIVE: &str = "telling people from now on";

/// See the module. What it has seen is printed if the test fails.
pub(super) struct Scene {
    bongsu: Vec<Bongsu>,
    pub(super) slack: SlackStandIn,
    tables: &'static [Table],
    /// What a scenario configures besides the usual: services, rules, views.
    own_config: String,
    config: PathBuf,
    port: u16,
    folder: tempfile::TempDir,
    broker: Broker,
    /// The stand-in runs on it.
    _runtime: tokio::runtime::Runtime,
}

impl Scene {
    /// Topics `shop.requests` and so on for these tables, and Bongsu's own. Nothing runs yet.
    pub(super) fn new(tables: &'static [Table], own_config: &str) -> Scene {
        let broker = Broker::start().unwrap();
        for table in tables {
            broker.create_topic(&topic(*table), PARTITIONS).unwrap();
        }
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let options = SlackOptions { one_per_second: true, ..SlackOptions::default() };
        let slack = runtime.block_on(SlackStandIn::start(options)).unwrap();
        let mut scene = Scene {
            bongsu: Vec::new(),
            slack,
            tables,
            own_config: own_config.to_owned(),
            config: PathBuf::new(),
            port: 0,
            folder: tempfile::tempdir().unwrap(),
            broker,
            _runtime: runtime,
        };
        (scene.config, scene.port) = scene.write_config("bongsu");
        // A consumer that subscribes before its topic is there learns of it seconds later.
        scene.bongsu(&["topics", "--create"]);
        scene
    }

    /// One of several processes: each has its own file, since each has its own port.
    pub(super) fn write_config(&self, name: &str) -> (PathBuf, u16) {
        let path = self.folder.path().join(format!("{name}.yaml"));
        let port = free_port();
        let source = |table: &Table| format!("{{ topic: {}, format: json, table: {} }}", topic(*table), table.name());
        let usual = CONFIG
            .replace("{brokers}", self.broker.bootstrap())
            .replace("{sources}", &self.tables.iter().map(source).collect::<Vec<_>>().join(", "))
            .replace("{slack}", &self.slack.api_url())
            .replace("{port}", &port.to_string());
        std::fs::write(&path, usual + &self.own_config).unwrap();
        (path, port)
    }

    /// Runs another command of the binary to its end.
    pub(super) fn bongsu(&self, arguments: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bongsu"));
        let output = command.args(arguments).arg("--config").arg(&self.config).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts a role, which ends with the scene.
    pub(super) fn run(&mut self, role: &str) {
        let bongsu = Bongsu::run(role, &self.config);
        if role != "processor" {
            until_live(&bongsu, 1);
        }
        self.bongsu.push(bongsu);
    }

    /// Writes the events of these minutes, and in each partition one of an innocent service so much later that all windows before
    /// `minutes.end` close; and waits until they have. What comes afterwards must not be earlier.
    pub(super) fn play(&self, events: &[Event], minutes: Range<i64>) {
        let times = at(minutes.start)..at(minutes.end);
        for table in self.tables {
            let is_now = |event: &&Event| event.table == *table && times.contains(&event.time_ms);
            let mut now: Vec<&Event> = events.iter().filter(is_now).collect();
            now.sort_by_key(|event| event.time_ms);
            for partition in 0..PARTITIONS {
                let closing = innocent(*table, at(minutes.end) + CLOSES_AFTER_MS);
                let mine = now.iter().copied().skip(partition as usize).step_by(PARTITIONS as usize);
                let records = mine.chain([&closing]).map(|event| (Vec::new(), event.json(), event.time_ms));
                bongsu_testkit::produce(self.broker.bootstrap(), &topic(*table), Some(partition), records).unwrap();
            }
        }
        eventually(&format!("the windows before minute {} to close", minutes.end), PATIENCE, || {
            let closed_secs = self.metric("bongsu_closed_watermark_seconds")?;
            (closed_secs >= (at(minutes.end) / 1_000) as f64).then_some(())
        });
    }

    /// A metric without labels, once the process tells it.
    pub(super) fn metric(&self, name: &str) -> Option<f64> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// Waits until `condition` gives something.
    pub(super) fn wait_for<T>(&self, what: &str, mut condition: impl FnMut(&Seen) -> Option<T>) -> T {
        eventually(what, PATIENCE, || condition(&self.seen()))
    }

    /// Waits until all that fired is resolved, for everybody who was told of it.
    pub(super) fn wait_until_over(&self) -> Seen {
        self.wait_for("everything to be resolved", |seen| seen.is_over().then(|| seen.clone()))
    }

    pub(super) fn seen(&self) -> Seen {
        let read = |topic: &str| -> Vec<Value> {
            committed(self.broker.bootstrap(), topic).iter().filter_map(|message| message.json().ok()).collect()
        };
        let mut incidents = BTreeMap::new();
        for incident in read("bongsu.incidents") {
            incidents.insert(text(&incident["incident_id"]), incident);
        }
        Seen {
            alerts: read("bongsu.alerts"),
            incidents: incidents.into_values().collect(),
            messages: self.slack.all_messages(),
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.seen());
        }
    }
}

/// Starts a reporter with a configuration of its own. Its log goes on where an earlier one of that configuration has ended.
pub(super) fn reporter(config: &Path) -> Bongsu {
    Bongsu::run("reporter", config)
}

/// Waits until the log says so many times that people are told from now on.
pub(super) fn until_live(bongsu: &Bongsu, times: usize) {
    eventually("the reporter to tell people", PATIENCE, || (lives(bongsu) >= times).then_some(()));
}

/// How many times the log says that people are told from now on.
pub(super) fn lives(bongsu: &Bongsu) -> usize {
    bongsu.log().matches(LIVE).count()
}

/// What came out so far.
#[derive(Clone)]
pub(super) struct Seen {
    /// All records of `bongsu.alerts`.
    pub(super) alerts: Vec<Value>,
    /// The latest record of each incident.
    pub(super) incidents: Vec<Value>,
    /// Of all channels, as they are now.
    pub(super) messages: Vec<SlackMessage>,
}

impl Seen {
    /// Messages of a channel.
    pub(super) fn channel(&self, name: &str) -> Vec<&SlackMessage> {
        self.messages.iter().filter(|message| message.channel == name).collect()
    }

    /// Records of a rule's alerts with which they fired, or became worse.
    pub(super) fn firing(&self, rule: &str) -> Vec<&Value> {
        self.alerts.iter().filter(|alert| alert["rule"] == rule && alert["status"] == "firing").collect()
    }

    /// Records of the alerts of a service.
    pub(super) fn of_service(&self, service: &str) -> Vec<&Value> {
        self.alerts.iter().filter(|alert| alert["service"] == service).collect()
    }

    /// The only incident.
    pub(super) fn incident(&self) -> &Value {
        assert_eq!(self.incidents.len(), 1, "{self}");
        &self.incidents[0]
    }

    /// Whether each alert is resolved and in an incident, each incident is resolved, and each message says so.
    pub(super) fn is_over(&self) -> bool {
        let ids = |status: &str| -> BTreeSet<String> {
            let alerts = self.alerts.iter().filter(|alert| alert["status"] == status);
            alerts.map(|alert| text(&alert["alert_id"])).collect()
        };
        let in_incidents: BTreeSet<String> =
            self.incidents.iter().flat_map(|incident| incident["alert_ids"].as_array().unwrap()).map(text).collect();
        let fired = ids("firing");
        !fired.is_empty()
            && fired == ids("resolved")
            && fired == in_incidents
            && self.incidents.iter().all(|incident| incident["status"] == "resolved")
            && self.messages.iter().all(is_resolved)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Line { topic, record, names } in self.lines() {
            let named: Vec<String> = names.iter().map(|name| format!("{name} {}", record[*name])).collect();
            writeln!(f, "{topic}: {}", named.join(", "))?;
        }
        for SlackMessage { channel, text, edits, .. } in &self.messages {
            writeln!(f, "#{channel}: {text} ({edits} edits)")?;
        }
        Ok(())
    }
}

/// A record, and what of it is shown.
struct Line<'a> {
    topic: &'static str,
    record: &'a Value,
    names: &'static [&'static str],
}

impl Seen {
    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        const OF_ALERTS: &[&str] = &["status", "rule", "key", "params", "window_end", "summary", "alert_id"];
        const OF_INCIDENTS: &[&str] = &["status", "title", "services", "opened_at", "resolved_at", "alert_ids"];
        let alerts = self.alerts.iter().map(|record| Line { topic: "alert", record, names: OF_ALERTS });
        let incidents = self.incidents.iter().map(|record| Line { topic: "incident", record, names: OF_INCIDENTS });
        alerts.chain(incidents)
    }
}

/// The only one of these.
pub(super) fn only<'a, T: fmt::Debug>(items: &[&'a T]) -> &'a T {
    assert_eq!(items.len(), 1, "{items:#?}");
    items[0]
}

pub(super) fn is_resolved(message: &SlackMessage) -> bool {
    message.text.starts_with("✅ Resolved:")
}

/// Whether a message burns with so many fires.
pub(super) fn burns(message: &SlackMessage, fires: usize) -> bool {
    message.text.starts_with(&format!("{} ", "🔥".repeat(fires)))
}

/// Whether a message links an incident's page.
pub(super) fn links(message: &SlackMessage, incident: &Value) -> bool {
    let end = format!("#incident-{}|", text(&incident["incident_id"]));
    let told = everything_in(message);
    told.contains("<https://bongsu.example.com/?from=") && told.contains(&end)
}

/// A message with its blocks, as text.
pub(super) fn everything_in(message: &SlackMessage) -> String {
    format!("{} {}", message.text, Value::from(message.blocks.clone()))
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A time of a record, epoch milliseconds.
pub(super) fn time_ms(value: &Value) -> i64 {
    let time = value.as_str().and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
    time.unwrap_or_else(|| panic!("{value} is no time")).timestamp_millis()
}

fn topic(table: Table) -> String {
    format!("shop.{}", table.name())
}

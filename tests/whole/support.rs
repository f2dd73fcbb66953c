//! A real Kafka, the real binary, and a stream of orders that is the same each time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bongsu_testkit::Message;

/// A running `bongsu run`. Dropping it kills it.
pub(crate) struct Bongsu {
    child: Child,
    log: PathBuf,
}

impl Bongsu {
    /// Starts a role with the configuration file; what it logs goes to a file beside it.
    pub(crate) fn run(role: &str, config: &Path) -> Bongsu {
        Bongsu::run_with(role, config, &[])
    }

    /// The same with more variables in its environment.
    pub(crate) fn run_with(role: &str, config: &Path, variables: &[(&str, &str)]) -> Bongsu {
        let log = config.with_extension(format!("{role}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_bongsu"))
            .args(["run", "--role", role, "--config"])
            .arg(config)
            .env("SLACK_BOT_TOKEN", "xoxb-test")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Bongsu { child, log }
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal and waits for the end. Gives the exit code and how long it took.
    pub(crate) fn signal(mut self, signal: &str) -> (Option<i32>, Duration) {
        let asked = Instant::now();
        let sent = Command::new("kill").args([format!("-{signal}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let code = self.child.wait().unwrap().code();
        (code, asked.elapsed())
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.exit_code().is_none()
    }

    /// With what it ended; none while it runs. A signal leaves no code.
    pub(crate) fn exit_code(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().unwrap().map(|status| status.code())
    }
}

impl Drop for Bongsu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(30).collect();
            eprintln!("the last lines of {}:", self.log.display());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Waits until `condition` gives something; panics with `what` after `patience`.
pub(crate) fn eventually<T>(what: &str, patience: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} for: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Committed records of a topic so far.
pub(crate) fn committed(bootstrap: &str, topic: &str) -> Vec<Message> {
    bongsu_testkit::read_committed(bootstrap, topic).unwrap_or_default()
}

/// A free loopback port, for a listener that must be named in a configuration.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The body that a page on the loopback answers with.
pub(crate) fn get(port: u16, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Numbers that look random and are the same each time (xorshift64*).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// One request of the generated stream.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) partition: i32,
    pub(crate) time_ms: i64,
    pub(crate) service: String,
    pub(crate) route: String,
    pub(crate) status: i64,
    /// A multiple of a quarter, so that sums are exact in any order.
    pub(crate) duration_ms: f64,
}

impl Request {
    pub(crate) fn json(&self) -> String {
        let Request { time_ms, service, route, status, duration_ms, .. } = self;
        format!(
            r#"{{"ts":{time_ms},"service":"{service}","route":"{route}","status":{status},"duration_ms":{duration_ms},"method":"GET","pod":"{service}-7d9f","trace_id":"{:032x}"}}"#,
            time_ms * 7919 + *status
        )
    }
}

/// Start of the generated stream: a whole day of 2025, so that no test depends on what day it is.
pub(crate) const START_MS: i64 = 1_748_822_400_000;

/// `count` requests over half an hour in four partitions, up to 5 s out of order, and then one much later request in each
/// partition, which closes all windows before it.
pub(crate) fn requests(seed: u64, count: usize) -> Vec<Request> {
    const SPAN_MS: i64 = 30 * 60_000;
    let mut random = Random(seed);
    let mut requests: Vec<Request> = (0..count)
        .map(|index| {
            let in_order_ms = START_MS + 5_000 + index as i64 * (SPAN_MS - 10_000) / count as i64;
            let service = (random.below(200) * random.below(200)) / 200;
            Request {
                partition: random.below(4) as i32,
                time_ms: in_order_ms - random.below(5_000) as i64,
                service: format!("service-{service}"),
                route: format!("/route/{}/{{id}}", random.below(20)),
                status: [200, 200, 200, 200, 200, 201, 302, 404, 500, 503][random.below(10) as usize],
                duration_ms: random.below(40_000) as f64 / 4.0,
            }
        })
        .collect();
    requests.extend((0..4).map(|partition| Request {
        partition,
        time_ms: START_MS + 2 * SPAN_MS,
        service: "closing".to_owned(),
        route: "/".to_owned(),
        status: 200,
        duration_ms: 1.0,
    }));
    requests
}

/// Writes requests to their partitions of a topic. Record timestamps are the event times.
pub(crate) fn produce(bootstrap: &str, topic: &str, requests: &[Request]) {
    for partition in 0..4 {
        let mine = requests.iter().filter(|request| request.partition == partition);
        let records = mine.map(|request| (Vec::new(), request.json(), request.time_ms));
        bongsu_testkit::produce(bootstrap, topic, Some(partition), records).unwrap();
    }
}

/// Values of a window by (service, route, start).
pub(crate) type Windows = BTreeMap<(String, String, String), serde_json::Value>;

/// The windows of a view in `bongsu.windows`; panics if one is there twice.
pub(crate) fn windows(messages: &[Message], view: &str) -> Windows {
    let mut windows = Windows::new();
    for message in messages {
        let record = message.json().unwrap();
        if record["view"] != view {
            continue;
        }
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let id = (text(&record["key"]["service"]), text(&record["key"]["route"]), text(&record["window_start"]));
        let twice = windows.insert(id.clone(), record["values"].clone());
        assert!(twice.is_none(), "the window {id:?} is there twice");
    }
    windows
}

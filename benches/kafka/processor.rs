//! `bongsu run --role processor` on the workload, with topics and groups of its own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tempfile::TempDir;

use crate::measure::{Sample, cpu_secs, peak_rss_mib};
use crate::workload::TOPIC;

const READY_WITHIN: Duration = Duration::from_secs(60);
/// Silence of this length, when windows are missing, is an error. None come while the first minute of the events is read.
const PATIENCE: Duration = Duration::from_secs(120);

const CONFIG: &str = r##"
kafka: { brokers: "{brokers}", topic_prefix: "{name}", group: "{name}" }
defaults: false
sources: [ { topic: {topic}, format: json, table: requests } ]
time: { max_disorder: 5s, idle_timeout: 10m, allowed_lateness: 1s }
services: { "*": { owner: { slack: "#platform" } } }
views:
  - name: requests_1m
    sql: |
      SELECT service, route, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors,
             sum(duration_ms) AS sum_ms, min(duration_ms) AS min_ms, max(duration_ms) AS max_ms,
             quantile(duration_ms, 0.95) AS p95_ms
      FROM requests GROUP BY tumble(interval '1 minute'), service, route
dashboard: { listen: "{listen}" }
"##;

/// Values of the records in an installation's `windows`.
pub(crate) type WindowValues = Vec<Vec<u8>>;

/// Names, configuration and folder (log, history) of one run.
pub(crate) struct Installation {
    bootstrap: String,
    name: String,
    listen: SocketAddr,
    folder: TempDir,
}

impl Installation {
    pub(crate) fn new(bootstrap: &str, name: &str) -> anyhow::Result<Installation> {
        let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let folder = tempfile::Builder::new().prefix("bongsu-bench-").tempdir()?;
        let config = CONFIG
            .replace("{brokers}", bootstrap)
            .replace("{name}", name)
            .replace("{topic}", TOPIC)
            .replace("{listen}", &listen.to_string());
        fs::write(folder.path().join("bongsu.yaml"), config)?;
        Ok(Installation { bootstrap: bootstrap.to_owned(), name: name.to_owned(), listen, folder })
    }

    /// Runs the processor until `windows` windows are out. Measured from stage 1's readiness to the last window: starting, creating the
    /// topics and opening its transactions are the warm-up. Then it is told to end, and what came after is read, too.
    pub(crate) fn measure(&self, events: u64, windows: usize) -> anyhow::Result<(Sample, WindowValues)> {
        let measured = self.measure_running(events, windows);
        measured.with_context(|| format!("the processor's log ends with:\n{}", self.log_tail()))
    }

    fn measure_running(&self, events: u64, windows: usize) -> anyhow::Result<(Sample, WindowValues)> {
        let mut processor = self.start()?;
        let pid = processor.child.id();
        self.await_ready(&mut processor)?;
        let (started, warm_up_cpu_secs) = (Instant::now(), cpu_secs(pid)?);

        let consumer = self.consumer()?;
        let mut values = WindowValues::with_capacity(windows);
        let mut heard = Instant::now();
        while values.len() < windows {
            match consumer.poll(Duration::from_millis(20)) {
                Some(Ok(record)) => {
                    values.push(record.payload().context("a window has no value")?.to_vec());
                    heard = Instant::now();
                }
                None | Some(Err(KafkaError::PartitionEOF(_))) => {
                    processor.check_alive()?;
                    ensure!(heard.elapsed() < PATIENCE, "{} of {windows} windows after {PATIENCE:?}", values.len());
                }
                Some(Err(error)) => return Err(error).context("reading the windows"),
            }
        }
        let sample = Sample {
            events,
            cpu_secs: cpu_secs(pid)? - warm_up_cpu_secs,
            warm_up_cpu_secs,
            wall_secs: started.elapsed().as_secs_f64(),
            peak_rss_mib: peak_rss_mib(pid)?,
        };
        processor.terminate()?;
        let rest = bongsu_testkit::read_committed(&self.bootstrap, &self.windows_topic())?.len();
        ensure!(rest == windows, "{rest} windows in the end, expected {windows}");
        Ok((sample, values))
    }

    fn start(&self) -> anyhow::Result<Processor> {
        let log = File::create(self.folder.path().join("log"))?;
        let child = Command::new(env!("CARGO_BIN_EXE_bongsu"))
            .args(["run", "--role", "processor", "--config"])
            .arg(self.folder.path().join("bongsu.yaml"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting bongsu")?;
        Processor::watched(child, self.folder.path())
    }

    /// Stage 1 is: it reads from then on, whether the others are ready or not.
    fn await_ready(&self, processor: &mut Processor) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let answer = self.readiness().unwrap_or_default();
            if answer.contains("stage1: ready") {
                return Ok(());
            }
            processor.check_alive()?;
            ensure!(Instant::now() < deadline, "not ready within {READY_WITHIN:?}: {answer}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn readiness(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.listen)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn windows_topic(&self) -> String {
        format!("{}.windows", self.name)
    }

    /// Of committed windows, from the first.
    fn consumer(&self) -> anyhow::Result<BaseConsumer> {
        let topic = self.windows_topic();
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            // Never joined: partitions are assigned by hand.
            .set("group.id", format!("{}-watch", self.name))
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "20")
            .create()?;
        let metadata = consumer.fetch_metadata(Some(&topic), Duration::from_secs(10))?;
        let mut partitions = TopicPartitionList::new();
        for partition in metadata.topics().iter().flat_map(|found| found.partitions()) {
            partitions.add_partition_offset(&topic, partition.id(), Offset::Beginning)?;
        }
        consumer.assign(&partitions)?;
        Ok(consumer)
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

/// A running `bongsu`. Dropping it kills it; so does the end of the benchmark, however that comes about.
struct Processor {
    child: Child,
    watchdog: Child,
}

impl Processor {
    fn watched(mut child: Child, folder: &Path) -> anyhow::Result<Processor> {
        // Reads until the benchmark closes its end of the pipe, which the kernel does at any kind of death.
        let watchdog = Command::new("sh")
            .args(["-c", r#"read -r _; kill -9 "$1"; rm -rf "$2""#, "watchdog", &child.id().to_string()])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match watchdog {
            Ok(watchdog) => Ok(Processor { child, watchdog }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error).context("starting the watchdog")
            }
        }
    }

    fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("bongsu ended by itself: {status}"),
        }
    }

    /// SIGTERM, as an operator would.
    fn terminate(mut self) -> anyhow::Result<()> {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(sent.success(), "bongsu could not be told to end");
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("bongsu ended with {status}"),
                None => thread::sleep(Duration::from_millis(20)),
            }
        }
        bail!("bongsu did not end")
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        // The watchdog first: once bongsu is reaped its pid may belong to somebody else. Errors mean that they have ended already.
        for child in [&mut self.watchdog, &mut self.child] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

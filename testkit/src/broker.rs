//! A broker process: Apache Kafka in KRaft combined mode, one node, on loopback.

use std::{
    env,
    fs::{self, File},
    future::Future,
    net::TcpListener,
    path::{Path, PathBuf},
    pin::pin,
    process::{Child, Command, Stdio},
    sync::Arc,
    task::{Context as TaskContext, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use tempfile::TempDir;

/// How long a start may take. It takes 3 s on an idle machine; tests share theirs with compilers.
const START_DEADLINE: Duration = Duration::from_secs(90);
/// Somebody else may take a free port before Kafka does.
const START_ATTEMPTS: usize = 3;

/// A running broker with its own folder. Dropping it ends the process and removes the folder; so does the end of this process,
/// however it comes about.
#[derive(Debug)]
pub struct Broker {
    folder: TempDir,
    libs: PathBuf,
    bootstrap: String,
    process: Option<Process>,
}

/// Kafka, and the watchdog that ends it should this process die first.
#[derive(Debug)]
struct Process {
    kafka: Child,
    watchdog: Child,
}

impl Broker {
    /// Starts a broker on free ports, and returns when it answers.
    pub fn start() -> anyhow::Result<Broker> {
        let libs = jars()?;
        let mut attempt = 1;
        loop {
            match Broker::start_on_free_ports(libs.clone()) {
                Err(_) if attempt < START_ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    fn start_on_free_ports(libs: PathBuf) -> anyhow::Result<Broker> {
        // Both are held until both are known, or they could be the same.
        let (client, controller) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        let (client_port, controller_port) = (client.local_addr()?.port(), controller.local_addr()?.port());
        drop((client, controller));

        let folder = tempfile::Builder::new().prefix("bongsu-kafka-").tempdir().context("making Kafka's folder")?;
        fs::write(
            folder.path().join("server.properties"),
            server_properties(folder.path(), client_port, controller_port),
        )?;
        fs::write(folder.path().join("log4j2.properties"), LOG4J)?;

        let mut broker = Broker { folder, libs, bootstrap: format!("127.0.0.1:{client_port}"), process: None };
        broker.format()?;
        broker.restart()?;
        Ok(broker)
    }

    /// Address for clients, `host:port`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The broker's folder: its log segments in `data`, its own log in `kafka.log`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Creates a topic with Kafka's default settings.
    pub fn create_topic(&self, name: &str, partitions: i32) -> anyhow::Result<()> {
        self.create_topic_with(name, partitions, &[])
    }

    /// Creates a topic with settings as Kafka spells them.
    pub fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create()?;
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        for outcome in block_on(admin.create_topics([&topic], &options))? {
            outcome.map_err(|(topic, code)| anyhow::anyhow!("creating topic `{topic}`: {code}"))?;
        }
        Ok(())
    }

    /// Ends the broker as a power cut would (SIGKILL). Ports and log folder stay reserved for [`Broker::restart`].
    pub fn kill(&mut self) {
        let Some(Process { mut kafka, mut watchdog }) = self.process.take() else { return };
        // The watchdog first: once Kafka is reaped its pid may belong to somebody else. Both are our own children, so that errors
        // here mean only that they have ended by themselves.
        for child in [&mut watchdog, &mut kafka] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the broker again on the same ports and logs, after [`Broker::kill`] or instead of the running process.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        let log = File::options().create(true).append(true).open(self.folder.path().join("kafka.log"))?;
        let kafka = self
            .java("kafka.Kafka")
            .arg(self.folder.path().join("server.properties"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting java")?;
        // Reads until this process closes its end of the pipe, which the kernel does at any kind of death.
        let watchdog = Command::new("sh")
            .args(["-c", r#"read -r _; kill -9 "$1"; rm -rf "$2""#, "watchdog"])
            .arg(kafka.id().to_string())
            .arg(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let watchdog = match watchdog {
            Ok(watchdog) => watchdog,
            Err(error) => {
                let mut kafka = kafka;
                let _ = kafka.kill();
                let _ = kafka.wait();
                return Err(error).context("starting Kafka's watchdog");
            }
        };
        self.process = Some(Process { kafka, watchdog });
        self.await_ready()
    }

    /// A broker is ready when it tells a client about itself.
    fn await_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "100")
            .create()?;
        loop {
            let metadata = client.fetch_metadata(None, Duration::from_millis(500));
            if metadata.is_ok_and(|metadata| !metadata.brokers().is_empty()) {
                return Ok(());
            }
            let exited = match &mut self.process {
                Some(process) => process.kafka.try_wait()?,
                None => bail!("Kafka was not started"),
            };
            if exited.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.path().join("kafka.log")).unwrap_or_default();
                bail!("Kafka did not come up ({exited:?}); its log ends with:\n{}", tail(&log, 20));
            }
        }
    }

    /// Writes the cluster's identity into the empty log folder.
    fn format(&self) -> anyhow::Result<()> {
        let output = self
            .java("kafka.tools.StorageTool")
            .args(["format", "--standalone", "--cluster-id", "Ym9uZ3N1LXRlc3RraXQtMQ", "--config"])
            .arg(self.folder.path().join("server.properties"))
            .output()
            .context("starting java; is a Java 17 runtime installed?")?;
        ensure!(
            output.status.success(),
            "formatting Kafka's log folder failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn java(&self, class: &str) -> Command {
        let mut classpath = self.libs.clone().into_os_string();
        classpath.push("/*");
        let mut log4j = std::ffi::OsString::from("-Dlog4j2.configurationFile=");
        log4j.push(self.folder.path().join("log4j2.properties"));
        let mut command = Command::new("java");
        // One tier of compilation and class sharing halve the start; a test broker does not live long enough for more.
        command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]);
        command.arg(log4j).arg("-cp").arg(classpath).arg(class);
        command
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The folder that `scripts/kafka-jars.sh` fills.
fn jars() -> anyhow::Result<PathBuf> {
    let folder = match env::var_os("BONGSU_KAFKA_LIBS") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cache/bongsu/kafka-4.3.1"),
    };
    ensure!(
        folder.join("kafka_2.13-4.3.1.jar").is_file(),
        "Apache Kafka's jars are not in {}: run scripts/kafka-jars.sh",
        folder.display()
    );
    Ok(folder)
}

fn server_properties(folder: &Path, client_port: u16, controller_port: u16) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{client_port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{client_port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={}
auto.create.topics.enable=false
message.max.bytes=4194304
replica.fetch.max.bytes=4194304
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=8388608
",
        folder.join("data").display()
    )
}

const LOG4J: &str = "status = error
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %d %p %c: %m%n
rootLogger.level = warn
rootLogger.appenderRef.stderr.ref = stderr
";

fn tail(text: &str, lines: usize) -> String {
    let skipped = text.lines().count().saturating_sub(lines);
    text.lines().skip(skipped).collect::<Vec<_>>().join("\n")
}

/// Waits for a future of librdkafka's admin client, whose own thread drives it.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

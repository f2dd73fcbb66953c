//! Broker processes: Apache Kafka in KRaft combined mode, one node or several, on loopback.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    future::Future,
    io,
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
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use tempfile::TempDir;

/// How long a start may take. It takes 3 s on an idle machine; tests share theirs with compilers.
const START_DEADLINE: Duration = Duration::from_secs(90);
/// Somebody else may take a free port before Kafka does.
const START_ATTEMPTS: usize = 3;
/// Replicas of a topic where there are so many nodes.
const MAX_REPLICAS: usize = 3;

/// Running nodes, each a broker and a controller with its own folder, counted from 0. A topic has a replica on three of
/// them, where there are so many, and takes records while one of those is away. Dropping the cluster ends the processes
/// and removes the folders; so does the end of this process, however it comes about.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    bootstrap: String,
}

impl Cluster {
    /// Starts so many nodes on free ports, and returns when each of them answers.
    pub fn start(nodes: usize) -> anyhow::Result<Cluster> {
        let libs = jars()?;
        let mut attempt = 1;
        loop {
            match Cluster::start_on_free_ports(nodes, &libs) {
                Err(_) if attempt < START_ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    fn start_on_free_ports(count: usize, libs: &Path) -> anyhow::Result<Cluster> {
        let addresses = Addresses::free(count)?;
        let nodes: anyhow::Result<Vec<_>> = (0..count).map(|index| Node::format(index, &addresses, libs)).collect();
        let mut cluster = Cluster { nodes: nodes?, bootstrap: addresses.brokers.join(",") };
        cluster.restart_all()?;
        Ok(cluster)
    }

    /// Addresses of all nodes for clients, `host:port` separated by commas.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    pub(crate) fn folder(&self, node: usize) -> &Path {
        self.nodes[node].folder.path()
    }

    /// Creates a topic with Kafka's default settings.
    pub fn create_topic(&self, name: &str, partitions: i32) -> anyhow::Result<()> {
        self.create_topic_with(name, partitions, &[])
    }

    pub(crate) fn add_partitions(&self, name: &str, count: usize) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create()?;
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        for outcome in block_on(admin.create_partitions([&NewPartitions::new(name, count)], &options))? {
            outcome.map_err(|(topic, code)| anyhow::anyhow!("adding partitions to `{topic}`: {code}"))?;
        }
        Ok(())
    }

    pub(crate) fn create_topic_with(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create()?;
        // The number of replicas is the one in the nodes' configuration.
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        for outcome in block_on(admin.create_topics([&topic], &options))? {
            outcome.map_err(|(topic, code)| anyhow::anyhow!("creating topic `{topic}`: {code}"))?;
        }
        Ok(())
    }

    /// Ends a node as a power cut would (SIGKILL). It keeps its ports and its log for [`Cluster::restart`].
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Starts a node again on the same ports and logs, after [`Cluster::kill`] or instead of the running process, and
    /// returns when it answers.
    pub fn restart(&mut self, node: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[node];
        node.kill();
        node.start()?;
        node.await_ready()
    }

    /// Kills all nodes, then starts them again, and returns when each of them answers.
    pub fn restart_all(&mut self) -> anyhow::Result<()> {
        self.nodes.iter_mut().for_each(Node::kill);
        // All are started before one is awaited: none answers without a majority of the controllers.
        self.nodes.iter_mut().try_for_each(Node::start)?;
        self.nodes.iter_mut().try_for_each(Node::await_ready)
    }
}

/// One Kafka with its folder: its configuration, its log segments in `data`, its own log in `kafka.log`.
#[derive(Debug)]
struct Node {
    /// As Kafka counts: from 1.
    id: i32,
    address: String,
    folder: TempDir,
    libs: PathBuf,
    heap: &'static str,
    process: Option<Process>,
}

/// Kafka, and the watchdog that ends it should this process die first.
#[derive(Debug)]
struct Process {
    kafka: Child,
    watchdog: Child,
}

impl Node {
    /// Makes the folder, and writes the cluster's identity into the empty log folder.
    fn format(index: usize, addresses: &Addresses, libs: &Path) -> anyhow::Result<Node> {
        let folder = tempfile::Builder::new().prefix("bongsu-kafka-").tempdir().context("making Kafka's folder")?;
        fs::write(folder.path().join("server.properties"), addresses.server_properties(index, folder.path()))?;
        fs::write(folder.path().join("log4j2.properties"), LOG4J)?;
        let node = Node {
            id: i32::try_from(node_id(index))?,
            address: addresses.brokers[index].clone(),
            folder,
            libs: libs.to_owned(),
            // Several share the work, and the machine's memory.
            heap: if addresses.brokers.len() == 1 { "-Xmx512m" } else { "-Xmx384m" },
            process: None,
        };
        let output = node
            .java("kafka.tools.StorageTool")
            .args(["format", "--cluster-id", "Ym9uZ3N1LXRlc3RraXQtMQ", "--initial-controllers"])
            .arg(addresses.initial_controllers())
            .arg("--config")
            .arg(node.folder.path().join("server.properties"))
            .output()
            .context("starting java; is a Java 17 runtime installed?")?;
        ensure!(
            output.status.success(),
            "formatting Kafka's log folder failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(node)
    }

    /// Starts the process. It answers when [`Node::await_ready`] has returned.
    fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(self.folder.path().join("kafka.log"))?;
        let mut kafka = self
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
                let _ = kafka.kill();
                let _ = kafka.wait();
                return Err(error).context("starting Kafka's watchdog");
            }
        };
        self.process = Some(Process { kafka, watchdog });
        Ok(())
    }

    /// A node is ready when it tells a client about itself.
    fn await_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            // A new client each time: one that has heard of the other nodes may ask those.
            let client: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", &self.address)
                .set("reconnect.backoff.ms", "50")
                .set("reconnect.backoff.max.ms", "100")
                .create()?;
            let metadata = client.fetch_metadata(None, Duration::from_secs(2));
            if metadata.is_ok_and(|metadata| metadata.brokers().iter().any(|broker| broker.id() == self.id)) {
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

    fn kill(&mut self) {
        let Some(Process { mut kafka, mut watchdog }) = self.process.take() else { return };
        // The watchdog first: once Kafka is reaped its pid may belong to somebody else. Both are our own children, so
        // that errors here mean only that they have ended by themselves.
        for child in [&mut watchdog, &mut kafka] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn java(&self, class: &str) -> Command {
        let mut classpath = self.libs.clone().into_os_string();
        classpath.push("/*");
        let mut log4j = OsString::from("-Dlog4j2.configurationFile=");
        log4j.push(self.folder.path().join("log4j2.properties"));
        let mut command = Command::new("java");
        // One tier of compilation and class sharing halve the start; a test broker does not live long enough for more.
        command.args([self.heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]);
        command.arg(log4j).arg("-cp").arg(classpath).arg(class);
        command
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where the nodes listen, `host:port` in their order. Each of them is told of all.
struct Addresses {
    brokers: Vec<String>,
    controllers: Vec<String>,
}

impl Addresses {
    fn free(nodes: usize) -> anyhow::Result<Addresses> {
        // All ports are held until all are known, or two could be the same.
        let held = (0..2 * nodes).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<Vec<_>>>()?;
        let address = |listener: &TcpListener| listener.local_addr().map(|address| address.to_string());
        let mut brokers = held.iter().map(address).collect::<io::Result<Vec<_>>>()?;
        let controllers = brokers.split_off(nodes);
        Ok(Addresses { brokers, controllers })
    }

    /// The first quorum, `id@host:port:directory` separated by commas. All nodes must be formatted with the same.
    fn initial_controllers(&self) -> String {
        let controller = |(index, address): (usize, &String)| {
            let id = node_id(index);
            // A directory's id is 16 bytes in base64.
            format!("{id}@{address}:Ym9uZ3N1LWthZmth{id:04}AA")
        };
        self.controllers.iter().enumerate().map(controller).collect::<Vec<_>>().join(",")
    }

    fn server_properties(&self, index: usize, folder: &Path) -> String {
        let id = node_id(index);
        let (broker, controller) = (&self.brokers[index], &self.controllers[index]);
        let controllers = self.controllers.join(",");
        let replicas = self.brokers.len().min(MAX_REPLICAS);
        // A topic is written while one of its replicas is away.
        let in_sync = replicas.saturating_sub(1).max(1);
        format!(
            "process.roles=broker,controller
node.id={id}
controller.quorum.bootstrap.servers={controllers}
listeners=PLAINTEXT://{broker},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{broker}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={}
auto.create.topics.enable=false
log.retention.ms=-1
default.replication.factor={replicas}
min.insync.replicas={in_sync}
message.max.bytes=4194304
replica.fetch.max.bytes=4194304
offsets.topic.num.partitions=4
offsets.topic.replication.factor={replicas}
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=8388608
",
            folder.join("data").display()
        )
    }
}

fn node_id(index: usize) -> usize {
    index + 1
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

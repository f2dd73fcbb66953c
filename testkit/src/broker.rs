//! One broker, for tests of which more would prove no more.

use std::path::Path;

use crate::cluster::Cluster;

/// A running broker with its own folder: a [`Cluster`] of one. Dropping it ends the process and removes the folder; so
/// does the end of this process, however it comes about.
#[derive(Debug)]
pub struct Broker {
    cluster: Cluster,
}

impl Broker {
    /// Starts a broker on free ports, and returns when it answers.
    pub fn start() -> anyhow::Result<Broker> {
        Ok(Broker { cluster: Cluster::start(1)? })
    }

    /// Address for clients, `host:port`.
    pub fn bootstrap(&self) -> &str {
        self.cluster.bootstrap()
    }

    /// The broker's folder: its log segments in `data`, its own log in `kafka.log`.
    pub fn folder(&self) -> &Path {
        self.cluster.folder(0)
    }

    /// Creates a topic with Kafka's default settings.
    pub fn create_topic(&self, name: &str, partitions: i32) -> anyhow::Result<()> {
        self.cluster.create_topic(name, partitions)
    }

    /// Creates a topic with settings as Kafka spells them.
    pub fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        self.cluster.create_topic_with(name, partitions, settings)
    }

    /// Gives a topic more partitions: `count` in all.
    pub fn add_partitions(&self, name: &str, count: usize) -> anyhow::Result<()> {
        self.cluster.add_partitions(name, count)
    }

    /// Ends the broker as a power cut would (SIGKILL). It keeps its ports and its log for [`Broker::restart`].
    pub fn kill(&mut self) {
        self.cluster.kill(0);
    }

    /// Starts the broker again on the same ports and logs, after [`Broker::kill`] or instead of the running process.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.cluster.restart(0)
    }
}

//! The demo's Kafka: librdkafka's mock cluster, in this process. It keeps little and forgets transactional offsets, which is enough for a
//! demo, where nothing is restarted, and for nothing else.

use std::sync::mpsc;
use std::thread;

use anyhow::Context;
use rdkafka::mocking::MockCluster;
use tokio::sync::oneshot;

/// The cluster. Ends when dropped.
pub(super) struct Broker {
    bootstrap: String,
    // Its end of the channel keeps the cluster's thread, and so the cluster, alive.
    _alive: mpsc::Sender<()>,
}

impl Broker {
    /// A cluster with these topics, given as names and numbers of partitions.
    pub(super) async fn start(topics: Vec<(String, i32)>) -> anyhow::Result<Broker> {
        let (alive, ended) = mpsc::channel::<()>();
        let (tell, told) = oneshot::channel();
        // The handle cannot change threads: it lives and dies on one of its own.
        thread::Builder::new().name("demo-broker".to_owned()).spawn(move || {
            let cluster = match cluster(&topics) {
                Ok(cluster) => cluster,
                // Nobody listens only where the demo has ended already.
                Err(error) => return drop(tell.send(Err(error))),
            };
            if tell.send(Ok(cluster.bootstrap_servers())).is_ok() {
                // An error is what is waited for: the other end is gone.
                let _ = ended.recv();
            }
        })?;
        let bootstrap = told.await.context("the embedded broker ended")??;
        Ok(Broker { bootstrap, _alive: alive })
    }

    /// Address for clients.
    pub(super) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }
}

fn cluster(
    topics: &[(String, i32)],
) -> anyhow::Result<MockCluster<'static, rdkafka::producer::DefaultProducerContext>> {
    let cluster = MockCluster::new(1).context("starting the embedded broker")?;
    for (name, partitions) in topics {
        cluster.create_topic(name, *partitions, 1).with_context(|| format!("creating `{name}`"))?;
    }
    Ok(cluster)
}

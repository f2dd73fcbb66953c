//! The reporter with real parts: Apache Kafka, HTTP and SMTP over sockets.

// Clippy takes only functions with #[test] for tests, not their helpers.
#![allow(clippy::unwrap_used, clippy::panic)]

mod alerts;
mod dashboard;
mod storms;
mod webhooks;
mod weekly;

use std::collections::BTreeMap;
use std::time::Duration;

use bongsu_reporter::config::{Config, Dashboard, Reports, Slack};
use bongsu_schemas::health::Health;
use bongsu_schemas::history::History;
use bongsu_schemas::kafka::Kafka;
use bongsu_schemas::services::{Owner, Service, Services};
use bongsu_stand_ins::slack::SlackStandIn;
use bongsu_testkit::Broker;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A machine with two cores may compile something meanwhile.
const DEADLINE: Duration = Duration::from_secs(60);

fn owner(name: &str) -> Service {
    let owner = Owner {
        name: Some(format!("{name} team")),
        slack: Some(format!("#{name}-alerts").into()),
        email: vec![format!("{name}@example.com")],
        ..Owner::default()
    };
    Service { owner: Some(owner), ..Service::default() }
}

fn config(broker: &Broker, slack: &SlackStandIn) -> Config {
    let services = [("order-api", owner("order")), ("pay-api", owner("pay")), ("*", owner("platform"))];
    Config {
        kafka: Kafka {
            brokers: broker.bootstrap().to_owned(),
            topic_prefix: "bongsu".to_owned(),
            group: "bongsu".to_owned(),
            properties: BTreeMap::new(),
        },
        services: Services(services.into_iter().map(|(name, service)| (name.to_owned(), service)).collect()),
        slack: Some(Slack { api_url: Some(slack.api_url().parse().unwrap()), ..Slack::default() }),
        smtp: None,
        webhooks: Vec::new(),
        reports: Reports::default(),
        history: History { url: "file:/nowhere".to_owned(), ..History::default() },
        dashboard: Dashboard { listen: ([127, 0, 0, 1], 0).into(), public_url: None },
        zone: chrono_tz::Asia::Seoul,
    }
}

fn create_topics(broker: &Broker, config: &Config) {
    for spec in config.kafka.topics().specs() {
        let settings: Vec<(&str, &str)> = spec.settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        broker.create_topic_with(&spec.name, spec.partitions, &settings).unwrap();
    }
}

/// A reporter that runs in this process.
struct Running {
    shutdown: CancellationToken,
    health: Health,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    fn start(config: &Config) -> Running {
        let (shutdown, health) = (CancellationToken::new(), Health::default());
        let running = bongsu_reporter::run(config.clone(), health.clone(), axum::Router::new(), shutdown.clone());
        Running { shutdown, health, task: tokio::spawn(running) }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap().unwrap();
    }

    async fn until_ready(&self, wanted: bool) {
        let ready = async {
            let is = |health: &Health| {
                let parts = health.snapshot();
                !parts.is_empty() && parts.values().all(Result::is_ok)
            };
            while is(&self.health) != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, ready).await.unwrap_or_else(|_| panic!("{:?}", self.health.snapshot()));
    }
}

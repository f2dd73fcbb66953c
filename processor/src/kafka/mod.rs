//! The thin shell around librdkafka. Everything here blocks; the stages run on threads of their own.

pub(crate) mod compacted;
pub(crate) mod consumer;
pub(crate) mod identity;
pub(crate) mod transaction;
pub(crate) mod transactor;

use std::time::Duration;

use bongsu_schemas::kafka::Kafka;
use rdkafka::ClientConfig;

/// How long a request to a broker may take before the stage gives up, tears down and starts again.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Somebody else is what this process was; to go on would be to fight over each transaction.
#[derive(Debug, thiserror::Error)]
#[error(
    "another process has taken over the name `{name}` of this one; give each process a name of its own in BONGSU_INSTANCE"
)]
pub(crate) struct Replaced {
    pub(crate) name: String,
}

/// What all clients have in common.
pub(crate) fn client_config(kafka: &Kafka) -> anyhow::Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("client.id", "bongsu");
    for (name, value) in kafka.client_properties(|variable| std::env::var(variable).ok())? {
        config.set(name, value);
    }
    Ok(config)
}

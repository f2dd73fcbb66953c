//! Follows `bongsu.commands` on a thread of its own.

use std::thread::JoinHandle;

use bongsu_schemas::command::Command;
use bongsu_schemas::kafka::Kafka;
use rdkafka::message::Message;
use tokio::sync::mpsc;
use tracing::warn;

use crate::follower::{Followed, Follower, StartAt};
use crate::kafka::read_all;

/// All commands so far.
pub(crate) async fn read(kafka: &Kafka) -> anyhow::Result<Vec<Command>> {
    let kafka = kafka.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut commands = Vec::new();
        read_all(&kafka, &kafka.topics().commands(), |_, value| commands.extend(value.and_then(parsed)))?;
        Ok(commands)
    });
    reading.await?
}

/// Follows the topic from its beginning; the thread ends when the receiver is dropped.
pub(crate) fn follow(kafka: &Kafka) -> anyhow::Result<(mpsc::Receiver<Command>, JoinHandle<()>)> {
    let follower = Follower::new(kafka, "commands", vec![(kafka.topics().commands(), StartAt::Beginning)])?;
    let (sender, receiver) = mpsc::channel(64);
    let follow = move || {
        let is_over = || sender.is_closed();
        follower.run(is_over, |followed| {
            if let Followed::Record(message) = followed
                && let Some(command) = message.payload().and_then(parsed)
            {
                // An error means that nobody listens any more, which ends the thread.
                let _ = sender.blocking_send(command);
            }
        });
    };
    Ok((receiver, std::thread::Builder::new().name("commands".to_owned()).spawn(follow)?))
}

fn parsed(value: &[u8]) -> Option<Command> {
    let parsed = serde_json::from_slice(value);
    parsed.inspect_err(|error| warn!(%error, "a command cannot be read and is passed over")).ok()
}

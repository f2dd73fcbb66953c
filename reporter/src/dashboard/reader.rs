//! Reads windows, alerts, incidents and commands for the page, and windows for what messages say about an alert, on a thread of its own
//! and outside of any group.

use std::thread::JoinHandle;

use bongsu_schemas::kafka::Kafka;
use rdkafka::message::{BorrowedMessage, Message};
use serde::de::DeserializeOwned;
use tracing::warn;

use super::Shared;
use crate::commands::given;
use crate::follower::{Followed, Follower, StartAt};
use crate::recent::SharedRecent;

/// Windows read back from the end of each partition.
const WINDOWS_BACK: i64 = 1_000;
/// Records read back from the end of alerts and incidents.
const ALERTS_BACK: i64 = 5_000;

/// Starts the thread; it ends with `shared.stop`.
pub(super) fn spawn(kafka: &Kafka, shared: Shared, recent: SharedRecent) -> anyhow::Result<JoinHandle<()>> {
    let topics = kafka.topics();
    let topics = Topics {
        windows: topics.windows(),
        alerts: topics.alerts(),
        incidents: topics.incidents(),
        commands: topics.commands(),
    };
    let starts = vec![
        (topics.windows.clone(), StartAt::RecordsBack(WINDOWS_BACK)),
        (topics.alerts.clone(), StartAt::RecordsBack(ALERTS_BACK)),
        (topics.incidents.clone(), StartAt::RecordsBack(ALERTS_BACK)),
        // A silence may have been asked for long ago.
        (topics.commands.clone(), StartAt::Beginning),
    ];
    let follower = Follower::new(kafka, "dashboard", starts)?;
    let follow = move || {
        let is_over = || shared.stop.is_cancelled();
        follower.run(is_over, |followed| {
            if let Followed::Record(message) = followed {
                topics.take(message, &shared, &recent);
            }
        });
    };
    Ok(std::thread::Builder::new().name("dashboard-reader".to_owned()).spawn(follow)?)
}

struct Topics {
    windows: String,
    alerts: String,
    incidents: String,
    commands: String,
}

impl Topics {
    fn take(&self, message: &BorrowedMessage<'_>, shared: &Shared, recent: &SharedRecent) {
        let Some(payload) = message.payload() else { return };
        let topic = message.topic();
        if topic == self.windows {
            if let Some(window) = parsed(topic, payload) {
                recent.lock().take(&window);
                shared.board().window(window);
            }
        } else if topic == self.alerts {
            if let Some(alert) = parsed(topic, payload) {
                shared.board().alert(alert);
            }
        } else if topic == self.commands {
            if let Some(given) = given(message) {
                shared.silences().apply(&given.command);
            }
        } else if let Some(incident) = parsed(topic, payload) {
            shared.board().incident(incident);
        }
    }
}

fn parsed<T: DeserializeOwned>(topic: &str, payload: &[u8]) -> Option<T> {
    let parsed = serde_json::from_slice(payload);
    parsed.inspect_err(|error| warn!(topic, %error, "a record cannot be shown")).ok()
}

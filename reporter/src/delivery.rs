//! One queue and one worker for each Slack channel, so that none waits for another.
//!
//! - S1: a notification is in the ledger once it arrived; what is in the ledger is not posted again, only updated.
//! - S2: where it may have arrived without anybody knowing (a crash, a broken connection), the channel is searched before it is posted.
//! - S3: a queue holds one entry for each notification, the latest; at most [`queue::MAX_PENDING`].
//! - S4: when many new incidents wait for a channel at once, they share one message, a digest. That an incident is in a digest is in the
//!   ledger before the digest is posted, and stays so: each incident is in exactly one message of a channel.
//! - S5: a version that tells nothing new waits for its turn (see [`crate::pacing`]); the newest one is sent then.
//! - S6: that a thread lacks a reply is in the ledger before it is posted; its id names the first series in it.

mod desk;
mod groups;
mod queue;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::desk::{Desk, Done, Look};
use self::groups::{group_of, together};
use self::queue::Waiting;
pub(crate) use self::queue::{Queue, Queued};
use crate::error::DeliveryError;
use crate::events;
use crate::ledger::Ledger;
use crate::notification::Notification;
use crate::pacing::Pace;
use crate::slack::client::Client;

/// Slack takes about one message a second in a channel.
const SPACING: Duration = Duration::from_millis(1_050);
/// An alert that another one may explain waits this long for it: both come of windows that end together, in no certain order.
const EXPLANATION_PAUSE: Duration = Duration::from_secs(5);
/// Refused notifications are tried again: somebody may have created the channel or invited the bot.
pub(crate) const REFUSED_PAUSE: Duration = Duration::from_secs(300);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// All channels' queues and workers.
pub(crate) struct Deliveries {
    client: Arc<Client>,
    ledger: Ledger,
    pace: Pace,
    look: Look,
    queues: BTreeMap<String, Arc<Queue<Notification>>>,
    workers: JoinSet<()>,
    stop: CancellationToken,
}

impl Deliveries {
    pub(crate) fn new(
        client: Arc<Client>,
        ledger: Ledger,
        pace: Pace,
        zone: chrono_tz::Tz,
        public_url: Option<String>,
    ) -> Deliveries {
        let (queues, workers) = (BTreeMap::new(), JoinSet::new());
        let look = Look { zone, public_url };
        Deliveries { client, ledger, pace, look, queues, workers, stop: CancellationToken::new() }
    }

    /// Returns at once; the channel's worker does the rest.
    pub(crate) fn enqueue(&mut self, notification: Notification) {
        let channel = notification.channel.clone();
        let queue = self.queues.entry(channel).or_insert_with(|| {
            let queue = Arc::new(Queue::default());
            let desk = Desk::new(Arc::clone(&self.client), self.ledger.clone(), self.pace, self.look.clone());
            self.workers.spawn(work(desk, self.ledger.clone(), Arc::clone(&queue), self.stop.clone()));
            queue
        });
        let is_held = notification.may_be_explained && self.ledger.get(&notification.id).is_none();
        queue.put(notification, Instant::now() + if is_held { EXPLANATION_PAUSE } else { Duration::ZERO });
    }

    /// Forgets a notification that still waits.
    pub(crate) fn withdraw(&mut self, channel: &str, id: &str) {
        if let Some(queue) = self.queues.get(channel) {
            queue.withdraw(id);
        }
    }

    /// Lets workers finish what they are sending; what is left is found again in the alerts and the ledger.
    pub(crate) async fn finish(mut self, deadline: Duration) {
        self.stop.cancel();
        let all = async { while self.workers.join_next().await.is_some() {} };
        if tokio::time::timeout(deadline, all).await.is_err() {
            warn!("a notification was still being sent; the next start looks whether it arrived");
            self.workers.shutdown().await;
        }
    }
}

async fn work(mut desk: Desk, ledger: Ledger, queue: Arc<Queue<Notification>>, stop: CancellationToken) {
    let choose = |waiting: &[Waiting<'_, Notification>]| together(waiting, &|item| group_of(&ledger, item));
    let mut outage_pause = Duration::from_secs(1);
    while let Some(mut taken) = queue.next_together(&stop, &choose).await {
        let outcome = desk.deliver(&mut taken).await;
        if let (Err(error), Some(first)) = (&outcome, taken.first()) {
            events::delivery_failed(first.kind, &first.channel, &first.id, error);
        }
        let now = Instant::now();
        let (again_at, pause) = match outcome {
            Ok(Done::Nothing) => (None, Duration::ZERO),
            Ok(Done::Later(at)) => (Some(now + (at - Utc::now()).to_std().unwrap_or_default()), Duration::ZERO),
            Ok(done @ (Done::Sent | Done::Again)) => {
                outage_pause = Duration::from_secs(1);
                (matches!(done, Done::Again).then_some(now), SPACING)
            }
            Err(DeliveryError::RateLimited { retry_after }) => {
                (Some(now), retry_after.clamp(SPACING, Duration::from_secs(600)))
            }
            Err(DeliveryError::Unreachable { .. }) => {
                taken.iter_mut().for_each(|notification| notification.maybe_sent = true);
                let pause = outage_pause;
                outage_pause = (2 * outage_pause).min(LONGEST_PAUSE);
                (Some(now), pause)
            }
            Err(DeliveryError::Refused { .. }) => (Some(now + REFUSED_PAUSE), SPACING),
        };
        if let Some(at) = again_at {
            taken.into_iter().for_each(|notification| queue.put(notification, at));
        }
        if !pause.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

#[cfg(test)]
#[path = "delivery/tests.rs"]
mod tests;

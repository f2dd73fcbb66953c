//! One queue and one worker for each Slack channel, so that none waits for another.
//!
//! - S1: a notification is in the ledger once it arrived; what is in the ledger is not posted again, only updated.
//! - S2: where it may have arrived without anybody knowing (a crash, a broken connection), the channel is searched before it is posted.
//! - S3: a queue holds one entry for each notification, the latest; at most [`MAX_PENDING`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::error::DeliveryError;
use crate::events;
use crate::ledger::{Entry, Kind, Ledger};
use crate::slack::client::{Client, Posted};
use crate::slack::message::Message;

/// Slack takes about one message a second in a channel.
const SPACING: Duration = Duration::from_millis(1_050);
/// Refused notifications are tried again: somebody may have created the channel or invited the bot.
pub(crate) const REFUSED_PAUSE: Duration = Duration::from_secs(300);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// More than this many notifications are waiting only if nobody has looked at the log for days.
const MAX_PENDING: usize = 1_000;

/// A message that a channel is to have.
#[derive(Debug, Clone)]
pub(crate) struct Notification {
    /// Deterministic; also the `block_id` of the message's first block.
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) channel: String,
    /// A higher one replaces a lower one.
    pub(crate) sequence: u32,
    pub(crate) message: Message,
    /// It cannot have been posted before (wall clock).
    pub(crate) since: DateTime<Utc>,
    /// It may have been posted without an entry in the ledger.
    pub(crate) maybe_sent: bool,
}

/// All channels' queues and workers.
pub(crate) struct Deliveries {
    client: Arc<Client>,
    ledger: Ledger,
    queues: BTreeMap<String, Arc<Queue<Notification>>>,
    workers: JoinSet<()>,
    stop: CancellationToken,
}

impl Deliveries {
    pub(crate) fn new(client: Arc<Client>, ledger: Ledger) -> Deliveries {
        let (queues, workers) = (BTreeMap::new(), JoinSet::new());
        Deliveries { client, ledger, queues, workers, stop: CancellationToken::new() }
    }

    /// Returns at once; the channel's worker does the rest.
    pub(crate) fn enqueue(&mut self, notification: Notification) {
        let channel = notification.channel.clone();
        let queue = self.queues.entry(channel).or_insert_with(|| {
            let queue = Arc::new(Queue::default());
            let (client, ledger, stop) = (Arc::clone(&self.client), self.ledger.clone(), self.stop.clone());
            self.workers.spawn(work(client, ledger, Arc::clone(&queue), stop));
            queue
        });
        queue.put(notification, Instant::now());
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

/// What can wait in a [`Queue`].
pub(crate) trait Queued {
    /// What its versions have in common.
    fn id(&self) -> &str;
    fn kind(&self) -> Kind;
    /// Whose queue it waits in.
    fn channel(&self) -> &str;
    /// A greater one replaces a lesser one.
    fn version(&self) -> (u32, u64);
    /// Takes over what must not be forgotten of the version that goes.
    fn absorb(&mut self, _gone: &Self) {}
}

impl Queued for Notification {
    fn id(&self) -> &str {
        &self.id
    }
    fn kind(&self) -> Kind {
        self.kind
    }
    fn channel(&self) -> &str {
        &self.channel
    }
    fn version(&self) -> (u32, u64) {
        (self.sequence, 0)
    }
    fn absorb(&mut self, gone: &Notification) {
        self.maybe_sent |= gone.maybe_sent;
    }
}

/// What a channel, or another receiver, still has to be told.
pub(crate) struct Queue<T> {
    // Held for operations on the two collections only, never across an await.
    waiting: Mutex<Waiting<T>>,
    changed: Notify,
}

struct Waiting<T> {
    by_id: BTreeMap<String, (T, Instant)>,
    order: VecDeque<String>,
}

// Derived, it would ask for a `T` with a default.
impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        let waiting = Waiting { by_id: BTreeMap::new(), order: VecDeque::new() };
        Queue { waiting: Mutex::new(waiting), changed: Notify::new() }
    }
}

impl<T: Queued> Queue<T> {
    fn waiting(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a notification in, or the newer one in the place of the older.
    pub(crate) fn put(&self, mut notification: T, not_before: Instant) {
        let mut waiting = self.waiting();
        if let Some((present, present_not_before)) = waiting.by_id.get_mut(notification.id()) {
            if notification.version() > present.version() {
                notification.absorb(present);
                (*present, *present_not_before) = (notification, not_before);
            } else {
                present.absorb(&notification);
            }
        } else {
            if waiting.order.len() >= MAX_PENDING
                && let Some(oldest) = waiting.order.pop_front()
                && let Some((dropped, _)) = waiting.by_id.remove(&oldest)
            {
                events::notification_dropped(
                    dropped.kind(),
                    dropped.channel(),
                    dropped.id(),
                    "the channel's queue is full",
                );
            }
            let id = notification.id().to_owned();
            waiting.order.push_back(id.clone());
            waiting.by_id.insert(id, (notification, not_before));
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// Takes the oldest notification that may be sent at `now`; else says when the next one may.
    pub(crate) fn take(&self, now: Instant) -> Result<T, Option<Instant>> {
        let mut waiting = self.waiting();
        let not_before = |id: &String| waiting.by_id.get(id).map(|(_, not_before)| *not_before);
        let ready = waiting.order.iter().position(|id| not_before(id).is_none_or(|not_before| not_before <= now));
        let Some(position) = ready else { return Err(waiting.order.iter().filter_map(not_before).min()) };
        let taken = waiting.order.remove(position).and_then(|id| waiting.by_id.remove(&id));
        taken.map(|(notification, _)| notification).ok_or(Some(now))
    }

    /// Waits for a notification; none when stopped.
    pub(crate) async fn next(&self, stop: &CancellationToken) -> Option<T> {
        loop {
            if stop.is_cancelled() {
                return None;
            }
            match self.take(Instant::now()) {
                Ok(notification) => return Some(notification),
                Err(next) => {
                    let later = async {
                        match next {
                            Some(at) => tokio::time::sleep_until(at).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = later => {}
                        () = stop.cancelled() => return None,
                    }
                }
            }
        }
    }
}

async fn work(client: Arc<Client>, ledger: Ledger, queue: Arc<Queue<Notification>>, stop: CancellationToken) {
    let mut outage_pause = Duration::from_secs(1);
    while let Some(mut notification) = queue.next(&stop).await {
        let outcome = deliver(&client, &ledger, &notification).await;
        if let Err(error) = &outcome {
            events::delivery_failed(notification.kind, &notification.channel, &notification.id, error);
        }
        let pause = match outcome {
            Ok(()) => {
                outage_pause = Duration::from_secs(1);
                SPACING
            }
            Err(DeliveryError::RateLimited { retry_after }) => {
                queue.put(notification, Instant::now());
                retry_after.clamp(SPACING, Duration::from_secs(600))
            }
            Err(DeliveryError::Unreachable { .. }) => {
                notification.maybe_sent = true;
                queue.put(notification, Instant::now());
                let pause = outage_pause;
                outage_pause = (2 * outage_pause).min(LONGEST_PAUSE);
                pause
            }
            Err(DeliveryError::Refused { .. }) => {
                queue.put(notification, Instant::now() + REFUSED_PAUSE);
                SPACING
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Posts or updates, then writes it down.
async fn deliver(client: &Client, ledger: &Ledger, notification: &Notification) -> Result<(), DeliveryError> {
    let Notification { id, kind, channel, sequence, message, since, maybe_sent } = notification;
    let known = ledger.get(id);
    if known.as_ref().is_some_and(|entry| entry.sequence >= *sequence) {
        return Ok(());
    }
    let known = known.and_then(|entry| Some(Posted { channel_id: entry.channel_id?, ts: entry.ts? }));
    let earlier = match known {
        Some(posted) => Some(posted),
        None if *maybe_sent => find(client, notification, *since).await?,
        None => None,
    };
    let posted = match earlier {
        Some(posted) => match client.update(&posted, message).await {
            Ok(()) => posted,
            // Somebody deleted it, or it is too old to be edited: nobody wants to read it again.
            Err(DeliveryError::Refused { reason }) if is_gone(&reason) => {
                warn!(channel, id, reason, "a message can no longer be updated");
                posted
            }
            Err(error) => return Err(error),
        },
        None => client.post(channel, message).await?,
    };
    let entry = Entry {
        id: id.clone(),
        kind: *kind,
        channel: channel.clone(),
        channel_id: Some(posted.channel_id),
        ts: Some(posted.ts),
        sequence: *sequence,
        sent_at: Utc::now(),
    };
    events::delivered(*kind, channel, id);
    if let Err(error) = ledger.record(entry).await {
        warn!(
            channel,
            id,
            error = format!("{error:#}"),
            "the ledger could not be written; a restart looks into the channel"
        );
    }
    Ok(())
}

async fn find(
    client: &Client,
    notification: &Notification,
    since: DateTime<Utc>,
) -> Result<Option<Posted>, DeliveryError> {
    let Notification { id, channel, .. } = notification;
    match client.find(channel, id, since).await {
        // A second message is better than none.
        Err(DeliveryError::Refused { reason }) => {
            warn!(
                channel,
                id, reason, "the channel's history cannot be read (scopes channels:history and channels:read)"
            );
            Ok(None)
        }
        found => found,
    }
}

fn is_gone(reason: &str) -> bool {
    ["message_not_found", "cant_update_message", "edit_window_closed"].iter().any(|code| reason.starts_with(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(id: &str, sequence: u32) -> Notification {
        let message = crate::slack::message::paragraphs(id, "title", &[]);
        let (channel, since) = ("#c".to_owned(), DateTime::UNIX_EPOCH);
        Notification { id: id.to_owned(), kind: Kind::Incident, channel, sequence, message, since, maybe_sent: false }
    }

    /// Scenario: two notifications, a newer version of the first, one that was refused, and an older version put back.
    /// Guarantees: S3; the newest version goes out once, in its old place; what was refused waits without holding up others.
    #[tokio::test]
    async fn the_latest_version_waits_once() {
        let queue = Queue::default();
        let now = Instant::now();
        queue.put(notification("refused", 1), now + REFUSED_PAUSE);
        queue.put(notification("a", 1), now);
        queue.put(notification("b", 1), now);
        queue.put(notification("a", 3), now);
        queue.put(Notification { maybe_sent: true, ..notification("a", 2) }, now);
        let first = queue.take(now).unwrap();
        assert_eq!((first.id.as_str(), first.sequence, first.maybe_sent), ("a", 3, true));
        assert_eq!(queue.take(now).unwrap().id, "b");
        assert_eq!(queue.take(now).unwrap_err(), Some(now + REFUSED_PAUSE));
        assert_eq!(queue.take(now + REFUSED_PAUSE).unwrap().id, "refused");
        assert_eq!(queue.take(now).unwrap_err(), None);
    }

    /// Guarantees: S3's bound.
    #[tokio::test]
    async fn a_queue_is_bounded() {
        let queue = Queue::default();
        for number in 0..MAX_PENDING + 5 {
            queue.put(notification(&number.to_string(), 1), Instant::now());
        }
        assert_eq!(queue.waiting().by_id.len(), MAX_PENDING);
        assert_eq!(queue.take(Instant::now()).unwrap().id, "5");
    }
}

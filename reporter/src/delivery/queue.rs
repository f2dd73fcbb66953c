//! What a receiver still has to be told: a Slack channel, or a webhook.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::events;
use crate::ledger::Kind;

/// More than this many notifications are waiting only if nobody has looked at the log for days.
pub(super) const MAX_PENDING: usize = 1_000;

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

/// One that waits, and whether it may go out by itself yet.
pub(super) struct Waiting<'a, T> {
    pub(super) item: &'a T,
    pub(super) is_ready: bool,
}

/// Of all that waits, oldest first: places of those that go out together, in their order; none if nothing may yet.
pub(super) type Choose<'c, T> = &'c (dyn Fn(&[Waiting<'_, T>]) -> Vec<usize> + Sync);

pub(crate) struct Queue<T> {
    // Held for operations on the two collections only, never across an await.
    pending: Mutex<Pending<T>>,
    changed: Notify,
}

struct Pending<T> {
    by_id: BTreeMap<String, (T, Instant)>,
    order: VecDeque<String>,
}

// Derived, it would ask for a `T` with a default.
impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        let pending = Pending { by_id: BTreeMap::new(), order: VecDeque::new() };
        Queue { pending: Mutex::new(pending), changed: Notify::new() }
    }
}

impl<T: Queued> Queue<T> {
    /// Puts a notification in, or the newer one in the place of the older.
    pub(crate) fn put(&self, mut notification: T, not_before: Instant) {
        let mut pending = self.pending();
        if let Some((present, present_not_before)) = pending.by_id.get_mut(notification.id()) {
            if notification.version() > present.version() {
                notification.absorb(present);
                // Changes that come faster than a pause must not prolong it.
                (*present, *present_not_before) = (notification, not_before.min(*present_not_before));
            } else {
                present.absorb(&notification);
            }
        } else {
            if pending.order.len() >= MAX_PENDING
                && let Some(oldest) = pending.order.pop_front()
                && let Some((dropped, _)) = pending.by_id.remove(&oldest)
            {
                let why = "the channel's queue is full";
                events::notification_dropped(dropped.kind(), dropped.channel(), dropped.id(), why);
            }
            let id = notification.id().to_owned();
            pending.order.push_back(id.clone());
            pending.by_id.insert(id, (notification, not_before));
        }
        drop(pending);
        self.changed.notify_one();
    }

    /// Forgets a notification, if it still waits.
    pub(crate) fn withdraw(&self, id: &str) {
        let mut pending = self.pending();
        if pending.by_id.remove(id).is_some() {
            pending.order.retain(|waiting| waiting != id);
        }
    }

    /// Waits for a notification; none when stopped.
    pub(crate) async fn next(&self, stop: &CancellationToken) -> Option<T> {
        self.next_together(stop, &oldest).await?.pop()
    }

    /// Waits for what goes out together; none when stopped.
    pub(super) async fn next_together(&self, stop: &CancellationToken, choose: Choose<'_, T>) -> Option<Vec<T>> {
        loop {
            if stop.is_cancelled() {
                return None;
            }
            match self.take_together(Instant::now(), choose) {
                Ok(taken) => return Some(taken),
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

    /// Takes what goes out together at `now`; else says when the next one may.
    pub(super) fn take_together(&self, now: Instant, choose: Choose<'_, T>) -> Result<Vec<T>, Option<Instant>> {
        let mut pending = self.pending();
        let chosen = pending.choose(now, choose);
        if chosen.is_empty() {
            return Err(pending.by_id.values().map(|(_, not_before)| *not_before).min());
        }
        pending.order.retain(|id| !chosen.contains(id));
        Ok(chosen.iter().filter_map(|id| pending.by_id.remove(id)).map(|(notification, _)| notification).collect())
    }

    /// Takes the oldest notification that may be sent at `now`; else says when the next one may.
    #[cfg(test)]
    pub(crate) fn take(&self, now: Instant) -> Result<T, Option<Instant>> {
        self.take_together(now, &oldest).map(|mut taken| taken.remove(0))
    }

    fn pending(&self) -> MutexGuard<'_, Pending<T>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Pending<T> {
    /// Ids of what goes out.
    fn choose(&self, now: Instant, choose: Choose<'_, T>) -> Vec<String> {
        let waiting =
            |id: &String| self.by_id.get(id).map(|(item, not_before)| Waiting { item, is_ready: *not_before <= now });
        let waiting: Vec<Waiting<'_, T>> = self.order.iter().filter_map(waiting).collect();
        choose(&waiting).into_iter().filter_map(|place| self.order.get(place).cloned()).collect()
    }
}

/// What has waited longest of what may go out.
fn oldest<T>(waiting: &[Waiting<'_, T>]) -> Vec<usize> {
    waiting.iter().position(|waiting| waiting.is_ready).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::notification::Notification;
    use crate::notification::tests::numbered;

    /// Scenario: two notifications, a newer version of the first, one that was refused, and an older version put back.
    /// Guarantees: S3; the newest version goes out once, in its old place; what was refused waits without holding up others.
    #[tokio::test]
    async fn the_latest_version_waits_once() {
        let queue = Queue::default();
        let now = Instant::now();
        let later = now + Duration::from_secs(300);
        queue.put(numbered("refused", 1), later);
        queue.put(numbered("a", 1), now);
        queue.put(numbered("b", 1), now);
        queue.put(numbered("a", 3), now);
        queue.put(Notification { maybe_sent: true, ..numbered("a", 2) }, now);
        let first = queue.take(now).unwrap();
        assert_eq!((first.id.as_str(), first.sequence, first.maybe_sent), ("a", 3, true));
        assert_eq!(queue.take(now).unwrap().id, "b");
        assert_eq!(queue.take(now).unwrap_err(), Some(later));
        assert_eq!(queue.take(later).unwrap().id, "refused");
        assert_eq!(queue.take(now).unwrap_err(), None);
    }

    /// Guarantees: S3's bound.
    #[tokio::test]
    async fn a_queue_is_bounded() {
        let queue = Queue::default();
        for number in 0..MAX_PENDING + 5 {
            queue.put(numbered(&number.to_string(), 1), Instant::now());
        }
        assert_eq!(queue.pending().by_id.len(), MAX_PENDING);
        assert_eq!(queue.take(Instant::now()).unwrap().id, "5");
    }
}

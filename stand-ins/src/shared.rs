//! State that a server changes and a test waits for.

use std::{
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

/// A value behind a lock, and a bell that rings after each change.
#[derive(Debug, Default)]
pub(crate) struct Shared<T> {
    // Held for short, synchronous sections only.
    value: Mutex<T>,
    changed: Notify,
}

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Shared<T> {
        Shared { value: Mutex::new(value), changed: Notify::new() }
    }

    pub(crate) fn read(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let outcome = change(&mut self.read());
        self.changed.notify_waiters();
        outcome
    }

    /// The first answer of `look` that is not `None`; `None` when `deadline` has passed without one.
    pub(crate) async fn wait<R>(&self, mut look: impl FnMut(&T) -> Option<R>, deadline: Duration) -> Option<R> {
        let waiting = async {
            loop {
                let mut changed = pin!(self.changed.notified());
                // Listens before it looks, or a change in between would be missed.
                changed.as_mut().enable();
                if let Some(found) = look(&self.read()) {
                    return found;
                }
                changed.await;
            }
        };
        tokio::time::timeout(deadline, waiting).await.ok()
    }
}

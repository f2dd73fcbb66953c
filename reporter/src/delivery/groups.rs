//! Which notifications of a channel go out together. Pure.

use super::queue::{Queued, Waiting};
use crate::ledger::{Entry, Kind, Ledger};
use crate::notification::Notification;
use crate::slack::digest::MAX_LINES;

/// More new incidents than this, waiting at one time, become one message.
pub(super) const MAX_SINGLE: usize = 5;

/// Which message a notification is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Group {
    /// It is in no message yet.
    New,
    /// It has a line in this digest.
    Digest(String),
    /// It has a message of its own.
    Own,
}

/// By what the ledger says.
pub(super) fn group_of(ledger: &Ledger, notification: &Notification) -> Group {
    match ledger.get(&notification.id) {
        None => Group::New,
        Some(Entry { digest: Some(digest), .. }) => Group::Digest(digest),
        Some(_) => Group::Own,
    }
}

/// Of what waits, oldest first, the places of those that go out next.
pub(super) fn together(waiting: &[Waiting<'_, Notification>], group_of: &dyn Fn(&Notification) -> Group) -> Vec<usize> {
    let group = |place: &usize| group_of(waiting[*place].item);
    let Some(first) = waiting.iter().position(|waiting| waiting.is_ready) else { return Vec::new() };
    match group(&first) {
        Group::Own => vec![first],
        Group::New => {
            let ready = (first..waiting.len()).filter(|place| waiting[*place].is_ready);
            let new: Vec<usize> = ready.filter(|place| group(place) == Group::New).take(MAX_LINES).collect();
            if new.len() > MAX_SINGLE { new } else { vec![first] }
        }
        // Those that wait for their turn go along: the message is written anew anyway.
        digest => (0..waiting.len()).filter(|place| group(place) == digest).collect(),
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::super::queue::Queue;
    use super::*;
    use crate::notification::tests::numbered;

    /// Scenario: new incidents, members of a digest and one with its own message wait together; one member waits for its turn.
    /// Guarantees: S4: few new ones go out one by one, more than five at once; a digest's members always go out together.
    #[tokio::test]
    async fn what_belongs_together_is_taken_together() {
        let group = |waiting: &Notification| match waiting.id.split_once('-').map(|(kind, _)| kind) {
            Some("new") => Group::New,
            Some("digest") => Group::Digest("d".to_owned()),
            _ => Group::Own,
        };
        let choose = |waiting: &[Waiting<'_, Notification>]| together(waiting, &group);
        let ids = |taken: Vec<Notification>| taken.into_iter().map(|taken| taken.id).collect::<Vec<_>>();
        let queue = Queue::default();
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        for id in ["digest-1", "new-1", "own", "new-2", "new-3", "new-4", "new-5"] {
            queue.put(numbered(id, 1), now);
        }
        queue.put(numbered("digest-2", 1), later);
        assert_eq!(ids(queue.take_together(now, &choose).unwrap()), ["digest-1", "digest-2"]);
        assert_eq!(ids(queue.take_together(now, &choose).unwrap()), ["new-1"], "five are not many");
        for id in ["new-6", "new-7"] {
            queue.put(numbered(id, 1), now);
        }
        assert_eq!(ids(queue.take_together(now, &choose).unwrap()), ["own"]);
        assert_eq!(ids(queue.take_together(now, &choose).unwrap()).len(), 6);
        assert_eq!(queue.take_together(now, &choose).unwrap_err(), None);
        for number in 0..MAX_LINES + 10 {
            queue.put(numbered(&format!("new-{number}"), 1), now);
        }
        assert_eq!(queue.take_together(now, &choose).unwrap().len(), MAX_LINES, "a digest is bounded");
    }
}

//! How a channel's worker tells what it took from its queue: as a message, as a line in a digest, as a reply.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bongsu_schemas::key::stable_id;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use tokio::time::Instant;
use tracing::warn;

use super::groups::{Group, group_of};
use crate::error::DeliveryError;
use crate::events;
use crate::ledger::{Entry, Kind, Ledger};
use crate::notification::{Joined, Notification};
use crate::pacing::{Change, Pace, State, Told};
use crate::slack::client::{Client, Posted};
use crate::slack::digest::{Line, MAX_LINES, digest};
use crate::slack::message::{self, Message};

/// For this long after it was posted, a digest takes further incidents, as long as none is more severe than it was: people are not told of
/// an edit.
const OPEN_FOR: Duration = Duration::from_secs(60);
/// Replies in the thread of one message; after that the message alone tells.
pub(super) const MAX_REPLIES: u32 = 20;

/// Tells one channel.
pub(super) struct Desk {
    client: Arc<Client>,
    ledger: Ledger,
    pace: Pace,
    look: Look,
    open: Option<OpenDigest>,
}

/// What digests need beside their lines.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) zone: Tz,
    pub(super) public_url: Option<String>,
}

/// The digest that takes further incidents. A restart forgets it, and a further incident gets another message then.
struct OpenDigest {
    id: String,
    until: Instant,
    severity: u8,
}

/// What became of what was taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Done {
    Sent,
    /// The channel has it already.
    Nothing,
    /// A step was made; the next one follows.
    Again,
    /// It waits for its turn.
    Later(DateTime<Utc>),
}

/// One message for Slack.
struct Sending<'a> {
    id: &'a str,
    kind: Kind,
    channel: &'a str,
    message: &'a Message,
    /// Where it is already.
    known: Option<Posted>,
    /// The message in whose thread it is.
    parent: Option<&'a Posted>,
    maybe_sent: bool,
    since: DateTime<Utc>,
}

impl Desk {
    pub(super) fn new(client: Arc<Client>, ledger: Ledger, pace: Pace, look: Look) -> Desk {
        Desk { client, ledger, pace, look, open: None }
    }

    /// Tells what the queue gave out together.
    pub(super) async fn deliver(&mut self, taken: &mut [Notification]) -> Result<Done, DeliveryError> {
        let Some(first) = taken.first() else { return Ok(Done::Nothing) };
        match group_of(&self.ledger, first) {
            Group::Digest(id) => return self.digest(&id, taken).await,
            Group::New => {
                if let Some(id) = self.open_for(taken) {
                    return self.join(&id, taken).await;
                }
            }
            Group::Own => {}
        }
        match taken {
            [one] => self.message(one).await,
            many => self.collapse(many).await,
        }
    }

    /// Posts or updates an incident's own message, then writes it down.
    async fn message(&self, notification: &Notification) -> Result<Done, DeliveryError> {
        let Notification { id, kind, channel, sequence, message, since, maybe_sent, state, joined, .. } = notification;
        let known = self.ledger.get(id);
        // A silence that was taken back brings alerts to light without a change of the incident.
        let is_told = |entry: &Entry| entry.sequence >= *sequence && entry.told.unknown_series(state).is_empty();
        if let Some(entry) = known.clone().filter(is_told) {
            return if entry.told.owed.is_empty() { Ok(Done::Nothing) } else { self.reply(notification, entry).await };
        }
        let told = known.as_ref().map_or_else(Told::default, |entry| entry.told.clone());
        let (now, change) = (Utc::now(), told.change(state));
        if let Some(at) = told.not_before(change, now, self.pace) {
            return Ok(Done::Later(at));
        }
        let sending = Sending {
            id,
            kind: *kind,
            channel,
            message,
            known: known.and_then(|entry| place_of(&entry)),
            parent: None,
            maybe_sent: *maybe_sent,
            since: *since,
        };
        let posted = self.send(&sending).await?;
        let mut after = told.after(state, change, now, self.pace);
        let can_be_told = |series: &String| joined.iter().any(|joined| joined.series == *series);
        after.owed.extend(told.unknown_series(state).into_iter().filter(can_be_told));
        if after.replies >= MAX_REPLIES {
            after.owed.clear();
        }
        let is_owed = !after.owed.is_empty();
        let entry = Entry::new(id.clone(), *kind, channel.clone(), *sequence, Utc::now());
        self.record(vec![Entry { told: after, ..at(entry, posted) }]).await;
        Ok(if is_owed { Done::Again } else { Done::Sent })
    }

    /// Says in the thread what joined the incident since its message was posted.
    async fn reply(&self, notification: &Notification, entry: Entry) -> Result<Done, DeliveryError> {
        let Notification { channel, sequence, since, maybe_sent, joined, .. } = notification;
        let owed: Vec<&Joined> = joined.iter().filter(|joined| entry.told.owed.contains(&joined.series)).collect();
        let mut told = entry.told.clone();
        told.owed.clear();
        let mut records = Vec::new();
        // What is over by now needs no reply.
        if let (Some(first), Some(parent)) = (owed.first(), place_of(&entry)) {
            let lines: Vec<&str> = owed.iter().map(|joined| joined.line.as_str()).collect();
            let (id, message) = (&first.reply_id, message::reply(&first.reply_id, &lines));
            let known = self.ledger.get(id);
            let is_sent = known.as_ref().is_some_and(|entry| entry.sequence >= *sequence);
            let sending = Sending {
                id,
                kind: Kind::Reply,
                channel,
                message: &message,
                known: known.and_then(|entry| place_of(&entry)),
                parent: Some(&parent),
                maybe_sent: *maybe_sent,
                since: *since,
            };
            told.replies += 1;
            if !is_sent {
                match self.send(&sending).await {
                    Ok(posted) => {
                        let entry = Entry::new(id.clone(), Kind::Reply, channel.clone(), *sequence, Utc::now());
                        records.push(at(entry, posted));
                    }
                    Err(DeliveryError::Refused { reason }) if is_thread_gone(&reason) => {
                        warn!(channel, id, reason, "a message can no longer be replied to");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        records.push(Entry { told, ..entry });
        self.record(records).await;
        Ok(Done::Sent)
    }

    /// Makes one message of many new incidents.
    async fn collapse(&mut self, taken: &mut [Notification]) -> Result<Done, DeliveryError> {
        if taken.iter().any(|notification| notification.maybe_sent) {
            self.adopt(taken).await?;
            return Ok(Done::Again);
        }
        let Some(first) = taken.first() else { return Ok(Done::Nothing) };
        let id = stable_id(["digest", &first.channel, &first.id]);
        events::collapsed(&first.channel, &id, taken.len());
        self.join(&id, taken).await
    }

    /// Looks in the channel for those that may have a message of their own already, all at once.
    async fn adopt(&self, taken: &mut [Notification]) -> Result<(), DeliveryError> {
        let (Some(first), Some(since)) = (taken.first(), taken.iter().map(|notification| notification.since).min())
        else {
            return Ok(());
        };
        let channel = first.channel.clone();
        let doubtful = taken.iter().filter(|notification| notification.maybe_sent);
        let ids: BTreeSet<&str> = doubtful.map(|notification| notification.id.as_str()).collect();
        let found = match self.client.find_all(&channel, &ids, since).await {
            Err(DeliveryError::Refused { reason }) => {
                events::history_unreadable(&channel, &reason);
                BTreeMap::new()
            }
            found => found?,
        };
        let entry = |(id, posted): (&str, Posted)| {
            at(Entry::new(id.to_owned(), Kind::Incident, channel.clone(), 0, Utc::now()), posted)
        };
        self.record(found.into_iter().map(entry).collect()).await;
        taken.iter_mut().for_each(|notification| notification.maybe_sent = false);
        Ok(())
    }

    /// Gives new incidents a line in a digest: in the ledger first.
    async fn join(&mut self, digest: &str, taken: &[Notification]) -> Result<Done, DeliveryError> {
        let member = |Notification { id, kind, channel, line, .. }: &Notification| Entry {
            digest: Some(digest.to_owned()),
            line: Some(line.clone()),
            ..Entry::new(id.clone(), *kind, channel.clone(), 0, Utc::now())
        };
        self.record(taken.iter().map(member).collect()).await;
        self.digest(digest, taken).await
    }

    /// Posts or updates a digest with what is new about its members, then writes it down.
    async fn digest(&mut self, id: &str, taken: &[Notification]) -> Result<Done, DeliveryError> {
        let Some(Notification { channel, .. }) = taken.first() else { return Ok(Done::Nothing) };
        let head = self.ledger.get(id);
        let now = Utc::now();
        let of_id = |entry: Entry| (entry.id.clone(), entry);
        let mut members: BTreeMap<String, Entry> = self.ledger.members(id).into_iter().map(of_id).collect();
        let (mut changed, mut change) = (BTreeSet::new(), None);
        for Notification { id, sequence, state, line, .. } in taken {
            let is_news =
                |entry: &&mut Entry| entry.sequence < *sequence || !entry.told.unknown_series(state).is_empty();
            let Some(entry) = members.get_mut(id).filter(is_news) else { continue };
            let of_member = entry.told.change(state);
            change = change.max(Some(of_member));
            entry.told = entry.told.after(state, of_member, now, self.pace);
            (entry.line, entry.sequence, entry.sent_at) = (Some(line.clone()), *sequence, now);
            changed.insert(id.as_str());
        }
        let change = match (change, &head) {
            (Some(change), _) => change,
            (None, Some(_)) => return Ok(Done::Nothing),
            (None, None) => Change::News,
        };
        let told = head.as_ref().map_or_else(Told::default, |entry| entry.told.clone());
        if let Some(at) = told.not_before(change, now, self.pace) {
            return Ok(Done::Later(at));
        }
        let mut lines: Vec<&Line> = members.values().filter_map(|entry| entry.line.as_ref()).collect();
        lines.sort_by(|a, b| (b.severity, a.since, &a.incident_id).cmp(&(a.severity, b.since, &b.incident_id)));
        let message = digest(id, channel, &lines, self.look.zone, self.look.public_url.as_deref());
        let sending = Sending {
            id,
            kind: Kind::Digest,
            channel,
            message: &message,
            known: head.as_ref().and_then(place_of),
            parent: None,
            maybe_sent: taken.iter().any(|notification| notification.maybe_sent),
            since: taken.iter().map(|notification| notification.since).min().unwrap_or(now),
        };
        let severity = lines.iter().map(|line| line.severity).max().unwrap_or_default();
        let posted = self.send(&sending).await?;
        if head.is_none() {
            self.open = Some(OpenDigest { id: id.to_owned(), until: Instant::now() + OPEN_FOR, severity });
        }
        let sequence = head.map_or(0, |entry| entry.sequence) + 1;
        let told = told.after(&State::default(), change, now, self.pace);
        let head =
            Entry { told, ..at(Entry::new(id.to_owned(), Kind::Digest, channel.clone(), sequence, now), posted) };
        let members = members.into_values().filter(|entry| changed.contains(entry.id.as_str()));
        self.record(std::iter::once(head).chain(members).collect()).await;
        Ok(Done::Sent)
    }

    /// The latest digest, if it takes these new incidents.
    fn open_for(&self, taken: &[Notification]) -> Option<String> {
        let open = self.open.as_ref().filter(|open| Instant::now() < open.until)?;
        let fits =
            |notification: &Notification| !notification.maybe_sent && notification.line.severity <= open.severity;
        let has_room = self.ledger.members(&open.id).len() + taken.len() <= MAX_LINES;
        (has_room && taken.iter().all(fits)).then(|| open.id.clone())
    }

    /// Posts or updates; plainly where Slack refuses the blocks.
    async fn send(&self, sending: &Sending<'_>) -> Result<Posted, DeliveryError> {
        let Sending { id, kind, channel, message, known, maybe_sent, .. } = sending;
        let place = match known {
            None if *maybe_sent => self.find(sending).await?,
            known => known.clone(),
        };
        let posted = match self.put(sending, place.as_ref(), message).await {
            Err(DeliveryError::Refused { reason }) if is_about_content(&reason) => {
                events::sent_plainly(*kind, channel, id, &reason);
                self.put(sending, place.as_ref(), &message.plain()).await
            }
            outcome => outcome,
        }?;
        events::delivered(*kind, channel, id);
        Ok(posted)
    }

    async fn put(
        &self,
        sending: &Sending<'_>,
        place: Option<&Posted>,
        message: &Message,
    ) -> Result<Posted, DeliveryError> {
        let Sending { id, channel, parent, .. } = sending;
        match (place, parent) {
            (Some(posted), _) => match self.client.update(posted, message).await {
                Ok(()) => Ok(posted.clone()),
                // Somebody deleted it, or it is too old to be edited: nobody wants to read it again.
                Err(DeliveryError::Refused { reason }) if is_gone(&reason) => {
                    warn!(channel, id, reason, "a message can no longer be updated");
                    Ok(posted.clone())
                }
                Err(error) => Err(error),
            },
            (None, Some(parent)) => self.client.reply(parent, message).await,
            (None, None) => self.client.post(channel, message).await,
        }
    }

    async fn find(&self, sending: &Sending<'_>) -> Result<Option<Posted>, DeliveryError> {
        let Sending { id, channel, parent, since, .. } = sending;
        let found = match parent {
            Some(parent) => self.client.find_reply(parent, id).await,
            None => self.client.find(channel, id, *since).await,
        };
        match found {
            // A second message is better than none.
            Err(DeliveryError::Refused { reason }) => {
                events::history_unreadable(channel, &reason);
                Ok(None)
            }
            found => found,
        }
    }

    async fn record(&self, entries: Vec<Entry>) {
        if let Err(error) = self.ledger.record_all(entries).await {
            let error = format!("{error:#}");
            warn!(error, "the ledger could not be written; a restart looks into the channel");
        }
    }
}

fn place_of(entry: &Entry) -> Option<Posted> {
    Some(Posted { channel_id: entry.channel_id.clone()?, ts: entry.ts.clone()? })
}

fn at(entry: Entry, posted: Posted) -> Entry {
    Entry { channel_id: Some(posted.channel_id), ts: Some(posted.ts), ..entry }
}

fn is_gone(reason: &str) -> bool {
    begins_with(reason, &["message_not_found", "cant_update_message", "edit_window_closed"])
}

fn is_thread_gone(reason: &str) -> bool {
    begins_with(
        reason,
        &["thread_not_found", "message_not_found", "cannot_reply_to_message", "restricted_action_thread_locked"],
    )
}

/// Slack dislikes what the message says: nobody but us can mend that.
fn is_about_content(reason: &str) -> bool {
    begins_with(reason, &["invalid_blocks", "msg_too_long", "msg_blocks_too_long"])
}

fn begins_with(reason: &str, codes: &[&str]) -> bool {
    codes.iter().any(|code| reason.starts_with(code))
}

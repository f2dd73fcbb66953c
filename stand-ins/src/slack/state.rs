//! What the stand-in knows: channels, messages, and the faults to come.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use serde_json::Value;

use super::SlackOptions;

/// A demo runs for days: the oldest messages go first.
const MAX_MESSAGES: usize = 2_000;
const MAX_CHANNELS: usize = 1_000;
/// In one thread; the oldest go first, too.
const MAX_REPLIES: usize = 1_000;
const MAX_FAULTS: usize = 100_000;

/// A message as it is now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SlackMessage {
    /// Name of its channel, without `#`.
    pub channel: String,
    /// Slack's name for the message: seconds and microseconds since the epoch.
    pub ts: String,
    /// The text for notifications, as it came (escaped).
    pub text: String,
    /// The blocks, as they came.
    pub blocks: Vec<Value>,
    /// How often `chat.update` has changed it.
    pub edits: u32,
    /// For a reply, the `ts` of the message in whose thread it is.
    pub thread_ts: Option<String>,
    /// Its thread, oldest first.
    pub replies: Vec<SlackMessage>,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 429 with `Retry-After`.
    RateLimited {
        /// Seconds to wait.
        retry_after_secs: u64,
    },
    /// 503.
    ServerError,
    /// The call takes effect, but the connection breaks before the answer.
    DropAfterAccept,
    /// The connection breaks, and the call has no effect.
    Outage,
    /// Slack says no with this error code, and the call has no effect.
    Refused {
        /// Such as `invalid_blocks`.
        error: &'static str,
    },
}

/// Why Slack refuses a call: its error code, and for people what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) error: &'static str,
    pub(super) detail: Option<String>,
}

impl From<&'static str> for Refusal {
    fn from(error: &'static str) -> Refusal {
        Refusal { error, detail: None }
    }
}

/// A call comes too soon.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooQuick {
    pub(super) retry_after_secs: u64,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) options: SlackOptions,
    /// Ids by name.
    channels: BTreeMap<String, String>,
    messages: Vec<SlackMessage>,
    last_ts_us: u64,
    last_post: BTreeMap<String, Instant>,
    calls: BTreeMap<String, u64>,
    faults: VecDeque<Fault>,
    /// What every call meets until a time.
    trouble: Option<(Instant, Fault)>,
}

impl State {
    pub(super) fn new(options: SlackOptions) -> State {
        let mut state = State {
            channels: BTreeMap::new(),
            messages: Vec::new(),
            last_ts_us: 0,
            last_post: BTreeMap::new(),
            calls: BTreeMap::new(),
            faults: VecDeque::new(),
            trouble: None,
            options,
        };
        for name in state.options.channels.clone().into_iter().flatten() {
            state.add_channel(&name);
        }
        state
    }

    fn add_channel(&mut self, name: &str) -> String {
        let id = format!("C{:08}", self.channels.len() + 1);
        self.channels.insert(name.to_owned(), id.clone());
        id
    }

    pub(super) fn count_call(&mut self, method: &str, now: Instant) -> Option<Fault> {
        *self.calls.entry(method.to_owned()).or_default() += 1;
        match self.trouble {
            Some((until, fault)) if now < until => Some(fault),
            _ => self.faults.pop_front(),
        }
    }

    pub(super) fn calls(&self, method: &str) -> u64 {
        self.calls.get(method).copied().unwrap_or_default()
    }

    pub(super) fn fail_next(&mut self, count: usize, fault: Fault) {
        let room = MAX_FAULTS.saturating_sub(self.faults.len());
        self.faults.extend(std::iter::repeat_n(fault, count.min(room)));
    }

    pub(super) fn fail_until(&mut self, until: Instant, fault: Fault) {
        self.trouble = Some((until, fault));
    }

    /// Name of the channel with this id.
    pub(super) fn channel_of_id(&self, id: &str) -> Option<&str> {
        self.channels.iter().find(|(_, known)| *known == id).map(|(name, _)| name.as_str())
    }

    /// Id and name of a channel by name or id. An unknown name comes into being where no list of channels was given.
    pub(super) fn channel_to_post(&mut self, name_or_id: &str) -> Result<(String, String), Refusal> {
        if let Some(name) = self.channel_of_id(name_or_id) {
            return Ok((name_or_id.to_owned(), name.to_owned()));
        }
        let name = name_or_id.strip_prefix('#').unwrap_or(name_or_id);
        if let Some(id) = self.channels.get(name) {
            return Ok((id.clone(), name.to_owned()));
        }
        if name.is_empty() || self.options.channels.is_some() || self.channels.len() >= MAX_CHANNELS {
            return Err(Refusal::from("channel_not_found"));
        }
        Ok((self.add_channel(name), name.to_owned()))
    }

    pub(super) fn channels(&self) -> &BTreeMap<String, String> {
        &self.channels
    }

    /// Slack's limit of one message per second and channel.
    pub(super) fn admit(&mut self, channel: &str, now: Instant) -> Result<(), TooQuick> {
        const PAUSE: Duration = Duration::from_secs(1);
        if !self.options.one_per_second {
            return Ok(());
        }
        if self.last_post.get(channel).is_some_and(|last| now.duration_since(*last) < PAUSE) {
            return Err(TooQuick { retry_after_secs: 1 });
        }
        self.last_post.insert(channel.to_owned(), now);
        Ok(())
    }

    /// Adds a message; to the thread of the message `thread_ts`, where that is given.
    pub(super) fn post(
        &mut self,
        channel: String,
        thread_ts: Option<&str>,
        text: String,
        blocks: Vec<Value>,
    ) -> Result<SlackMessage, Refusal> {
        let parent = match thread_ts {
            Some(ts) => Some(self.position(&channel, ts).ok_or("thread_not_found")?),
            None => None,
        };
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
        // Slack's ts is unique within a channel; ours grows over all of them.
        self.last_ts_us = now_us.max(self.last_ts_us + 1);
        let ts = format!("{}.{:06}", self.last_ts_us / 1_000_000, self.last_ts_us % 1_000_000);
        let thread_ts = thread_ts.map(str::to_owned);
        let message = SlackMessage { channel, ts, text, blocks, edits: 0, thread_ts, replies: Vec::new() };
        let (list, most) = match parent {
            Some(position) => (&mut self.messages[position].replies, MAX_REPLIES),
            None => (&mut self.messages, MAX_MESSAGES),
        };
        if list.len() >= most {
            list.remove(0);
        }
        list.push(message.clone());
        Ok(message)
    }

    pub(super) fn update(&mut self, channel: &str, ts: &str, text: String, blocks: Vec<Value>) -> Result<(), Refusal> {
        let of_channel = self.messages.iter_mut().filter(|message| message.channel == channel);
        let mut found = of_channel.filter_map(|message| {
            if message.ts == ts { Some(message) } else { message.replies.iter_mut().find(|reply| reply.ts == ts) }
        });
        let message = found.next().ok_or("message_not_found")?;
        message.text = text;
        message.blocks = blocks;
        message.edits += 1;
        Ok(())
    }

    /// Where a message is that is not a reply.
    fn position(&self, channel: &str, ts: &str) -> Option<usize> {
        self.messages.iter().position(|message| message.channel == channel && message.ts == ts)
    }

    /// A message with its thread.
    pub(super) fn thread(&self, channel: &str, ts: &str) -> Option<&SlackMessage> {
        self.position(channel, ts).map(|position| &self.messages[position])
    }

    pub(super) fn messages(&self) -> &[SlackMessage] {
        &self.messages
    }

    pub(super) fn messages_of(&self, name_or_id: &str) -> Vec<SlackMessage> {
        let name = self.channel_of_id(name_or_id).unwrap_or_else(|| name_or_id.trim_start_matches('#'));
        self.messages.iter().filter(|message| message.channel == name).cloned().collect()
    }

    pub(super) fn by_channel(&self) -> BTreeMap<String, Vec<SlackMessage>> {
        let mut channels: BTreeMap<String, Vec<SlackMessage>> = BTreeMap::new();
        for message in &self.messages {
            channels.entry(message.channel.clone()).or_default().push(message.clone());
        }
        channels
    }
}

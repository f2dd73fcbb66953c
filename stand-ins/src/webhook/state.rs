//! What the stand-in knows: calls, and the faults to come.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

/// The oldest calls go first.
const MAX_CALLS: usize = 2_000;
const MAX_FAULTS: usize = 100_000;

/// One POST, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookCall {
    /// Path of the URL.
    pub path: String,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body's text, to the byte: signatures are of it.
    pub body: String,
    /// What was answered; nothing where the connection broke.
    pub status: Option<u16>,
}

impl WebhookCall {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Whether the sender knows that it arrived.
    pub fn accepted(&self) -> bool {
        self.status == Some(200)
    }
}

/// How a call fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookFault {
    /// 429 with `Retry-After`.
    RateLimited {
        /// Seconds to wait.
        retry_after_secs: u64,
    },
    /// Any status, with any text.
    Answer {
        /// Such as 500 or 403.
        status: u16,
        /// The answer's body.
        body: String,
    },
    /// 307
    Redirect {
        /// Where to.
        to: String,
    },
    /// The call is read as a whole, and the connection breaks before the answer.
    DropAfterRead,
}

impl WebhookFault {
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            WebhookFault::RateLimited { .. } => Some(429),
            WebhookFault::Answer { status, .. } => Some(*status),
            WebhookFault::Redirect { .. } => Some(307),
            WebhookFault::DropAfterRead => None,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    calls: Vec<WebhookCall>,
    faults: VecDeque<WebhookFault>,
}

impl State {
    pub(super) fn calls(&self) -> &[WebhookCall] {
        &self.calls
    }

    pub(super) fn keep(&mut self, call: WebhookCall) {
        if self.calls.len() >= MAX_CALLS {
            self.calls.remove(0);
        }
        self.calls.push(call);
    }

    pub(super) fn fail_next(&mut self, count: usize, fault: WebhookFault) {
        let room = MAX_FAULTS.saturating_sub(self.faults.len());
        self.faults.extend(std::iter::repeat_n(fault, count.min(room)));
    }

    pub(super) fn next_fault(&mut self) -> Option<WebhookFault> {
        self.faults.pop_front()
    }
}

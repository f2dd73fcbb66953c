//! The mails, and the faults to come.

use std::collections::{BTreeSet, VecDeque};

use mail_parser::{Address, MessageParser};
use serde::Serialize;

use super::smtp::{Envelope, Mailbox};

/// A demo runs for days: the oldest mails go first.
const MAX_MAILS: usize = 500;
const MAX_BYTES: usize = 64 * 1024 * 1024;
const MAX_FAULTS: usize = 100_000;

/// A mail as it came, and as its reader would see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mail {
    /// Counts from 1.
    pub number: u64,
    /// Address in `From:`.
    pub from: String,
    /// Addresses in `To:`.
    pub to: Vec<String>,
    /// Whom the client named to the server as sender ...
    pub envelope_from: String,
    /// ... and as recipients.
    pub envelope_to: Vec<String>,
    /// Decoded subject.
    pub subject: String,
    /// The text part.
    pub text: Option<String>,
    /// The HTML part.
    pub html: Option<String>,
    /// Without its angle brackets.
    pub message_id: Option<String>,
    /// All of it, as it was on the wire.
    #[serde(skip)]
    pub raw: Vec<u8>,
}

/// How a mail fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailFault {
    /// 451 to MAIL: try again later.
    TryLater,
    /// The mail is kept, but the connection breaks before it is confirmed.
    DropAfterData,
}

#[derive(Debug, Default)]
pub(super) struct State {
    mails: Vec<Mail>,
    count: u64,
    faults: VecDeque<MailFault>,
    refused: BTreeSet<String>,
}

impl State {
    pub(super) fn mails(&self) -> &[Mail] {
        &self.mails
    }

    pub(super) fn fail_next(&mut self, count: usize, fault: MailFault) {
        let room = MAX_FAULTS.saturating_sub(self.faults.len());
        self.faults.extend(std::iter::repeat_n(fault, count.min(room)));
    }

    pub(super) fn refuse(&mut self, recipient: &str) {
        self.refused.insert(recipient.to_ascii_lowercase());
    }
}

impl Mailbox for State {
    fn may_begin(&mut self) -> bool {
        let is_refused = self.faults.front() == Some(&MailFault::TryLater);
        if is_refused {
            self.faults.pop_front();
        }
        !is_refused
    }

    fn knows(&mut self, recipient: &str) -> bool {
        !self.refused.contains(&recipient.to_ascii_lowercase())
    }

    fn keep(&mut self, envelope: Envelope) -> bool {
        self.count += 1;
        self.mails.push(parse(self.count, envelope));
        while self.mails.len() > MAX_MAILS || self.mails.iter().map(|mail| mail.raw.len()).sum::<usize>() > MAX_BYTES {
            self.mails.remove(0);
        }
        let breaks = self.faults.front() == Some(&MailFault::DropAfterData);
        if breaks {
            self.faults.pop_front();
        }
        !breaks
    }
}

fn parse(number: u64, envelope: Envelope) -> Mail {
    let Envelope { from: envelope_from, to: envelope_to, data: raw } = envelope;
    let parsed = MessageParser::default().parse(&raw).unwrap_or_default();
    let addresses = |addresses: Option<&Address<'_>>| -> Vec<String> {
        addresses.into_iter().flat_map(Address::iter).filter_map(|one| one.address()).map(str::to_owned).collect()
    };
    // `body_html` also turns text into HTML where there is no HTML part: only a part of its own counts here.
    let has_html = parsed.html_bodies().any(|part| part.is_text_html());
    Mail {
        number,
        from: addresses(parsed.from()).into_iter().next().unwrap_or_default(),
        to: addresses(parsed.to()),
        subject: parsed.subject().unwrap_or_default().to_owned(),
        text: parsed.body_text(0).map(|text| text.into_owned()),
        html: parsed.body_html(0).filter(|_| has_html).map(|html| html.into_owned()),
        message_id: parsed.message_id().map(str::to_owned),
        envelope_from,
        envelope_to,
        raw,
    }
}

//! SMTP as a pure state machine: bytes in, replies out (RFC 5321, with PIPELINING, SIZE, 8BITMIME, SMTPUTF8 and AUTH PLAIN).

/// What the server says first.
pub(super) const GREETING: &str = "220 stand-in ESMTP\r\n";
/// The largest mail that is taken.
pub(super) const MAX_MESSAGE_BYTES: usize = 10 * 1024 * 1024;
/// The longest command line; RFC 5321 asks for 512, AUTH for more.
const MAX_COMMAND_BYTES: usize = 12 * 1024;
const MAX_RECIPIENTS: usize = 100;
/// A client that is wrong this often is none.
const MAX_ERRORS: u32 = 20;

/// A mail and whom the client named for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) from: String,
    pub(super) to: Vec<String>,
    pub(super) data: Vec<u8>,
}

/// Who decides about mails. Asked in the order of the protocol.
pub(super) trait Mailbox {
    /// Whether a mail may begin now; if not, the client is told to try later.
    fn may_begin(&mut self) -> bool;
    /// Whether this recipient is known.
    fn knows(&mut self, recipient: &str) -> bool;
    /// Keeps a mail. `false` breaks the connection instead of confirming.
    fn keep(&mut self, envelope: Envelope) -> bool;
}

/// What to send, and whether to hang up then.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) replies: Vec<u8>,
    pub(super) close: bool,
}

impl Outcome {
    fn reply(&mut self, line: &str) {
        self.replies.extend_from_slice(line.as_bytes());
        self.replies.extend_from_slice(b"\r\n");
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    /// Bytes of a line that has not ended yet.
    pending: Vec<u8>,
    /// The line in `pending` is longer than allowed; the rest of it is thrown away.
    overlong: bool,
    phase: Phase,
    greeted: bool,
    errors: u32,
}

/// Commands ──MAIL──► Commands with a sender ──DATA──► Data ──"."──► Commands
#[derive(Debug)]
enum Phase {
    Commands {
        from: Option<String>,
        to: Vec<String>,
    },
    /// The next line is the client's credentials.
    Credentials,
    Data {
        envelope: Envelope,
        too_large: bool,
    },
}

const NO_MAIL: Phase = Phase::Commands { from: None, to: Vec::new() };

impl Session {
    pub(super) fn new() -> Session {
        Session { pending: Vec::new(), overlong: false, phase: NO_MAIL, greeted: false, errors: 0 }
    }

    /// Takes the next bytes of the client, however they are split.
    pub(super) fn feed(&mut self, bytes: &[u8], mailbox: &mut impl Mailbox) -> Outcome {
        let mut outcome = Outcome::default();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.add(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.pending);
                let overlong = std::mem::take(&mut self.overlong);
                self.line(&line, overlong, mailbox, &mut outcome);
                if outcome.close {
                    break;
                }
            }
        }
        outcome
    }

    fn add(&mut self, piece: &[u8]) {
        let most = match self.phase {
            Phase::Data { .. } => MAX_MESSAGE_BYTES,
            Phase::Commands { .. } | Phase::Credentials => MAX_COMMAND_BYTES,
        };
        self.overlong |= self.pending.len() + piece.len() > most;
        if self.overlong {
            self.pending.clear();
        } else {
            self.pending.extend_from_slice(piece);
        }
    }

    fn line(&mut self, line: &[u8], overlong: bool, mailbox: &mut impl Mailbox, outcome: &mut Outcome) {
        match &mut self.phase {
            Phase::Data { envelope, too_large } => {
                // Only CRLF ends a mail: a bare LF is content, or one mail could smuggle in another.
                if line != b".\r\n" {
                    *too_large |= overlong || envelope.data.len() + line.len() > MAX_MESSAGE_BYTES;
                    if *too_large {
                        envelope.data.clear();
                    } else {
                        envelope.data.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
                    }
                    return;
                }
                let too_large = *too_large;
                let Phase::Data { envelope, .. } = std::mem::replace(&mut self.phase, NO_MAIL) else { return };
                if too_large {
                    outcome.reply("552 5.3.4 message too large");
                } else if mailbox.keep(envelope) {
                    outcome.reply("250 2.0.0 kept");
                } else {
                    outcome.close = true;
                }
            }
            Phase::Credentials => {
                self.phase = NO_MAIL;
                outcome.reply("235 2.7.0 any credentials will do");
            }
            Phase::Commands { .. } if overlong => self.error("500 5.5.2 line too long", outcome),
            Phase::Commands { .. } => match std::str::from_utf8(line) {
                Ok(line) => self.command(line.trim_end(), mailbox, outcome),
                Err(_) => self.error("500 5.5.2 not UTF-8", outcome),
            },
        }
    }

    fn command(&mut self, line: &str, mailbox: &mut impl Mailbox, outcome: &mut Outcome) {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let Phase::Commands { from, to } = &mut self.phase else { return };
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => {
                self.greeted = true;
                self.phase = NO_MAIL;
                outcome.reply("250-stand-in");
                outcome.reply(&format!("250-SIZE {MAX_MESSAGE_BYTES}"));
                outcome.reply("250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 AUTH PLAIN");
            }
            "HELO" => {
                self.greeted = true;
                self.phase = NO_MAIL;
                outcome.reply("250 stand-in");
            }
            "AUTH" => match argument.to_ascii_uppercase().split_once(' ') {
                None if argument.eq_ignore_ascii_case("PLAIN") => {
                    self.phase = Phase::Credentials;
                    outcome.reply("334 ");
                }
                Some(("PLAIN", _)) => outcome.reply("235 2.7.0 any credentials will do"),
                _ => self.error("504 5.5.4 only PLAIN", outcome),
            },
            "MAIL" => match path(argument, "FROM:") {
                _ if !self.greeted => self.error("503 5.5.1 EHLO first", outcome),
                _ if from.is_some() => self.error("503 5.5.1 one mail at a time", outcome),
                None => self.error("501 5.5.4 MAIL FROM:<address>", outcome),
                Some((_, parameters)) if declared_bytes(parameters) > MAX_MESSAGE_BYTES => {
                    outcome.reply("552 5.3.4 message too large");
                }
                Some(_) if !mailbox.may_begin() => outcome.reply("451 4.3.0 try again later"),
                Some((address, _)) => {
                    *from = Some(address.to_owned());
                    outcome.reply("250 2.1.0 sender taken");
                }
            },
            "RCPT" => match path(argument, "TO:") {
                _ if from.is_none() => self.error("503 5.5.1 MAIL first", outcome),
                None | Some(("", _)) => self.error("501 5.5.4 RCPT TO:<address>", outcome),
                Some(_) if to.len() >= MAX_RECIPIENTS => outcome.reply("452 4.5.3 too many recipients"),
                Some((address, _)) if !mailbox.knows(address) => outcome.reply("550 5.1.1 no such recipient"),
                Some((address, _)) => {
                    to.push(address.to_owned());
                    outcome.reply("250 2.1.5 recipient taken");
                }
            },
            "DATA" => match from {
                Some(from) if !to.is_empty() => {
                    let envelope = Envelope { from: std::mem::take(from), to: std::mem::take(to), data: Vec::new() };
                    self.phase = Phase::Data { envelope, too_large: false };
                    outcome.reply("354 end with a dot alone on a line");
                }
                _ => self.error("503 5.5.1 MAIL and RCPT first", outcome),
            },
            "RSET" => {
                self.phase = NO_MAIL;
                outcome.reply("250 2.0.0 forgotten");
            }
            "NOOP" => outcome.reply("250 2.0.0 nothing done"),
            "QUIT" => {
                outcome.reply("221 2.0.0 bye");
                outcome.close = true;
            }
            _ => self.error("502 5.5.1 unknown command", outcome),
        }
    }

    fn error(&mut self, line: &str, outcome: &mut Outcome) {
        self.errors += 1;
        if self.errors > MAX_ERRORS {
            outcome.reply("421 4.7.0 too many errors");
            outcome.close = true;
        } else {
            outcome.reply(line);
        }
    }
}

/// Address and parameters of `FROM:<address> parameters`.
fn path<'a>(argument: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let rest = argument.split_at_checked(keyword.len()).filter(|(start, _)| start.eq_ignore_ascii_case(keyword))?.1;
    rest.trim_start().strip_prefix('<')?.split_once('>')
}

/// `SIZE=n` among the parameters of MAIL.
fn declared_bytes(parameters: &str) -> usize {
    let sizes = parameters.split_ascii_whitespace().filter_map(|parameter| parameter.split_once('='));
    let size = sizes.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("SIZE"));
    size.and_then(|(_, bytes)| bytes.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;

use proptest::prelude::*;

use super::*;

/// Takes everything, and remembers it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kept(Vec<Envelope>);

impl Mailbox for Kept {
    fn may_begin(&mut self) -> bool {
        true
    }
    fn knows(&mut self, recipient: &str) -> bool {
        recipient != "nobody@example.com"
    }
    fn keep(&mut self, envelope: Envelope) -> bool {
        self.0.push(envelope);
        true
    }
}

fn run(pieces: &[&[u8]]) -> (Vec<String>, Kept) {
    let (mut session, mut kept, mut replies) = (Session::new(), Kept::default(), Vec::new());
    for piece in pieces {
        replies.extend(session.feed(piece, &mut kept).replies);
    }
    let replies = String::from_utf8(replies).unwrap();
    (replies.lines().map(|line| line[..3].to_owned()).collect(), kept)
}

const CONVERSATION: &str = "EHLO me\r\nMAIL FROM:<a@example.com> SIZE=100 BODY=8BITMIME\r\nRCPT TO:<b@example.com>\r\n\
    RCPT TO:<nobody@example.com>\r\nDATA\r\nSubject: hi\r\n\r\n..dot\r\nbare\n.\nlf\r\n.\r\nNOOP\r\nRSET\r\nQUIT\r\n";

/// Scenario: a whole conversation at once, as a pipelining client sends it.
/// Guarantees: replies in order, one recipient refused, dots unstuffed, a bare LF does not end the mail.
#[test]
fn pipelined_conversation() {
    let (replies, kept) = run(&[CONVERSATION.as_bytes()]);
    let expected = ["250"; 6].into_iter().chain(["250", "250", "550", "354", "250", "250", "250", "221"]);
    assert_eq!(replies, expected.collect::<Vec<_>>());
    let envelope = Envelope {
        from: "a@example.com".to_owned(),
        to: vec!["b@example.com".to_owned()],
        data: b"Subject: hi\r\n\r\n.dot\r\nbare\n\nlf\r\n".to_vec(),
    };
    assert_eq!(kept.0, [envelope]);
}

#[test]
fn refusals() {
    #[rustfmt::skip]
    let cases = [
        // name                what is sent                                                             last reply
        ("unknown",            "FOO\r\n".to_owned(),                                                      "502"),
        ("no EHLO",            "MAIL FROM:<a@b>\r\n".to_owned(),                                          "503"),
        ("no MAIL",            "EHLO x\r\nRCPT TO:<a@b>\r\n".to_owned(),                                  "503"),
        ("no RCPT",            "EHLO x\r\nMAIL FROM:<>\r\nDATA\r\n".to_owned(),                           "503"),
        ("no brackets",        "EHLO x\r\nMAIL FROM:a@b\r\n".to_owned(),                                  "501"),
        ("declared too large", "EHLO x\r\nMAIL FROM:<a@b> SIZE=99999999\r\n".to_owned(),                  "552"),
        ("line too long",      format!("{}\r\n", "x".repeat(MAX_COMMAND_BYTES)),                          "500"),
        ("too many errors",    "FOO\r\n".repeat(MAX_ERRORS as usize + 1),                                 "421"),
        ("too many recipients", format!("EHLO x\r\nMAIL FROM:<a@b>\r\n{}", "RCPT TO:<c@d>\r\n".repeat(101)), "452"),
        ("credentials",        "EHLO x\r\nAUTH PLAIN\r\nAGEAYg==\r\n".to_owned(),                         "235"),
    ];
    for (name, sent, expected) in cases {
        assert_eq!(run(&[sent.as_bytes()]).0.last().map(String::as_str), Some(expected), "{name}");
    }
}

/// Scenario: more data than allowed, in lines and in one endless line.
/// Guarantees: refused, nothing kept in memory, and the next mail is taken.
#[test]
fn too_large_mails_are_refused() {
    for line in [vec![b'x'; MAX_MESSAGE_BYTES + 1], b"a line\r\n".repeat(MAX_MESSAGE_BYTES / 8 + 1)] {
        let start = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n";
        let (mut session, mut kept) = (Session::new(), Kept::default());
        session.feed(start, &mut kept);
        session.feed(&line, &mut kept);
        let refused = session.feed(b"\r\n.\r\n", &mut kept);
        assert!(refused.replies.starts_with(b"552"), "{}", String::from_utf8_lossy(&refused.replies));
        assert!(session.pending.is_empty() && kept.0.is_empty());
        session.feed(&[&start[8..], b"small\r\n.\r\n"].concat(), &mut kept);
        assert_eq!(kept.0.len(), 1);
    }
}

proptest! {
    /// Random bytes, also after a proper start, never panic, and memory stays bounded.
    #[test]
    fn any_bytes_are_survived(
        start in prop::sample::select(vec!["", "EHLO x\r\n", "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"]),
        pieces in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            prop::sample::select(vec!["EHLO ", "MAIL FROM:", "<a@b>", "RCPT TO:<", "DATA\r\n", "\r\n.\r\n", ".", "\r\n", "\n", "AUTH PLAIN\r\n", "봉"])
                .prop_map(|text| text.as_bytes().to_vec()),
        ], 0..60),
    ) {
        let (mut session, mut kept) = (Session::new(), Kept::default());
        session.feed(start.as_bytes(), &mut kept);
        for piece in &pieces {
            let outcome = session.feed(piece, &mut kept);
            prop_assert!(outcome.replies.is_empty() || outcome.replies.ends_with(b"\r\n"));
        }
    }

    /// However TCP splits a conversation, it is the same conversation.
    #[test]
    fn splits_do_not_matter(cuts in prop::collection::btree_set(0..CONVERSATION.len(), 0..12)) {
        let cuts: Vec<usize> = std::iter::once(0).chain(cuts).chain([CONVERSATION.len()]).collect();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &CONVERSATION.as_bytes()[cut[0]..cut[1]]).collect();
        prop_assert_eq!(run(&pieces), run(&[CONVERSATION.as_bytes()]));
    }
}

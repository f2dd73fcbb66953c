//! The mail stand-in over TCP, as a client meets it.
#![allow(clippy::unwrap_used, reason = "helpers of tests, too, stop at the first surprise")]

use std::time::Duration;

use bongsu_stand_ins::{MailFault, MailStandIn};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const MAIL: &str = "EHLO me\r\nMAIL FROM:<bongsu@example.com>\r\nRCPT TO:<order@example.com>\r\nDATA\r\n\
    From: Bongsu <bongsu@example.com>\r\nTo: Order team <order@example.com>\r\nMessage-ID: <week-47@example.com>\r\n\
    Subject: =?utf-8?B?67SJ7IiY?=\r\nMIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n\
    --b\r\nContent-Type: text/plain\r\n\r\nplain words\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>rich words</p>\r\n--b--\r\n.\r\nQUIT\r\n";

async fn send(mails: &MailStandIn) -> String {
    let mut stream = TcpStream::connect(mails.address()).await.unwrap();
    stream.write_all(MAIL.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    // Ends with QUIT, or with the connection breaking; both are answers here.
    let _ = stream.read_to_end(&mut answers).await;
    String::from_utf8(answers).unwrap()
}

#[tokio::test]
async fn a_mail_is_kept_and_parsed() {
    let mails = MailStandIn::start(0).await.unwrap();
    assert!(send(&mails).await.ends_with("250 2.0.0 kept\r\n221 2.0.0 bye\r\n"));
    let kept = mails.wait_for(|mails| mails.len() == 1, Duration::from_secs(10)).await.unwrap();
    let mail = &kept[0];
    assert_eq!((mail.from.as_str(), mail.subject.as_str()), ("bongsu@example.com", "봉수"));
    assert_eq!((&mail.to, &mail.envelope_to), (&vec!["order@example.com".to_owned()], &mail.to));
    assert_eq!(mail.text.as_deref().map(str::trim), Some("plain words"));
    assert_eq!(mail.html.as_deref().map(str::trim), Some("<p>rich words</p>"));
    assert_eq!(mail.message_id.as_deref(), Some("week-47@example.com"));
    assert!(mail.raw.starts_with(b"From: Bongsu"));
}

#[tokio::test]
async fn faults() {
    let mails = MailStandIn::start(0).await.unwrap();
    mails.fail_next(1, MailFault::TryLater);
    mails.fail_next(1, MailFault::DropAfterData);
    assert!(send(&mails).await.contains("451 4.3.0"));
    assert!(mails.messages().is_empty());
    assert!(!send(&mails).await.contains("kept"));
    assert_eq!(mails.messages().len(), 1, "kept all the same");
    mails.refuse("Order@example.com");
    assert!(send(&mails).await.contains("550 5.1.1"));
    assert_eq!(mails.messages().len(), 1);
}

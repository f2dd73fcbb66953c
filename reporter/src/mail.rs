//! E-mail: what every message carries, how it is handed in, and alerts by e-mail.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bongsu_schemas::key::stable_id;
use bongsu_schemas::services::Owner;
use chrono::Utc;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, MultiPart, SinglePart};
use lettre::transport::smtp::AsyncSmtpTransport;
use lettre::transport::smtp::authentication::Credentials;
use lettre::{AsyncTransport, Tokio1Executor};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::{Config, Smtp};
use crate::error::DeliveryError;
use crate::events;
use crate::incidents::{Incident, IncidentAlert};
use crate::ledger::{Entry, Kind, Ledger};
use crate::routing::{Question, route};
use crate::slack::message::{cut, one_line};

const TIMEOUT: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(30);
/// Alerts waiting to be mailed; they are few, of the highest severity.
const MAX_ALERT_MAILS: usize = 1_000;

/// Hands messages in at a mail server.
pub(crate) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
}

/// A message before it becomes one of lettre's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mail {
    /// Deterministic: the same message has the same Message-ID, should it come twice.
    pub(crate) id: String,
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) html: Option<String>,
}

impl Mailer {
    /// `environment` looks user and password up; they are used where both are set.
    pub(crate) fn new(smtp: &Smtp, environment: impl Fn(&str) -> Option<String>) -> anyhow::Result<Mailer> {
        let transport =
            AsyncSmtpTransport::<Tokio1Executor>::from_url(smtp.url.as_str()).context("reading smtp.url")?;
        let variable = |name: &Option<String>| name.as_deref().and_then(&environment).filter(|value| !value.is_empty());
        let transport = match (variable(&smtp.username_env), variable(&smtp.password_env)) {
            (Some(user), Some(password)) => transport.credentials(Credentials::new(user, password)),
            _ => transport,
        };
        Ok(Mailer { transport: transport.timeout(Some(TIMEOUT)).build() })
    }

    /// Returns when the server has taken the message.
    pub(crate) async fn send(&self, mail: &Mail) -> Result<(), DeliveryError> {
        let message = mail.build().map_err(|error| DeliveryError::Refused { reason: format!("{error:#}") })?;
        match self.transport.send(message).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_permanent() => Err(DeliveryError::Refused { reason: error.to_string() }),
            Err(error) => Err(DeliveryError::Unreachable { reason: error.to_string() }),
        }
    }
}

impl Mail {
    fn build(&self) -> anyhow::Result<Message> {
        let mailbox =
            |address: &str| address.parse::<Mailbox>().with_context(|| format!("reading the address `{address}`"));
        let from = mailbox(&self.from)?;
        let domain = from.email.domain().to_owned();
        let unsubscribe = format!("<mailto:{}?subject=unsubscribe>", from.email);
        let header = |name: &'static str, value: String| HeaderValue::new(HeaderName::new_from_ascii_str(name), value);
        let mut builder = Message::builder()
            .from(from)
            .subject(cut(&one_line(&self.subject), 200))
            .message_id(Some(format!("<{}@{domain}>", self.id)))
            .raw_header(header("Auto-Submitted", "auto-generated".to_owned()))
            .raw_header(header("List-Unsubscribe", unsubscribe));
        anyhow::ensure!(!self.to.is_empty(), "there is nobody to send it to");
        for address in &self.to {
            builder = builder.to(mailbox(address)?);
        }
        let plain = SinglePart::plain(self.text.clone());
        let message = match &self.html {
            Some(html) => {
                builder.multipart(MultiPart::alternative().singlepart(plain).singlepart(SinglePart::html(html.clone())))
            }
            None => builder.header(ContentType::TEXT_PLAIN).body(self.text.clone()),
        };
        message.context("building the message")
    }
}

/// Sends alerts by e-mail: those of the highest severity to owners who want it, and others where a route says so. Once for each incident and
/// list of addresses, when it begins.
pub(crate) struct AlertMails {
    from: String,
    ledger: Ledger,
    /// Given to the worker by this process, so that an update does not enqueue a second copy. Bounded by the queue's senders below.
    enqueued: BTreeSet<String>,
    sender: mpsc::Sender<(Mail, String)>,
    worker: JoinHandle<()>,
    stop: CancellationToken,
}

impl AlertMails {
    pub(crate) fn new(mailer: Arc<Mailer>, from: String, ledger: Ledger) -> AlertMails {
        let (sender, receiver) = mpsc::channel(MAX_ALERT_MAILS);
        let stop = CancellationToken::new();
        let worker = tokio::spawn(send_alerts(mailer, ledger.clone(), receiver, stop.clone()));
        AlertMails { from, ledger, enqueued: BTreeSet::new(), sender, worker, stop }
    }

    /// Enqueues what owners do not know yet.
    pub(crate) fn tell(&mut self, incident: &Incident, alerts: &[&IncidentAlert], config: &Config) {
        for alert in alerts.iter().filter(|alert| alert.resolved.is_none()) {
            let firing = &alert.firing;
            let route = route(&config.services, config.zone, Question::of(firing));
            let Some(owner) = route.owner.filter(|_| !route.email.is_empty()) else { continue };
            let id = mail_id(&incident.record.incident_id, owner, route.email);
            if self.ledger.get(&id).is_some() || !self.enqueued.insert(id.clone()) {
                continue;
            }
            if self.enqueued.len() > 10 * MAX_ALERT_MAILS {
                self.enqueued.pop_first();
            }
            let subject = format!("Alert: {}", firing.summary);
            let link =
                config.dashboard.public_url.as_ref().map_or(String::new(), |url| format!("\n{}\n", url.as_str()));
            let text = format!(
                "{}\n\nservice: {}\nrule: {}\nwindow: {} to {}\n{link}",
                one_line(&firing.summary),
                one_line(firing.service.as_deref().unwrap_or("(none)")),
                firing.rule,
                firing.window_start,
                firing.window_end
            );
            let mail =
                Mail { id: id.clone(), from: self.from.clone(), to: route.email.to_vec(), subject, text, html: None };
            if self.sender.try_send((mail, owner.display_name().to_owned())).is_err() {
                events::notification_dropped(Kind::AlertMail, owner.display_name(), &id, "the queue of e-mail is full");
            }
        }
    }

    /// Lets the worker finish what it is sending.
    pub(crate) async fn finish(mut self, deadline: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(deadline, &mut self.worker).await.is_err() {
            warn!("an alert was still being mailed; the next start sends it again with the same Message-ID");
            self.worker.abort();
        }
    }
}

/// The mail's id; the owner's own addresses have the owner's name in it, as they had before there were routes.
fn mail_id(incident_id: &str, owner: &Owner, addresses: &[String]) -> String {
    let to_owner = ["alert-mail", incident_id, owner.display_name()];
    let to_others = addresses.iter().map(String::as_str).filter(|_| addresses != owner.email);
    stable_id(to_owner.into_iter().chain(to_others))
}

async fn send_alerts(
    mailer: Arc<Mailer>,
    ledger: Ledger,
    mut receiver: mpsc::Receiver<(Mail, String)>,
    stop: CancellationToken,
) {
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            next = receiver.recv() => next,
        };
        let Some((mail, owner)) = next else { return };
        let sent = loop {
            let Err(error) = mailer.send(&mail).await else { break true };
            events::delivery_failed(Kind::AlertMail, &owner, &mail.id, &error);
            if matches!(error, DeliveryError::Refused { .. }) {
                events::notification_dropped(Kind::AlertMail, &owner, &mail.id, "the mail server refuses it");
                break false;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        };
        if !sent {
            continue;
        }
        events::delivered(Kind::AlertMail, &owner, &mail.id);
        let entry = Entry::new(mail.id, Kind::AlertMail, owner, 1, Utc::now());
        if let Err(error) = ledger.record(entry).await {
            warn!(error = format!("{error:#}"), "the ledger could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(subject: &str) -> Mail {
        Mail {
            id: "0123".to_owned(),
            from: "Bongsu <bongsu@example.com>".to_owned(),
            to: vec!["a@example.com".to_owned(), "Team B <b@example.com>".to_owned()],
            subject: subject.to_owned(),
            text: "text".to_owned(),
            html: Some("<p>html</p>".to_owned()),
        }
    }

    /// Scenario: a subject with line ends and a header in it.
    /// Guarantees: it stays in the subject; the message carries what automatic mail should.
    #[test]
    fn headers() {
        let message = mail("10 % fail\r\nBcc: victim@example.com\u{0}").build().unwrap();
        let text = String::from_utf8(message.formatted()).unwrap();
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(!head.contains("\r\nBcc:"), "{head}");
        for line in ["Message-ID: <0123@example.com>", "Auto-Submitted: auto-generated", "multipart/alternative"] {
            assert!(head.contains(line), "{line}: {head}");
        }
        assert!(head.contains("List-Unsubscribe: <mailto:bongsu@example.com?subject=unsubscribe>"), "{head}");
        assert_eq!(message.envelope().to().len(), 2);
    }

    /// Guarantees: an owner's mail of an incident is the one that it was before there were routes; other addresses have mails of their own.
    #[test]
    fn ids() {
        let list = |address: &str| vec![address.to_owned()];
        let owner = Owner { name: Some("order".to_owned()), email: list("a@example.com"), ..Owner::default() };
        let id = |address| mail_id("incident", &owner, &list(address));
        assert_eq!(id("a@example.com"), stable_id(["alert-mail", "incident", "order"]));
        assert_ne!(id("b@example.com"), id("a@example.com"));
        assert_ne!(id("b@example.com"), id("c@example.com"));
    }

    /// Guarantees: a wrong address is an error that names it, not a panic.
    #[test]
    fn wrong_addresses() {
        let wrong = Mail { to: vec!["nobody".to_owned()], ..mail("x") };
        assert!(format!("{:#}", wrong.build().unwrap_err()).contains("nobody"));
        assert!(Mail { to: Vec::new(), ..mail("x") }.build().is_err());
    }
}

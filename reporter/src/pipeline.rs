//! The reporter, from alerts to people.
//!
//! ```text
//! bongsu.windows ─► who calls whom
//!                      ▼
//! bongsu.alerts ─► correlate ─► bongsu.incidents ─► commit offset
//!                      └─► not silenced ─► one queue for each channel ─► Slack, webhooks ─► bongsu.notifications (the ledger)
//! bongsu.windows ─► recent ─────┤ (what happened around an alert)
//! bongsu.commands ─► silences ──┘
//!         └─► acknowledgements ─► bongsu.incidents, Slack
//! ```
//!
//! All state follows from the alerts, the incidents, the commands and the ledger: on a start, and whenever the partitions come to this
//! process, the alerts are read from the beginning, each joins the incident that it was published in, and what the ledger lacks is sent. A
//! committed offset only says which incidents need not be published again; of acknowledgements, the ledger says it.
//!
//! - R1: nobody is told twice: ids are deterministic, and where the ledger may lack an entry the channel is searched (see [`crate::delivery`]).
//! - R2: nothing here waits for Slack, so that no channel holds up another one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bongsu_schemas::alert::{AlertRecord, AlertStatus};
use bongsu_schemas::command::Command;
use bongsu_schemas::health::Health;
use bongsu_schemas::incident::IncidentRecord;
use chrono::Utc;
use rdkafka::message::Message;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::acknowledgements::Acknowledgements;
use crate::call_feed::{self, Heard};
use crate::commands::{self, Given};
use crate::config::Config;
use crate::delivery::Deliveries;
use crate::events;
use crate::feed::{AlertFeed, Feed, PART};
use crate::incidents::{Correlator, Incident, IncidentAlert, Published};
use crate::kafka::{Producer, read_all};
use crate::ledger::{Entry, Kind, Ledger};
use crate::mail::{AlertMails, Mailer};
use crate::pacing::PACE;
use crate::recent::SharedRecent;
use crate::silences::Silences;
use crate::slack::client::Client;
use crate::telling::{is_news, notifications};
use crate::webhook::endpoint::Endpoint;
use crate::webhook::{self, Webhooks};
use crate::weekly::sender::WeeklySender;

/// For what is being sent at shutdown; the whole must end within five seconds.
const DRAIN: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_secs(2);
/// A start waits this long for who calls whom. Without it the alerts of one fault are incidents apart; without alerts nobody is told.
const CALLS_PATIENCE: Duration = Duration::from_secs(10);

/// Runs until `shutdown`. `recent` is filled by who reads windows for the page.
pub(crate) async fn run(
    config: Arc<Config>,
    recent: SharedRecent,
    health: Health,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let environment = |name: &str| std::env::var(name).ok();
    let slack = config.slack.as_ref().map(|slack| Client::new(slack, environment)).transpose()?.map(Arc::new);
    let mailer = config.smtp.as_ref().map(|smtp| Mailer::new(smtp, environment)).transpose()?.map(Arc::new);
    let endpoints = webhook::endpoints(&config.webhooks, environment)?;
    if slack.is_none() {
        info!("no Slack is configured: incidents are formed and published, but no channel is told");
    }
    let producer = Arc::new(Producer::new(&config.kafka)?);
    let mut feed = AlertFeed::spawn(&config.kafka, health.clone())?;
    let (mut commands, commands_thread) = commands::follow(&config.kafka)?;
    let (mut calls, calls_thread) = call_feed::follow(&config.kafka)?;
    let mut reporter = Reporter::new(config, slack, endpoints, mailer, producer, recent, health);
    loop {
        let next = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(given) = commands.recv() => Next::Command(given),
            Some(heard) = calls.recv() => {
                reporter.learn(heard);
                continue;
            }
            next = feed.next() => Next::Feed(next.context("the thread that reads alerts ended")?),
        };
        let step = async {
            match next {
                Next::Command(given) => reporter.obey(&given).await?,
                Next::Feed(Feed::Assigned) => reporter.begin(&mut calls).await,
                Next::Feed(Feed::Record { partition, offset, payload, handled }) => {
                    reporter.take(partition, offset, &payload, handled).await?;
                    feed.handled(partition, offset);
                }
                Next::Feed(Feed::CaughtUp) => reporter.go_live().await?,
                Next::Feed(Feed::Revoked) => reporter.stand_by().await,
            }
            anyhow::Ok(())
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            outcome = step => outcome?,
        }
    }
    drop((commands, calls));
    let joined = tokio::task::spawn_blocking(move || (commands_thread.join(), calls_thread.join()));
    let ((), (), joined) = tokio::join!(reporter.stand_by(), feed.finish(), joined);
    if !matches!(joined, Ok((Ok(()), Ok(())))) {
        warn!("a thread that reads commands or calls panicked");
    }
    Ok(())
}

/// What the reporter wakes up for.
enum Next {
    Command(Given),
    Feed(Feed),
}

struct Reporter {
    config: Arc<Config>,
    slack: Option<Arc<Client>>,
    endpoints: Vec<Arc<Endpoint>>,
    mailer: Option<Arc<Mailer>>,
    producer: Arc<Producer>,
    recent: SharedRecent,
    health: Health,
    correlator: Correlator,
    /// The calls of the last hour are known.
    calls_read: bool,
    silences: Silences,
    acknowledgements: Acknowledgements,
    /// The next offset of each partition of the commands: they are read whole at times, and followed besides.
    next_commands: BTreeMap<i32, i64>,
    /// Whether acknowledgements have been applied since the alerts were begun.
    are_acknowledged: bool,
    /// Present while this process is the one that tells people.
    live: Option<Live>,
}

/// What tells people.
struct Live {
    ledger: Ledger,
    deliveries: Option<Deliveries>,
    webhooks: Webhooks,
    alert_mails: Option<AlertMails>,
    weekly: Option<WeeklySender>,
}

impl Reporter {
    fn new(
        config: Arc<Config>,
        slack: Option<Arc<Client>>,
        endpoints: Vec<Arc<Endpoint>>,
        mailer: Option<Arc<Mailer>>,
        producer: Arc<Producer>,
        recent: SharedRecent,
        health: Health,
    ) -> Reporter {
        Reporter {
            config,
            slack,
            endpoints,
            mailer,
            producer,
            recent,
            health,
            correlator: Correlator::default(),
            calls_read: false,
            silences: Silences::default(),
            acknowledgements: Acknowledgements::default(),
            next_commands: BTreeMap::new(),
            are_acknowledged: false,
            live: None,
        }
    }

    /// Forgets what it knew but for who calls whom and what was published; the records from the beginning follow.
    async fn begin(&mut self, calls: &mut Receiver<Heard>) {
        self.stand_by().await;
        self.health.not_ready(PART, "reading the alerts from the beginning");
        let published = loop {
            match published(&self.config).await {
                Ok(published) => break published,
                Err(error) => {
                    let why = format!("{error:#}");
                    warn!(error = why, "the incidents cannot be read yet");
                    self.health.not_ready(PART, why);
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        let reading = async {
            while !self.calls_read {
                let Some(heard) = calls.recv().await else { return };
                self.learn(heard);
            }
        };
        if tokio::time::timeout(CALLS_PATIENCE, reading).await.is_err() {
            info!("who calls whom is not known yet; alerts of one chain of services may become several incidents");
        }
        let known = std::mem::take(self.correlator.calls());
        self.correlator = Correlator::new(published, known);
        self.acknowledgements.begin_anew();
        self.are_acknowledged = false;
        self.read_commands().await;
    }

    /// Takes what windows tell of calls.
    fn learn(&mut self, heard: Heard) {
        match heard {
            Heard::Calls(calls) => {
                let graph = self.correlator.calls();
                for call in &calls {
                    graph.saw(&call.caller, &call.callee, call.at);
                }
                events::calls_known(graph.edges());
            }
            Heard::CaughtUp => self.calls_read = true,
        }
    }

    /// Takes one record of the alerts.
    async fn take(&mut self, partition: i32, offset: i64, payload: &[u8], handled: bool) -> anyhow::Result<()> {
        let mut alert: AlertRecord = match serde_json::from_slice(payload) {
            Ok(alert) => alert,
            Err(error) => {
                events::alert_unreadable(partition, offset, &error);
                return Ok(());
            }
        };
        events::alert_taken();
        if !handled && !self.are_acknowledged {
            // What is published from here on says who took it, and counts on from there.
            self.acknowledgements.apply_to(&mut self.correlator);
            self.are_acknowledged = true;
        }
        if self.live.is_some() && alert.status == AlertStatus::Firing {
            alert.evidence.siblings = self.recent.lock().siblings(&alert);
        }
        for change in self.correlator.apply(&alert) {
            if !handled {
                self.publish(&change.incident).await?;
            }
            self.tell(&change.incident, false);
        }
        Ok(())
    }

    async fn publish(&self, incident: &Incident) -> anyhow::Result<()> {
        let record = &incident.record;
        let value = serde_json::to_string(record)?;
        self.producer.send(&self.config.kafka.topics().incidents(), &record.incident_id, Some(&value)).await?;
        events::incident_published(&record.incident_id, record.sequence);
        Ok(())
    }

    /// Compares what there is with what was sent, and sends the rest.
    async fn go_live(&mut self) -> anyhow::Result<()> {
        let ledger = loop {
            match Ledger::load(&self.config.kafka, Arc::clone(&self.producer), Utc::now()).await {
                Ok(ledger) => break ledger,
                Err(error) => {
                    let why = format!("{error:#}");
                    warn!(error = why, "the ledger cannot be read yet");
                    self.health.not_ready(PART, why);
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        // First: the follower's thread may be behind.
        self.read_commands().await;
        let changes = self.acknowledgements.apply_to(&mut self.correlator);
        if self.are_acknowledged {
            // Of incidents that were published anew without who took them.
            for change in &changes {
                self.publish(&change.incident).await?;
            }
        }
        self.are_acknowledged = true;
        let public_url = self.config.dashboard.public_url.as_ref().map(|url| url.as_str());
        let webhooks = Webhooks::new(&self.endpoints, ledger.clone(), public_url);
        let (zone, public_url) = (self.config.zone, public_url.map(str::to_owned));
        let deliveries =
            self.slack.clone().map(|client| Deliveries::new(client, ledger.clone(), PACE, zone, public_url));
        let from = self.config.reports.weekly.as_ref().map(|weekly| weekly.from.clone());
        let mailer = self.mailer.clone().zip(from);
        let alert_mails = mailer.map(|(mailer, from)| AlertMails::new(mailer, from, ledger.clone()));
        let weekly = WeeklySender::spawn(&self.config, self.slack.clone(), self.mailer.clone(), ledger.clone());
        self.live = Some(Live { ledger, deliveries, webhooks, alert_mails, weekly });
        self.publish_acknowledged().await?;
        let now = Utc::now();
        let news: Vec<Arc<Incident>> =
            self.correlator.incidents().filter(|incident| is_news(incident, now)).cloned().collect();
        info!(incidents = news.len(), "telling people from now on");
        for incident in news {
            self.tell(&incident, true);
        }
        self.health.ready(PART);
        Ok(())
    }

    /// Takes all commands that are there.
    async fn read_commands(&mut self) {
        match commands::read(&self.config.kafka).await {
            Ok(commands) => commands.iter().for_each(|given| {
                self.note(given);
            }),
            Err(error) => {
                warn!(error = format!("{error:#}"), "commands cannot be read yet; they hold from when they can");
            }
        }
    }

    /// Takes a command, once. True if silences changed.
    fn note(&mut self, given: &Given) -> bool {
        let next = self.next_commands.entry(given.partition).or_default();
        if given.offset < *next {
            return false;
        }
        *next = given.offset + 1;
        if let Command::Acknowledge { incident_id, by } = &given.command {
            self.acknowledgements.add(incident_id, by, given.at);
        }
        self.silences.apply(&given.command)
    }

    /// Does what a command says. What is no longer silenced, and still fires, is told.
    async fn obey(&mut self, given: &Given) -> anyhow::Result<()> {
        if self.note(given) {
            let open: Vec<Arc<Incident>> =
                self.correlator.incidents().filter(|incident| incident.is_open()).cloned().collect();
            for incident in open {
                self.tell(&incident, true);
            }
        }
        if self.live.is_none() {
            // The alerts come first.
            return Ok(());
        }
        let changes = self.acknowledgements.apply_to(&mut self.correlator);
        if let Command::Acknowledge { incident_id, .. } = &given.command
            && !self.correlator.incidents().any(|incident| incident.record.incident_id == *incident_id)
        {
            warn!(incident_id, "somebody takes an incident that is not known");
        }
        self.publish_acknowledged().await?;
        let now = Utc::now();
        for change in changes.iter().filter(|change| is_news(&change.incident, now)) {
            self.tell(&change.incident, false);
        }
        Ok(())
    }

    /// Publishes the incidents that somebody took, as far as the ledger does not say that they have been.
    async fn publish_acknowledged(&self) -> anyhow::Result<()> {
        let Some(Live { ledger, .. }) = &self.live else { return Ok(()) };
        for acknowledgement in self.acknowledgements.applied() {
            let id = acknowledgement.id();
            if ledger.get(&id).is_some() {
                continue;
            }
            let is_it = |incident: &&Arc<Incident>| incident.record.incident_id == acknowledgement.incident_id;
            let Some(incident) = self.correlator.incidents().find(is_it) else { continue };
            self.publish(incident).await?;
            let (channel, sequence) = (acknowledgement.by.clone(), incident.record.sequence);
            let kind = Kind::Acknowledgement;
            ledger.record(Entry::new(id, kind, channel, sequence, Utc::now())).await?;
        }
        Ok(())
    }

    /// Puts an incident's messages into the receivers' queues; nothing while the past is being read.
    fn tell(&mut self, incident: &Arc<Incident>, maybe_sent: bool) {
        let Some(live) = &mut self.live else { return };
        let muted = |alert: &IncidentAlert| self.silences.mute(&alert.firing);
        if let Some(deliveries) = &mut live.deliveries {
            let is_told = |id: &str| live.ledger.get(id).is_some();
            let recent = &mut self.recent.lock();
            let told = notifications(incident, &muted, &is_told, &self.config, recent, maybe_sent);
            for (channel, id) in &told.withdrawn {
                deliveries.withdraw(channel, id);
            }
            told.notifications.into_iter().for_each(|notification| deliveries.enqueue(notification));
        }
        live.webhooks.tell(incident, &muted);
        if let Some(mails) = &mut live.alert_mails {
            let is_news = |alert: &&IncidentAlert| !muted(alert) && alert.explained_by.is_none();
            let alerts: Vec<&IncidentAlert> = incident.alerts.iter().filter(is_news).collect();
            mails.tell(incident, &alerts, &self.config);
        }
    }

    /// Tells nobody any more.
    async fn stand_by(&mut self) {
        let Some(Live { deliveries, webhooks, alert_mails, weekly, ledger: _ }) = self.live.take() else { return };
        let deliveries = async {
            if let Some(deliveries) = deliveries {
                deliveries.finish(DRAIN).await;
            }
        };
        let alert_mails = async {
            if let Some(mails) = alert_mails {
                mails.finish(DRAIN).await;
            }
        };
        let weekly = async {
            if let Some(weekly) = weekly {
                weekly.finish(DRAIN).await;
            }
        };
        tokio::join!(deliveries, webhooks.finish(DRAIN), alert_mails, weekly);
    }
}

/// What was published about incidents so far.
async fn published(config: &Config) -> anyhow::Result<Published> {
    let kafka = config.kafka.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut published = Published::default();
        read_all(&kafka, &kafka.topics().incidents(), |record| {
            match record.payload().map(serde_json::from_slice::<IncidentRecord>).transpose() {
                Ok(Some(record)) => published.take(&record),
                Ok(None) => {}
                Err(error) => warn!(%error, "a record of the incidents cannot be read and is passed over"),
            }
        })?;
        Ok(published)
    });
    reading.await?
}

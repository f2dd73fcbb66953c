//! Sends the weekly reports: at their time, or late after downtime, and each of them once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bongsu_schemas::key::stable_id;
use chrono::Utc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::owner::{OwnerReport, by_owner};
use super::schedule::{Due, latest_due, next_due};
use super::{Week, WeeklyReport, read, render};
use crate::config::{Config, Weekly};
use crate::error::DeliveryError;
use crate::events;
use crate::ledger::{Entry, Kind, Ledger};
use crate::mail::{Mail, Mailer};
use crate::slack::client::{Client, Posted};

/// What could not be sent is tried again after this.
const RETRY: Duration = Duration::from_secs(60);
/// What was refused needs a person.
const RETRY_REFUSED: Duration = Duration::from_secs(3600);
/// The clock may be set, and a laptop may sleep: the time is looked at this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The task that sends reports.
pub(crate) struct WeeklySender {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl WeeklySender {
    /// Starts the task; none where no weekly report is configured.
    pub(crate) fn spawn(
        config: &Arc<Config>,
        slack: Option<Arc<Client>>,
        mailer: Option<Arc<Mailer>>,
        ledger: Ledger,
    ) -> Option<WeeklySender> {
        let weekly = config.reports.weekly.clone()?;
        let stop = CancellationToken::new();
        let channels = Channels { slack, mailer, ledger: Some(ledger) };
        let task = tokio::spawn(work(Arc::clone(config), weekly, channels, stop.clone()));
        Some(WeeklySender { task, stop })
    }

    /// Lets it finish the message that is being sent.
    pub(crate) async fn finish(mut self, deadline: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(deadline, &mut self.task).await.is_err() {
            warn!("a weekly report was still being sent; the next start goes on with it");
            self.task.abort();
        }
    }
}

/// Ways to people.
pub(crate) struct Channels {
    pub(crate) slack: Option<Arc<Client>>,
    pub(crate) mailer: Option<Arc<Mailer>>,
    /// Without one, everything is sent.
    pub(crate) ledger: Option<Ledger>,
}

async fn work(config: Arc<Config>, weekly: Weekly, channels: Channels, stop: CancellationToken) {
    let mut done: Option<Week> = None;
    loop {
        let now = Utc::now();
        let due = latest_due(now, weekly.at, config.zone);
        let mut pause = (next_due(now, weekly.at, config.zone) - now).to_std().unwrap_or_default().min(LONGEST_SLEEP);
        if done != Some(due.week) {
            match send_due(&config, &weekly, &channels, due, &stop).await {
                Ok(None) => done = Some(due.week),
                Ok(Some(again_after)) => pause = again_after,
                Err(error) => {
                    warn!(week = %due.week, error = format!("{error:#}"), "the weekly report could not be made yet");
                    pause = RETRY;
                }
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Sends what of a due week was not sent yet. Says after how long to try again where something is left.
async fn send_due(
    config: &Config,
    weekly: &Weekly,
    channels: &Channels,
    due: Due,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Duration>> {
    let (report, known_since) = read(config, due.week, None).await?;
    if !due.is_covered(known_since, config.zone) {
        info!(week = %due.week, "no weekly report: the week ended before the first event");
        return Ok(None);
    }
    let sent = send_all(config, weekly, channels, &report, due.is_late(Utc::now()), stop).await?;
    let failed: Vec<&DeliveryError> = sent.iter().filter_map(|message| message.outcome.as_ref().err()).collect();
    let only_refused = failed.iter().all(|error| matches!(error, DeliveryError::Refused { .. }));
    Ok((!failed.is_empty()).then_some(if only_refused { RETRY_REFUSED } else { RETRY }))
}

/// What became of one message.
pub(crate) struct Sent {
    pub(crate) kind: Kind,
    /// Channel or addresses.
    pub(crate) to: String,
    pub(crate) outcome: Result<(), DeliveryError>,
}

/// One e-mail and one digest for each owner.
pub(crate) async fn send_all(
    config: &Config,
    weekly: &Weekly,
    channels: &Channels,
    report: &WeeklyReport,
    late: bool,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<Sent>> {
    let mut all = Vec::new();
    for owner in by_owner(report, &config.services) {
        if stop.is_cancelled() {
            anyhow::bail!("stopped before all weekly reports were sent");
        }
        let mail = mail(config, weekly, channels, &owner, late).await.context("rendering a weekly report")?;
        let digest = digest(channels, &owner, late).await;
        for sent in mail.into_iter().chain(digest) {
            if let Err(error) = &sent.outcome {
                events::delivery_failed(sent.kind, &sent.to, owner.name(), error);
            }
            all.push(sent);
        }
    }
    Ok(all)
}

async fn mail(
    config: &Config,
    weekly: &Weekly,
    channels: &Channels,
    owner: &OwnerReport<'_>,
    late: bool,
) -> anyhow::Result<Option<Sent>> {
    let id = stable_id(["weekly-mail", &owner.week.to_string(), &owner.identity()]);
    let addresses = owner.owner.map_or(&[][..], |owner| owner.email.as_slice());
    let Some(mailer) = channels.mailer.as_ref().filter(|_| owner.has_news() && !addresses.is_empty()) else {
        return Ok(None);
    };
    if channels.is_sent(&id) {
        return Ok(None);
    }
    let rendered = render::render(owner, config.zone, late)?;
    let mail = Mail {
        id: id.clone(),
        from: weekly.from.clone(),
        to: addresses.to_vec(),
        subject: rendered.subject,
        text: rendered.text,
        html: Some(rendered.html),
    };
    let outcome = mailer.send(&mail).await;
    if outcome.is_ok() {
        channels.record(Kind::WeeklyMail, id, owner.name(), None).await;
    }
    Ok(Some(Sent { kind: Kind::WeeklyMail, to: addresses.join(", "), outcome }))
}

async fn digest(channels: &Channels, owner: &OwnerReport<'_>, late: bool) -> Option<Sent> {
    let channel = owner.owner.and_then(|owner| owner.channels().first())?;
    let client = channels.slack.as_ref()?;
    let id = stable_id(["weekly-digest", &owner.week.to_string(), &owner.identity()]);
    if channels.is_sent(&id) {
        return None;
    }
    let outcome = async {
        // After a crash it may be there without an entry in the ledger.
        let since = Utc::now() - chrono::TimeDelta::days(8);
        let earlier = match channels.ledger {
            Some(_) => client.find(channel, &id, since).await.or_else(refused_to_look)?,
            None => None,
        };
        match earlier {
            Some(posted) => Ok(posted),
            None => client.post(channel, &render::digest(owner, &id, late)).await,
        }
    };
    let outcome = match outcome.await {
        Ok(posted) => {
            channels.record(Kind::WeeklyDigest, id, channel, Some(posted)).await;
            Ok(())
        }
        Err(error) => Err(error),
    };
    Some(Sent { kind: Kind::WeeklyDigest, to: channel.to_owned(), outcome })
}

/// Without the right to read the channel, a second copy is better than none.
fn refused_to_look(error: DeliveryError) -> Result<Option<Posted>, DeliveryError> {
    match error {
        DeliveryError::Refused { .. } => Ok(None),
        other => Err(other),
    }
}

impl Channels {
    fn is_sent(&self, id: &str) -> bool {
        self.ledger.as_ref().is_some_and(|ledger| ledger.get(id).is_some())
    }

    async fn record(&self, kind: Kind, id: String, channel: &str, posted: Option<Posted>) {
        events::delivered(kind, channel, &id);
        let Some(ledger) = &self.ledger else { return };
        let (channel_id, ts) = posted.map(|posted| (posted.channel_id, posted.ts)).unzip();
        let entry = Entry { channel_id, ts, ..Entry::new(id, kind, channel.to_owned(), 1, Utc::now()) };
        if let Err(error) = ledger.record(entry).await {
            warn!(error = format!("{error:#}"), "the ledger could not be written");
        }
    }
}

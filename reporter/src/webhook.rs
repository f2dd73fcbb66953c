//! Webhooks: incidents by HTTP POST, with one queue and one worker for each receiver, so that none waits for another.
//!
//! - H1: what a receiver accepted (2xx) is in the ledger and is not posted again; what the ledger lacks is posted, after a crash with the
//!   same id and sequence.
//! - H2: the sequences of a notification never fall; changes fall together only while they wait.
//! - H3: what fires is told to Alertmanager every [`REPEAT`], until it is resolved or silenced.

mod alertmanager;
mod body;
pub(crate) mod endpoint;
mod signature;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bongsu_schemas::key::stable_id;
use chrono::Utc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::endpoint::Endpoint;
use crate::config::{Webhook, WebhookFormat};
use crate::delivery::{LONGEST_PAUSE, Queue, Queued, REFUSED_PAUSE};
use crate::error::DeliveryError;
use crate::events;
use crate::incidents::{Incident, IncidentAlert};
use crate::ledger::{Entry, Kind, Ledger};

/// Alertmanager forgets what it has not heard of for `resolve_timeout`, by default five minutes: one repetition may fail.
const REPEAT: Duration = Duration::from_secs(120);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);
/// Ends of alerts that are remembered so as not to be told with each change of their incident. A forgotten one is told once more.
const MAX_ENDED: usize = 10_000;

/// All receivers, each with what its variables hold.
pub(crate) fn endpoints(
    webhooks: &[Webhook],
    environment: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Vec<Arc<Endpoint>>> {
    webhooks.iter().map(|webhook| Endpoint::new(webhook, &environment).map(Arc::new)).collect()
}

/// All receivers' queues and workers.
pub(crate) struct Webhooks {
    receivers: Vec<(Arc<Endpoint>, Arc<Queue<Post>>)>,
    ledger: Ledger,
    tellings: u64,
    workers: JoinSet<()>,
    stop: CancellationToken,
}

impl Webhooks {
    pub(crate) fn new(endpoints: &[Arc<Endpoint>], ledger: Ledger, public_url: Option<&str>) -> Webhooks {
        let (stop, mut workers) = (CancellationToken::new(), JoinSet::new());
        let receiver = |endpoint: &Arc<Endpoint>| {
            let queue = Arc::new(Queue::default());
            let worker = Worker {
                endpoint: Arc::clone(endpoint),
                queue: Arc::clone(&queue),
                ledger: ledger.clone(),
                public_url: public_url.map(str::to_owned),
                ended: BTreeSet::new(),
            };
            workers.spawn(worker.work(stop.clone()));
            (Arc::clone(endpoint), queue)
        };
        let receivers = endpoints.iter().map(receiver).collect();
        Webhooks { receivers, ledger, tellings: 0, workers, stop }
    }

    /// Puts an incident into the queues of those who ask for it. Returns at once; the workers do the rest.
    pub(crate) fn tell(&mut self, incident: &Arc<Incident>, muted: &dyn Fn(&IncidentAlert) -> bool) {
        self.tellings += 1;
        for (endpoint, queue) in &self.receivers {
            let webhook = &endpoint.webhook;
            let id = stable_id(["webhook", &webhook.name, &incident.record.incident_id]);
            let is_told = self.ledger.get(&id).is_some();
            if let Some(alerts) = chosen(webhook, incident, muted, is_told) {
                let (name, incident) = (webhook.name.clone(), Arc::clone(incident));
                queue.put(Post { id, webhook: name, incident, alerts, telling: self.tellings }, Instant::now());
            }
        }
    }

    /// Lets workers finish what they are sending; what is left is found again in the alerts and the ledger.
    pub(crate) async fn finish(mut self, deadline: Duration) {
        self.stop.cancel();
        let all = async { while self.workers.join_next().await.is_some() {} };
        if tokio::time::timeout(deadline, all).await.is_err() {
            warn!("a webhook was still being called; the next start calls it again with the same id and sequence");
            self.workers.shutdown().await;
        }
    }
}

/// A state of an incident that a receiver is to know.
#[derive(Debug, Clone)]
struct Post {
    /// Deterministic: the same for all states of the incident.
    id: String,
    /// The receiver's name.
    webhook: String,
    incident: Arc<Incident>,
    /// Those of the incident's alerts that the receiver is told of, by their place in it.
    alerts: Vec<usize>,
    /// Grows with each telling: silences change what is told, but not the incident's sequence.
    telling: u64,
}

impl Post {
    fn sequence(&self) -> u32 {
        self.incident.record.sequence
    }

    fn alerts(&self) -> impl Iterator<Item = &IncidentAlert> {
        self.alerts.iter().filter_map(|place| self.incident.alerts.get(*place))
    }
}

impl Queued for Post {
    fn id(&self) -> &str {
        &self.id
    }
    fn kind(&self) -> Kind {
        Kind::Webhook
    }
    fn channel(&self) -> &str {
        &self.webhook
    }
    fn version(&self) -> (u32, u64) {
        (self.sequence(), self.telling)
    }
}

/// The alerts of an incident that a receiver is told of; none if the incident is not for it.
fn chosen(
    webhook: &Webhook,
    incident: &Incident,
    muted: &dyn Fn(&IncidentAlert) -> bool,
    is_told: bool,
) -> Option<Vec<usize>> {
    let wanted: Vec<(usize, &IncidentAlert)> = incident
        .alerts
        .iter()
        .enumerate()
        .filter(|(_, alert)| webhook.wants(&alert.firing, alert.highest_severity()))
        .collect();
    let places = |keep: &dyn Fn(&IncidentAlert) -> bool| -> Vec<usize> {
        wanted.iter().filter(|(_, alert)| keep(alert)).map(|(place, _)| *place).collect()
    };
    match webhook.format {
        // As in Slack: whoever was told that it began is told that it ended, though it was silenced meanwhile.
        WebhookFormat::Bongsu => {
            let audible = places(&|alert| !muted(alert));
            let told = if audible.is_empty() && is_told { places(&|_| true) } else { audible };
            (!told.is_empty()).then_some(told)
        }
        // An empty list takes the place of what was to be repeated; Alertmanager then forgets what was silenced.
        WebhookFormat::Alertmanager => {
            let told = places(&|alert| !muted(alert) || (is_told && alert.resolved.is_some()));
            (!wanted.is_empty()).then_some(told)
        }
    }
}

/// Sends what waits in one receiver's queue.
struct Worker {
    endpoint: Arc<Endpoint>,
    queue: Arc<Queue<Post>>,
    ledger: Ledger,
    public_url: Option<String>,
    /// Alerts whose end Alertmanager was told by this process.
    ended: BTreeSet<String>,
}

impl Worker {
    async fn work(mut self, stop: CancellationToken) {
        let mut outage_pause = FIRST_PAUSE;
        while let Some(post) = self.queue.next(&stop).await {
            let outcome = self.deliver(&post).await;
            if let Err(error) = &outcome {
                events::delivery_failed(Kind::Webhook, &post.webhook, &post.id, error);
            }
            let now = Instant::now();
            let pause = match outcome {
                Ok(Next::Done) => {
                    outage_pause = FIRST_PAUSE;
                    continue;
                }
                Ok(Next::Repeat) => {
                    outage_pause = FIRST_PAUSE;
                    self.queue.put(post, now + REPEAT);
                    continue;
                }
                Err(DeliveryError::RateLimited { retry_after }) => {
                    self.queue.put(post, now);
                    retry_after.clamp(FIRST_PAUSE, LONGEST_RETRY_AFTER)
                }
                Err(DeliveryError::Unreachable { .. }) => {
                    self.queue.put(post, now);
                    let pause = outage_pause;
                    outage_pause = (2 * outage_pause).min(LONGEST_PAUSE);
                    pause
                }
                Err(DeliveryError::Refused { .. }) => {
                    self.queue.put(post, now + REFUSED_PAUSE);
                    FIRST_PAUSE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn deliver(&mut self, post: &Post) -> Result<Next, DeliveryError> {
        let is_known = self.ledger.get(&post.id).is_some_and(|entry| entry.sequence >= post.sequence());
        match self.endpoint.webhook.format {
            WebhookFormat::Bongsu if is_known => Ok(Next::Done),
            WebhookFormat::Bongsu => {
                let alerts: Vec<&IncidentAlert> = post.alerts().collect();
                let body = body::body(&post.id, &post.incident, &alerts, self.public_url.as_deref());
                let body = serde_json::to_string(&body);
                let body = body.map_err(|error| DeliveryError::Refused { reason: error.to_string() })?;
                self.endpoint.post(&post.id, post.sequence(), body, Utc::now()).await?;
                self.remember(post).await;
                Ok(Next::Done)
            }
            WebhookFormat::Alertmanager => self.deliver_to_alertmanager(post, is_known).await,
        }
    }

    /// What fires, each time; what ended, once.
    async fn deliver_to_alertmanager(&mut self, post: &Post, is_known: bool) -> Result<Next, DeliveryError> {
        let is_news = |alert: &&IncidentAlert| {
            alert.resolved.is_none() || (!is_known && !self.ended.contains(&alert.firing.alert_id))
        };
        let alerts: Vec<&IncidentAlert> = post.alerts().filter(is_news).collect();
        if alerts.is_empty() {
            return Ok(Next::Done);
        }
        let body = alertmanager::body(&post.incident, &alerts, self.public_url.as_deref()).to_string();
        self.endpoint.post(&post.id, post.sequence(), body, Utc::now()).await?;
        let (ended, firing): (Vec<&IncidentAlert>, Vec<&IncidentAlert>) =
            alerts.into_iter().partition(|alert| alert.resolved.is_some());
        self.ended.extend(ended.into_iter().map(|alert| alert.firing.alert_id.clone()));
        while self.ended.len() > MAX_ENDED {
            self.ended.pop_first();
        }
        if is_known {
            events::alerts_repeated(&post.webhook, firing.len());
        } else {
            self.remember(post).await;
        }
        Ok(if firing.is_empty() { Next::Done } else { Next::Repeat })
    }

    async fn remember(&self, post: &Post) {
        events::delivered(Kind::Webhook, &post.webhook, &post.id);
        let (id, webhook) = (post.id.clone(), post.webhook.clone());
        let entry = Entry::new(id, Kind::Webhook, webhook, post.sequence(), Utc::now());
        if let Err(error) = self.ledger.record(entry).await {
            let (webhook, id, error) = (&post.webhook, &post.id, format!("{error:#}"));
            warn!(webhook, id, error, "the ledger could not be written; a restart sends it again");
        }
    }
}

/// What becomes of a post that was accepted.
enum Next {
    Done,
    Repeat,
}

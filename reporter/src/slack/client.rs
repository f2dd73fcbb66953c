//! Slack's Web API: posting, updating, and finding again what was posted.
//!
//! Threads are read with `conversations.replies`. Slack's reference says that bots may not; with `channels:history` and as members they can.
//! Where a workspace refuses it, [`crate::delivery`] goes on without.
//!
//! Blocks travel as JSON, because slack-morphism's types cover fewer of them than [`super::message`] makes. Its rate control works by
//! method, not by channel, and is left off: [`crate::delivery`] has one queue for each channel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use slack_morphism::errors::SlackClientError;
use slack_morphism::prelude::SlackClientHyperConnector;
use slack_morphism::{ClientResult, SlackApiToken, SlackClient, SlackClientHttpConnector};
use tracing::warn;

use super::message::Message;
use crate::config::Slack;
use crate::error::DeliveryError;
use crate::https::https_connector;

/// Slack answers within a second; after this the connection is taken for dead.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Where Slack does not say how long to wait.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(10);
/// How far back a message is looked for: pages of 200 messages.
const MAX_HISTORY_PAGES: usize = 10;
/// Pages of 1,000 channels.
const MAX_CHANNEL_PAGES: usize = 20;

/// A bot in one workspace.
pub(crate) struct Client {
    transport: Transport,
    token: SlackApiToken,
    /// Ids of channels by their configured name, as posting and listing tell them. Held for a map operation only.
    channel_ids: Mutex<BTreeMap<String, String>>,
}

/// Plain HTTP needs no certificates, so that a stand-in works on a machine without any.
enum Transport {
    Http(SlackClient<SlackClientHyperConnector<HttpConnector>>),
    Https(SlackClient<SlackClientHyperConnector<HttpsConnector<HttpConnector>>>),
}

/// Where a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Posted {
    /// Id, not name: `chat.update` wants it.
    pub(crate) channel_id: String,
    /// Slack's name for the message.
    pub(crate) ts: String,
}

enum Method<'a> {
    Get(&'a str, Vec<(&'static str, String)>),
    Post(&'a str, Value),
}

impl Client {
    /// `environment` looks the token up.
    pub(crate) fn new(slack: &Slack, environment: impl Fn(&str) -> Option<String>) -> anyhow::Result<Client> {
        let token = environment(&slack.token_env).filter(|token| !token.trim().is_empty());
        let token = match token {
            Some(token) => token.trim().to_owned(),
            None if is_local_stand_in(slack.api_url()) => "stand-in".to_owned(),
            None => {
                anyhow::bail!("slack.token_env names the environment variable `{}`, which is not set", slack.token_env)
            }
        };
        let url = slack.api_url();
        let transport = if url.starts_with("https:") {
            let connector = SlackClientHyperConnector::with_connector(https_connector()?);
            Transport::Https(SlackClient::new(connector.with_slack_api_url(url)))
        } else {
            let connector = SlackClientHyperConnector::with_connector(HttpConnector::new());
            Transport::Http(SlackClient::new(connector.with_slack_api_url(url)))
        };
        let token = SlackApiToken::new(token.into());
        Ok(Client { transport, token, channel_ids: Mutex::default() })
    }

    /// Posts a message to a channel, by name or id.
    pub(crate) async fn post(&self, channel: &str, message: &Message) -> Result<Posted, DeliveryError> {
        let posted = self.send(channel, None, message).await?;
        self.channel_ids().insert(channel.to_owned(), posted.channel_id.clone());
        Ok(posted)
    }

    /// Posts a message in the thread of another one.
    pub(crate) async fn reply(&self, parent: &Posted, message: &Message) -> Result<Posted, DeliveryError> {
        self.send(&parent.channel_id, Some(&parent.ts), message).await
    }

    async fn send(&self, channel: &str, thread: Option<&str>, message: &Message) -> Result<Posted, DeliveryError> {
        let Message { text, blocks } = message;
        let mut body = json!({
            "channel": channel, "text": text, "blocks": blocks, "unfurl_links": false, "unfurl_media": false,
        });
        if let Some(thread) = thread {
            body["thread_ts"] = json!(thread);
        }
        posted(&self.call(Method::Post("chat.postMessage", body)).await?)
    }

    /// Replaces a message.
    pub(crate) async fn update(&self, posted: &Posted, message: &Message) -> Result<(), DeliveryError> {
        let Posted { channel_id, ts } = posted;
        let Message { text, blocks } = message;
        let body = json!({ "channel": channel_id, "ts": ts, "text": text, "blocks": blocks });
        self.call(Method::Post("chat.update", body)).await.map(|_| ())
    }

    /// Looks for a message since `since` whose first block has this id.
    pub(crate) async fn find(
        &self,
        channel: &str,
        block_id: &str,
        since: DateTime<Utc>,
    ) -> Result<Option<Posted>, DeliveryError> {
        let wanted = BTreeSet::from([block_id]);
        Ok(self.find_all(channel, &wanted, since).await?.remove(block_id))
    }

    /// As [`Client::find`], for many ids at once.
    pub(crate) async fn find_all<'a>(
        &self,
        channel: &str,
        block_ids: &BTreeSet<&'a str>,
        since: DateTime<Utc>,
    ) -> Result<BTreeMap<&'a str, Posted>, DeliveryError> {
        let Some(channel_id) = self.channel_id(channel).await? else { return Ok(BTreeMap::new()) };
        let parameters = vec![("oldest", since.timestamp().to_string())];
        self.look("conversations.history", &channel_id, parameters, block_ids).await
    }

    /// Looks for a reply in the thread of `parent` whose first block has this id.
    pub(crate) async fn find_reply(&self, parent: &Posted, block_id: &str) -> Result<Option<Posted>, DeliveryError> {
        let (wanted, parameters) = (BTreeSet::from([block_id]), vec![("ts", parent.ts.clone())]);
        Ok(self.look("conversations.replies", &parent.channel_id, parameters, &wanted).await?.remove(block_id))
    }

    /// Reads pages of messages until all that is wanted is found.
    async fn look<'a>(
        &self,
        method: &str,
        channel_id: &str,
        parameters: Vec<(&'static str, String)>,
        wanted: &BTreeSet<&'a str>,
    ) -> Result<BTreeMap<&'a str, Posted>, DeliveryError> {
        let (mut found, mut cursor) = (BTreeMap::new(), String::new());
        for _ in 0..MAX_HISTORY_PAGES {
            let mut parameters = parameters.clone();
            parameters.extend([
                ("channel", channel_id.to_owned()),
                ("limit", "200".to_owned()),
                ("cursor", cursor.clone()),
            ]);
            let answer = self.call(Method::Get(method, parameters)).await?;
            for message in answer["messages"].as_array().into_iter().flatten() {
                let id = message["blocks"][0]["block_id"].as_str().and_then(|id| wanted.get(id));
                if let (Some(id), Some(ts)) = (id, message["ts"].as_str()) {
                    found.insert(*id, Posted { channel_id: channel_id.to_owned(), ts: ts.to_owned() });
                }
            }
            cursor = next_cursor(&answer);
            if cursor.is_empty() || found.len() == wanted.len() {
                return Ok(found);
            }
        }
        warn!(channel_id, pages = MAX_HISTORY_PAGES, "gave up looking for an earlier message");
        Ok(found)
    }

    /// The id of a channel; none if there is no such channel.
    async fn channel_id(&self, channel: &str) -> Result<Option<String>, DeliveryError> {
        let known = self.channel_ids().get(channel).cloned();
        let Some(name) = channel.strip_prefix('#') else {
            return Ok(Some(known.unwrap_or_else(|| channel.to_owned())));
        };
        if known.is_some() {
            return Ok(known);
        }
        let mut cursor = String::new();
        for _ in 0..MAX_CHANNEL_PAGES {
            let parameters = vec![
                ("types", "public_channel,private_channel".to_owned()),
                ("exclude_archived", "true".to_owned()),
                ("limit", "1000".to_owned()),
                ("cursor", cursor.clone()),
            ];
            let answer = self.call(Method::Get("conversations.list", parameters)).await?;
            for listed in answer["channels"].as_array().into_iter().flatten() {
                if listed["name"] == name
                    && let Some(id) = listed["id"].as_str()
                {
                    self.channel_ids().insert(channel.to_owned(), id.to_owned());
                    return Ok(Some(id.to_owned()));
                }
            }
            cursor = next_cursor(&answer);
            if cursor.is_empty() {
                break;
            }
        }
        Ok(None)
    }

    async fn call(&self, method: Method<'_>) -> Result<Value, DeliveryError> {
        let called = async {
            match &self.transport {
                Transport::Http(client) => call(client, &self.token, method).await,
                Transport::Https(client) => call(client, &self.token, method).await,
            }
        };
        match tokio::time::timeout(TIMEOUT, called).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(reaction(error)),
            Err(_) => Err(DeliveryError::Unreachable { reason: format!("no answer within {TIMEOUT:?}") }),
        }
    }

    fn channel_ids(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.channel_ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn call<C>(client: &SlackClient<C>, token: &SlackApiToken, method: Method<'_>) -> ClientResult<Value>
where
    C: SlackClientHttpConnector + Send + Sync,
{
    let session = client.open_session(token);
    match method {
        Method::Post(name, body) => session.http_session_api.http_post(name, &body, None).await,
        Method::Get(name, parameters) => {
            let parameters: Vec<(&str, Option<&String>)> = parameters
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| (*name, Some(value)))
                .collect();
            session.http_session_api.http_get(name, &parameters, None).await
        }
    }
}

/// What can be done about an error.
fn reaction(error: SlackClientError) -> DeliveryError {
    let unreachable = |reason: String| DeliveryError::Unreachable { reason };
    match error {
        SlackClientError::RateLimitError(error) => {
            DeliveryError::RateLimited { retry_after: error.retry_after.unwrap_or(DEFAULT_RETRY_AFTER) }
        }
        SlackClientError::ApiError(error) => match error.code.as_str() {
            "ratelimited" | "rate_limited" => DeliveryError::RateLimited { retry_after: DEFAULT_RETRY_AFTER },
            "internal_error" | "fatal_error" | "service_unavailable" | "request_timeout" => unreachable(error.code),
            _ => {
                let details = error.errors.unwrap_or_default();
                let reason = std::iter::once(error.code).chain(details).collect::<Vec<_>>().join("; ");
                DeliveryError::Refused { reason }
            }
        },
        SlackClientError::HttpError(error) if !error.status_code.is_server_error() => {
            DeliveryError::Refused { reason: format!("HTTP status {}", error.status_code) }
        }
        SlackClientError::HttpError(error) => unreachable(format!("HTTP status {}", error.status_code)),
        other => unreachable(other.to_string()),
    }
}

fn posted(answer: &Value) -> Result<Posted, DeliveryError> {
    match (answer["channel"].as_str(), answer["ts"].as_str()) {
        (Some(channel_id), Some(ts)) => Ok(Posted { channel_id: channel_id.to_owned(), ts: ts.to_owned() }),
        _ => Err(DeliveryError::Unreachable { reason: "the answer has no channel and ts".to_owned() }),
    }
}

fn next_cursor(answer: &Value) -> String {
    answer["response_metadata"]["next_cursor"].as_str().unwrap_or_default().to_owned()
}

/// A stand-in on this machine takes any token, so that none need be made up for it.
fn is_local_stand_in(url: &str) -> bool {
    let parsed = url::Url::parse(url).ok().filter(|url| url.scheme() == "http");
    match parsed.as_ref().and_then(url::Url::host) {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;

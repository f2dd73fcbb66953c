//! One receiver over HTTP: what is sent to it, and what its answer means.

use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use chrono::{DateTime, Utc};
use futures::StreamExt;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::signature::signature;
use crate::config::{Webhook, WebhookFormat, check_url};
use crate::error::DeliveryError;
use crate::https::https_connector;
use crate::slack::message::{cut, one_line};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Where a receiver that asks for patience does not say how long.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(10);
/// Read of an answer that is no success, and shown of it.
const MAX_READ_BYTES: usize = 4 * 1024;
const MAX_SHOWN_CHARS: usize = 200;
/// A shorter secret is not looked for in an answer: too much else would match.
const MIN_SECRET_BYTES: usize = 4;

/// A receiver, with its secrets.
pub(crate) struct Endpoint {
    pub(crate) webhook: Webhook,
    uri: Uri,
    headers: HeaderMap,
    /// Signs each POST.
    secret: Option<String>,
    /// What must not be in a log, should the receiver send it back. Longest first.
    hidden: Vec<String>,
    transport: Transport,
}

/// Plain HTTP needs no certificates.
enum Transport {
    Http(Client<HttpConnector, Body>),
    Https(Client<HttpsConnector<HttpConnector>, Body>),
}

impl Endpoint {
    /// `environment` looks variables up; each that the webhook names must be set.
    pub(crate) fn new(webhook: &Webhook, environment: impl Fn(&str) -> Option<String>) -> anyhow::Result<Endpoint> {
        let name = &webhook.name;
        let variable = |key: &str, variable: &str| {
            let value = environment(variable).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
            value.with_context(|| {
                format!("the webhook `{name}`: {key} needs the environment variable `{variable}`, which is not set")
            })
        };
        let mut hidden = Vec::new();
        let url = match webhook.url.variable() {
            Some(of_url) => variable("url", of_url)?,
            None => webhook.url.as_str().to_owned(),
        };
        let url = check_url(&url).map_err(|problem| anyhow!("the webhook `{name}`: url {problem}"))?;
        let uri: Uri = url.as_str().parse().with_context(|| format!("the webhook `{name}`: url"))?;
        if webhook.url.variable().is_some() {
            hidden.extend(uri.path_and_query().map(|path| path.as_str().to_owned()));
        }
        let secret = webhook.secret_env.as_deref().map(|secret| variable("secret_env", secret)).transpose()?;
        hidden.extend(secret.clone());

        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("bongsu/", env!("CARGO_PKG_VERSION"))));
        for (header, text) in &webhook.headers {
            let text = match text.strip_prefix('$') {
                Some(of_header) => {
                    let value = variable(&format!("headers.{header}"), of_header)?;
                    // `Bearer abc` is hidden as a whole, and `abc` by itself.
                    hidden.extend(value.rsplit(' ').next().map(str::to_owned));
                    hidden.push(value.clone());
                    value
                }
                None => text.clone(),
            };
            // The errors of both do not repeat what they were given.
            let wrong = || format!("the webhook `{name}`: headers.{header} cannot be sent");
            let mut value = HeaderValue::from_str(&text).with_context(wrong)?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_bytes(header.as_bytes()).with_context(wrong)?, value);
        }
        hidden.retain(|text| text.len() >= MIN_SECRET_BYTES);
        hidden.sort_by_key(|text| std::cmp::Reverse(text.len()));

        // Posts are few: a connection of its own for each spares us those that the other side has closed meanwhile.
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(0);
        let transport = match url.scheme() {
            "https" => Transport::Https(builder.build(https_connector()?)),
            _ => Transport::Http(builder.build(HttpConnector::new())),
        };
        Ok(Endpoint { webhook: webhook.clone(), uri, headers, secret, hidden, transport })
    }

    /// Returns when the receiver has accepted it.
    pub(crate) async fn post(
        &self,
        id: &str,
        sequence: u32,
        body: String,
        now: DateTime<Utc>,
    ) -> Result<(), DeliveryError> {
        let request = self.request(id, sequence, body, now);
        let request = request.map_err(|error| DeliveryError::Refused { reason: format!("{error:#}") })?;
        match tokio::time::timeout(TIMEOUT, self.exchange(request, now)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DeliveryError::Unreachable { reason: format!("no answer within {TIMEOUT:?}") }),
        }
    }

    fn request(&self, id: &str, sequence: u32, body: String, now: DateTime<Utc>) -> anyhow::Result<Request<Body>> {
        let mut headers = self.headers.clone();
        if self.webhook.format == WebhookFormat::Bongsu {
            let timestamp_secs = now.timestamp();
            headers.insert("x-bongsu-notification", HeaderValue::from_str(id)?);
            headers.insert("x-bongsu-sequence", sequence.into());
            headers.insert("x-bongsu-timestamp", timestamp_secs.into());
            if let Some(secret) = &self.secret {
                let signature = signature(secret, timestamp_secs, &body);
                headers.insert("x-bongsu-signature", HeaderValue::from_str(&signature)?);
            }
        }
        let mut request = Request::post(self.uri.clone()).body(Body::from(body))?;
        *request.headers_mut() = headers;
        Ok(request)
    }

    async fn exchange(&self, request: Request<Body>, now: DateTime<Utc>) -> Result<(), DeliveryError> {
        let sent = match &self.transport {
            Transport::Http(client) => client.request(request).await,
            Transport::Https(client) => client.request(request).await,
        };
        let answer = sent.map_err(|error| {
            // With its causes: the client's own words are `client error (Connect)`.
            DeliveryError::Unreachable { reason: format!("{:#}", anyhow::Error::new(error)) }
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| patience(text, now)).unwrap_or(DEFAULT_RETRY_AFTER);
        let words = self.printable(&beginning(Body::new(answer.into_body())).await);
        Err(reaction(status, retry_after, &words))
    }

    /// What the receiver says, as a log may have it.
    fn printable(&self, bytes: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        for secret in &self.hidden {
            text = text.replace(secret.as_str(), "***");
        }
        cut(&one_line(&text), MAX_SHOWN_CHARS)
    }
}

/// The beginning of an answer's body; what breaks off is as good as what ends.
async fn beginning(body: Body) -> Vec<u8> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while bytes.len() < MAX_READ_BYTES
        && let Some(Ok(chunk)) = stream.next().await
    {
        bytes.extend_from_slice(&chunk);
    }
    bytes.truncate(MAX_READ_BYTES);
    bytes
}

/// What can be done about an answer that is no success.
fn reaction(status: StatusCode, retry_after: Duration, words: &str) -> DeliveryError {
    let reason =
        if words.is_empty() { format!("HTTP status {status}") } else { format!("HTTP status {status}: {words}") };
    match status {
        StatusCode::TOO_MANY_REQUESTS => DeliveryError::RateLimited { retry_after },
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => DeliveryError::Unreachable { reason },
        status if status.is_server_error() => DeliveryError::Unreachable { reason },
        status if status.is_redirection() => DeliveryError::Refused {
            reason: format!("HTTP status {status}; redirects are not followed, so write the final address into `url`"),
        },
        _ => DeliveryError::Refused { reason },
    }
}

/// `Retry-After`: seconds, or a time.
fn patience(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    if let Ok(secs) = text.trim().parse() {
        return Some(Duration::from_secs(secs));
    }
    let at = DateTime::parse_from_rfc2822(text.trim()).ok()?;
    Some((at.to_utc() - now).to_std().unwrap_or_default())
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;

//! A receiver of webhooks: it takes any POST, keeps it as it came, and fails on demand. At `/api/v2/alerts` it is as strict as
//! Alertmanager.

mod alertmanager;
mod state;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State as Extract,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::state::State;
pub use self::state::{WebhookCall, WebhookFault};
use crate::shared::Shared;

/// A running stand-in. Clones share it; it ends with the last of them.
#[derive(Debug, Clone)]
pub struct WebhookStandIn {
    address: SocketAddr,
    state: Arc<Shared<State>>,
    _server: Arc<DropGuard>,
}

impl WebhookStandIn {
    /// Listens on loopback at `port` (0 takes a free one), until the last clone is dropped.
    pub async fn start(port: u16) -> anyhow::Result<WebhookStandIn> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.context("starting the webhook stand-in")?;
        let address = listener.local_addr()?;
        let state = Arc::new(Shared::new(State::default()));
        let stop = CancellationToken::new();
        let router = Router::new().fallback(take).with_state(state.clone());
        let server = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::warn!(%error, "the webhook stand-in ended");
            }
        });
        Ok(WebhookStandIn { address, state, _server: Arc::new(stop.drop_guard()) })
    }

    /// What a webhook's `url` has to be, for a path such as `/hook` or `/api/v2/alerts`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All calls, oldest first, failed ones included.
    pub fn calls(&self) -> Vec<WebhookCall> {
        self.state.read().calls().to_vec()
    }

    /// The next `count` calls fail like this. Faults queue up.
    pub fn fail_next(&self, count: usize, fault: WebhookFault) {
        self.state.change(|state| state.fail_next(count, fault));
    }

    /// All calls, once `predicate` is content with them; an error that shows them when `deadline` has passed.
    pub async fn wait_for(
        &self,
        mut predicate: impl FnMut(&[WebhookCall]) -> bool,
        deadline: Duration,
    ) -> anyhow::Result<Vec<WebhookCall>> {
        let look = |state: &State| predicate(state.calls()).then(|| state.calls().to_vec());
        let found = self.state.wait(look, deadline).await;
        found.with_context(|| format!("{deadline:?} passed; the webhook stand-in has {:#?}", self.calls()))
    }
}

async fn take(
    Extract(state): Extract<Arc<Shared<State>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let path = uri.path();
    let text = String::from_utf8_lossy(&body).into_owned();
    let refusal = if path.ends_with("/api/v2/alerts") { alertmanager::check(&text).err() } else { None };
    let fault = state.change(|state| {
        let fault = state.next_fault();
        let status = match (&fault, &refusal) {
            (Some(fault), _) => fault.status(),
            (None, Some(_)) => Some(400),
            (None, None) => Some(200),
        };
        let name_and_value = |(name, value): (&header::HeaderName, &HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let headers = headers.iter().map(name_and_value).collect();
        state.keep(WebhookCall { path: path.to_owned(), headers, body: text, status });
        fault
    });
    match (fault, refusal) {
        (Some(fault), _) => answer(fault),
        (None, Some(problem)) => (StatusCode::BAD_REQUEST, problem).into_response(),
        (None, None) => StatusCode::OK.into_response(),
    }
}

fn answer(fault: WebhookFault) -> Response {
    match fault {
        WebhookFault::RateLimited { retry_after_secs } => {
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, retry_after_secs.to_string())]).into_response()
        }
        WebhookFault::Answer { status, body } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, body).into_response()
        }
        WebhookFault::Redirect { to } => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response(),
        WebhookFault::DropAfterRead => broken_connection(),
    }
}

/// An answer whose body fails at once, upon which the server closes the connection. Should its head get through, it is no success.
fn broken_connection() -> Response {
    let failure = futures::stream::once(async { Err::<Bytes, _>(io::Error::other("the connection breaks on demand")) });
    let mut response = Response::new(Body::from_stream(failure));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("1000"));
    response
}

//! The page that shows live alerts, incidents and the latest windows, kept current over server-sent events.
//!
//! It reads Bongsu's topics on its own, outside of any consumer group, so that every process can show everything. What people change here
//! (see `api`) goes to `bongsu.commands`. Text from events reaches the page as JSON only and is shown through `textContent`.

mod api;
mod board;
mod reader;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bongsu_schemas::health::Health;
use futures::StreamExt;
use futures::stream::{self, Stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::api::{Hosts, Order};
use self::board::Board;
use crate::commands::Writer;
use crate::config::Config;
use crate::recent::SharedRecent;
use crate::silences::Silences;

/// Changes are sent together this often, so that a browser is not flooded during a replay.
const FLUSH: Duration = Duration::from_millis(250);
/// A browser that is this many updates behind is disconnected; it comes back and gets everything anew.
const MAX_BEHIND: usize = 64;
const MAX_STREAMS: usize = 200;
const DRAIN: Duration = Duration::from_secs(3);

/// No scripts, styles or connections but the page's own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    // Held for operations on the board only, never across an await.
    board: Arc<Mutex<Board>>,
    // Likewise.
    silences: Arc<Mutex<Silences>>,
    orders: mpsc::Sender<Order>,
    hosts: Hosts,
    updates: broadcast::Sender<Arc<str>>,
    streams: Arc<Semaphore>,
    health: Health,
    stop: CancellationToken,
}

impl Shared {
    fn new(health: Health, hosts: Hosts, orders: mpsc::Sender<Order>, stop: CancellationToken) -> Shared {
        let (updates, _) = broadcast::channel(MAX_BEHIND);
        let (board, silences, streams) = (Arc::default(), Arc::default(), Arc::new(Semaphore::new(MAX_STREAMS)));
        Shared { board, silences, orders, hosts, updates, streams, health, stop }
    }

    fn silences(&self) -> MutexGuard<'_, Silences> {
        self.silences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves the page until `stop`, and fills `recent` with the windows that it reads.
pub(crate) async fn run(
    config: &Config,
    recent: SharedRecent,
    health: Health,
    extra: Router,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let address = config.dashboard.listen;
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("listening at dashboard.listen `{address}`"))?;
    info!(url = format!("http://{}", listener.local_addr()?), "dashboard");
    let writer = Writer::new(&config.kafka)?;
    let (orders, ordered) = mpsc::channel(api::MAX_ORDERS);
    let shared = Shared::new(health, Hosts::of(&config.dashboard), orders, stop.clone());
    let reader = reader::spawn(&config.kafka, shared.clone(), recent)?;
    let serve = axum::serve(listener, router(shared.clone()).merge(extra))
        .with_graceful_shutdown(stop.clone().cancelled_owned());
    let bounded = async {
        tokio::select! {
            served = serve => served.context("serving the dashboard"),
            () = async { stop.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
        }
    };
    let (served, (), ()) = tokio::join!(bounded, flush(shared), api::write(writer, ordered, stop.clone()));
    // The thread looks at `stop` several times a second.
    if !matches!(tokio::task::spawn_blocking(move || reader.join()).await, Ok(Ok(()))) {
        warn!("the thread that reads for the dashboard panicked");
    }
    served
}

/// The page's routes.
fn router(shared: Shared) -> Router {
    let file = |kind: &'static str, text: &'static str| get(move || async move { page(kind, text) });
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("dashboard/page.html")))
        .route("/page.css", file("text/css; charset=utf-8", include_str!("dashboard/page.css")))
        .route("/icon.svg", file("image/svg+xml", include_str!("dashboard/icon.svg")))
        .route("/page.js", file("text/javascript; charset=utf-8", include_str!("dashboard/page.js")))
        .route("/api/stream", get(stream))
        .route("/api/alerts", get(async |State(shared): State<Shared>| Json(shared.board().alerts())))
        .route("/api/incidents", get(async |State(shared): State<Shared>| Json(shared.board().incidents())))
        .route("/api/windows", get(async |State(shared): State<Shared>| Json(shared.board().windows())))
        .merge(api::routes(shared.clone()))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(shared)
}

fn page(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, text).into_response()
}

/// Whether all parts can work; otherwise 503 and why not.
async fn ready(State(shared): State<Shared>) -> Response {
    let parts = shared.health.snapshot();
    let all_ready = !parts.is_empty() && parts.values().all(Result::is_ok);
    let of = |(part, state): (&'static str, Result<(), String>)| {
        let state = state.map_or_else(|why| json!({ "ready": false, "why": why }), |()| json!({ "ready": true }));
        (part.to_owned(), state)
    };
    let parts: serde_json::Map<String, Value> = parts.into_iter().map(of).collect();
    let status = if all_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": all_ready, "parts": parts }))).into_response()
}

/// Everything first, then changes.
async fn stream(State(shared): State<Shared>) -> Response {
    let Ok(permit) = Arc::clone(&shared.streams).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n").into_response();
    };
    // Subscribed before the snapshot is taken, so that nothing falls between the two.
    let updates = shared.updates.subscribe();
    let snapshot = shared.board().snapshot().to_string();
    let events = stream::once(async move { Ok(Event::default().event("snapshot").data(snapshot)) })
        .chain(changes(updates, permit))
        .take_until(shared.stop.clone().cancelled_owned());
    let buffering_off = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    ([buffering_off], Sse::new(events).keep_alive(KeepAlive::default())).into_response()
}

fn changes(
    updates: broadcast::Receiver<Arc<str>>,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((updates, permit), |(mut updates, permit)| async move {
        // An error: too far behind, or the end. Either way the browser connects again.
        let update = updates.recv().await.ok()?;
        Some((Ok(Event::default().event("update").data(&*update)), (updates, permit)))
    })
}

/// Sends what changed to all browsers, until it is told to stop.
async fn flush(shared: Shared) {
    let mut interval = tokio::time::interval(FLUSH);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = interval.tick() => {}
        }
        let changed = shared.board().take_changes();
        if let Some(changed) = changed {
            // An error means that no page is open.
            let _ = shared.updates.send(changed.to_string().into());
        }
    }
}

#[cfg(test)]
#[path = "dashboard/tests.rs"]
mod tests;

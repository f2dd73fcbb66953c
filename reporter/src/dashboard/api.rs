//! What people can change through the page: silences, and who has taken an incident. Every change is a command in `bongsu.commands`.
//!
//! The page has no log-in, so other sites must not be able to use it through somebody's browser:
//!
//! - C1: a request counts only if it names a host under which the page is known: a name that another site points at this address
//!   (DNS rebinding) is refused.
//! - C2: a request that a browser sends for another origin is refused: by `Origin`, by `Sec-Fetch-Site`, and because a body must be
//!   `application/json`, for which a browser asks first, and is given no answer that allows it.

use std::net::IpAddr;

use anyhow::Context;
use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use bongsu_schemas::command::{Command, Silence};
use chrono::{DateTime, SubsecRound, Utc};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{DRAIN, Shared};
use crate::commands::Writer;
use crate::config::Dashboard;
use crate::silences::{check, check_name, new_id};

const MAX_BODY_BYTES: usize = 16 * 1024;
/// Commands that wait for Kafka; more are refused.
pub(super) const MAX_ORDERS: usize = 16;
/// Who asked, where a request does not say.
const NOBODY_SAYS: &str = "dashboard";

/// A command on its way to Kafka.
pub(super) struct Order {
    pub(super) command: Command,
    pub(super) at: DateTime<Utc>,
    pub(super) done: oneshot::Sender<anyhow::Result<()>>,
}

/// Writes orders until `stop`.
pub(super) async fn write(writer: Writer, orders: mpsc::Receiver<Order>, stop: CancellationToken) {
    let writer = &writer;
    let all =
        ReceiverStream::new(orders).take_until(stop.cancelled()).for_each_concurrent(MAX_ORDERS, |order| async move {
            let Order { command, at, done } = order;
            // Who asked may have gone.
            let _ = done.send(writer.write(&command, at).await);
        });
    tokio::select! {
        () = all => {}
        () = async { stop.cancelled().await; tokio::time::sleep(DRAIN).await } => {}
    }
}

/// The routes, behind the guard.
pub(super) fn routes(shared: Shared) -> Router<Shared> {
    Router::new()
        .route("/api/silences", get(silences).post(silence))
        .route("/api/silences/{id}", delete(unsilence))
        .route("/api/incidents/{id}/acknowledge", post(acknowledge))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(shared, guard))
}

/// Why a request is refused.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    why: String,
}

fn refusal(status: StatusCode, why: impl Into<String>) -> Refusal {
    Refusal { status, why: why.into() }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.why }))).into_response()
    }
}

async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    match shared.hosts.judge(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// The hosts and the origin under which the page is known.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    listen: IpAddr,
    public_host: Option<String>,
    public_origin: Option<String>,
}

impl Hosts {
    pub(super) fn of(dashboard: &Dashboard) -> Hosts {
        let public = dashboard.public_url.as_ref().and_then(|url| url::Url::parse(url.as_str()).ok());
        Hosts {
            listen: dashboard.listen.ip(),
            public_host: public.as_ref().and_then(|url| url.host_str().map(str::to_owned)),
            public_origin: public.map(|url| url.origin().ascii_serialization()),
        }
    }

    /// C1 and C2.
    fn judge(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = match (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) {
            (Some(host), None) => host,
            _ => return Err(refusal(StatusCode::BAD_REQUEST, "the request needs one `Host` header")),
        };
        if !self.knows(host) {
            let remedy = "the page is not known under this host; set dashboard.public_url to the address at which people open it";
            return Err(refusal(StatusCode::FORBIDDEN, remedy));
        }
        let is_ours = |origin: &str| {
            let same_host = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
            // A proxy may put another host in the place of the public one.
            same_host || self.public_origin.as_deref().is_some_and(|public| public.eq_ignore_ascii_case(origin))
        };
        let mut origins = headers.get_all(header::ORIGIN).iter();
        if !origins.all(|origin| origin.to_str().is_ok_and(is_ours)) {
            return Err(refusal(StatusCode::FORBIDDEN, "another site's page must not ask for this"));
        }
        if *method == Method::GET || *method == Method::HEAD {
            return Ok(());
        }
        // Other pages of the same machine are of the same site as the loopback: they are refused, too.
        let is_own = |site: &str| matches!(site, "same-origin" | "none");
        if !headers.get_all("sec-fetch-site").iter().all(|site| site.to_str().is_ok_and(is_own)) {
            return Err(refusal(StatusCode::FORBIDDEN, "another site's page must not ask for this"));
        }
        if *method == Method::POST && !is_json(headers) {
            let why = "the body must be JSON, and say so: content-type: application/json";
            return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
        Ok(())
    }

    fn knows(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host();
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
        name.eq_ignore_ascii_case("localhost")
            || address.is_some_and(|address| address.is_loopback() || address == self.listen)
            || self.public_host.as_deref().is_some_and(|public| public.eq_ignore_ascii_case(name))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

async fn silences(State(shared): State<Shared>) -> Response {
    let now = Utc::now();
    let silences = shared.silences();
    Json(json!({ "silences": silences.silences(now) })).into_response()
}

async fn silence(State(shared): State<Shared>, body: Result<Bytes, BytesRejection>) -> Result<Response, Refusal> {
    let now = Utc::now();
    let silence = read_silence(parsed(body)?, now).map_err(|why| refusal(StatusCode::BAD_REQUEST, why))?;
    let id = silence.id.clone();
    order(&shared, Command::Silence(silence), now).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))).into_response())
}

/// A silence as the command has it, without `command` and `id`. It begins now where it does not say when.
fn read_silence(mut fields: Map<String, Value>, now: DateTime<Utc>) -> Result<Silence, String> {
    if let Some(name) = ["id", "command"].into_iter().find(|name| fields.contains_key(*name)) {
        return Err(format!("`{name}` must not be given"));
    }
    fields.insert("id".to_owned(), "not yet".into());
    fields.entry("by").or_insert_with(|| NOBODY_SAYS.into());
    fields.entry("from").or_insert_with(|| json!(now.trunc_subsecs(3)));
    let mut silence: Silence = serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())?;
    silence.id = new_id(now, &silence.by, &silence.matcher);
    check(&silence)?;
    Ok(silence)
}

async fn unsilence(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Response, Refusal> {
    if shared.silences().get(&id).is_none() {
        return Err(refusal(StatusCode::NOT_FOUND, "there is no silence of this id"));
    }
    order(&shared, Command::Unsilence { id, by: NOBODY_SAYS.to_owned() }, Utc::now()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The body of an acknowledgement.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    by: Option<String>,
}

async fn acknowledge(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let bad = |why: String| refusal(StatusCode::BAD_REQUEST, why);
    let Taken { by } = serde_json::from_value(Value::Object(parsed(body)?)).map_err(|error| bad(error.to_string()))?;
    let by = by.unwrap_or_else(|| NOBODY_SAYS.to_owned());
    check_name(&by).map_err(|problem| bad(format!("`by` {problem}")))?;
    if !shared.board().has_incident(&id) {
        return Err(refusal(StatusCode::NOT_FOUND, "there is no incident of this id on the page"));
    }
    order(&shared, Command::Acknowledge { incident_id: id.clone(), by: by.clone() }, Utc::now()).await?;
    // The reporter does it when it reads the command.
    Ok((StatusCode::ACCEPTED, Json(json!({ "incident_id": id, "by": by }))).into_response())
}

fn parsed(body: Result<Bytes, BytesRejection>) -> Result<Map<String, Value>, Refusal> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("the body may have {MAX_BODY_BYTES} bytes"))
        }
        status => refusal(status, rejection.body_text()),
    })?;
    let parsed = serde_json::from_slice(&body);
    parsed.map_err(|error| refusal(StatusCode::BAD_REQUEST, format!("the body must be a JSON object: {error}")))
}

/// Returns when Kafka has the command.
async fn order(shared: &Shared, command: Command, at: DateTime<Utc>) -> Result<(), Refusal> {
    let (done, outcome) = oneshot::channel();
    if shared.orders.try_send(Order { command, at, done }).is_err() {
        let why = "too many commands wait for Kafka; try again";
        return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, why));
    }
    let outcome = outcome.await.context("the process ends").flatten();
    outcome.map_err(|error| refusal(StatusCode::SERVICE_UNAVAILABLE, format!("it could not be written: {error:#}")))
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;

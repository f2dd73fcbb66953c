//! The HTTP side: bodies, tokens, faults, and Slack's way of saying no.

use std::{io, sync::Arc, time::Instant};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, RawQuery, State as Extract},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use serde_json::{Map, Value, json};

use super::{
    blocks,
    state::{Fault, Refusal, SlackMessage, State, TooQuick},
};
use crate::shared::Shared;

/// Slack's own limit of `text`.
const MAX_TEXT: usize = 40_000;
/// Slack's own limits of a page of messages, and what a page has that does not ask for less.
const MAX_HISTORY: usize = 999;
const DEFAULT_HISTORY: usize = 100;
const MAX_THREAD: usize = 1_000;

pub(super) fn router(state: Arc<Shared<State>>) -> Router {
    Router::new().route("/api/{method}", any(call)).with_state(state)
}

/// How a call can end short of an answer.
enum Trouble {
    Refused(Refusal),
    TooQuick(TooQuick),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Trouble {
        Trouble::Refused(refusal)
    }
}

impl From<&'static str> for Trouble {
    fn from(error: &'static str) -> Trouble {
        Trouble::Refused(Refusal::from(error))
    }
}

impl From<TooQuick> for Trouble {
    fn from(too_quick: TooQuick) -> Trouble {
        Trouble::TooQuick(too_quick)
    }
}

async fn call(
    Extract(state): Extract<Arc<Shared<State>>>,
    Path(method): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let fault = state.change(|state| state.count_call(&method, Instant::now()));
    match fault {
        Some(Fault::RateLimited { retry_after_secs }) => return rate_limited(retry_after_secs),
        Some(Fault::ServerError) => {
            return (StatusCode::SERVICE_UNAVAILABLE, "the service is unavailable").into_response();
        }
        Some(Fault::Outage) => return broken_connection(),
        Some(Fault::Refused { error }) => return axum::Json(json!({ "ok": false, "error": error })).into_response(),
        Some(Fault::DropAfterAccept) | None => {}
    }
    let arguments = arguments(&headers, query.as_deref(), &body);
    let outcome = state.change(|state| answer(state, &method, &headers, arguments));
    if fault == Some(Fault::DropAfterAccept) {
        return broken_connection();
    }
    match outcome {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(Trouble::TooQuick(TooQuick { retry_after_secs })) => rate_limited(retry_after_secs),
        Err(Trouble::Refused(Refusal { error, detail })) => {
            let mut answer = json!({ "ok": false, "error": error });
            if let Some(detail) = detail {
                answer["response_metadata"] = json!({ "messages": [format!("[ERROR] {detail}")] });
            }
            axum::Json(answer).into_response()
        }
    }
}

fn answer(
    state: &mut State,
    method: &str,
    headers: &HeaderMap,
    arguments: Result<Map<String, Value>, Refusal>,
) -> Result<Value, Trouble> {
    let token = bearer_token(headers).ok_or("not_authed")?;
    if state.options.token.as_deref().is_some_and(|expected| expected != token) {
        return Err("invalid_auth".into());
    }
    let arguments = arguments?;
    match method {
        "auth.test" => Ok(json!({
            "ok": true, "url": "https://stand-in.slack.com/", "team": "Stand-in", "user": "bongsu",
            "team_id": "T00000001", "user_id": "U00000001", "bot_id": "B00000001",
        })),
        "chat.postMessage" => post_message(state, &arguments),
        "chat.update" => update(state, &arguments),
        "conversations.history" => history(state, &arguments),
        "conversations.replies" => replies(state, &arguments),
        "conversations.list" => Ok(conversations(state)),
        _ => Err("unknown_method".into()),
    }
}

fn post_message(state: &mut State, arguments: &Map<String, Value>) -> Result<Value, Trouble> {
    let channel = text(arguments, "channel").ok_or("invalid_arguments")?;
    let (words, blocks) = content(arguments)?;
    let (id, name) = state.channel_to_post(channel)?;
    state.admit(&name, Instant::now())?;
    let message = state.post(name, text(arguments, "thread_ts"), words, blocks)?;
    Ok(json!({ "ok": true, "channel": id, "ts": message.ts, "message": wire(&message) }))
}

fn update(state: &mut State, arguments: &Map<String, Value>) -> Result<Value, Trouble> {
    let id = text(arguments, "channel").ok_or("invalid_arguments")?;
    let ts = text(arguments, "ts").ok_or("invalid_arguments")?;
    let (words, blocks) = content(arguments)?;
    let channel = state.channel_of_id(id).ok_or("channel_not_found")?.to_owned();
    state.update(&channel, ts, words.clone(), blocks.clone())?;
    let message =
        json!({ "type": "message", "text": words, "blocks": blocks, "user": "U00000001", "bot_id": "B00000001" });
    Ok(json!({ "ok": true, "channel": id, "ts": ts, "text": words, "message": message }))
}

/// Newest first, without the replies in threads. `latest` and `oldest` bound it, themselves left out unless `inclusive`.
fn history(state: &State, arguments: &Map<String, Value>) -> Result<Value, Trouble> {
    let id = text(arguments, "channel").ok_or("invalid_arguments")?;
    state.channel_of_id(id).ok_or("channel_not_found")?;
    let messages = state.messages_of(id);
    let (wanted, before) = (Range::of(arguments), cursor(arguments)?);
    let is_asked_for = |message: &&SlackMessage| {
        let ts = micros(&message.ts);
        wanted.contains(ts) && before.is_none_or(|before| ts < before)
    };
    let found: Vec<&SlackMessage> = messages.iter().rev().filter(is_asked_for).collect();
    Ok(page(&found, limit(arguments, DEFAULT_HISTORY, MAX_HISTORY)))
}

/// A thread: the message that began it on every page, then the replies, oldest first.
fn replies(state: &State, arguments: &Map<String, Value>) -> Result<Value, Trouble> {
    let id = text(arguments, "channel").ok_or("invalid_arguments")?;
    let ts = text(arguments, "ts").ok_or("invalid_arguments")?;
    let channel = state.channel_of_id(id).ok_or("channel_not_found")?;
    let parent = state.thread(channel, ts).ok_or("thread_not_found")?;
    let (wanted, after) = (Range::of(arguments), cursor(arguments)?);
    let is_asked_for = |message: &&SlackMessage| {
        let ts = micros(&message.ts);
        wanted.contains(ts) && after.is_none_or(|after| ts > after)
    };
    let found: Vec<&SlackMessage> = parent.replies.iter().filter(is_asked_for).collect();
    let mut answer = page(&found, limit(arguments, MAX_THREAD, MAX_THREAD));
    if let Some(messages) = answer["messages"].as_array_mut() {
        messages.insert(0, wire(parent));
    }
    Ok(answer)
}

/// The first `limit` messages, and where to go on.
fn page(found: &[&SlackMessage], limit: usize) -> Value {
    let page: Vec<Value> = found.iter().take(limit).map(|message| wire(message)).collect();
    let has_more = found.len() > page.len();
    let next = found.get(limit - 1).filter(|_| has_more).map(|last| format!("ts:{}", last.ts)).unwrap_or_default();
    json!({ "ok": true, "has_more": has_more, "messages": page, "response_metadata": { "next_cursor": next } })
}

fn limit(arguments: &Map<String, Value>, default: usize, most: usize) -> usize {
    let limit = match arguments.get("limit") {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    limit.map_or(default, |limit| limit as usize).clamp(1, most)
}

/// The `ts` of the last message of the page before, in microseconds.
fn cursor(arguments: &Map<String, Value>) -> Result<Option<u64>, Trouble> {
    let Some(cursor) = text(arguments, "cursor") else { return Ok(None) };
    Ok(Some(micros(cursor.strip_prefix("ts:").ok_or("invalid_cursor")?)))
}

/// Which messages are asked for, by `ts` in microseconds.
struct Range {
    oldest: Option<u64>,
    latest: Option<u64>,
    is_inclusive: bool,
}

impl Range {
    fn of(arguments: &Map<String, Value>) -> Range {
        let is_inclusive =
            arguments.get("inclusive").is_some_and(|value| value == true || value == "true" || value == "1");
        let at = |name: &str| text(arguments, name).map(micros);
        Range { oldest: at("oldest"), latest: at("latest"), is_inclusive }
    }

    fn contains(&self, ts: u64) -> bool {
        let after = self.oldest.is_none_or(|oldest| ts > oldest || (self.is_inclusive && ts == oldest));
        let before = self.latest.is_none_or(|latest| ts < latest || (self.is_inclusive && ts == latest));
        after && before
    }
}

fn conversations(state: &State) -> Value {
    let channels = state.channels().iter().map(
        |(name, id)| json!({ "id": id, "name": name, "is_channel": true, "is_archived": false, "is_member": true }),
    );
    json!({ "ok": true, "channels": channels.collect::<Vec<_>>(), "response_metadata": { "next_cursor": "" } })
}

fn wire(message: &SlackMessage) -> Value {
    let mut wire = json!({
        "type": "message", "ts": message.ts, "text": message.text, "blocks": message.blocks,
        "user": "U00000001", "bot_id": "B00000001",
    });
    if let Some(thread_ts) = &message.thread_ts {
        wire["thread_ts"] = json!(thread_ts);
        wire["parent_user_id"] = json!("U00000001");
    }
    if let Some(last) = message.replies.last() {
        wire["thread_ts"] = json!(message.ts);
        wire["reply_count"] = json!(message.replies.len());
        wire["latest_reply"] = json!(last.ts);
    }
    if message.edits > 0 {
        wire["edited"] = json!({ "user": "U00000001", "ts": message.ts });
    }
    wire
}

/// Text and blocks of a message, checked as Slack checks them.
fn content(arguments: &Map<String, Value>) -> Result<(String, Vec<Value>), Trouble> {
    let words = text(arguments, "text").unwrap_or_default().to_owned();
    let blocks = match arguments.get("blocks") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(blocks)) => blocks.clone(),
        // In a form they come as text.
        Some(Value::String(json)) => serde_json::from_str(json).map_err(|_| "invalid_blocks_format")?,
        Some(_) => return Err("invalid_blocks_format".into()),
    };
    if words.is_empty() && blocks.is_empty() {
        return Err("no_text".into());
    }
    if words.chars().count() > MAX_TEXT {
        return Err("msg_too_long".into());
    }
    blocks::check(&blocks).map_err(|problem| Refusal { error: "invalid_blocks", detail: Some(problem) })?;
    Ok((words, blocks))
}

/// Arguments from the query, and from the body as JSON or form.
fn arguments(headers: &HeaderMap, query: Option<&str>, body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut arguments = form(query.unwrap_or_default().as_bytes());
    if content_type.starts_with("application/json") {
        arguments.extend(serde_json::from_slice::<Map<String, Value>>(body).map_err(|_| "invalid_json")?);
    } else if content_type.starts_with("application/x-www-form-urlencoded") {
        arguments.extend(form(body));
    } else if !body.is_empty() {
        return Err(Refusal::from("invalid_post_type"));
    }
    Ok(arguments)
}

fn form(encoded: &[u8]) -> Map<String, Value> {
    let pairs = encoded.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let split = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let value = pair.get(split + 1..).unwrap_or_default();
            (percent_decoded(&pair[..split]), Value::String(percent_decoded(value)))
        })
        .collect()
}

fn percent_decoded(encoded: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((first, tail)) = rest.split_first() {
        let hex = || u8::from_str_radix(std::str::from_utf8(tail.get(..2)?).ok()?, 16).ok();
        match (first, hex()) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            (byte, _) => {
                decoded.push(if *byte == b'+' { b' ' } else { *byte });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?.trim();
    (!token.is_empty()).then_some(token)
}

fn text<'a>(arguments: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    arguments.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// A `ts` as microseconds; text that is none sorts first.
fn micros(ts: &str) -> u64 {
    let (seconds, fraction) = ts.split_once('.').unwrap_or((ts, "0"));
    let fraction = format!("{fraction:0<6.6}");
    let micros = |text: &str| text.parse::<u64>().unwrap_or_default();
    micros(seconds).saturating_mul(1_000_000).saturating_add(micros(&fraction))
}

fn rate_limited(retry_after_secs: u64) -> Response {
    let headers = [(header::RETRY_AFTER, retry_after_secs.to_string())];
    let answer = json!({ "ok": false, "error": "ratelimited" });
    (StatusCode::TOO_MANY_REQUESTS, headers, axum::Json(answer)).into_response()
}

/// An answer whose body fails at once, upon which the server closes the connection in the middle of it.
fn broken_connection() -> Response {
    let failure = futures::stream::once(async { Err::<Bytes, _>(io::Error::other("the connection breaks on demand")) });
    let mut response = Response::new(Body::from_stream(failure));
    response.headers_mut().insert(header::CONTENT_LENGTH, header::HeaderValue::from_static("1000"));
    response
}

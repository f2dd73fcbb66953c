//! Slack's Web API, as a bot that posts messages sees it.
//!
//! It refuses what Slack refuses: messages without a token, over a limit, to a channel that is not there, or too quick. Like Slack,
//! `chat.postMessage` takes a channel's name or id, but `chat.update`, `conversations.history` and `conversations.replies` know ids only.
//! A reply in a thread belongs to its message, and is not in the channel's history.

mod api;
mod blocks;
mod state;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use axum::{Json, Router, routing::get};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::state::State;
pub use self::state::{Fault, SlackMessage};
use crate::{page, shared::Shared};

/// How strict the stand-in is.
#[derive(Debug, Clone, Default)]
pub struct SlackOptions {
    /// Port on loopback; 0 takes a free one.
    pub port: u16,
    /// The only token that is accepted; without it, any.
    pub token: Option<String>,
    /// The channels that exist, without `#`; without it, a channel comes into being with its first message.
    pub channels: Option<BTreeSet<String>>,
    /// At most one message per second and channel, as in Slack.
    pub one_per_second: bool,
}

/// A running stand-in. Clones share it; it ends with the last of them.
#[derive(Debug, Clone)]
pub struct SlackStandIn {
    address: SocketAddr,
    state: Arc<Shared<State>>,
    _server: Arc<DropGuard>,
}

impl SlackStandIn {
    /// Listens, and answers until the last clone is dropped.
    pub async fn start(options: SlackOptions) -> anyhow::Result<SlackStandIn> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await.context("starting the Slack stand-in")?;
        let address = listener.local_addr()?;
        let state = Arc::new(Shared::new(State::new(options)));
        let stop = CancellationToken::new();
        let server =
            axum::serve(listener, api::router(state.clone())).with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::warn!(%error, "the Slack stand-in ended");
            }
        });
        Ok(SlackStandIn { address, state, _server: Arc::new(stop.drop_guard()) })
    }

    /// What the configuration's `slack.api_url` has to be.
    pub fn api_url(&self) -> String {
        format!("http://{}/api", self.address)
    }

    /// The messages of a channel as they are now, oldest first. `channel` is a name, with or without `#`, or an id.
    pub fn messages(&self, channel: &str) -> Vec<SlackMessage> {
        self.state.read().messages_of(channel)
    }

    /// The messages of all channels, oldest first.
    pub fn all_messages(&self) -> Vec<SlackMessage> {
        self.state.read().messages().to_vec()
    }

    /// How often an API method, such as `chat.update`, has been called, refusals and faults included.
    pub fn calls(&self, method: &str) -> u64 {
        self.state.read().calls(method)
    }

    /// The next `count` calls fail like this. Faults queue up.
    pub fn fail_next(&self, count: usize, fault: Fault) {
        self.state.change(|state| state.fail_next(count, fault));
    }

    /// All calls fail like this until `length` has passed.
    pub fn fail_for(&self, length: Duration, fault: Fault) {
        self.state.change(|state| state.fail_until(Instant::now() + length, fault));
    }

    /// All messages, once `predicate` is content with them; an error that shows them when `deadline` has passed.
    pub async fn wait_for(
        &self,
        mut predicate: impl FnMut(&[SlackMessage]) -> bool,
        deadline: Duration,
    ) -> anyhow::Result<Vec<SlackMessage>> {
        let look = |state: &State| predicate(state.messages()).then(|| state.messages().to_vec());
        let found = self.state.wait(look, deadline).await;
        found.with_context(|| format!("{deadline:?} passed; the Slack stand-in has {:#?}", self.all_messages()))
    }

    /// A page that shows the channels, at `prefix` (such as `/demo/slack`), and the same as JSON at `prefix/messages.json`.
    pub fn router(&self, prefix: &str) -> Router {
        let html = include_str!("page/slack.html").replace("{prefix}", prefix);
        let state = self.state.clone();
        Router::new()
            .route(prefix, get(async move || page::html(html.clone())))
            .route(&format!("{prefix}/page.js"), get(async || page::script(include_str!("page/slack.js"))))
            .route(&format!("{prefix}/page.css"), get(async || page::style()))
            .route(
                &format!("{prefix}/messages.json"),
                get(async move || Json(json!({ "channels": state.read().by_channel() }))),
            )
    }
}

//! An SMTP server that keeps what it receives.

mod smtp;
mod state;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::{
    Json, Router,
    extract::Path,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::state::{Mail, MailFault};
use self::{smtp::Session, state::State};
use crate::{page, shared::Shared};

const MAX_CONNECTIONS: usize = 64;
/// RFC 5321, 4.5.3.2.7
const IDLE_LIMIT: Duration = Duration::from_secs(300);

/// A running stand-in. Clones share it; it ends with the last of them.
#[derive(Debug, Clone)]
pub struct MailStandIn {
    address: SocketAddr,
    state: Arc<Shared<State>>,
    _server: Arc<DropGuard>,
}

impl MailStandIn {
    /// Listens on loopback at `port` (0 takes a free one), until the last clone is dropped.
    pub async fn start(port: u16) -> anyhow::Result<MailStandIn> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.context("starting the mail stand-in")?;
        let address = listener.local_addr()?;
        let state = Arc::new(Shared::new(State::default()));
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(serve(listener, state.clone())));
        Ok(MailStandIn { address, state, _server: Arc::new(stop.drop_guard()) })
    }

    /// What the configuration's `smtp.url` has to be.
    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All mails, oldest first.
    pub fn messages(&self) -> Vec<Mail> {
        self.state.read().mails().to_vec()
    }

    /// The next `count` mails fail like this. Faults queue up.
    pub fn fail_next(&self, count: usize, fault: MailFault) {
        self.state.change(|state| state.fail_next(count, fault));
    }

    /// Refuses a recipient for good (550).
    pub fn refuse(&self, recipient: &str) {
        self.state.change(|state| state.refuse(recipient));
    }

    /// All mails, once `predicate` is content with them; an error that lists them when `deadline` has passed.
    pub async fn wait_for(
        &self,
        mut predicate: impl FnMut(&[Mail]) -> bool,
        deadline: Duration,
    ) -> anyhow::Result<Vec<Mail>> {
        let look = |state: &State| predicate(state.mails()).then(|| state.mails().to_vec());
        let subjects = || self.messages().into_iter().map(|mail| (mail.to, mail.subject)).collect::<Vec<_>>();
        let found = self.state.wait(look, deadline).await;
        found.with_context(|| format!("{deadline:?} passed; the mail stand-in has {:#?}", subjects()))
    }

    /// A page that shows the mails, at `prefix` (such as `/demo/mail`), and the same as JSON at `prefix/messages.json`.
    pub fn router(&self, prefix: &str) -> Router {
        let html = include_str!("page/mail.html").replace("{prefix}", prefix);
        let (listed, opened) = (self.state.clone(), self.state.clone());
        Router::new()
            .route(prefix, get(async move || page::html(html.clone())))
            .route(&format!("{prefix}/page.js"), get(async || page::script(include_str!("page/mail.js"))))
            .route(&format!("{prefix}/page.css"), get(async || page::style()))
            .route(
                &format!("{prefix}/messages.json"),
                get(async move || Json(json!({ "mails": listed.read().mails() }))),
            )
            .route(
                &format!("{prefix}/{{file}}"),
                get(async move |Path(file): Path<String>| html_of(&opened.read(), &file)),
            )
    }
}

/// The HTML of one mail: `7.html` is that of mail number 7.
fn html_of(state: &State, file: &str) -> Response {
    let number: Option<u64> = file.strip_suffix(".html").and_then(|number| number.parse().ok());
    let mail = state.mails().iter().find(|mail| Some(mail.number) == number);
    match mail.and_then(|mail| mail.html.clone()) {
        Some(html) => page::foreign_html(html),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn serve(listener: TcpListener, state: Arc<Shared<State>>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Dropped with this future: connections end with their server.
    let mut connections = JoinSet::new();
    while let Ok(place) = places.clone().acquire_owned().await {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = state.clone();
                connections.spawn(async move {
                    if let Err(error) = converse(stream, &state).await {
                        tracing::debug!(%error, "a connection to the mail stand-in broke");
                    }
                    drop(place);
                });
            }
            // Out of file descriptors, or a client that left already; the pause keeps the first from spinning.
            Err(error) => {
                tracing::warn!(%error, "the mail stand-in cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One connection, from greeting to QUIT.
async fn converse(mut stream: TcpStream, state: &Shared<State>) -> anyhow::Result<()> {
    let mut session = Session::new();
    stream.write_all(smtp::GREETING.as_bytes()).await?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::time::timeout(IDLE_LIMIT, stream.read(&mut buffer)).await.context("idle for too long")??;
        if read == 0 {
            return Ok(());
        }
        let outcome = state.change(|state| session.feed(&buffer[..read], state));
        stream.write_all(&outcome.replies).await?;
        if outcome.close {
            return Ok(());
        }
    }
}

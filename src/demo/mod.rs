//! `bongsu demo`: the main job in one process, with nothing installed.
//!
//! ```text
//! shop ─► embedded broker ─► processor ─► reporter ─► Slack stand-in, mail stand-in
//!  └ an issuer fails after 20 s                └► page  ◄── both shown at /demo/slack and /demo/mail
//! ```
//!
//! Processor, reporter and configuration are those of `bongsu run`; shop, broker, Slack and mail server are stand-ins.

mod broker;
mod narrator;
mod outage;
mod random;
mod shop;
mod traffic;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use axum::Router;
use bongsu_schemas::health::Health;
use bongsu_schemas::topics::Topics;
use bongsu_stand_ins::{MailStandIn, SlackOptions, SlackStandIn};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::broker::Broker;
use self::shop::Shop;
use crate::config::{self, Config};
use crate::output;

/// How long everything may take to end.
const DRAIN: Duration = Duration::from_secs(5);

const CONFIG: &str = include_str!("bongsu.yaml");

/// What can be chosen.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Address of the page.
    pub(crate) listen: SocketAddr,
    /// Decides what the shop sells.
    pub(crate) seed: u64,
    /// Ends the demo by itself.
    pub(crate) stop_after: Option<Duration>,
}

/// Runs the demo until `shutdown`. `extra` routes are served beside the page's own.
pub(crate) async fn run(options: Options, extra: Router, shutdown: CancellationToken) -> anyhow::Result<()> {
    let started = Instant::now();
    let listen = with_port(options.listen)?;
    let folder =
        tempfile::Builder::new().prefix("bongsu-demo-").tempdir().context("making a folder for the history")?;
    let broker = Broker::start(topics()).await?;
    let slack = SlackStandIn::start(SlackOptions { one_per_second: true, ..SlackOptions::default() }).await?;
    let mail = MailStandIn::start(0).await?;
    let config = config_text(broker.bootstrap(), &slack.api_url(), &mail.url(), listen);
    let config = config::from_text("demo", &config, folder.path())?;
    let shop = Shop::new(options.seed);
    let victim = shop.victim();

    let extra = extra.merge(slack.router("/demo/slack")).merge(mail.router("/demo/mail"));
    let mut parts = start(config, extra, &shutdown);
    let traffic = traffic::run(broker.bootstrap().to_owned(), shop, started, shutdown.clone());
    parts.spawn(async { ("shop", traffic.await) });
    welcome(listen, victim)?;
    let narrator = narrator::run(started, victim, slack, mail, shutdown.clone());
    parts.spawn(async { ("narrator", narrator.await) });

    let result = until_the_end(&mut parts, options.stop_after, &shutdown).await;
    shutdown.cancel();
    let drained = tokio::time::timeout(DRAIN, async { while parts.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(unfinished = parts.len(), "not everything ended within {DRAIN:?}, leaving it");
    }
    result
}

type Parts = JoinSet<(&'static str, anyhow::Result<()>)>;

/// Processor and reporter, as `bongsu run` starts them.
fn start(config: Config, extra: Router, shutdown: &CancellationToken) -> Parts {
    let health = Health::default();
    let mut parts = Parts::new();
    let reporter = bongsu_reporter::run(config.reporter(), health.clone(), extra, shutdown.clone());
    parts.spawn(async { ("reporter", reporter.await) });
    let processor = bongsu_processor::run(config.processor(), health, shutdown.clone());
    parts.spawn(async { ("processor", processor.await) });
    parts
}

/// Waits for a signal, the time set, or a part that ends before either.
async fn until_the_end(
    parts: &mut Parts,
    stop_after: Option<Duration>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let time_is_up = async {
        match stop_after {
            Some(stop_after) => tokio::time::sleep(stop_after).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        () = time_is_up => Ok(()),
        Some(joined) = parts.join_next() => {
            let (part, result) = joined.context("a part of the demo ended abnormally")?;
            result.with_context(|| format!("in the {part}"))?;
            if shutdown.is_cancelled() { Ok(()) } else { Err(anyhow!("the {part} ended although nobody asked it to")) }
        }
    }
}

fn welcome(listen: SocketAddr, victim: &str) -> anyhow::Result<()> {
    output::print(&format!(
        "A shop of eight services is selling; every request, payment, exception and metric goes through an embedded Kafka.\n\
         In {} seconds a card issuer, {victim}, will fail. Watch it being noticed:\n\n    \
         the page          http://{listen}/\n    \
         Slack's channels  http://{listen}/demo/slack\n    \
         the mailboxes     http://{listen}/demo/mail\n\n\
         Ctrl-C ends it.\n",
        outage::FIRST.as_secs()
    ))?;
    Ok(())
}

/// The configuration with this run's addresses.
fn config_text(brokers: &str, slack: &str, smtp: &str, listen: SocketAddr) -> String {
    let values = [("{brokers}", brokers), ("{slack}", slack), ("{smtp}", smtp), ("{listen}", &listen.to_string())];
    values.into_iter().fold(CONFIG.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// The shop's topics and Bongsu's own: the embedded broker cannot be asked to create any.
fn topics() -> Vec<(String, i32)> {
    let shop = traffic::TOPICS.map(|name| (name.to_owned(), traffic::PARTITIONS));
    let own = Topics::new("bongsu").specs().into_iter().map(|spec| (spec.name, spec.partitions));
    shop.into_iter().chain(own).collect()
}

/// A free port in the place of port 0, as the page's address must be known before it is served.
fn with_port(listen: SocketAddr) -> anyhow::Result<SocketAddr> {
    if listen.port() != 0 {
        return Ok(listen);
    }
    let probe = TcpListener::bind(listen).with_context(|| format!("looking for a free port at {listen}"))?;
    Ok(probe.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantees: the demo's configuration is one that `bongsu check` would take, with the shop's rule in the built-in one's place.
    #[test]
    fn the_configuration_is_sound() {
        let listen = SocketAddr::from(([127, 0, 0, 1], 7070));
        let text = config_text("127.0.0.1:9092", "http://127.0.0.1:1/api", "smtp://127.0.0.1:2", listen);
        let config = config::from_text("demo", &text, std::path::Path::new("/tmp")).unwrap();
        assert_eq!(config.warnings, Vec::<String>::new());
        assert_eq!(config.rules.iter().filter(|rule| rule.name == "issuer-failing").count(), 1);
        let mistakes = bongsu_processor::validate(&config.processor());
        assert!(mistakes.is_empty(), "{mistakes:?}");
    }
}

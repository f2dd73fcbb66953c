//! The reporter: alerts in; Slack messages, webhooks, e-mail, weekly reports and the dashboard out.
//!
//! In reading order:
//!
//! - [`config`]: its sections of the configuration;
//! - `pipeline`: from `bongsu.alerts` to people, on one screen;
//! - [`incidents`], `acknowledgements`, [`routing`], [`silences`], [`slack::message`]: which alerts belong together, who has taken them, who is
//!   told, and in which words (pure);
//! - `telling`, `notification`, `pacing`, [`recent`]: what each channel is to have, how often it may change, and what happened around an alert
//!   (pure);
//! - `feed`, `follower`, `call_feed`, [`commands`], `delivery`, `ledger`, `slack::client`, `mail`: the shell around them;
//! - `webhook`: incidents by HTTP, to whoever is configured, and to Alertmanager;
//! - [`weekly`]: the weekly exception report;
//! - [`explain`](mod@explain): all that the topics say of one alert;
//! - [`dashboard`]: the page.

mod acknowledgements;
mod call_feed;
pub mod commands;
pub mod config;
pub mod dashboard;
mod delivery;
mod error;
mod events;
pub mod explain;
mod feed;
mod follower;
mod history;
mod https;
pub mod incidents;
mod kafka;
mod ledger;
mod mail;
mod notification;
mod pacing;
mod pipeline;
pub mod recent;
pub mod routing;
pub mod silences;
pub mod slack;
mod telling;
mod webhook;
pub mod weekly;

use std::sync::Arc;

use bongsu_schemas::health::Health;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::recent::SharedRecent;

/// Whether the environment has the secrets that the configuration names in it.
pub fn check_environment(config: &Config) -> anyhow::Result<()> {
    let environment = |name: &str| std::env::var(name).ok();
    if let Some(slack) = &config.slack {
        slack::client::Client::new(slack, environment)?;
    }
    if let Some(smtp) = &config.smtp {
        mail::Mailer::new(smtp, environment)?;
    }
    webhook::endpoints(&config.webhooks, environment).map(|_| ())
}

/// Runs the reporter until `shutdown`, and ends within five seconds of it.
///
/// `extra` routes are served beside the dashboard's own.
pub async fn run(
    config: Config,
    health: Health,
    extra: axum::Router,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let config = Arc::new(config);
    // The page's thread reads the windows, also for what messages say about an alert.
    let recent = SharedRecent::default();
    // Whichever part fails takes the other one with it; both see the caller's shutdown.
    let stop = shutdown.child_token();
    let pipeline = async {
        let ended = pipeline::run(Arc::clone(&config), recent.clone(), health.clone(), stop.clone()).await;
        stop.cancel();
        ended
    };
    let dashboard = async {
        let ended = dashboard::run(&config, recent.clone(), health.clone(), extra, stop.clone()).await;
        stop.cancel();
        ended
    };
    let (pipeline, dashboard) = tokio::join!(pipeline, dashboard);
    pipeline.and(dashboard)
}

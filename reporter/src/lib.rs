//! The reporter: alerts in; Slack messages, e-mail, weekly reports and the dashboard out.

pub mod config;
mod history;
pub mod incidents;
pub mod routing;
pub mod slack;
pub mod weekly;

use bongsu_schemas::health::Health;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Runs the reporter until `shutdown`, and ends within five seconds of it.
///
/// `extra` routes are served beside the dashboard's own.
pub async fn run(
    config: Config,
    health: Health,
    extra: axum::Router,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let _ = (config, health, extra);
    shutdown.cancelled().await;
    Ok(())
}

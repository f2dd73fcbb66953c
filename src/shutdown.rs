//! SIGTERM and Ctrl-C: both cancel one token.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that the first SIGTERM or SIGINT cancels.
pub(crate) fn on_signal() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("while listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("while listening for Ctrl-C")?;
    let cancelled = token.clone();
    // Ends with the runtime: it holds nothing but the token.
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM received, draining"),
            _ = interrupt.recv() => tracing::info!("Ctrl-C received, draining"),
        }
        cancelled.cancel();
    });
    Ok(token)
}

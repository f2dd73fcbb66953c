//! Prometheus metrics, and the small server of a process that has no dashboard.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bongsu_schemas::health::Health;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How often the recorder drops what it no longer needs.
const UPKEEP: Duration = Duration::from_secs(5);

/// Installs the recorder that all of this process's metrics go to.
pub(super) fn install() -> anyhow::Result<PrometheusHandle> {
    PrometheusBuilder::new().install_recorder().context("while installing the metrics recorder")
}

/// Keeps the recorder's memory bounded until `shutdown`.
pub(super) async fn upkeep(metrics: PrometheusHandle, shutdown: CancellationToken) -> anyhow::Result<()> {
    while shutdown.run_until_cancelled(tokio::time::sleep(UPKEEP)).await.is_some() {
        metrics.run_upkeep();
    }
    Ok(())
}

/// `/metrics`.
pub(super) fn routes(metrics: PrometheusHandle) -> Router {
    const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
    Router::new()
        .route("/metrics", get(move || async move { ([(header::CONTENT_TYPE, TEXT_FORMAT)], metrics.render()) }))
}

/// Serves `/metrics`, `/healthz` and `/readyz` until `shutdown`.
pub(super) async fn serve(
    listen: SocketAddr,
    metrics: PrometheusHandle,
    health: Health,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let ready = move || async move { readiness(&health) };
    let router = routes(metrics).route("/healthz", get(|| async { "alive\n" })).route("/readyz", get(ready));
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("while listening on {listen} (dashboard.listen)"))?;
    tracing::info!(%listen, "serving /metrics, /healthz and /readyz");
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .context("while serving /metrics")
}

fn readiness(health: &Health) -> Response {
    let parts = health.snapshot();
    let ready = !parts.is_empty() && parts.values().all(Result::is_ok);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let line = |(part, state): (&&str, &Result<(), String>)| match state {
        Ok(()) => format!("{part}: ready\n"),
        Err(why) => format!("{part}: {why}\n"),
    };
    (status, parts.iter().map(line).collect::<String>()).into_response()
}

//! `bongsu demo`: see [`crate::demo`].

use bongsu_schemas::duration::Span;
use tokio_util::sync::CancellationToken;

use super::metrics;
use crate::cli::Demo;
use crate::demo::{self, Options};
use crate::failure::Failure;

pub(super) async fn run(options: Demo, shutdown: CancellationToken) -> Result<(), Failure> {
    let Demo { listen, seed, stop_after } = options;
    let options = Options { listen, seed, stop_after: stop_after.map(Span::duration) };
    let recorder = metrics::install()?;
    let upkeep = tokio::spawn(metrics::upkeep(recorder.clone(), shutdown.clone()));
    let result = demo::run(options, metrics::routes(recorder), shutdown.clone()).await;
    shutdown.cancel();
    upkeep.await.map_err(anyhow::Error::new)??;
    result.map_err(Failure::Runtime)
}

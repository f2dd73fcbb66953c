//! TLS for all that is written to by HTTP.

use anyhow::Context;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;

/// HTTP/1 over TLS, with the system's root certificates. It refuses plain HTTP.
pub(crate) fn https_connector() -> anyhow::Result<HttpsConnector<HttpConnector>> {
    let roots = HttpsConnectorBuilder::new().with_native_roots().context("reading the system's root certificates")?;
    Ok(roots.https_only().enable_http1().build())
}

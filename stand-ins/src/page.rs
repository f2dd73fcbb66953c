//! What the stand-ins' pages share: static files with headers that let nothing hostile in a message run.

use axum::{
    http::{HeaderName, header},
    response::{IntoResponse, Response},
};

/// Scripts, styles and frames from this server only.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'";

pub(crate) const STYLE: &str = include_str!("page/page.css");

pub(crate) fn html(text: String) -> Response {
    with_headers("text/html; charset=utf-8", POLICY, text)
}

pub(crate) fn script(text: &'static str) -> Response {
    with_headers("text/javascript; charset=utf-8", POLICY, text.to_owned())
}

pub(crate) fn style() -> Response {
    with_headers("text/css; charset=utf-8", POLICY, STYLE.to_owned())
}

/// A mail's own HTML: its inline styles, but neither scripts nor anything from elsewhere.
pub(crate) fn foreign_html(text: String) -> Response {
    with_headers("text/html; charset=utf-8", "default-src 'none'; style-src 'unsafe-inline'; sandbox", text)
}

fn with_headers(content_type: &'static str, policy: &'static str, text: String) -> Response {
    let headers: [(HeaderName, &str); 4] = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, text).into_response()
}

use bongsu_schemas::alert::AlertStatus;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::config::Dashboard;
use crate::incidents::tests::alert;

/// A page that listens on the loopback, without anybody who would write its commands.
fn shared(stop: CancellationToken) -> Shared {
    Shared::new(Health::default(), Hosts::of(&Dashboard::default()), mpsc::channel(1).0, stop)
}

/// The router behind a socket of its own.
pub(super) async fn serve(shared: Shared) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router(shared)).await });
    address
}

async fn request(address: std::net::SocketAddr, path: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    connection
}

async fn get_text(address: std::net::SocketAddr, path: &str) -> String {
    let mut text = String::new();
    request(address, path).await.read_to_string(&mut text).await.unwrap();
    text
}

/// Reads until `wanted` has come.
async fn read_until(connection: &mut TcpStream, wanted: &str) -> String {
    let mut text = Vec::new();
    let all = async {
        while !String::from_utf8_lossy(&text).contains(wanted) {
            assert_ne!(connection.read_buf(&mut text).await.unwrap(), 0, "{}", String::from_utf8_lossy(&text));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
    String::from_utf8(text).unwrap()
}

/// Scenario: no part, a part that works, one that does not.
/// Guarantees: /readyz says who cannot work and why, with 503; /healthz says that the process lives.
#[tokio::test]
async fn health() {
    let shared = shared(CancellationToken::new());
    let address = serve(shared.clone()).await;
    assert!(get_text(address, "/readyz").await.starts_with("HTTP/1.1 503"));
    shared.health.ready("reporter");
    assert!(get_text(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    shared.health.not_ready("processor", "no broker");
    let text = get_text(address, "/readyz").await;
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("no broker"), "{text}");
    assert!(get_text(address, "/healthz").await.starts_with("HTTP/1.1 200"));
}

/// Guarantees: the page and its parts are served with a policy that lets no other script run.
#[tokio::test]
async fn the_page_is_locked_down() {
    let address = serve(shared(CancellationToken::new())).await;
    for path in ["/", "/page.css", "/page.js", "/icon.svg"] {
        let text = get_text(address, path).await;
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("script-src 'self'"), "{path}");
    }
    let html = include_str!("page.html");
    assert!(!html.contains("<style") && !html.contains(" style=") && !html.contains("onclick"));
    assert!(!include_str!("page.js").contains("innerHTML"));
}

/// Scenario: a page is open when an alert comes, and when the process ends.
/// Guarantees: everything first, then the change; the stream ends with the process.
#[tokio::test]
async fn changes_are_streamed() {
    let stop = CancellationToken::new();
    let shared = shared(stop.clone());
    shared.board().alert(alert("before", Some("order"), AlertStatus::Firing, 1));
    let address = serve(shared.clone()).await;
    let flusher = tokio::spawn(flush(shared.clone()));
    let mut connection = request(address, "/api/stream").await;
    let text = read_until(&mut connection, "\n\n").await;
    assert!(
        text.contains("event: snapshot") || read_until(&mut connection, "event: snapshot").await.contains("snapshot")
    );
    shared.board().alert(alert("after", Some("order"), AlertStatus::Firing, 2));
    read_until(&mut connection, "after summary").await;
    stop.cancel();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), connection.read_to_end(&mut rest)).await.unwrap().unwrap();
    flusher.await.unwrap();
    assert!(get_text(address, "/api/alerts").await.contains("before summary"));
}

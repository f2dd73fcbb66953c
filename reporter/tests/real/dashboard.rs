use std::net::{SocketAddr, TcpListener};

use bongsu_schemas::window::WindowRecord;
use bongsu_stand_ins::slack::{SlackOptions, SlackStandIn};
use bongsu_testkit::{Broker, produce};
use chrono::TimeDelta;
use serde_json::{Map, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::alerts::{alert, send};
use super::{DEADLINE, Running, config, create_topics};

async fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(address).await?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    connection.write_all(head.as_bytes()).await?;
    let mut text = String::new();
    connection.read_to_string(&mut text).await?;
    Ok(text)
}

pub(crate) async fn until_has(address: SocketAddr, path: &str, wanted: &str) {
    let has = async {
        while !get(address, path).await.is_ok_and(|text| text.contains(wanted)) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, has).await.unwrap_or_else(|_| panic!("{path} has no {wanted}"));
}

/// Scenario: a reporter that starts before its topics are there; then a window and an alert, without any Slack.
/// Guarantees: it waits for its topics; the page's data come from Kafka; incidents are formed and shown without Slack.
/// It ends when told to.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_what_is_in_kafka() {
    let broker = Broker::start().unwrap();
    let slack = SlackStandIn::start(SlackOptions::default()).await.unwrap();
    let mut config = config(&broker, &slack);
    config.slack = None;
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.dashboard.listen = address;
    let running = Running::start(&config);
    until_has(address, "/healthz", "ok").await;
    assert!(get(address, "/readyz").await.unwrap().starts_with("HTTP/1.1 503"));
    create_topics(&broker, &config);

    let firing = alert("errors", "order-api", bongsu_schemas::alert::AlertStatus::Firing);
    let window = WindowRecord {
        view: "requests_1m".to_owned(),
        window_start: firing.window_end - TimeDelta::minutes(1),
        window_end: firing.window_end,
        key: Map::from_iter([("service".to_owned(), json!("search"))]),
        values: Map::from_iter([("requests".to_owned(), json!(4_711))]),
        is_final: true,
        sequence: None,
    };
    produce(broker.bootstrap(), "bongsu.windows", None, [serde_json::to_string(&window).unwrap()]).unwrap();
    send(&broker, &firing);
    until_has(address, "/api/windows", "4711").await;
    until_has(address, "/api/alerts", "order-api: errors").await;
    until_has(address, "/api/incidents", "\"status\":\"open\"").await;
    running.until_ready(true).await;
    assert!(get(address, "/readyz").await.unwrap().starts_with("HTTP/1.1 200"));
    running.stop().await;
    assert!(slack.all_messages().is_empty());
}

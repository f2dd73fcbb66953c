use bongsu_schemas::alert::AlertStatus::Firing;
use bongsu_schemas::history::History;
use bongsu_schemas::kafka::Kafka;
use bongsu_schemas::services::{Owner, Service, Services};

use super::*;
use crate::config::{Dashboard, Reports};
use crate::incidents::tests::alert;

fn config() -> Config {
    let service = |channel: &str| {
        let owner = Owner { name: None, slack: Some(channel.to_owned()), email: Vec::new(), alert_email: false };
        Service { owner: Some(owner), ..Service::default() }
    };
    let services = ["order", "payment"].map(|name| (name.to_owned(), service(&format!("#{name}"))));
    Config {
        kafka: Kafka {
            brokers: "localhost:9092".to_owned(),
            topic_prefix: "bongsu".to_owned(),
            group: "bongsu".to_owned(),
            properties: BTreeMap::new(),
        },
        services: Services(services.into_iter().collect()),
        slack: None,
        smtp: None,
        reports: Reports::default(),
        history: History { url: "file:/nowhere".to_owned(), ..History::default() },
        dashboard: Dashboard { listen: ([127, 0, 0, 1], 0).into(), public_url: None },
        zone: chrono_tz::Asia::Seoul,
    }
}

/// Scenario: falling orders are explained by an issuer, then a second alert of the orders is not.
/// Guarantees: a channel whose alerts are all explained is not told, unless it was before or something else happens there; who is silenced
/// does not make explained alerts news.
#[test]
fn a_channel_with_nothing_to_do_is_not_told() {
    let mut orders = alert("orders-failing", Some("order"), Firing, 2);
    orders.explained_by = vec!["issuer-failing".to_owned()];
    let issuer = alert("issuer-failing", Some("payment"), Firing, 1);
    let latency = alert("latency", Some("order"), Firing, 3);
    #[rustfmt::skip]
    let cases = [
        // name                    alerts                              muted rule   told before   channels
        ("explained",              vec![&issuer, &orders],             "",          false,        vec!["#payment"]),
        ("told before",            vec![&issuer, &orders],             "",          true,         vec!["#order", "#payment"]),
        ("something else",         vec![&issuer, &orders, &latency],   "",          false,        vec!["#order", "#payment"]),
        ("which is silenced",      vec![&issuer, &orders, &latency],   "latency",   false,        vec!["#payment"]),
        ("no explanation",         vec![&orders],                      "",          false,        vec!["#order"]),
    ];
    for (name, alerts, muted_rule, told, expected) in cases {
        let mut correlator = Correlator::default();
        let changes: Vec<_> = alerts.iter().flat_map(|alert| correlator.apply(alert)).collect();
        let incident = &changes.last().unwrap().incident;
        assert_eq!(incident.alerts.len(), alerts.len(), "{name}");
        let muted = |alert: &IncidentAlert| alert.firing.rule == muted_rule;
        let told = |_: &str| told;
        let notifications = notifications(incident, &muted, &told, &config(), false);
        let channels: Vec<&str> = notifications.iter().map(|notification| notification.channel.as_str()).collect();
        assert_eq!(channels, expected, "{name}");
    }
}

/// Scenario: an incident of two services with channels of their own.
/// Guarantees: each message says where it began and who suffers.
#[test]
fn each_channel_learns_of_the_cause() {
    let mut correlator = Correlator::default();
    correlator.calls().saw("order", "payment", DateTime::UNIX_EPOCH);
    correlator.apply(&alert("errors", Some("order"), Firing, 1));
    let changes = correlator.apply(&alert("errors", Some("payment"), Firing, 2));
    let told = |_: &str| false;
    let muted = |_: &IncidentAlert| false;
    let notifications = notifications(&changes[0].incident, &muted, &told, &config(), false);
    assert_eq!(notifications.len(), 2);
    for notification in notifications {
        let line = "Likely cause: payment · affected: order";
        assert_eq!(notification.message.blocks[2]["elements"][0]["text"], line, "{}", notification.channel);
    }
}

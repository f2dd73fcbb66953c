use bongsu_schemas::alert::AlertLevel::{Critical, Warn};
use bongsu_schemas::alert::AlertRecord;
use bongsu_schemas::alert::AlertStatus::{Firing, Resolved};
use bongsu_schemas::history::History;
use bongsu_schemas::kafka::Kafka;
use bongsu_schemas::services::{Owner, Service, Services};
use serde_json::json;

use super::*;
use crate::config::{Dashboard, Reports};
use crate::incidents::Correlator;
use crate::incidents::tests::alert;

fn config() -> Config {
    let service = |channel: &str| {
        let owner = Owner { slack: Some(channel.to_owned().into()), ..Owner::default() };
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
        webhooks: Vec::new(),
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
        let notifications =
            notifications(incident, &muted, &told, &config(), &mut RecentWindows::default(), false).notifications;
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
    let notifications =
        notifications(&changes[0].incident, &muted, &told, &config(), &mut RecentWindows::default(), false)
            .notifications;
    assert_eq!(notifications.len(), 2);
    for notification in notifications {
        let line = "Likely cause: payment · affected: order";
        assert_eq!(notification.message.blocks[2]["elements"][0]["text"], line, "{}", notification.channel);
    }
}

/// An owner whose alerts go to `#order`, of staging to nobody, and of severity 5 to two more channels, one of them named twice.
fn routed_config() -> Config {
    let services: Services = serde_json::from_value(json!({
        "order": { "owner": { "slack": "#order", "routes": [
            { "environment": "staging", "slack": [] },
            { "severity": 5, "slack": ["#order", "#incidents", "#incidents", "#cto"] },
            { "rule": "heap", "hours": "21:00-22:00", "slack": "#jvm" },
        ] } },
    }))
    .unwrap();
    Config {
        kafka: serde_json::from_value(json!({ "brokers": "localhost:9092" })).unwrap(),
        services,
        slack: None,
        webhooks: Vec::new(),
        smtp: None,
        reports: Reports::default(),
        history: History::default(),
        dashboard: Dashboard::default(),
        zone: chrono_tz::Asia::Seoul,
    }
}

/// Channels with the text of their message.
fn messages_of(correlator: &Correlator, muted: &dyn Fn(&IncidentAlert) -> bool) -> Vec<(String, String)> {
    let config = routed_config();
    let incident = correlator.incidents().next().unwrap();
    let notifications =
        notifications(incident, muted, &|_| false, &config, &mut RecentWindows::default(), false).notifications;
    notifications.into_iter().map(|notification| (notification.channel, notification.message.text)).collect()
}

/// Scenario: alerts of one incident that go to several channels, to nobody, and to a channel at an hour that is over when they are
/// resolved (noon in UTC is 21:00 in Seoul).
/// Guarantees: one message for each channel, with all alerts that go there and no others; the end is told where the beginning was.
#[test]
fn one_message_for_each_channel() {
    let mut correlator = Correlator::default();
    let mut staging = alert("staging", Some("order"), Firing, 1);
    staging.key.insert("environment".to_owned(), json!("staging"));
    let mut severe = alert("errors", Some("order"), Firing, 2);
    severe.severity = 5;
    let heap = alert("heap", Some("order"), Firing, 59);
    for record in [&staging, &severe, &alert("latency", Some("order"), Firing, 3), &heap] {
        correlator.apply(record);
    }
    let nobody_is_muted = |_: &IncidentAlert| false;
    let channels =
        |told: &[(String, String)]| told.iter().map(|(channel, _)| channel.clone()).collect::<Vec<_>>().join(" ");
    let messages = messages_of(&correlator, &nobody_is_muted);
    assert_eq!(channels(&messages), "#cto #incidents #jvm #order");
    let text_in = |messages: &[(String, String)], name: &str| {
        messages.iter().find(|(channel, _)| channel == name).map(|(_, text)| text.clone()).unwrap()
    };
    assert_eq!(text_in(&messages, "#incidents"), "🔥🔥🔥🔥🔥 order: errors summary");
    assert_eq!(text_in(&messages, "#order"), "🔥🔥🔥🔥🔥 order: errors summary (+1)");
    assert_eq!(text_in(&messages, "#jvm"), "🔥🔥🔥 order: heap summary");

    let is_severe = |alert: &IncidentAlert| alert.firing.severity == 5;
    assert_eq!(channels(&messages_of(&correlator, &is_severe)), "#jvm #order");

    correlator.apply(&alert("heap", Some("order"), Resolved, 120));
    let messages = messages_of(&correlator, &nobody_is_muted);
    assert_eq!(text_in(&messages, "#jvm"), "✅ Resolved: order: heap summary");
}

/// Scenario: an alert fires at the lower level, rises to the severity that more channels are told of, falls again, and ends.
/// Guarantees: whoever was told at any level is told how it goes on, and of its end.
#[test]
fn who_was_told_at_one_level_is_told_of_the_others() {
    let services = json!({ "order": { "owner": { "slack": "#order", "routes": [
        { "severity": 5, "slack": "#incidents" },
    ] } } });
    let config = Config { services: serde_json::from_value(services).unwrap(), ..routed_config() };
    let of = |minute, level, severity, sequence| {
        let record = alert("errors", Some("order"), Firing, minute);
        AlertRecord { level: Some(level), severity, sequence, ..record }
    };
    let end = AlertRecord { severity: 3, sequence: 4, ..alert("errors", Some("order"), Resolved, 9) };
    #[rustfmt::skip]
    let steps = [
        (of(1, Warn, 3, 1),     vec!["#order 🔥🔥🔥 order: errors summary"]),
        (of(2, Critical, 5, 2), vec!["#incidents 🔥🔥🔥🔥🔥 order: errors summary", "#order 🔥🔥🔥🔥🔥 order: errors summary"]),
        (of(3, Warn, 3, 3),     vec!["#incidents 🔥🔥🔥 order: errors summary", "#order 🔥🔥🔥 order: errors summary"]),
        (end,                   vec!["#incidents ✅ Resolved: order: errors summary", "#order ✅ Resolved: order: errors summary"]),
    ];
    let mut correlator = Correlator::default();
    for (record, expected) in steps {
        let incident = correlator.apply(&record).remove(0).incident;
        let recent = &mut RecentWindows::default();
        let told = notifications(&incident, &|_| false, &|_| false, &config, recent, false).notifications;
        let told: Vec<_> = told.iter().map(|told| format!("{} {}", told.channel, told.message.text)).collect();
        assert_eq!(told, expected, "{record:?}");
    }
}

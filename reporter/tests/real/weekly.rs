use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use bongsu_reporter::config::{Config, Smtp, Weekly, WeeklyTime};
use bongsu_reporter::weekly::{self, Week};
use bongsu_schemas::history::{History, date_folder, file_name};
use bongsu_stand_ins::mail::MailStandIn;
use bongsu_stand_ins::slack::{SlackMessage, SlackOptions, SlackStandIn};
use bongsu_testkit::Broker;
use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use datafusion::parquet::arrow::ArrowWriter;

use super::{DEADLINE, Running, config, create_topics};

/// One row of `exceptions_1m`.
struct Row {
    start: DateTime<Utc>,
    service: &'static str,
    environment: &'static str,
    fingerprint: &'static str,
    exceptions: i64,
}

fn times(values: impl Iterator<Item = DateTime<Utc>>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_iter_values(values.map(|at| at.timestamp_millis())).with_timezone("UTC"))
}

fn texts<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn write(folder: &Path, view: &str, date: NaiveDate, number: i64, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let folder = folder.join(date_folder(view, date));
    std::fs::create_dir_all(&folder).unwrap();
    let file = File::create(folder.join(file_name(0, number))).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Four weeks of exceptions before the end of `week`, one file for each service and day, and requests of one service.
fn history(folder: &Path, week: Week, config: &Config) -> Vec<Row> {
    let mut rows = Vec::new();
    let start = week.start(config.zone);
    for minute in (0..28 * 24 * 60).step_by(97) {
        let at = week.end(config.zone) - TimeDelta::days(28) + TimeDelta::minutes(minute);
        rows.push(Row {
            start: at,
            service: "order-api",
            environment: "production",
            fingerprint: "steady",
            exceptions: 2,
        });
        rows.push(Row {
            start: at,
            service: "order-api",
            environment: "staging",
            fingerprint: "steady",
            exceptions: 50,
        });
        if at < start {
            rows.push(Row {
                start: at,
                service: "pay-api",
                environment: "production",
                fingerprint: "gone",
                exceptions: 1,
            });
        } else {
            rows.push(Row {
                start: at,
                service: "order-api",
                environment: "production",
                fingerprint: "new",
                exceptions: 3,
            });
            rows.push(Row {
                start: at,
                service: "search",
                environment: "production",
                fingerprint: "other",
                exceptions: 1,
            });
        }
    }
    // To the minute at the borders of the week.
    for (at, exceptions) in [(start - TimeDelta::minutes(1), 1_000), (start, 10_000), (week.end(config.zone), 100_000)]
    {
        rows.push(Row {
            start: at,
            service: "order-api",
            environment: "production",
            fingerprint: "steady",
            exceptions,
        });
    }
    let mut files: BTreeMap<(&str, NaiveDate), Vec<&Row>> = BTreeMap::new();
    for row in &rows {
        files.entry((row.service, row.start.date_naive())).or_default().push(row);
    }
    for (number, ((service, date), of)) in files.into_iter().enumerate() {
        let mut columns = vec![
            ("window_start", times(of.iter().map(|row| row.start))),
            ("window_end", times(of.iter().map(|row| row.start + TimeDelta::minutes(1)))),
            ("service", texts(of.iter().map(|row| row.service))),
            ("environment", texts(of.iter().map(|row| row.environment))),
            ("fingerprint", texts(of.iter().map(|row| row.fingerprint))),
            ("type", texts(of.iter().map(|_| "shop.<b>Exception"))),
            ("exceptions", Arc::new(Int64Array::from_iter_values(of.iter().map(|row| row.exceptions))) as ArrayRef),
        ];
        // The other services' history has no such columns.
        if service == "order-api" {
            columns.push(("message", texts(of.iter().map(|row| row.fingerprint))));
            columns.push(("first_seen", times(of.iter().map(|row| row.start + TimeDelta::seconds(5)))));
        }
        write(folder, "exceptions_1m", date, i64::try_from(number).unwrap(), columns);
    }
    let requests = vec![
        ("window_start", times([start, start + TimeDelta::hours(1)].into_iter())),
        ("service", texts(["order-api", "order-api"].into_iter())),
        ("environment", texts(["production", "staging"].into_iter())),
        ("requests", Arc::new(Int64Array::from(vec![50_000, 7])) as ArrayRef),
    ];
    write(folder, "requests_1m", start.date_naive(), 0, requests);
    rows
}

fn total(rows: &[Row], service: &str, from: DateTime<Utc>, to: DateTime<Utc>) -> u64 {
    let counted = rows.iter().filter(|row| row.service == service && row.environment == "production");
    let sum: i64 = counted.filter(|row| from <= row.start && row.start < to).map(|row| row.exceptions).sum();
    u64::try_from(sum).unwrap()
}

/// Scenario: four weeks of Parquet history; Monday's report is three days overdue when the reporter starts, and it starts twice; then
/// somebody asks for it.
/// Guarantees: totals equal an independent count, without staging; each owner gets one e-mail and one digest with only their services,
/// marked late, once; an owner with nothing to say gets no e-mail.
#[tokio::test(flavor = "multi_thread")]
async fn every_owner_gets_one_report() {
    let broker = Broker::start().unwrap();
    let slack = SlackStandIn::start(SlackOptions::default()).await.unwrap();
    let mail = MailStandIn::start(0).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&broker, &slack);
    create_topics(&broker, &config);
    config.history = History { url: format!("file:{}", folder.path().display()), ..History::default() };
    config.smtp = Some(Smtp { url: mail.url().parse().unwrap(), username_env: None, password_env: None });
    let three_days_ago = (Utc::now() - TimeDelta::days(3)).with_timezone(&config.zone);
    config.reports.weekly = Some(Weekly {
        at: WeeklyTime { weekday: three_days_ago.weekday(), time: NaiveTime::MIN + TimeDelta::hours(9) },
        from: "Bongsu <bongsu@example.com>".to_owned(),
        environment: Some("production".to_owned()),
    });
    let week = Week::containing(three_days_ago.to_utc(), config.zone).previous();
    assert_eq!(week.monday().checked_add_days(Days::new(7)), Some(week.next().monday()));
    let rows = history(folder.path(), week, &config);

    let report = weekly::report(&config, week, None).await.unwrap();
    let (previous, start, end) = (week.previous().start(config.zone), week.start(config.zone), week.end(config.zone));
    assert_eq!(report.services.len(), 3);
    for service in &report.services {
        let name = &service.service;
        assert_eq!(service.total, total(&rows, name, start, end), "{name}");
        assert_eq!(service.previous_total, total(&rows, name, previous, start), "{name}");
        assert_eq!(service.days.iter().sum::<u64>(), service.total, "{name}");
    }
    let order = &report.services[0];
    let states: Vec<_> = order.groups.iter().map(|group| (group.fingerprint.as_str(), group.state.name())).collect();
    assert_eq!(states, [("new", "new"), ("steady", "escalating")]);
    assert_eq!(order.rate_per_1000(), Some(order.total as f64 / 50.0));
    assert_eq!(report.services[1].groups[0].state.name(), "gone");
    assert_eq!(report.services[1].rate_per_1000(), None);
    let one = weekly::report(&config, week, Some("search")).await.unwrap();
    assert_eq!(one.services, report.services[2..]);
    let nothing = weekly::report(&config, "2020-W01".parse().unwrap(), None).await.unwrap();
    assert!(nothing.services.iter().all(|service| service.total == 0));

    for _ in 0..2 {
        let running = Running::start(&config);
        let three = |messages: &[SlackMessage]| messages.len() >= 3;
        slack.wait_for(three, DEADLINE).await.unwrap();
        mail.wait_for(|mails| mails.len() >= 3, DEADLINE).await.unwrap();
        running.until_ready(true).await;
        running.stop().await;
    }
    let mails = mail.messages();
    let mut to: Vec<_> = mails.iter().map(|mail| mail.to[0].as_str()).collect();
    to.sort_unstable();
    assert_eq!(to, ["order@example.com", "pay@example.com", "platform@example.com"]);
    assert_eq!(slack.all_messages().len(), 3);
    let order = mails.iter().find(|mail| mail.to[0] == "order@example.com").unwrap();
    assert!(order.subject.contains("(late)") && order.subject.contains(&week.to_string()), "{}", order.subject);
    let (html, text) = (order.html.as_deref().unwrap(), order.text.as_deref().unwrap());
    assert!(
        html.contains("shop.&lt;b&gt;Exception") && !html.contains("pay-api") && !text.contains("search"),
        "{html}"
    );
    let raw = String::from_utf8_lossy(&order.raw);
    assert!(raw.contains("Auto-Submitted: auto-generated") && raw.contains("multipart/alternative"));

    let lines = weekly::send(&config, &report).await.unwrap();
    assert_eq!((lines.len(), mail.messages().len()), (6, 6), "{lines:?}");
    let again = mail.messages();
    let ids: std::collections::BTreeSet<_> = again.iter().map(|mail| mail.message_id.clone()).collect();
    assert_eq!(ids.len(), 3, "a copy has the Message-ID of the first");
    let out = tempfile::tempdir().unwrap();
    let paths = weekly::write_files(&config, &report, out.path()).unwrap();
    assert_eq!(paths.len(), 9);
    let json = std::fs::read_to_string(&paths[2]).unwrap();
    assert!(json.contains("\"rate_per_1000\""), "{json}");
}

//! The command line through the binary: help, exit codes, where data and logs go.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the binary in the folder of good configurations.
fn bongsu(arguments: &[&str]) -> Output {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/good");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bongsu"));
    command.current_dir(folder).args(arguments).env_remove("BONGSU_LOG").env_remove("RUST_LOG").env("COLUMNS", "100");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Scenario: every command called rightly and wrongly.
/// Guarantees: 0, 1 for the user's input, 2 for usage; a complaint is on stderr, and then nothing is on stdout.
#[test]
fn exit_codes() {
    #[rustfmt::skip]
    let cases: &[(&[&str], i32)] = &[
        (&["--version"], 0),
        (&["--help"], 0),
        (&[], 2),
        (&["nonsense"], 2),
        (&["check", "--config", "minimal.yaml"], 0),
        (&["check"], 1),                                                         // there is no bongsu.yaml
        (&["check", "--config", "minimal.yaml", "--format", "xml"], 2),
        (&["config"], 2),
        (&["config", "--defaults"], 0),
        (&["config", "--schema"], 0),
        (&["config", "--defaults", "--schema"], 2),
        (&["route", "service=order-api", "severity=4", "--config", "everything.yaml"], 0),
        (&["route", "severity=6", "--config", "everything.yaml"], 2),
        (&["route", "team=x", "--config", "everything.yaml"], 2),
        (&["route", "severity=1", "severity=2", "--config", "everything.yaml"], 2),
        (&["route", "service=x", "--config", "../wrong/unknown-zone.yaml"], 1),
        (&["route", "rule=x", "environment=staging", "at=2026-11-24T22:00:00+09:00", "--config", "routes.yaml"], 0),
        (&["route", "at=tomorrow", "--config", "routes.yaml"], 2),
        (&["route", "environment=", "--config", "routes.yaml"], 2),
        (&["route", "rule=x", "rule=y", "--config", "routes.yaml"], 2),
        (&["silence", "--for", "2h", "--config", "minimal.yaml"], 2),            // of what?
        (&["silence", "service", "--config", "minimal.yaml"], 2),
        (&["silence", "service=", "--config", "minimal.yaml"], 2),
        (&["silence", "service=x", "service=y", "--config", "minimal.yaml"], 2),
        (&["silence", "service=x", "--for", "soon", "--config", "minimal.yaml"], 2),
        (&["silence", "service=x", "--until", "soon", "--config", "minimal.yaml"], 2),
        (&["silence", "service=x", "--hours", "at night", "--config", "minimal.yaml"], 2),
        (&["silence", "service=x", "--for", "1h", "--until", "2126-11-24T22:00:00Z", "--config", "minimal.yaml"], 2),
        (&["silence", "service=x", "--until", "2006-11-24T22:00:00Z", "--config", "minimal.yaml"], 1),
        (&["silence", "service=x", "--from", "2026-11-24T12:00:00Z", "--hours", "Sat 01:00-03:00", "--config", "minimal.yaml"], 1),
        (&["silence", "service=~(", "--config", "minimal.yaml"], 1),
        (&["silence", "service=x", "--by", " ", "--config", "minimal.yaml"], 1),
        (&["silence", "service=x", "--config", "absent.yaml"], 1),
        (&["silences", "--config", "absent.yaml"], 1),
        (&["unsilence", "--config", "minimal.yaml"], 2),
        (&["unsilence", "x", "--config", "absent.yaml"], 1),
        (&["acknowledge", "--config", "minimal.yaml"], 2),
        (&["acknowledge", " ", "--config", "minimal.yaml"], 1),
        (&["acknowledge", "x", "--by", "a\nb", "--config", "minimal.yaml"], 1),
        (&["run", "--role", "ingest", "--config", "minimal.yaml"], 2),
        (&["run", "--role", "cook", "--config", "minimal.yaml"], 2),
        (&["run", "--config", "../wrong/unknown-zone.yaml"], 1),
        (&["report", "--week", "2026-47", "--config", "minimal.yaml"], 2),
        (&["report", "--config", "minimal.yaml"], 2),
        (&["backtest", "--config", "minimal.yaml"], 2),                          // --from is missing
        (&["backtest", "--from", "yesterday", "--config", "minimal.yaml"], 2),
        (&["backtest", "--from", "2025-06-03", "--to", "2025-06-02", "--config", "minimal.yaml"], 2),
        (&["backtest", "--from", "-7d", "--param", "max=1", "--config", "minimal.yaml"], 2),
        (&["backtest", "--from", "-7d", "--rule", "nonsense", "--config", "minimal.yaml"], 1),
        (&["backtest", "--from", "-7d", "--to", "-1d", "--config", "minimal.yaml"], 1), // there is no history
        (&["backtest", "--from", "-7d", "--config", "../wrong/unknown-zone.yaml"], 1),
        (&["explain", "--config", "minimal.yaml"], 2),
        (&["explain", "12345", "--config", "minimal.yaml"], 2),
        (&["explain", "nonsense", "--config", "minimal.yaml"], 2),
        (&["explain", "123456", "--config", "absent.yaml"], 1),
        (&["topics", "--config", "absent.yaml"], 1),
        (&["replay", "--topic", "t", "--config", "minimal.yaml"], 2),
        (&["replay", "--in", "absent.okr", "--topic", "t", "--config", "minimal.yaml"], 1),
        (&["replay", "--in", "minimal.yaml", "--topic", "t", "--shift", "soon", "--config", "minimal.yaml"], 2),
        (&["replay", "--in", "minimal.yaml", "--topic", "t", "--pace", "-1", "--config", "minimal.yaml"], 2),
    ];
    for (arguments, expected) in cases {
        let output = bongsu(arguments);
        assert_eq!(output.status.code(), Some(*expected), "{arguments:?}: {}", text(&output.stderr));
        let (data, complaint) = (!output.stdout.is_empty(), !output.stderr.is_empty());
        if *expected == 0 {
            assert!(data, "{arguments:?}");
        } else {
            assert!(complaint && !data, "{arguments:?}: {}", text(&output.stdout));
        }
    }
}

/// Scenario: `--help` of the program and of each command.
/// Guarantees: changes of the command line are seen in review.
#[test]
fn help() {
    let mut helps = Vec::new();
    for command in [
        &["--help"][..],
        &["run", "--help"],
        &["check", "--help"],
        &["topics", "--help"],
        &["report", "--help"],
        &["backtest", "--help"],
        &["explain", "--help"],
        &["route", "--help"],
        &["silence", "--help"],
        &["silences", "--help"],
        &["unsilence", "--help"],
        &["acknowledge", "--help"],
        &["replay", "--help"],
        &["config", "--help"],
    ] {
        helps.push(format!("$ bongsu {}\n{}", command.join(" "), text(&bongsu(command).stdout)));
    }
    insta::assert_snapshot!(helps.join("\n"));
}

/// Scenario: where an alert of a service goes.
/// Guarantees: the same answer in both formats, with the reason.
#[test]
fn routes() {
    let output =
        bongsu(&["route", "service=order-api", "severity=4", "--config", "everything.yaml", "--format", "json"]);
    let route: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&route["owner"], &route["slack"], &route["severity"]),
        (&"Order team".into(), &"#order-alerts".into(), &4.into())
    );
    let output = bongsu(&["route", "service=nobody-knows", "--config", "everything.yaml"]);
    let explained = text(&output.stdout);
    assert!(explained.contains("#platform") && explained.contains("because"), "{explained}");
}

/// Scenario: where alerts go whose owner has routes: of staging, by day, at night, and one that no route fits.
/// Guarantees: severity, environment, rule and time decide; one channel is text, several are a list, none is null; it says which entry.
#[test]
fn routed_by_conditions() {
    let (day, night) = ("at=2026-11-24T12:00:00+09:00", "at=2026-11-24T22:00:00+09:00");
    #[rustfmt::skip]
    let cases: &[(&[&str], &str)] = &[
        (&["severity=4", "environment=staging", day], r#"[null,[],0]"#),
        (&["severity=4", day], r##"[["#order-oncall","#order-alerts"],[],1]"##),
        (&["severity=5", night], r##"["#incidents",["cto@example.com"],2]"##),
        (&["rule=slow-requests", night], r#"[null,[],3]"#),
        (&["rule=slow-requests", day], r##"[["#order-alerts","#shop"],[],null]"##),
    ];
    for (alert, expected) in cases {
        let fixed = ["route", "service=order-api", "--config", "routes.yaml", "--format", "json"];
        let output = bongsu(&[&fixed[..], alert].concat());
        let route: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let got = serde_json::json!([route["slack"], route["email"], route["route"]]);
        assert_eq!(got.to_string(), *expected, "{alert:?}");
        assert!(route["because"].as_str().unwrap().contains("routes"), "{route}");
    }
    let output = bongsu(&["route", "service=order-api", "environment=staging", night, "--config", "routes.yaml"]);
    let explained = text(&output.stdout);
    assert!(explained.contains("routes[0] fits first (environment staging)"), "{explained}");
    assert!(explained.contains("Tue 2026-11-24 22:00:00 KST"), "{explained}");
}

/// Scenario: commands that need Kafka, which is not there.
/// Guarantees: exit code 3 and the broker's address, within seconds; nothing on stdout.
#[test]
fn without_kafka_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("bongsu.yaml");
    let content = "kafka: { brokers: '127.0.0.1:1' }\nsources: [ { topic: r, format: json, table: requests } ]\n\
                   services: { '*': { owner: { name: P } } }\n";
    std::fs::write(&config, content).unwrap();
    let commands: [&[&str]; 4] = [&["silence", "service=x"], &["silences"], &["unsilence", "x"], &["acknowledge", "x"]];
    let running = commands.map(|arguments| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bongsu"));
        command.args(arguments).arg("--config").arg(&config).env_remove("BONGSU_LOG").env_remove("RUST_LOG");
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    for (child, arguments) in running.into_iter().zip(commands) {
        let output = child.wait_with_output().unwrap();
        let complaint = text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {complaint}");
        assert!(complaint.contains("127.0.0.1:1") && output.stdout.is_empty(), "{arguments:?}: {complaint}");
    }
}

/// Scenario: a backtest of rules and parameters that are not there, or of another type, or of a time without history.
/// Guarantees: the complaint names what is wrong, and what was probably meant.
#[test]
fn a_backtest_says_what_is_wrong() {
    #[rustfmt::skip]
    let cases: &[(&[&str], &str)] = &[
        (&["--rule", "high-eror-rate"],                            "no rule `high-eror-rate`; did you mean `high-error-rate`?"),
        (&["--param", "high-eror-rate.max=1"],                     "no rule `high-eror-rate`; did you mean `high-error-rate`?"),
        (&["--param", "high-error-rate.maxx=1"],                   "no parameter `maxx`; did you mean `max`?; it has: max"),
        (&["--param", "high-error-rate.max=much"],                 "the parameter `max` of `high-error-rate` is a number, not `much`"),
        (&["--param", "high-error-rate.max=NaN"],                  "is a number, not `NaN`"),
        (&["--param", "high-error-rate.max=1", "--rule", "slow-requests"], "which --rule leaves out"),
        (&["--rule", "a\u{1b}[31m"],                               "there is no rule `a\\u{1b}[31m`"),
        (&["--rule", "high-error-rate"],                           "has no windows of requests_1m that end between 2025-06-02T00:00:00Z"),
        (&["--service", "shop"],                                   "of the service `shop`"),
    ];
    for (arguments, expected) in cases {
        let common = ["backtest", "--config", "minimal.yaml", "--from", "2025-06-02", "--to", "2025-06-03T00:00:00Z"];
        let output = bongsu(&[&common[..], *arguments].concat());
        let complaint = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {complaint}");
        assert!(complaint.contains(expected), "{arguments:?}: {complaint}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

/// Scenario: the reader of stdout has gone.
/// Guarantees: no complaint, exit code 0.
#[test]
fn a_closed_pipe_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bongsu"))
        .args(["config", "--schema"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

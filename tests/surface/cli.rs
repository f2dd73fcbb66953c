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
        (&["run", "--role", "ingest", "--config", "minimal.yaml"], 2),
        (&["run", "--role", "cook", "--config", "minimal.yaml"], 2),
        (&["run", "--config", "../wrong/unknown-zone.yaml"], 1),
        (&["report", "--week", "2026-47", "--config", "minimal.yaml"], 2),
        (&["report", "--config", "minimal.yaml"], 2),
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
        &["route", "--help"],
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

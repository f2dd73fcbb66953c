//! Configurations through the binary: what is refused, with which words, and what is accepted.
//!
//! Each file in `fixtures/wrong` says itself what is wrong with it: a comment `# wrong: KEY: text` on the line where the mistake must be
//! reported. Nothing else may be reported.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn fixtures(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(kind)
}

/// Runs the binary in a folder of fixtures.
fn bongsu(kind: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bongsu"));
    command.current_dir(fixtures(kind)).args(arguments).env_remove("BONGSU_LOG").env_remove("RUST_LOG");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn files(kind: &str) -> Vec<String> {
    let entries = std::fs::read_dir(fixtures(kind)).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// `FILE:LINE:COLUMN: KEY: problem`, taken apart.
fn take_apart<'a>(line: &'a str, file: &str) -> (usize, usize, String, &'a str) {
    let rest =
        line.strip_prefix(file).and_then(|rest| rest.strip_prefix(':')).unwrap_or_else(|| panic!("no file: {line}"));
    let (number, rest) = rest.split_once(':').unwrap();
    let (column, rest) = rest.split_once(": ").unwrap();
    let (key, problem) = rest.split_once(": ").unwrap();
    (number.parse().unwrap(), column.parse().unwrap(), key.to_owned(), problem)
}

/// Line, key and part of the message that a fixture expects.
fn expectations(content: &str) -> Vec<(usize, String, String)> {
    let mut expected = Vec::new();
    for (index, line) in content.lines().enumerate() {
        for comment in line.split("# wrong: ").skip(1) {
            let (key, fragment) = comment.trim().split_once(": ").unwrap();
            expected.push((index + 1, key.to_owned(), fragment.to_owned()));
        }
    }
    expected
}

/// Scenario: some fifty configurations, each with a mistake that an operator could make, one with ten.
/// Guarantees: exit code 1; every mistake in one line with file, line, key and what would be right; nothing else; stdout empty.
#[test]
fn wrong_configurations_are_refused() {
    let files = files("wrong");
    assert!(files.len() >= 40);
    let mut failures = Vec::new();
    for file in files {
        let expected = expectations(&std::fs::read_to_string(fixtures("wrong").join(&file)).unwrap());
        assert!(!expected.is_empty(), "{file} expects nothing");
        let output = bongsu("wrong", &["check", "--config", &file]);
        let stderr = text(&output.stderr);
        let reported: Vec<_> =
            stderr.lines().filter(|line| !line.contains(": warning: ")).map(|line| take_apart(line, &file)).collect();
        let places = |line: usize, key: &str| (line, key.to_owned());
        let expected_places: BTreeSet<_> = expected.iter().map(|(line, key, _)| places(*line, key)).collect();
        let reported_places: BTreeSet<_> = reported.iter().map(|(line, _, key, _)| places(*line, key)).collect();
        let all_said = expected.iter().all(|(line, key, fragment)| {
            reported
                .iter()
                .any(|(at, _, name, problem)| at == line && name == key && problem.contains(fragment.as_str()))
        });
        let sorted = reported.windows(2).all(|pair| (pair[0].0, pair[0].1) <= (pair[1].0, pair[1].1));
        let exit_code = output.status.code();
        if exit_code != Some(1)
            || expected_places != reported_places
            || !all_said
            || !sorted
            || !output.stdout.is_empty()
        {
            failures.push(format!("{file}: exit {exit_code:?}, expected {expected:?}\n{stderr}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Scenario: files that are no YAML mapping at all.
/// Guarantees: the same form of message, at the right place.
#[test]
fn malformed_files_are_refused() {
    #[rustfmt::skip]
    let cases = [
        ("empty.yaml",         1, "(top)", "the file is empty"),
        ("comments-only.yaml", 1, "(top)", "the file is empty"),
        ("tab.yaml",           3, "yaml",  "indent with spaces"),
        ("open-quote.yaml",    1, "yaml",  "a quote is opened and not closed"),
        ("open-brace.yaml",    2, "yaml",  "is not valid YAML"),
        ("braces.yaml",        3, "yaml",  "put text with braces in quotes"),
        ("not-utf8.yaml",      2, "file",  "save the file as UTF-8"),
        ("list.yaml",          1, "(top)", "is a list; a configuration is a mapping"),
        ("two-documents.yaml", 4, "yaml",  "a configuration is one document"),
        ("escapes.yaml",       1, r"kafka.\u{1b}[31mred\u{1b}[0m", "is not a known key here"),
        ("absent.yaml",        1, "file",  "does not exist"),
    ];
    let mut failures = Vec::new();
    for (file, line, key, fragment) in cases {
        let output = bongsu("form", &["check", "--config", file]);
        let stderr = text(&output.stderr);
        let as_expected = |reported: &str| {
            let (at, _, name, problem) = take_apart(reported, file);
            at == line && name == key && problem.contains(fragment)
        };
        if output.status.code() != Some(1) || !stderr.lines().any(as_expected) || stderr.contains('\u{1b}') {
            failures.push(format!("{file}: {:?}\n{stderr}", output.status.code()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Scenario: a minimal configuration, the one of the documentation, one with a table of its own.
/// Guarantees: exit code 0 without Kafka; the plan is data on stdout, in both formats.
#[test]
fn good_configurations_are_planned() {
    for file in files("good") {
        let output = bongsu("good", &["check", "--config", &file, "--format", "json"]);
        assert_eq!(output.status.code(), Some(0), "{file}: {}", text(&output.stderr));
        let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        for view in plan["views"].as_array().unwrap() {
            assert!(!view["values"].as_array().unwrap().is_empty(), "{file}: {view}");
        }
        assert!(
            !plan["views"].as_array().unwrap().is_empty() && !plan["rules"].as_array().unwrap().is_empty(),
            "{file}"
        );
        let output = bongsu("good", &["check", "--config", &file]);
        assert_eq!(output.status.code(), Some(0), "{file}");
        assert!(text(&output.stdout).contains("SERVICE"), "{file}");
    }
}

/// Scenario: only kafka, sources and services.
/// Guarantees: it is useful: requests and exceptions are watched.
#[test]
fn a_minimal_configuration_is_useful() {
    let output = bongsu("good", &["check", "--config", "minimal.yaml", "--format", "json"]);
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names = |list: &str| -> Vec<String> {
        plan[list].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    };
    assert!(names("views").contains(&"requests_1m".to_owned()) && names("views").contains(&"exceptions_1m".to_owned()));
    assert!(
        names("rules").contains(&"high-error-rate".to_owned())
            && names("rules").contains(&"exception-burst".to_owned())
    );
}

/// Scenario: what `bongsu config --defaults` prints, pasted into a configuration whose defaults are off.
/// Guarantees: it is ordinary configuration, and amounts to the same.
#[test]
fn printed_defaults_are_configuration() {
    let sources = ["requests", "spans", "exceptions", "metrics", "events"]
        .map(|table| format!("  - {{ topic: {table}, format: json, table: {table} }}\n"));
    let head = format!(
        "kafka: {{ brokers: 'localhost:9092' }}\nsources:\n{}services: {{ '*': {{ owner: {{ name: P }} }} }}\n",
        sources.concat()
    );
    let defaults = text(&bongsu("good", &["config", "--defaults"]).stdout);
    let folder = tempfile::tempdir().unwrap();
    let plan = |name: &str, content: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let output = bongsu("good", &["check", "--format", "json", "--config", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let pasted = plan("pasted.yaml", format!("{head}defaults: false\n{defaults}"));
    assert_eq!(pasted, plan("built-in.yaml", head));
}

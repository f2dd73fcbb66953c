//! `docs/configuration.md` is generated from the schema, which is generated from the types' doc comments.
//!
//! `BONGSU_UPDATE=1` rewrites it; otherwise a difference fails the test.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const HEAD: &str = "# Configuration

<!-- Generated from the types by `BONGSU_UPDATE=1 cargo test --test config_reference`; do not edit. -->

`bongsu.yaml` is one YAML mapping. Unknown keys are mistakes. `bongsu check --config bongsu.yaml` reports every mistake as
`FILE:LINE:COLUMN: KEY: problem`, plans every view and rule, and needs no Kafka. `bongsu config --schema` prints the JSON Schema for
editors; `bongsu config --defaults` prints the built-in views and rules. Relative paths are relative to the file.

Durations are a number and a unit: `250ms`, `10s`, `5m`, `2h`, `35d`, `1w`. Secrets are never written here: a key ending in `_env` names
an environment variable, and so does `$NAME` as a value of `kafka.properties` or of a webhook's `headers`, or as its `url`.

## Example

```yaml
";

struct Reference<'a> {
    schema: &'a Value,
    out: String,
}

impl<'a> Reference<'a> {
    /// The schema that a node stands for: references and the `null` of optional sections are seen through.
    fn resolve(&self, node: &'a Value) -> &'a Value {
        if let Some(pointer) = node["$ref"].as_str() {
            return self.resolve(self.schema.pointer(pointer.trim_start_matches('#')).unwrap());
        }
        match node["anyOf"].as_array() {
            Some(branches) => match branches.iter().filter(|branch| branch["type"] != "null").collect::<Vec<_>>()[..] {
                [branch] => self.resolve(branch),
                _ => node,
            },
            None => node,
        }
    }

    /// A table of the keys of the mapping at `path`, then those of the mappings in it.
    fn section(&mut self, path: &str, node: &'a Value) {
        let Some(properties) = node["properties"].as_object() else { return };
        let required: Vec<&str> = node["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        self.out.push_str("| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
        let mut nested = Vec::new();
        for (name, property) in properties {
            let target = self.resolve(property);
            let default = match property.get("default") {
                _ if required.contains(&name.as_str()) => "**required**".to_owned(),
                Some(Value::Object(_)) | Some(Value::Array(_)) | Some(Value::Null) | None => String::new(),
                Some(Value::String(text)) => format!("`{text}`"),
                Some(value) => format!("`{value}`"),
            };
            let meaning = property["description"].as_str().or(target["description"].as_str()).unwrap_or_default();
            let (kind, inner) = self.kind(target);
            writeln!(self.out, "| `{name}` | {kind} | {default} | {} |", cell(meaning)).unwrap();
            if let Some((suffix, inner)) = inner {
                nested.push((format!("{path}{}{name}{suffix}", if path.is_empty() { "" } else { "." }), inner));
            }
        }
        for (path, node) in nested {
            let level = if path.contains('.') { "###" } else { "##" };
            writeln!(self.out, "\n{level} `{path}`\n").unwrap();
            if let Some(description) = node["description"].as_str() {
                writeln!(self.out, "{description}\n").unwrap();
            }
            self.section(&path, node);
        }
    }

    /// What a value is, in words, and the mapping inside of it, which has a section of its own.
    fn kind(&self, node: &'a Value) -> (String, Option<(&'static str, &'a Value)>) {
        if node["format"] == "bongsu-duration" {
            return ("duration".to_owned(), None);
        }
        if let Some(options) = node["oneOf"].as_array().or(node["anyOf"].as_array()) {
            let names: Vec<String> = options
                .iter()
                .map(|option| match (option["const"].as_str(), option["type"].as_str()) {
                    (Some(name), _) => format!("`{name}`"),
                    (None, Some(kind)) => word(kind).to_owned(),
                    (None, None) => "any".to_owned(),
                })
                .collect();
            return (names.join(", "), None);
        }
        if let Some(options) = node["enum"].as_array() {
            let names: Vec<String> = options.iter().filter_map(Value::as_str).map(|name| format!("`{name}`")).collect();
            return (names.join(", "), None);
        }
        if node["properties"].is_object() {
            return ("mapping".to_owned(), Some(("", node)));
        }
        if node["additionalProperties"].is_object() {
            let (kind, inner) = self.kind(self.resolve(&node["additionalProperties"]));
            return (format!("mapping of names to: {kind}"), inner.map(|(_, inner)| (".NAME", inner)));
        }
        if node["items"].is_object() {
            let (kind, inner) = self.kind(self.resolve(&node["items"]));
            let or_one = node["type"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "string"));
            let one = if or_one { format!("{kind} or ") } else { String::new() };
            return (format!("{one}list of: {kind}"), inner.map(|(_, inner)| ("[]", inner)));
        }
        let kind = match &node["type"] {
            Value::String(name) => word(name).to_owned(),
            Value::Array(names) => {
                let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
                names.map(word).collect::<Vec<_>>().join(" or ")
            }
            _ => "any".to_owned(),
        };
        match (node["minimum"].as_u64(), node["maximum"].as_u64(), node["examples"][0].as_str()) {
            (Some(least), Some(most), None) if node["pattern"].is_null() => {
                (format!("{kind}, {least} to {most}"), None)
            }
            (_, _, Some(example)) => (format!("{kind} such as `{example}`"), None),
            _ => (kind, None),
        }
    }
}

fn word(kind: &str) -> &str {
    match kind {
        "string" => "text",
        "integer" => "whole number",
        "boolean" => "`true` or `false`",
        "object" => "mapping",
        "array" => "list",
        other => other,
    }
}

fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

/// Scenario: a key is added, or its comment changes.
/// Guarantees: the page says so, or this fails.
#[test]
fn the_reference_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(env!("CARGO_BIN_EXE_bongsu")).args(["config", "--schema"]).output().unwrap();
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    let example = std::fs::read_to_string(root.join("tests/fixtures/good/everything.yaml")).unwrap();
    let mut reference = Reference { schema: &schema, out: format!("{HEAD}{example}```\n\n## Sections\n\n") };
    reference.section("", &schema);
    let current = reference.out;

    let path = root.join("docs/configuration.md");
    if std::env::var_os("BONGSU_UPDATE").is_some() {
        std::fs::create_dir_all(root.join("docs")).unwrap();
        std::fs::write(&path, &current).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == current, "docs/configuration.md is stale: run with BONGSU_UPDATE=1");
}

//! `docker-compose.yml` without a container engine: it follows the Compose Specification's schema, and the configuration that it mounts is
//! one that Bongsu takes. That the images start and work together is not shown here.

use std::{fs, path::Path, process::Command};

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value, json};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn compose() -> Value {
    let text = fs::read_to_string(repository().join("docker-compose.yml")).unwrap();
    let documents = Yaml::load_from_str(&text).unwrap();
    assert_eq!(documents.len(), 1);
    to_json(&documents[0])
}

fn to_json(yaml: &Yaml<'_>) -> Value {
    match yaml {
        Yaml::Value(Scalar::Boolean(value)) => json!(value),
        Yaml::Value(Scalar::Integer(value)) => json!(value),
        Yaml::Value(Scalar::FloatingPoint(value)) => json!(value.into_inner()),
        Yaml::Value(Scalar::String(value)) => json!(value),
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Sequence(values) => values.iter().map(to_json).collect(),
        Yaml::Mapping(entries) => {
            let entry = |(key, value): (&Yaml<'_>, &Yaml<'_>)| (key.as_str().unwrap().to_owned(), to_json(value));
            Value::Object(entries.iter().map(entry).collect::<Map<_, _>>())
        }
        other => panic!("not plain YAML: {other:?}"),
    }
}

fn schema() -> jsonschema::Validator {
    let text = fs::read_to_string(repository().join("tests/fixtures/compose/compose-spec.json")).unwrap();
    let mut schema: Value = serde_json::from_str(&text).unwrap();
    // The schema is from before the specification's top-level `name`, which its text has had since 2022.
    schema["properties"]["name"] = json!({ "type": "string" });
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn the_compose_file_follows_the_specification() {
    let (schema, mut compose) = (schema(), compose());
    let mistakes: Vec<String> =
        schema.iter_errors(&compose).map(|mistake| format!("{}: {mistake}", mistake.instance_path())).collect();
    assert!(mistakes.is_empty(), "{mistakes:#?}");

    compose["services"]["kafka"]["imagee"] = json!("x");
    assert!(!schema.is_valid(&compose), "a schema that takes a misspelt key proves nothing");
}

/// Guarantees: what the services refer to is there, and nothing is published beyond the laptop.
#[test]
fn references_hold() {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    for (name, service) in services {
        for dependency in service["depends_on"].as_object().into_iter().flatten() {
            assert!(services.contains_key(dependency.0), "{name} depends on {}", dependency.0);
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            let is_there = match source.strip_prefix("./") {
                Some(path) => repository().join(path).exists(),
                None => compose["volumes"].get(source).is_some(),
            };
            assert!(is_there, "{name} mounts {source}");
        }
    }
    assert_eq!(services["bongsu"]["build"], ".");
    assert!(repository().join("Dockerfile").exists());
}

#[test]
fn the_mounted_configuration_is_sound() {
    let config = repository().join("examples/compose/bongsu.yaml");
    let checked = Command::new(env!("CARGO_BIN_EXE_bongsu")).arg("check").arg("--config").arg(config).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// Guarantees: the README's configuration can be copied.
#[test]
fn the_readme_s_configuration_is_sound() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let yaml = readme.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("bongsu.yaml");
    fs::write(&config, yaml).unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_bongsu")).arg("check").arg("--config").arg(config).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

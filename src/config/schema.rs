//! JSON value against the schema: every mistake, as a sentence that says what would be right.

use jsonschema::error::{ValidationError, ValidationErrorKind};
use jsonschema::paths::{Location, LocationSegment};
use serde_json::Value;

use super::mistake::{Findings, KeyPath, Segment, shown, suggestion};
use super::yaml::kind_of;

/// What to leave out of a value before it is deserialised: these parts do not fit the schema.
#[derive(Debug, Default)]
pub(crate) struct Unfit {
    /// Unknown keys: their section is good without them.
    pub(crate) keys: Vec<KeyPath>,
    /// Wrong values.
    pub(crate) values: Vec<KeyPath>,
}

/// Adds what in `value` does not fit `schema` to `findings`.
pub(crate) fn validate(schema: &Value, value: &Value, findings: &mut Findings) -> anyhow::Result<Unfit> {
    let validator = jsonschema::draft202012::new(schema).map_err(|error| anyhow::anyhow!("our own schema: {error}"))?;
    let mut judge = Judge { schema, value, findings, unfit: Unfit::default() };
    for error in validator.iter_errors(value) {
        judge.judge(&error);
    }
    Ok(judge.unfit)
}

struct Judge<'a> {
    schema: &'a Value,
    value: &'a Value,
    findings: &'a mut Findings,
    unfit: Unfit,
}

impl Judge<'_> {
    fn judge(&mut self, error: &ValidationError<'_>) {
        let path = key_path(self.value, error.instance_path());
        let instance = error.instance().as_ref();
        let node = schema_node(self.schema, error.schema_path());
        let problem = match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let known = properties(node);
                for key in unexpected {
                    let at = path.clone().key(key);
                    let hint = suggestion(key, known.iter().copied());
                    self.findings.add(&at, format!("is not a known key here{hint}; known keys: {}", known.join(", ")));
                    self.unfit.keys.push(at);
                }
                return;
            }
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                let meaning = node.and_then(|node| node.pointer(&format!("/properties/{name}/description")));
                let meaning = meaning.and_then(Value::as_str).map(first_sentence).unwrap_or_default();
                let problem = format!("is missing, and is required{}", in_brackets(&meaning));
                self.findings.add(&path.clone().key(name), problem);
                self.unfit.values.push(path);
                return;
            }
            ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
                return self.judge_branches(path, instance, context);
            }
            ValidationErrorKind::Type { .. } => wrong_type(instance, node),
            ValidationErrorKind::Enum { options } => {
                let options: Vec<&str> = options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                not_one_of(instance, &options)
            }
            ValidationErrorKind::Constant { expected_value } => {
                format!("must be {}, but is {}", kind_of(expected_value), kind_of(instance))
            }
            ValidationErrorKind::Pattern { pattern } => wrong_pattern(instance, pattern, node),
            ValidationErrorKind::Minimum { .. } | ValidationErrorKind::Maximum { .. } => {
                format!("is {}, which is out of range; {}", kind_of(instance), range(node))
            }
            ValidationErrorKind::MinLength { .. } | ValidationErrorKind::MinItems { .. } => {
                "must not be empty".to_owned()
            }
            _ => format!("does not fit: {}", shown(&error.to_string())),
        };
        self.findings.add(&path, problem);
        self.unfit.values.push(path);
    }

    /// Of several alternatives, the mistakes within the one that was meant, or a sentence that names them all.
    fn judge_branches(&mut self, path: KeyPath, instance: &Value, branches: &[Vec<ValidationError<'static>>]) {
        let constants: Vec<String> =
            branches.iter().flat_map(|branch| branch.iter().flat_map(constant_options)).collect();
        let not_meant = |branch: &&Vec<ValidationError<'static>>| {
            branch.iter().any(|error| {
                let at_top = key_path(self.value, error.instance_path()) == path;
                at_top
                    && matches!(error.kind(), ValidationErrorKind::Type { .. } | ValidationErrorKind::Constant { .. })
            })
        };
        let meant: Vec<_> = branches.iter().filter(|branch| !not_meant(branch)).collect();
        if let [branch] = meant[..]
            && !constants.len().gt(&1)
        {
            for error in branch {
                self.judge(error);
            }
            return;
        }
        let problem = if constants.is_empty() {
            let types: Vec<&str> =
                branches.iter().flatten().filter_map(|error| expected_type(self.schema, error)).collect();
            format!("is {}; it must be {}", kind_of(instance), types.join(" or "))
        } else {
            let options: Vec<&str> = constants.iter().map(String::as_str).collect();
            not_one_of(instance, &options)
        };
        self.findings.add(&path, problem);
        self.unfit.values.push(path);
    }
}

/// The path of an instance. A mapping's key may look like an index, so the value decides.
fn key_path(value: &Value, location: &Location) -> KeyPath {
    let mut path = KeyPath::default();
    let mut value = Some(value);
    for segment in location.iter() {
        let is_list = value.is_some_and(Value::is_array);
        match segment {
            LocationSegment::Index(index) if is_list => {
                value = value.and_then(|value| value.get(index));
                path = path.index(index);
            }
            other => {
                let key = other.to_string();
                value = value.and_then(|value| value.get(&key));
                path = path.key(key);
            }
        }
    }
    path
}

/// The schema object that holds the keyword at `location`, references followed.
fn schema_node<'a>(schema: &'a Value, location: &Location) -> Option<&'a Value> {
    let segments: Vec<String> = location.iter().map(|segment| segment.to_string()).collect();
    let (_, parents) = segments.split_last()?;
    let mut node = schema;
    for segment in parents {
        node = match node.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#')) {
            Some(pointer) if node.get(segment).is_none() => schema.pointer(pointer)?,
            _ => node,
        };
        if segment == "$ref" {
            let pointer = node.get("$ref")?.as_str()?.strip_prefix('#')?;
            node = schema.pointer(pointer)?;
            continue;
        }
        node = match node {
            Value::Array(items) => items.get(segment.parse::<usize>().ok()?)?,
            node => node.get(segment)?,
        };
    }
    Some(node)
}

fn properties(node: Option<&Value>) -> Vec<&str> {
    let known = node.and_then(|node| node.get("properties")).and_then(Value::as_object);
    known.into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

fn constant_options(error: &ValidationError<'_>) -> Vec<String> {
    match error.kind() {
        ValidationErrorKind::Constant { expected_value } => {
            vec![expected_value.as_str().unwrap_or_default().to_owned()]
        }
        ValidationErrorKind::Enum { options } => {
            let options = options.as_array().into_iter().flatten();
            options.filter_map(|option| option.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    }
}

fn expected_type(schema: &Value, error: &ValidationError<'_>) -> Option<&'static str> {
    let node = schema_node(schema, error.schema_path())?;
    node.get("type")?.as_str().filter(|name| *name != "null").map(type_name)
}

fn not_one_of(instance: &Value, options: &[&str]) -> String {
    let hint = instance.as_str().map(|text| suggestion(text, options.iter().copied())).unwrap_or_default();
    format!("is {}; it must be one of {}{hint}", kind_of(instance), options.join(", "))
}

fn is_duration(node: Option<&Value>) -> bool {
    let format = node.and_then(|node| node.get("format")).and_then(Value::as_str);
    format == Some("bongsu-duration")
}

fn wrong_type(instance: &Value, node: Option<&Value>) -> String {
    let is = kind_of(instance);
    if is_duration(node) {
        return match instance {
            Value::Number(number) => format!("needs a unit, got `{number}`; write {number}s for {number} seconds"),
            _ => format!("is {is}; it must be a duration: write 10s for ten seconds"),
        };
    }
    let types: Vec<&str> = match node.and_then(|node| node.get("type")) {
        Some(Value::String(name)) => vec![type_name(name)],
        Some(Value::Array(names)) => {
            names.iter().filter_map(Value::as_str).filter(|name| *name != "null").map(type_name).collect()
        }
        _ => Vec::new(),
    };
    let wants_text = types.contains(&TEXT);
    let remedy = match instance {
        Value::Null => "; give it a value or remove the key".to_owned(),
        Value::Number(_) | Value::Bool(_) if wants_text => format!("; put it in quotes: \"{instance}\""),
        Value::String(text) if !wants_text && (text.parse::<f64>().is_ok() || text == "true" || text == "false") => {
            format!("; remove the quotes: {text}")
        }
        Value::String(_) if types == [LIST] => "; write it as a list: [ ... ]".to_owned(),
        Value::Object(object) if wants_text && object.is_empty() => "; put text with braces in quotes".to_owned(),
        _ => String::new(),
    };
    let types = if types.is_empty() { "something else".to_owned() } else { types.join(" or ") };
    format!("is {is}; it must be {types}{remedy}")
}

const TEXT: &str = "text";
const LIST: &str = "a list";

fn type_name(name: &str) -> &'static str {
    match name {
        "string" => TEXT,
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => LIST,
        "object" => "a mapping",
        _ => "something else",
    }
}

fn wrong_pattern(instance: &Value, pattern: &str, node: Option<&Value>) -> String {
    let is = kind_of(instance);
    if is_duration(node) {
        return match instance.as_str() {
            Some(number) if !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()) => {
                format!("needs a unit, got `{}`; write {}s for {} seconds", shown(number), shown(number), shown(number))
            }
            _ => format!("is {is}, which is not a duration; write 10s for ten seconds (units: ms, s, m, h, d, w)"),
        };
    }
    let example = node.and_then(|node| node.pointer("/examples/0")).and_then(Value::as_str);
    let right = match (example, pattern) {
        (Some(example), _) => format!("write for example {example}"),
        (None, "^[a-z][a-z0-9_]{0,62}$") => {
            "use lower-case letters, digits and `_`, a letter first, 63 characters at the most".to_owned()
        }
        (None, "^[a-z][a-z0-9-]{0,62}$") => {
            "use lower-case letters, digits and `-`, a letter first, 63 characters at the most".to_owned()
        }
        (None, pattern) if pattern.contains("of") => "write for example 2 of 3".to_owned(),
        (None, pattern) => format!("it must match {pattern}"),
    };
    format!("is {is}, which does not fit; {right}")
}

fn range(node: Option<&Value>) -> String {
    let limit = |name: &str| node.and_then(|node| node.get(name));
    match (limit("minimum"), limit("maximum")) {
        (Some(least), Some(most)) => format!("it must be from {least} to {most}"),
        (Some(least), None) => format!("it must be {least} or more"),
        (None, Some(most)) => format!("it must be {most} or less"),
        (None, None) => "it is outside of the range".to_owned(),
    }
}

fn first_sentence(text: &str) -> String {
    let end = text.find(". ").or_else(|| text.find(['\n', ';'])).unwrap_or(text.len());
    text[..end].trim_end_matches('.').to_owned()
}

fn in_brackets(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

/// Removes what is at `path`. A list keeps its length, so that indices stay what they are in the file: `null` takes the place.
pub(crate) fn remove(value: &mut Value, path: &KeyPath) {
    let Some((last, parents)) = path.segments().split_last() else { return };
    let mut node = value;
    for segment in parents {
        let next = match segment {
            Segment::Key(key) => node.get_mut(key.as_str()),
            Segment::Index(index) => node.get_mut(*index),
        };
        match next {
            Some(next) => node = next,
            None => return,
        }
    }
    match last {
        Segment::Key(key) => {
            if let Some(object) = node.as_object_mut() {
                object.remove(key);
            }
        }
        Segment::Index(index) => {
            if let Some(element) = node.get_mut(*index) {
                *element = Value::Null;
            }
        }
    }
}

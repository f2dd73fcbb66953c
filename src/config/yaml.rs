//! YAML text -> JSON value, and where each key stands.

use saphyr::{LoadableYamlNode, MarkedYaml, Marker, Scalar, ScanError, YamlData};
use serde_json::{Map, Number, Value};

use super::mistake::{Findings, KeyPath, Position, Positions, shown};

/// A file is refused beyond this size: no configuration is that large, and parsing is not free.
pub(crate) const MAX_BYTES: usize = 4 * 1024 * 1024;

/// No configuration is nested so deeply; the parser's tree would overflow the stack when it is dropped.
const MAX_DEPTH: usize = 200;

/// How many doubled keys are named one by one.
const MAX_DUPLICATES: usize = 50;

/// First of the private characters that make a doubled key different from its first occurrence.
const DUPLICATE_MARK: u32 = 0xE000;

/// What a file says, and where.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) value: Value,
    /// Where things are, and the mistakes of form found so far.
    pub(crate) findings: Findings,
}

/// Parses one YAML document whose top is a mapping. `Err` holds the mistakes where nothing can be made of the text at all.
pub(crate) fn parse(file: &str, text: &str) -> Result<Parsed, Findings> {
    let mut refused = Findings::new(file, Positions::default());
    if text.len() > MAX_BYTES {
        refused.add_at(Position::START, "file", format!("is {} bytes long; at most {MAX_BYTES} are read", text.len()));
        return Err(refused);
    }
    if let Some(position) = too_deep(text) {
        refused.add_at(position, "yaml", format!("is nested more than {MAX_DEPTH} levels deep"));
        return Err(refused);
    }
    let (text, duplicates) = part_duplicates(text.strip_prefix('\u{feff}').unwrap_or(text));
    let documents = MarkedYaml::load_from_str(&text).map_err(|error| {
        refused.add_at(position(error.marker()), "yaml", syntax_problem(&error, &text));
        refused
    })?;
    let mut reader = Reader { positions: Positions::default(), problems: Vec::new() };
    let value = match documents.first() {
        None => Value::Null,
        Some(document) => reader.value(document, &KeyPath::default()),
    };
    let mut findings = Findings::new(file, reader.positions);
    for (position, path, problem) in reader.problems {
        findings.add_at(position, path.to_string(), problem);
    }
    for (position, key) in duplicates {
        findings.add_at(position, shown(&key), "is written twice in the same section; keep one of the two");
    }
    if let Some(second) = documents.get(1) {
        let problem = "a second document begins here; a configuration is one document, so remove the line `---`";
        findings.add_at(position(&second.span.start), "yaml", problem);
    }
    match value {
        Value::Object(_) => Ok(Parsed { value, findings }),
        Value::Null => {
            findings.add_at(Position::START, "(top)", "the file is empty; it needs at least `kafka` and `sources`");
            Err(findings)
        }
        other => {
            let problem = format!("is {}; a configuration is a mapping such as `kafka: {{ ... }}`", kind_of(&other));
            findings.add_at(Position::START, "(top)", problem);
            Err(findings)
        }
    }
}

/// `text`, a list, ...: what a value is, for sentences.
pub(crate) fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Bool(value) => format!("`{value}`"),
        Value::Number(value) => format!("the number `{value}`"),
        Value::String(value) => format!("the text `{}`", shown(value)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

/// Where brackets, indentation or list dashes are nested too deeply, counted without parsing: what stands in quotes counts too.
fn too_deep(text: &str) -> Option<Position> {
    let mut brackets = 0usize;
    for (line, content) in text.lines().enumerate() {
        // Each of these characters at the start of a line can open a level; what follows them cannot, except brackets.
        let opening = content.chars().take_while(|c| matches!(c, ' ' | '-' | '?' | ':')).count();
        if opening > 2 * MAX_DEPTH {
            return Some(Position { line: line + 1, column: 1 });
        }
        for (column, c) in content.chars().enumerate() {
            match c {
                '[' | '{' => brackets += 1,
                ']' | '}' => brackets = brackets.saturating_sub(1),
                _ => {}
            }
            if brackets > MAX_DEPTH {
                return Some(Position { line: line + 1, column: column + 1 });
            }
        }
    }
    None
}

/// The text with each doubled key made different from the first, so that all of them, and all else, can be named at once.
///
/// The first character of a doubled key is replaced by a private one, which moves no position.
fn part_duplicates(text: &str) -> (String, Vec<(Position, String)>) {
    let mut text = text.to_owned();
    let mut duplicates: Vec<(Position, String)> = Vec::new();
    while duplicates.len() < MAX_DUPLICATES {
        let Err(error) = MarkedYaml::load_from_str(&text) else { break };
        if error.info() != "duplicated key in mapping" {
            break;
        }
        let at = position(error.marker());
        let Some(start) = text.char_indices().nth(error.marker().index()).map(|(start, _)| start) else { break };
        let quote = usize::from(text[start..].starts_with(['"', '\'']));
        let Some(first) = text[start + quote..].chars().next().filter(|c| c.is_alphanumeric() || *c == '*') else {
            break;
        };
        let mark = u32::try_from(duplicates.len()).ok().and_then(|n| char::from_u32(DUPLICATE_MARK + n));
        let Some(mark) = mark else { break };
        let key: String = text[start + quote..].chars().take_while(|c| !matches!(c, ':' | '"' | '\'' | '\n')).collect();
        let from = start + quote;
        text.replace_range(from..from + first.len_utf8(), mark.encode_utf8(&mut [0; 4]));
        duplicates.push((at, key));
    }
    (text, duplicates)
}

fn is_duplicate(key: &str) -> bool {
    let limit = DUPLICATE_MARK + MAX_DUPLICATES as u32;
    key.chars().next().is_some_and(|c| (DUPLICATE_MARK..limit).contains(&u32::from(c)))
}

/// The parser's complaint, with the remedy for the mistakes that people make.
fn syntax_problem(error: &ScanError, text: &str) -> String {
    let line = text.lines().nth(error.marker().line().saturating_sub(1)).unwrap_or_default();
    let before = text.lines().take(error.marker().line()).collect::<Vec<_>>();
    let tab = line.trim_end().contains('\t') || before.iter().rev().take(2).any(|line| line.starts_with('\t'));
    let remedy = if tab {
        "; there is a tab: indent with spaces"
    } else if line.matches('"').count() % 2 == 1 || line.matches('\'').count() % 2 == 1 {
        "; a quote is opened and not closed"
    } else if line.contains("{{") || line.contains(": {") && line.matches('{').count() != line.matches('}').count() {
        "; put text with braces in quotes"
    } else {
        "; look at the indentation, the brackets and the quotes around here"
    };
    format!("is not valid YAML: {}{remedy}", shown(error.info()))
}

struct Reader {
    positions: Positions,
    problems: Vec<(Position, KeyPath, String)>,
}

impl Reader {
    fn value(&mut self, node: &MarkedYaml<'_>, path: &KeyPath) -> Value {
        let problem = match &node.data {
            YamlData::Value(scalar) => match self.scalar(scalar) {
                Some(value) => return value,
                None => "is not a number that can be used".to_owned(),
            },
            YamlData::Sequence(items) => {
                let items = items.iter().enumerate().map(|(index, item)| {
                    let path = path.clone().index(index);
                    self.positions.insert(path.clone(), position(&item.span.start));
                    self.value(item, &path)
                });
                return Value::Array(items.collect());
            }
            YamlData::Mapping(entries) => {
                let mut object = Map::new();
                for (key, item) in entries {
                    let at = position(&key.span.start);
                    let Some(name) = key_text(key) else {
                        self.problems.push((at, path.clone(), "a key here is not text; put it in quotes".to_owned()));
                        continue;
                    };
                    if is_duplicate(&name) {
                        continue;
                    }
                    let path = path.clone().key(&name);
                    self.positions.insert(path.clone(), at);
                    let value = self.value(item, &path);
                    object.insert(name, value);
                }
                return Value::Object(object);
            }
            YamlData::Tagged(..) => "has a YAML tag (`!...`), which is not supported; remove the tag".to_owned(),
            YamlData::BadValue | YamlData::Alias(_) | YamlData::Representation(..) => {
                if node.span.is_empty() && path.segments().is_empty() {
                    return Value::Null;
                }
                "is not a value that can be read".to_owned()
            }
        };
        self.problems.push((position(&node.span.start), path.clone(), problem));
        Value::Null
    }

    fn scalar(&self, scalar: &Scalar<'_>) -> Option<Value> {
        Some(match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(value) => Value::Bool(*value),
            Scalar::Integer(value) => Value::Number((*value).into()),
            Scalar::FloatingPoint(value) => Value::Number(Number::from_f64(value.into_inner())?),
            Scalar::String(text) => Value::String(text.clone().into_owned()),
        })
    }
}

/// A key's text; numbers and `true` are what they look like.
fn key_text(key: &MarkedYaml<'_>) -> Option<String> {
    match &key.data {
        YamlData::Value(Scalar::String(text)) => Some(text.clone().into_owned()),
        YamlData::Value(Scalar::Integer(number)) => Some(number.to_string()),
        YamlData::Value(Scalar::Boolean(value)) => Some(value.to_string()),
        _ => None,
    }
}

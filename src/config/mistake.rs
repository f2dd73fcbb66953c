//! A mistake in the operator's file, and where to mend it.

use std::collections::HashMap;
use std::fmt;

/// Where something stands in a configuration: keys and indices from the top.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct KeyPath(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Segment {
    Key(String),
    Index(usize),
}

impl KeyPath {
    pub(crate) fn key(mut self, key: impl Into<String>) -> KeyPath {
        self.0.push(Segment::Key(key.into()));
        self
    }

    pub(crate) fn index(mut self, index: usize) -> KeyPath {
        self.0.push(Segment::Index(index));
        self
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.0
    }

    pub(crate) fn parent(&self) -> Option<KeyPath> {
        let (_, rest) = self.0.split_last()?;
        Some(KeyPath(rest.to_vec()))
    }

    /// The reverse of `Display`, for paths whose keys hold neither dots nor brackets.
    pub(crate) fn parse(text: &str) -> KeyPath {
        let mut path = KeyPath::default();
        for part in text.split('.').filter(|part| !part.is_empty()) {
            let (key, indices) = part.split_once('[').unwrap_or((part, ""));
            if !key.is_empty() {
                path = path.key(key);
            }
            for index in indices.split(['[', ']']).filter_map(|index| index.parse().ok()) {
                path = path.index(index);
            }
        }
        path
    }

    pub(crate) fn join(mut self, rest: &[Segment]) -> KeyPath {
        self.0.extend_from_slice(rest);
        self
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("(top)");
        }
        for (at, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if at > 0 => write!(f, ".{}", shown(key))?,
                Segment::Key(key) => f.write_str(&shown(key))?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Line and column, both from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Position {
    pub(crate) const START: Position = Position { line: 1, column: 1 };
}

/// Where each key, or element of a list, of a file begins.
#[derive(Debug, Clone, Default)]
pub(crate) struct Positions(HashMap<KeyPath, Position>);

impl Positions {
    pub(crate) fn insert(&mut self, path: KeyPath, position: Position) {
        self.0.insert(path, position);
    }

    /// The position of `path`, or of the nearest thing around it that the file has.
    pub(crate) fn find(&self, path: &KeyPath) -> Position {
        let mut path = path.clone();
        loop {
            if let Some(position) = self.0.get(&path) {
                return *position;
            }
            match path.parent() {
                Some(parent) => path = parent,
                None => return Position::START,
            }
        }
    }
}

/// One mistake. Its text is `FILE:LINE:COLUMN: KEY: problem`, on one line, without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) file: String,
    pub(crate) position: Position,
    pub(crate) key: String,
    pub(crate) problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mistake { file, position: Position { line, column }, key, problem } = self;
        write!(f, "{}:{line}:{column}: {}: {}", printable(file), printable(key), printable(problem))
    }
}

/// All mistakes of a file, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistakes(pub(crate) Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Mistakes {}

/// Collects what is wrong with one file.
#[derive(Debug)]
pub(crate) struct Findings {
    file: String,
    positions: Positions,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
}

impl Findings {
    pub(crate) fn new(file: &str, positions: Positions) -> Findings {
        Findings { file: file.to_owned(), positions, mistakes: Vec::new(), warnings: Vec::new() }
    }

    /// Adds a mistake at `path`.
    pub(crate) fn add(&mut self, path: &KeyPath, problem: impl Into<String>) {
        let position = self.positions.find(path);
        let mistake = Mistake { file: self.file.clone(), position, key: path.to_string(), problem: problem.into() };
        if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }

    /// Whether something has been said about `path`.
    pub(crate) fn knows(&self, path: &KeyPath) -> bool {
        let key = path.to_string();
        self.mistakes.iter().any(|mistake| mistake.key == key)
    }

    /// Notes what is not wrong, but probably not meant.
    pub(crate) fn warn(&mut self, path: &KeyPath, text: impl fmt::Display) {
        let position = self.positions.find(path);
        let problem = format!("warning: {text}");
        self.warnings.push(Mistake { file: self.file.clone(), position, key: path.to_string(), problem });
    }

    /// The warnings so far, in the order of the file.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<&Mistake> = self.warnings.iter().collect();
        warnings.sort_by_key(|warning| warning.position);
        warnings.into_iter().map(ToString::to_string).collect()
    }

    /// Adds a mistake of the file's form, at a position.
    pub(crate) fn add_at(&mut self, position: Position, key: impl Into<String>, problem: impl Into<String>) {
        self.mistakes.push(Mistake { file: self.file.clone(), position, key: key.into(), problem: problem.into() });
    }

    /// All mistakes, in the order of the file.
    pub(crate) fn into_mistakes(mut self) -> Vec<Mistake> {
        self.mistakes.sort_by(|a, b| (a.position, &a.key).cmp(&(b.position, &b.key)));
        self.mistakes
    }
}

/// Text from a file or from Kafka as a terminal may see it: on one line, control and direction characters spelled out.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(' '),
            // Direction overrides and invisible characters can make a line show something that it does not say.
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {
                out.extend(c.escape_unicode());
            }
            c if c.is_control() => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// [`printable`] text of bounded length, to be quoted in a message.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 100;
    let mut out = printable(&text.chars().take(LONGEST).collect::<String>());
    if text.chars().nth(LONGEST).is_some() {
        out.push_str("...");
    }
    out
}

/// The known name that a wrong one was probably meant to be.
pub(crate) fn did_you_mean<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong_folded = fold(wrong);
    let distance = |name: &&str| edit_distance(&wrong_folded, &fold(name));
    let nearest = known.into_iter().min_by_key(distance)?;
    let longest = wrong_folded.len().max(nearest.len());
    let nearest_folded = fold(nearest);
    let begins_alike = wrong_folded.len().min(nearest_folded.len()) >= 3
        && (wrong_folded.starts_with(&nearest_folded) || nearest_folded.starts_with(&wrong_folded));
    (begins_alike || distance(&nearest) <= longest.div_ceil(3).min(4)).then_some(nearest)
}

/// Case and the kind of separator do not make two names different.
fn fold(name: &str) -> Vec<char> {
    let folded = name.chars().take(64).filter(|c| !matches!(c, '_' | '-' | ' ' | '.'));
    folded.flat_map(char::to_lowercase).collect()
}

/// Insertions, deletions and replacements between two names.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// ` did you mean `x`?` or nothing, to be put behind a sentence.
pub(crate) fn suggestion<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    did_you_mean(wrong, known).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_back() {
        for text in ["views[2].sql", "time.idle_timeout", "sources[0]", "a.b[1][2].c"] {
            assert_eq!(KeyPath::parse(text).to_string(), text);
        }
    }

    #[test]
    fn suggestions_are_near_or_none() {
        let known = ["idle_timeout", "max_disorder", "allowed_lateness", "zone"];
        let cases = [("idle_timout", Some("idle_timeout")), ("idleTimeout", Some("idle_timeout")), ("xyzzy", None)];
        for (wrong, expected) in
            cases.into_iter().chain([("", None), ("Zone", Some("zone")), ("zones_of_time", Some("zone"))])
        {
            assert_eq!(did_you_mean(wrong, known), expected, "{wrong}");
        }
    }

    #[test]
    fn nothing_from_a_file_reaches_the_terminal_raw() {
        assert_eq!(printable("a\u{1b}[31m\nb\u{202e}"), "a\\u{1b}[31m b\\u{202e}");
        assert_eq!(shown(&"x".repeat(500)).len(), 103);
    }
}

//! Silences: which alerts nobody is told about. A pure fold over `bongsu.commands`.
//!
//! - S1: an alert is muted by the `window_end` of the record that fired, not by the clock, so that live and replay agree.
//! - S2: a silence mutes what its matcher fits, and nothing else. A key that the alert lacks fits nothing, negated or not, so that a
//!   misspelt key mutes nobody; a matcher that cannot be read mutes nobody either.

use std::collections::BTreeMap;

use bongsu_schemas::alert::AlertRecord;
use bongsu_schemas::command::{Command, Silence};
use bongsu_schemas::key::stable_id;
use chrono::{DateTime, TimeDelta, Utc};
use regex::{Regex, RegexBuilder};
use serde_json::Value;

/// Over this number, the silences that end first are forgotten.
const MAX_SILENCES: usize = 10_000;
const MAX_MATCHERS: usize = 20;
const MAX_REGEX_CHARS: usize = 500;
/// Memory of one compiled expression.
const MAX_REGEX_BYTES: usize = 128 * 1024;
/// For texts of people.
const MAX_TEXT_CHARS: usize = 500;
/// For names of people.
const MAX_NAME_CHARS: usize = 80;

/// The silences that were asked for and not taken back.
#[derive(Debug, Default)]
pub struct Silences {
    by_id: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    silence: Silence,
    /// The matcher, ready for use; none if it cannot be read.
    tests: Option<Vec<(String, Test)>>,
}

impl Silences {
    /// Takes the next command. True if silences changed.
    pub fn apply(&mut self, command: &Command) -> bool {
        match command {
            Command::Silence(silence) => {
                let known = Known { silence: silence.clone(), tests: compiled(silence).ok() };
                self.by_id.insert(silence.id.clone(), known);
                if self.by_id.len() > MAX_SILENCES {
                    let first =
                        self.by_id.iter().min_by_key(|(_, known)| known.silence.until).map(|(id, _)| id.clone());
                    first.and_then(|id| self.by_id.remove(&id));
                }
                true
            }
            Command::Unsilence { id, .. } => self.by_id.remove(id).is_some(),
            Command::Acknowledge { .. } => false,
        }
    }

    /// Whether nobody is told of an alert that fired with this record.
    pub(crate) fn mute(&self, firing: &AlertRecord) -> bool {
        self.by_id.values().any(|known| known.mutes(firing))
    }

    /// The silences that hold at `now` or may hold later, by the time of their end.
    pub fn silences(&self, now: DateTime<Utc>) -> Vec<&Silence> {
        let silences = self.by_id.values().map(|known| &known.silence);
        let mut ahead: Vec<&Silence> = silences.filter(|silence| silence.until > now).collect();
        ahead.sort_by_key(|silence| silence.until);
        ahead
    }

    /// The silence of that id, ended ones included.
    pub fn get(&self, id: &str) -> Option<&Silence> {
        self.by_id.get(id).map(|known| &known.silence)
    }
}

impl Known {
    fn mutes(&self, firing: &AlertRecord) -> bool {
        let Some(tests) = &self.tests else { return false };
        let fits = |(name, test): &(String, Test)| value(firing, name).is_some_and(|value| test.fits(&value));
        self.silence.holds_at(firing.window_end) && tests.iter().all(fits)
    }
}

/// What a value must be.
#[derive(Debug)]
struct Test {
    wanted: Wanted,
    negated: bool,
}

#[derive(Debug)]
enum Wanted {
    Exactly(String),
    Matching(Regex),
}

impl Test {
    /// `value`, `~expression`, `!value` or `!~expression`.
    fn parse(text: &str) -> Result<Test, String> {
        let (negated, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let wanted = match text.strip_prefix('~') {
            Some(expression) => Wanted::Matching(whole(expression)?),
            None => Wanted::Exactly(text.to_owned()),
        };
        Ok(Test { wanted, negated })
    }

    fn fits(&self, value: &str) -> bool {
        let fits = match &self.wanted {
            Wanted::Exactly(wanted) => wanted == value,
            Wanted::Matching(expression) => expression.is_match(value),
        };
        fits != self.negated
    }
}

/// An expression that must fit a whole value.
fn whole(expression: &str) -> Result<Regex, String> {
    if expression.chars().count() > MAX_REGEX_CHARS {
        return Err(format!("a regular expression may have {MAX_REGEX_CHARS} characters"));
    }
    let compile = |text: &str| {
        let mut builder = RegexBuilder::new(text);
        builder.dot_matches_new_line(true).size_limit(MAX_REGEX_BYTES).dfa_size_limit(MAX_REGEX_BYTES).nest_limit(50);
        builder.build().map_err(|error| format!("`~{expression}` is no regular expression that can be used: {error}"))
    };
    // By itself first: `a)|(b` would close the group that holds it to the whole value.
    compile(expression)?;
    compile(&format!(r"\A(?:{expression})\z"))
}

fn compiled(silence: &Silence) -> Result<Vec<(String, Test)>, String> {
    if silence.matcher.len() > MAX_MATCHERS {
        return Err(format!("a silence may have {MAX_MATCHERS} matchers"));
    }
    let test = |(name, text): (&String, &String)| match Test::parse(text) {
        Ok(test) => Ok((name.clone(), test)),
        Err(problem) => Err(format!("{name}: {problem}")),
    };
    silence.matcher.iter().map(test).collect()
}

/// The value that a matcher's name stands for.
fn value(alert: &AlertRecord, name: &str) -> Option<String> {
    match name {
        "rule" => Some(alert.rule.clone()),
        "service" if alert.service.is_some() => alert.service.clone(),
        _ => match alert.key.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        },
    }
}

/// What is wrong with a silence that somebody wants to write.
pub fn check(silence: &Silence) -> Result<(), String> {
    let Silence { id, matcher, from, until, repeat, by, reason } = silence;
    if matcher.is_empty() {
        return Err(
            "a silence needs a matcher such as service=order-api; without one it would mute everything".to_owned()
        );
    }
    let is_long = |text: &String| text.chars().count() > MAX_TEXT_CHARS + 2;
    if let Some((name, _)) = matcher.iter().find(|(name, text)| name.is_empty() || is_long(name) || is_long(text)) {
        let name: String = name.chars().take(MAX_NAME_CHARS).collect();
        return Err(format!("the matcher `{name}` has no name, or is longer than {MAX_TEXT_CHARS} characters"));
    }
    compiled(silence)?;
    if from >= until {
        return Err(format!("`from` ({from}) must be before `until` ({until})"));
    }
    if let Some(repeat) = repeat
        && !comes(silence)
    {
        return Err(format!("the hours {} never come between {from} and {until}; let it last longer", repeat.hours));
    }
    check_name(id).map_err(|problem| format!("`id` {problem}"))?;
    check_name(by).map_err(|problem| format!("`by` {problem}"))?;
    if is_long(reason) {
        return Err(format!("`reason` is longer than {MAX_TEXT_CHARS} characters"));
    }
    Ok(())
}

/// What is wrong with the name of somebody, or the id of something.
pub fn check_name(name: &str) -> Result<(), String> {
    match name {
        name if name.trim().is_empty() => Err("must not be empty".to_owned()),
        name if name.chars().count() > MAX_NAME_CHARS => Err(format!("is longer than {MAX_NAME_CHARS} characters")),
        name if name.contains(char::is_control) => Err("must not contain control characters".to_owned()),
        _ => Ok(()),
    }
}

/// Whether there is a moment at which it holds. Two weeks show every hour of the week, one of them without a change of clocks.
fn comes(silence: &Silence) -> bool {
    let minutes = 14 * 24 * 60;
    // The beginning of a minute, so that not the seconds of `from` decide.
    let seconds = TimeDelta::seconds(silence.from.timestamp().rem_euclid(60));
    let first = silence.from.checked_sub_signed(seconds).unwrap_or(silence.from);
    let moments = (0..=minutes).map_while(|minute| first.checked_add_signed(TimeDelta::minutes(minute)));
    moments.map(|at| at.max(silence.from)).take_while(|at| *at < silence.until).any(|at| silence.holds_at(at))
}

/// An id for a silence that is asked for at `now`; short, because people type it.
pub fn new_id(now: DateTime<Utc>, by: &str, matcher: &BTreeMap<String, String>) -> String {
    let now = now.to_rfc3339();
    let parts = ["silence", &now, by].into_iter().chain(matcher.iter().flat_map(|(name, value)| [&**name, &**value]));
    stable_id(parts).chars().take(12).collect()
}

#[cfg(test)]
#[path = "silences_tests.rs"]
mod tests;

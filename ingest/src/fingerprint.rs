//! Which reports are the same bug: fingerprints of exceptions.
//!
//! Version 1 is a hash of the chain of types (outermost first, causes included) and of the frames of one's own code, without line
//! numbers and with generated names made equal; where a report has no frames, of the message with everything that varies masked.
//! So a fingerprint survives other ids in messages, other line numbers, and another number of proxies; it changes with the place
//! or the type of the failure. A change of these rules must be a new version: reports compare weeks.

use std::borrow::Cow;

use bongsu_schemas::key::stable_id;

mod mask;
mod stack;

use stack::Stack;

/// Part of every hash.
const VERSION: &str = "v1";

/// Frames that count where a stack trace has none of one's own code.
const MAX_FOREIGN_FRAMES: usize = 5;

/// Of a stack trace or a message, this much counts: more than [`stack::MAX_FRAMES`] frames have, and little enough to be masked
/// and parsed for every report.
const MAX_ANALYSED_BYTES: usize = 64 * 1024;

/// What an exception is, whatever report it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analysis {
    /// 32 hexadecimal digits.
    pub fingerprint: String,
    /// Type of the innermost cause.
    pub root_type: String,
    /// The first frame of one's own code, as the trace has it; of any code where there is none. The innermost cause's first.
    pub first_frame: Option<String>,
}

/// Analyses one report.
pub fn analyse(exception_type: &str, message: Option<&str>, stacktrace: Option<&str>) -> Analysis {
    let stack = Stack::parse(beginning(stacktrace.unwrap_or_default()));
    // Log appenders give the root cause's type beside the whole chain's trace: the trace knows better.
    let mut types: Vec<Cow<'_, str>> = stack.types.iter().map(|name| stack::normalise(name)).collect();
    if types.is_empty() {
        types.push(stack::normalise(exception_type));
    }
    let frames: Vec<_> = stack.frames.iter().filter(|frame| frame.is_own).collect();
    let identity: Vec<Cow<'_, str>> = if !frames.is_empty() {
        distinct_in_order(frames.iter().map(|frame| stack::normalise(&frame.function)))
    } else if !stack.frames.is_empty() {
        let foreign = stack.frames.iter().take(MAX_FOREIGN_FRAMES);
        distinct_in_order(foreign.map(|frame| stack::normalise(&frame.function)))
    } else {
        vec![Cow::Owned(mask::mask(beginning(message.unwrap_or_default())))]
    };
    let parts = [VERSION, if stack.frames.is_empty() { "message" } else { "frames" }];
    let types_and_identity = types.iter().map(Cow::as_ref).chain(["|"]).chain(identity.iter().map(Cow::as_ref));
    let first = frames.first().copied().or(stack.frames.first());
    Analysis {
        fingerprint: stable_id(parts.into_iter().chain(types_and_identity)),
        root_type: types.last().map_or_else(String::new, |root| root.to_string()),
        first_frame: first.map(|frame| stack::normalise(frame.text).into_owned()),
    }
}

/// The type that a stack trace begins with.
pub(crate) fn outer_type(stacktrace: &str) -> Option<&str> {
    Stack::parse(beginning(stacktrace)).types.first().copied()
}

/// What is analysed of a long text: whole lines, so that no half of a frame counts as one.
fn beginning(text: &str) -> &str {
    if text.len() <= MAX_ANALYSED_BYTES {
        return text;
    }
    let text = &text[..text.floor_char_boundary(MAX_ANALYSED_BYTES)];
    text.rfind('\n').map_or(text, |end| &text[..end])
}

/// Causes repeat the frames of what they caused, and proxies repeat methods: each counts once.
fn distinct_in_order<'a>(names: impl Iterator<Item = Cow<'a, str>>) -> Vec<Cow<'a, str>> {
    let mut seen = std::collections::HashSet::new();
    names.filter(|name| seen.insert(name.clone())).collect()
}

#[cfg(test)]
mod tests;

//! What a rule's condition compares, read from its SQL only as far as a message needs it. Pure.
//!
//! Wrong guesses are harmless: a clause that is not understood is shown as it was written.

/// Longer conditions are not looked into.
const MAX_BYTES: usize = 2_000;
/// Clauses and names that are looked at.
const MAX_PARTS: usize = 12;

/// A condition, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Condition<'a> {
    /// What stands between AND and OR.
    pub(super) clauses: Vec<Clause<'a>>,
    /// Names that may be columns, each once, in the order in which they stand.
    pub(super) names: Vec<String>,
}

/// One comparison.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Clause<'a> {
    /// The name that it begins with, and what follows: `errors` and `> $max * requests`.
    pub(super) head: Option<(String, &'a str)>,
    /// Parameters in it, without `$`.
    pub(super) params: Vec<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Name(&'a str),
    Quoted(&'a str),
    Param(&'a str),
    Open,
    Close,
    Other,
}

impl<'a> Condition<'a> {
    /// Takes a condition apart.
    pub(super) fn parse(when: &'a str) -> Condition<'a> {
        if when.len() > MAX_BYTES {
            return Condition::default();
        }
        let tokens = tokens(when);
        let is_word =
            |token: &Token<'_>, word: &str| matches!(token, Token::Name(name) if name.eq_ignore_ascii_case(word));
        let mut condition = Condition::default();
        for (_, _, token) in &tokens {
            if let Some(name) = name_of(*token)
                && !condition.names.contains(&name)
                && condition.names.len() < MAX_PARTS
            {
                condition.names.push(name);
            }
        }
        // Their ANDs do not part clauses.
        let is_tangled = tokens.iter().any(|(_, _, token)| is_word(token, "between") || is_word(token, "case"));
        let (mut depth, mut begin) = (0_usize, 0);
        for (position, (_, _, token)) in tokens.iter().enumerate() {
            match token {
                Token::Open => depth += 1,
                Token::Close => depth = depth.saturating_sub(1),
                token if depth == 0 && !is_tangled && (is_word(token, "and") || is_word(token, "or")) => {
                    condition.add(when, &tokens[begin..position]);
                    begin = position + 1;
                }
                _ => {}
            }
        }
        condition.add(when, &tokens[begin..]);
        condition
    }

    fn add(&mut self, when: &'a str, tokens: &[(usize, usize, Token<'a>)]) {
        let (Some((_, first_end, first)), Some((_, end, _))) = (tokens.first(), tokens.last()) else { return };
        if self.clauses.len() >= MAX_PARTS {
            return;
        }
        let is_called = matches!(tokens.get(1), Some((_, _, Token::Open)));
        let rest = when.get(*first_end..*end).unwrap_or_default().trim();
        let head = name_of(*first).filter(|_| !is_called && !rest.is_empty()).map(|name| (name, rest));
        let param = |(_, _, token): &(usize, usize, Token<'a>)| match token {
            Token::Param(name) => Some(*name),
            _ => None,
        };
        self.clauses.push(Clause { head, params: tokens.iter().filter_map(param).collect() });
    }
}

/// The column that a token may name; unquoted names are lower case in SQL.
fn name_of(token: Token<'_>) -> Option<String> {
    match token {
        Token::Name(name) => Some(name.to_ascii_lowercase()),
        Token::Quoted(name) => Some(name.to_owned()),
        _ => None,
    }
}

/// Tokens with where they begin and end, in bytes.
fn tokens(text: &str) -> Vec<(usize, usize, Token<'_>)> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let word_end = |from: &str| from.find(|c| !is_word(c)).unwrap_or(from.len());
        // The length of what stands between two quotes, with both of them.
        let quoted = |quote: char| rest[1..].find(quote).map_or(rest.len(), |end| end + 2);
        let (length, token) = match first {
            '"' => {
                let length = quoted('"');
                (length, Token::Quoted(rest[1..length].trim_end_matches('"')))
            }
            '\'' => (quoted('\''), Token::Other),
            '$' => {
                let length = 1 + word_end(&rest[1..]);
                (length, Token::Param(&rest[1..length]))
            }
            '(' => (1, Token::Open),
            ')' => (1, Token::Close),
            first if first.is_alphabetic() || first == '_' => {
                let length = word_end(rest);
                (length, Token::Name(&rest[..length]))
            }
            // With its letters, so that `1e3` names no column.
            first if first.is_ascii_digit() => (word_end(rest), Token::Other),
            other => (other.len_utf8(), Token::Other),
        };
        if !first.is_whitespace() {
            let begin = text.len() - rest.len();
            tokens.push((begin, begin + length, token));
        }
        rest = &rest[length..];
    }
    tokens
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Scenario: conditions of the built-in rules, and ones that are not understood.
    /// Guarantees: which column is compared with what, and with which parameters.
    #[test]
    fn conditions() {
        type Expected<'a> = &'a [(Option<(&'a str, &'a str)>, &'a [&'a str])];
        let cases: [(&str, Expected<'_>); 7] = [
            (
                "requests >= 20 AND errors > $max * requests",
                &[(Some(("requests", ">= 20")), &[]), (Some(("errors", "> $max * requests")), &["max"])],
            ),
            (
                "event = 'order' and Failures > 1",
                &[(Some(("event", "= 'order'")), &[]), (Some(("failures", "> 1")), &[])],
            ),
            (r#""limit" > 1e3"#, &[(Some(("limit", "> 1e3")), &[])]),
            ("abs(x) > $a OR (y > 1 AND z > 2)", &[(None, &["a"]), (None, &[])]),
            ("x BETWEEN 1 AND $b", &[(Some(("x", "BETWEEN 1 AND $b")), &["b"])]),
            ("restarts", &[(None, &[])]),
            ("", &[]),
        ];
        for (when, expected) in cases {
            let condition = Condition::parse(when);
            let got: Vec<_> = condition
                .clauses
                .iter()
                .map(|clause| {
                    let head = clause.head.as_ref().map(|(name, rest)| (name.as_str(), *rest));
                    (head, clause.params.as_slice())
                })
                .collect();
            assert_eq!(got, expected, "{when}");
        }
    }

    proptest! {
        /// Guarantees: no text is too strange, and what is found is bounded.
        #[test]
        fn any_text_is_taken_apart(when in "\\PC{0,60}|[a-z\"'$() ]{0,80}") {
            let condition = Condition::parse(&when);
            prop_assert!(condition.clauses.len() <= MAX_PARTS && condition.names.len() <= MAX_PARTS);
        }
    }
}

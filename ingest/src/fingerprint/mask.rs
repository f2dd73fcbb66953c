//! Messages without what varies from one occurrence to the next.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Messages are masked up to this length; what follows is rarely text that somebody wrote.
const MAX_MESSAGE_BYTES: usize = 1000;

/// One alternative per thing that varies, in the order of precedence.
static VARIABLE: LazyLock<Regex> = LazyLock::new(|| {
    let alternatives = [
        r"(?<email>[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,})",
        r"(?<uuid>\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b)",
        r"(?<date>\b\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?\b)",
        // An apostrophe between letters (`can't`) opens nothing.
        r#"(?<quoted>"[^"\n]*"|`[^`\n]*`|\B'[^'\n]*')"#,
        r"(?<hex>\b0[xX][0-9a-fA-F]+\b|@[0-9a-f]{5,16}\b|\b[0-9a-fA-F]*[0-9][0-9a-fA-F]*[a-fA-F][0-9a-fA-F]{6,}\b|\b[a-fA-F]+[0-9][0-9a-fA-F]{6,}\b)",
        r"(?<number>[-+]?\d+(?:[.,]\d+)*)",
    ];
    Regex::new(&alternatives.join("|")).expect("the pattern is constant, and tests run it")
});

/// `Pet with id 7 not found` becomes `Pet with id <number> not found`.
pub(super) fn mask(message: &str) -> String {
    let message = &message[..message.floor_char_boundary(MAX_MESSAGE_BYTES)];
    let name = |captures: &Captures<'_>| {
        let names = ["email", "uuid", "date", "quoted", "hex", "number"];
        let found = names.into_iter().find(|name| captures.name(name).is_some());
        format!("<{}>", found.unwrap_or("value"))
    };
    VARIABLE.replace_all(message, name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_is_masked() {
        #[rustfmt::skip]
        let cases = [
            ("Pet with id 7 not found for owner with id 3", "Pet with id <number> not found for owner with id <number>"),
            ("user kim@example.com can't log in",           "user <email> can't log in"),
            ("order 6fa459ea-ee8a-3ca4-894e-db77e160355e",  "order <uuid>"),
            ("since 2026-11-23T09:00:00.250Z",              "since <date>"),
            ("on 2026-11-23 no slot",                       "on <date> no slot"),
            ("no column 'total' in \"orders\"",             "no column <quoted> in <quoted>"),
            ("object Cart@1b2c3d4e at 0xDEADBEEF",          "object Cart<hex> at <hex>"),
            ("trace 4bf92f3577b34da6a3ce929d0e0e4736",      "trace <hex>"),
            ("took 1,234.5 ms of -20",                      "took <number> ms of <number>"),
            ("Java heap space",                             "Java heap space"),
            ("",                                            ""),
        ];
        for (message, expected) in cases {
            assert_eq!(mask(message), expected, "{message}");
        }
    }
}

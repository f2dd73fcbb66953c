//! `bongsu explain` on the command line.

use std::str::FromStr;

use clap::Args;

use super::{ConfigFile, Format};

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Id of the alert, or its beginning: at least six digits
    #[arg(value_name = "ALERT_ID")]
    pub(crate) alert: AlertIdPrefix,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// How the explanation is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

/// The beginning of an id, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AlertIdPrefix(pub(crate) String);

impl FromStr for AlertIdPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<AlertIdPrefix, String> {
        let is_id = (6..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let needed = "an alert's id has 32 hexadecimal digits, of which the first six or more are enough";
        is_id.then(|| AlertIdPrefix(text.to_ascii_lowercase())).ok_or_else(|| needed.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hexadecimal_digits() {
        let whole = "0123456789abcdef0123456789abcdef";
        let cases = [(whole, Some(whole)), ("00AAff", Some("00aaff")), ("00aaf", None), ("00aafg", None), ("", None)];
        for (text, expected) in cases {
            assert_eq!(text.parse().ok(), expected.map(|id| AlertIdPrefix(id.to_owned())), "{text}");
        }
        assert!(format!("{whole}0").parse::<AlertIdPrefix>().is_err());
    }
}

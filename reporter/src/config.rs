//! The reporter's sections of the configuration: `slack`, `smtp`, `webhooks`, `reports` and `dashboard`.

mod webhooks;

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use bongsu_schemas::history::History;
use bongsu_schemas::kafka::Kafka;
use bongsu_schemas::services::Services;
use chrono::{NaiveTime, Weekday};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

pub(crate) use webhooks::check_url;
pub use webhooks::{Webhook, WebhookFormat, WebhookUrl};

/// All that the reporter needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// How to reach Kafka.
    pub kafka: Kafka,
    /// Who owns which service.
    pub services: Services,
    /// Where alerts and digests are posted; without it incidents are formed and published, but nobody is told by Slack.
    pub slack: Option<Slack>,
    /// Where mail is handed in; without it no e-mail is sent.
    pub smtp: Option<Smtp>,
    /// Who is told by HTTP.
    pub webhooks: Vec<Webhook>,
    /// What is reported regularly.
    pub reports: Reports,
    /// Where the processor keeps closed windows.
    pub history: History,
    /// The page.
    pub dashboard: Dashboard,
    /// Time zone of weeks and of the times in messages.
    pub zone: chrono_tz::Tz,
}

/// Where alerts and digests are posted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Slack {
    /// Environment variable that holds the bot token (scopes `chat:write`, `chat:write.public`, `channels:read`, `channels:history`, and
    /// `groups:read`, `groups:history` for private channels).
    #[serde(default = "default_token_env")]
    pub token_env: String,
    /// Base URL of Slack's Web API, `https://slack.com/api` where absent. May be `http:` for a stand-in.
    #[serde(default)]
    pub api_url: Option<HttpUrl>,
}

fn default_token_env() -> String {
    "SLACK_BOT_TOKEN".to_owned()
}

impl Default for Slack {
    fn default() -> Slack {
        Slack { token_env: default_token_env(), api_url: None }
    }
}

impl Slack {
    /// The base URL, without a slash at its end.
    pub fn api_url(&self) -> &str {
        self.api_url.as_ref().map_or("https://slack.com/api", HttpUrl::as_str)
    }
}

/// Where mail is handed in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// `smtp://host:port` (plain, or STARTTLS with `?tls=required`) or `smtps://host:port`. Without user and password.
    pub url: SmtpUrl,
    /// Environment variable that holds the user's name; credentials are used where both variables are set.
    #[serde(default)]
    pub username_env: Option<String>,
    /// Environment variable that holds the password.
    #[serde(default)]
    pub password_env: Option<String>,
}

/// What is reported regularly.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reports {
    /// The weekly report of exceptions; none is sent where absent.
    #[serde(default)]
    pub weekly: Option<Weekly>,
}

/// The weekly report of exceptions, one for every owner.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Weekly {
    /// When the report of the week before is sent, in the zone of `time.zone`: `Mon 09:00`.
    #[serde(default)]
    pub at: WeeklyTime,
    /// Sender of the e-mail: an address, or `Name <address>`.
    #[serde(deserialize_with = "mail_address")]
    pub from: String,
    /// Only exceptions and requests of this environment count; all where absent.
    #[serde(default)]
    pub environment: Option<String>,
}

/// Refuses what a mail server would refuse on Monday morning.
fn mail_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.parse::<lettre::message::Mailbox>() {
        Ok(_) => Ok(text),
        Err(_) => {
            Err(de::Error::custom(format!("is not a mail address: `{text}`; write for example bongsu@example.com")))
        }
    }
}

/// The page that shows what is going on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dashboard {
    /// Address and port. The page has no log-in: leave it on the loopback, or put a proxy with one in front.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The page's address as people reach it; Slack messages link to it.
    #[serde(default)]
    pub public_url: Option<HttpUrl>,
}

fn default_listen() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 7070).into()
}

impl Default for Dashboard {
    fn default() -> Dashboard {
        Dashboard { listen: default_listen(), public_url: None }
    }
}

/// A minute of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeeklyTime {
    /// Day of the week.
    pub weekday: Weekday,
    /// Time of the day, to the minute.
    pub time: NaiveTime,
}

impl Default for WeeklyTime {
    fn default() -> WeeklyTime {
        let time = NaiveTime::MIN + chrono::TimeDelta::hours(9);
        WeeklyTime { weekday: Weekday::Mon, time }
    }
}

impl FromStr for WeeklyTime {
    type Err = String;

    fn from_str(text: &str) -> Result<WeeklyTime, String> {
        let bad = || format!("is not a day and a time: `{text}`; write for example Mon 09:00");
        let (day, time) = text.trim().split_once(' ').ok_or_else(bad)?;
        let weekday = day.parse().map_err(|_| bad())?;
        let time = NaiveTime::parse_from_str(time.trim(), "%H:%M").map_err(|_| bad())?;
        Ok(WeeklyTime { weekday, time })
    }
}

impl fmt::Display for WeeklyTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.weekday, self.time.format("%H:%M"))
    }
}

impl<'de> Deserialize<'de> for WeeklyTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WeeklyTime, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for WeeklyTime {
    fn schema_name() -> Cow<'static, str> {
        "WeeklyTime".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Za-z]+ +[0-2]?[0-9]:[0-5][0-9]$", "examples": ["Mon 09:00"] })
    }
}

/// A URL of one of some schemes, checked when it was read, without a slash at its end.
macro_rules! checked_url {
    ($(#[$doc:meta])* $name:ident, $schemes:expr, $pattern:expr, $example:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// The URL's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<$name, String> {
                let schemes: &[&str] = &$schemes;
                let bad = |why: &str| format!("is not a usable URL ({why}): `{text}`; write for example {}", $example);
                let url = url::Url::parse(text).map_err(|error| bad(&error.to_string()))?;
                if !schemes.contains(&url.scheme()) {
                    return Err(bad(&format!("the scheme must be {}", schemes.join(" or "))));
                }
                if url.host_str().is_none_or(str::is_empty) {
                    return Err(bad("the host is missing"));
                }
                if !url.username().is_empty() || url.password().is_some() {
                    // Not repeated in the message: it may be a password.
                    return Err("must not contain a user or a password; they come from the environment".to_owned());
                }
                Ok($name(text.trim_end_matches('/').to_owned()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "examples": [$example] })
            }
        }
    };
}

checked_url! {
    /// A base URL of HTTP.
    HttpUrl, ["http", "https"], "^https?://", "https://bongsu.example.com"
}
checked_url! {
    /// A mail server.
    SmtpUrl, ["smtp", "smtps"], "^smtps?://", "smtp://localhost:1025"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: days and times as operators write them.
    /// Guarantees: what is printed is read back; nonsense is refused with an example.
    #[test]
    fn weekly_times() {
        let cases =
            [("Mon 09:00", Some("Mon 09:00")), ("fri 7:05", Some("Fri 07:05")), ("Sunday 23:59", Some("Sun 23:59"))];
        let wrong = [("09:00", None), ("Mon", None), ("Mon 24:00", None), ("Foo 09:00", None), ("Mon 9", None)];
        for (text, expected) in cases.into_iter().chain(wrong) {
            let parsed = text.parse::<WeeklyTime>();
            assert_eq!(parsed.as_ref().ok().map(ToString::to_string).as_deref(), expected, "{text}");
            if let Err(problem) = parsed {
                assert!(problem.contains("Mon 09:00"), "{problem}");
            }
        }
        assert_eq!(WeeklyTime::default().to_string(), "Mon 09:00");
    }

    /// Scenario: the weekly section as JSON, right, with a wrong sender, with an unknown key.
    /// Guarantees: mistakes are found when the file is read.
    #[test]
    fn weekly_section() {
        let read = |text: &str| serde_json::from_str::<Weekly>(text).map_err(|error| error.to_string());
        assert_eq!(read(r#"{"from":"Bongsu <b@example.com>"}"#).unwrap().at, WeeklyTime::default());
        assert!(read(r#"{"from":"nobody"}"#).unwrap_err().contains("bongsu@example.com"));
        assert!(read(r#"{"from":"b@example.com","when":"x"}"#).unwrap_err().contains("when"));
    }

    /// Scenario: URLs with a wrong scheme, no host, or a password.
    /// Guarantees: they are refused, and a password is not repeated.
    #[test]
    fn urls() {
        assert_eq!("https://slack.com/api/".parse::<HttpUrl>().unwrap().as_str(), "https://slack.com/api");
        assert!("ftp://slack.com".parse::<HttpUrl>().is_err());
        assert!("localhost:1025".parse::<SmtpUrl>().is_err());
        let problem = "smtp://me:hunter2@localhost:25".parse::<SmtpUrl>().unwrap_err();
        assert!(!problem.contains("hunter2"), "{problem}");
    }
}

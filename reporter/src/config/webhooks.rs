//! The `webhooks` section: who is told of incidents by HTTP.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use axum::http::{HeaderName, HeaderValue};
use bongsu_schemas::alert::AlertRecord;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use url::Url;

const EXAMPLE_URL: &str = "https://hooks.example.com/bongsu";
/// Set by the HTTP client, or about one connection only.
const OWN_HEADERS: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A receiver of incidents by HTTP POST.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Its name in logs, metrics and ids: under another name it is a new receiver, which is told of all open incidents.
    #[schemars(regex(pattern = "^[a-z][a-z0-9-]{0,62}$"))]
    pub name: String,
    /// Where to post. Without user, password or token; a URL that holds one is written `$NAME` and read from the environment variable NAME.
    pub url: WebhookUrl,
    /// What is posted.
    #[serde(default)]
    pub format: WebhookFormat,
    /// Only alerts of this severity and up are sent, 1 to 5 fires.
    #[serde(default = "lowest_severity")]
    #[schemars(range(min = 1, max = 5))]
    pub severity: u8,
    /// Only alerts of these services are sent; all where absent, those of views without a service included.
    #[serde(default)]
    pub services: Option<Vec<String>>,
    /// Alerts that name another environment (a group key `environment`) are left out; none are where absent.
    #[serde(default)]
    pub environment: Option<String>,
    /// Environment variable that holds the secret with which each POST is signed (`format: bongsu` only).
    #[serde(default)]
    pub secret_env: Option<String>,
    /// More headers. A value `$NAME` is read from the environment variable NAME.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// What a webhook is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WebhookFormat {
    /// Each change of an incident, as `docs/webhooks.md` describes it.
    #[default]
    Bongsu,
    /// Alerts for Alertmanager's `POST /api/v2/alerts`; what fires is repeated.
    Alertmanager,
}

impl WebhookFormat {
    /// As the configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            WebhookFormat::Bongsu => "bongsu",
            WebhookFormat::Alertmanager => "alertmanager",
        }
    }
}

fn lowest_severity() -> u8 {
    1
}

impl Webhook {
    /// Whether it asks for an alert; `severity` is the highest that it has had, so that who was told of it is told of its end. An alert that
    /// does not say of which environment it is may be of any.
    pub fn wants(&self, firing: &AlertRecord, severity: u8) -> bool {
        let service_fits = self
            .services
            .as_ref()
            .is_none_or(|services| firing.service.as_ref().is_some_and(|service| services.contains(service)));
        let environment = firing.environment();
        let environment_fits = match (&self.environment, environment) {
            (Some(wanted), Some(is)) => wanted == is,
            _ => true,
        };
        severity >= self.severity && service_fits && environment_fits
    }

    /// What is wrong with it beyond the form of each key, and what would be right; each with its key, which has two parts for one of the
    /// headers. Values of headers are not repeated.
    pub fn problems(&self) -> Vec<(Vec<&str>, String)> {
        let mut problems = Vec::new();
        if self.services.as_ref().is_some_and(Vec::is_empty) {
            let problem = "is empty, so nothing would be sent; name a service, or remove the key for all of them";
            problems.push((vec!["services"], problem.to_owned()));
        }
        if let Some(variable) = &self.secret_env {
            if self.format == WebhookFormat::Alertmanager {
                let problem = "is of no use with `format: alertmanager`, which checks no signature; remove it, and write \
                               `headers: { Authorization: $NAME }` where Alertmanager asks for a password";
                problems.push((vec!["secret_env"], problem.to_owned()));
            } else if !is_variable(variable) {
                let problem =
                    "must be the name of an environment variable, without `$`; write for example PAGER_SECRET";
                problems.push((vec!["secret_env"], problem.to_owned()));
            }
        }
        let mut names = BTreeSet::new();
        for (name, value) in &self.headers {
            let problem = header_problem(name, value).or_else(|| {
                let is_second = !names.insert(name.to_ascii_lowercase());
                is_second.then(|| "is there already in another case; keep one of the two".to_owned())
            });
            problems.extend(problem.map(|problem| (vec!["headers", name.as_str()], problem)));
        }
        problems
    }

    /// The environment variables that it reads, each with the key that names it.
    pub fn variables(&self) -> Vec<(Vec<&str>, &str)> {
        let url = self.url.variable().map(|variable| (vec!["url"], variable));
        let secret = self.secret_env.as_deref().map(|variable| (vec!["secret_env"], variable));
        let headers = self
            .headers
            .iter()
            .filter_map(|(name, value)| Some((vec!["headers", name.as_str()], value.strip_prefix('$')?)));
        url.into_iter().chain(secret).chain(headers).collect()
    }
}

impl fmt::Debug for Webhook {
    // Headers can hold passwords under any name: their names are enough for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("name", &self.name)
            .field("format", &self.format)
            .field("severity", &self.severity)
            .field("services", &self.services)
            .field("environment", &self.environment)
            .field("secret_env", &self.secret_env)
            .field("headers", &self.headers.keys())
            .finish_non_exhaustive()
    }
}

fn header_problem(name: &str, value: &str) -> Option<String> {
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Some("is no name of a header; write for example Authorization".to_owned());
    }
    let lower = name.to_ascii_lowercase();
    if OWN_HEADERS.contains(&lower.as_str()) || lower.starts_with("x-bongsu-") {
        return Some("is set by Bongsu itself; remove it".to_owned());
    }
    match value.strip_prefix('$') {
        Some(variable) if is_variable(variable) => None,
        Some(_) => Some("`$` must be followed by the name of an environment variable; write for example $TOKEN".to_owned()),
        None if names_a_secret(name) => Some(
            "may not be written here, because it is a secret; put the whole value, a word such as `Bearer` included, into \
             an environment variable, and write its name: $TOKEN"
                .to_owned(),
        ),
        None if HeaderValue::from_str(value).is_err() => {
            Some("holds a character that no header may; use visible ASCII characters and spaces".to_owned())
        }
        None => None,
    }
}

/// Whether a header or a URL's parameter of this name holds a secret.
fn names_a_secret(name: &str) -> bool {
    const WORDS: &[&str] = &["auth", "authorization", "cookie", "credential", "credentials", "sig", "signature"];
    const ENDS: &[&str] = &["token", "secret", "password", "passwd", "apikey", "accesskey"];
    let lower = name.to_ascii_lowercase();
    let is_secret = |word: &str| WORDS.contains(&word) || ENDS.iter().any(|end| word.ends_with(end));
    let joined = lower.replace(['-', '_'], "");
    lower == "key" || is_secret(&joined) || lower.split(|c: char| !c.is_ascii_alphanumeric()).any(is_secret)
}

fn is_variable(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A URL, checked when it was read, or `$NAME`, checked when the variable is.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(String);

impl WebhookUrl {
    /// A URL, or `$NAME`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The variable that holds it, if one does.
    pub fn variable(&self) -> Option<&str> {
        self.0.strip_prefix('$')
    }
}

/// Reads a URL to post to, or says what is wrong with it, without repeating it: it may hold a secret.
pub(crate) fn check_url(text: &str) -> Result<Url, String> {
    let bad = |why: &str| format!("is not a usable URL ({why}); write for example `{EXAMPLE_URL}`");
    let mut url = Url::parse(text.trim()).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("the scheme must be http or https"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad("the host is missing"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain a user or a password; write `headers: { Authorization: $NAME }`".to_owned());
    }
    // Never sent, and no part of what an HTTP client takes.
    url.set_fragment(None);
    Ok(url)
}

impl FromStr for WebhookUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<WebhookUrl, String> {
        match text.strip_prefix('$') {
            Some(variable) if is_variable(variable) => return Ok(WebhookUrl(text.to_owned())),
            Some(_) => return Err("must be a URL, or `$` and the name of an environment variable".to_owned()),
            None => {}
        }
        let url = check_url(text)?;
        if url.query_pairs().any(|(name, _)| names_a_secret(&name)) {
            return Err(
                "must not contain a secret; put the whole URL into an environment variable and write `$NAME`, or send \
                        the secret as a header"
                    .to_owned(),
            );
        }
        Ok(WebhookUrl(url.into()))
    }
}

impl<'de> Deserialize<'de> for WebhookUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WebhookUrl, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for WebhookUrl {
    fn schema_name() -> Cow<'static, str> {
        "WebhookUrl".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // No pattern: its complaint would repeat the text, and there may be a password in it.
        json_schema!({ "type": "string", "examples": [EXAMPLE_URL] })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::incidents::tests::alert;
    use bongsu_schemas::alert::AlertStatus::Firing;

    fn webhook(more: Value) -> Webhook {
        let mut value = json!({ "name": "pager", "url": EXAMPLE_URL });
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    /// Scenario: alerts of several severities, services and environments, one without a service, against each filter.
    /// Guarantees: what is asked for is sent, and what does not say its environment is not lost.
    #[test]
    fn filters() {
        #[rustfmt::skip]
        let cases = [
            // filter                                      severity, service, environment, wanted
            (json!({}),                                    1, None,          None,            true),
            (json!({ "severity": 4 }),                     3, Some("order"), None,            false),
            (json!({ "severity": 4 }),                     4, Some("order"), None,            true),
            (json!({ "services": ["order", "pay"] }),      1, Some("pay"),   None,            true),
            (json!({ "services": ["order"] }),             5, Some("pay"),   None,            false),
            (json!({ "services": ["order"] }),             5, None,          None,            false),
            (json!({ "environment": "production" }),       1, Some("order"), Some("staging"), false),
            (json!({ "environment": "production" }),       1, Some("order"), None,            true),
            (json!({ "environment": "staging" }),          1, Some("order"), Some("staging"), true),
        ];
        for (filter, severity, service, environment, wanted) in cases {
            let mut record = alert("errors", service, Firing, 1);
            record.severity = severity;
            record.key.insert("environment".to_owned(), environment.into());
            assert_eq!(
                webhook(filter.clone()).wants(&record, record.severity),
                wanted,
                "{filter} {severity} {service:?} {environment:?}"
            );
        }
    }

    /// Scenario: URLs with secrets in them, of other schemes, from a variable.
    /// Guarantees: they are refused with the remedy, and nothing of them is repeated; the path stays as it is written.
    #[test]
    fn urls() {
        let good = ["https://hooks.example.com/a/", "http://alertmanager:9093/api/v2/alerts", "$PAGER_URL"];
        for text in good {
            assert_eq!(text.parse::<WebhookUrl>().unwrap().as_str(), text);
        }
        #[rustfmt::skip]
        let wrong = [
            ("https://me:hunter2@example.com/",            "Authorization: $NAME"),
            ("https://example.com/?access_token=hunter2",  "write `$NAME`"),
            ("https://example.com/?sig=hunter2",           "write `$NAME`"),
            ("ftp://example.com/hunter2",                  "the scheme must be http or https"),
            ("hunter2",                                    EXAMPLE_URL),
            ("$hunter2 x",                                 "environment variable"),
        ];
        for (text, remedy) in wrong {
            let problem = text.parse::<WebhookUrl>().err().unwrap();
            assert!(problem.contains(remedy) && !problem.contains("hunter2"), "{text}: {problem}");
        }
    }

    /// Scenario: headers and secrets as they may be mistaken.
    /// Guarantees: each is refused with the remedy and without its value; what is right is not.
    #[test]
    fn problems() {
        #[rustfmt::skip]
        let cases = [
            (json!({}),                                                             None),
            (json!({ "headers": { "Authorization": "$T", "X-Tenant": "shop" } }),   None),
            (json!({ "headers": { "Idempotency-Key": "a", "X-Author": "b" } }),     None),
            (json!({ "headers": { "authorization": "Bearer hunter2" } }),           Some("write its name: $TOKEN")),
            (json!({ "headers": { "X-Auth-Token": "hunter2" } }),                   Some("write its name: $TOKEN")),
            (json!({ "headers": { "X-Api-Key": "hunter2" } }),                      Some("write its name: $TOKEN")),
            (json!({ "headers": { "X-Tenant": "$hunter2 $" } }),                    Some("`$` must be followed")),
            (json!({ "headers": { "X Tenant": "hunter2" } }),                       Some("no name of a header")),
            (json!({ "headers": { "Content-Type": "hunter2" } }),                   Some("set by Bongsu itself")),
            (json!({ "headers": { "X-Bongsu-Signature": "hunter2" } }),             Some("set by Bongsu itself")),
            (json!({ "headers": { "X-Tenant": "a\nhunter2" } }),                    Some("a character that no header may")),
            (json!({ "headers": { "X-Tenant": "a", "x-tenant": "b" } }),            Some("keep one of the two")),
            (json!({ "secret_env": "$PAGER_SECRET" }),                              Some("without `$`")),
            (json!({ "secret_env": "S", "format": "alertmanager" }),                Some("checks no signature")),
            (json!({ "services": [] }),                                             Some("is empty")),
        ];
        for (section, expected) in cases {
            let webhook = webhook(section.clone());
            let problems = webhook.problems();
            match (&problems[..], expected) {
                ([], None) => {}
                ([(_, problem)], Some(part)) => {
                    assert!(problem.contains(part) && !problem.contains("hunter2"), "{section}: {problem}");
                }
                other => panic!("{section}: {other:?}"),
            }
            assert!(!format!("{webhook:?}").contains("hunter2"));
        }
        let webhook =
            webhook(json!({ "url": "$U", "secret_env": "S", "headers": { "Authorization": "$A", "X-B": "b" } }));
        let expected = [(vec!["url"], "U"), (vec!["secret_env"], "S"), (vec!["headers", "Authorization"], "A")];
        assert_eq!(webhook.variables(), expected);
    }
}

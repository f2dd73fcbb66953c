//! The processor's sections of the configuration: `time`, `views` and `rules`.

use std::collections::BTreeMap;

use bongsu_ingest::config::Source;
use bongsu_schemas::alert::AlertLevel;
use bongsu_schemas::duration::Span;
use bongsu_schemas::history::History;
use bongsu_schemas::kafka::Kafka;
use bongsu_schemas::services::{ParamSetting, Services};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// All that the processor needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// How to reach Kafka.
    pub kafka: Kafka,
    /// Topics to read.
    pub sources: Vec<Source>,
    /// Event time.
    pub time: Time,
    /// `time.zone`, understood.
    pub zone: Tz,
    /// Services, for their own parameters.
    pub services: Services,
    /// Built-in and own views.
    pub views: Vec<View>,
    /// Built-in and own rules.
    pub rules: Vec<Rule>,
    /// Where closed windows are kept.
    pub history: History,
}

/// How event time is kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// How much earlier than the latest event of its partition an event may be without being out of order.
    #[serde(default = "default_max_disorder")]
    pub max_disorder: Span,
    /// A partition at its end for this long does not hold the watermark back.
    #[serde(default = "default_idle_timeout")]
    pub idle_timeout: Span,
    /// How long a window stays open after the watermark has passed its end.
    #[serde(default = "default_allowed_lateness")]
    pub allowed_lateness: Span,
    /// An event later than its Kafka record by more than this is a dead letter.
    #[serde(default = "default_max_future")]
    pub max_future: Span,
    /// On a backlog no partition is read further ahead of the slowest one than this; it bounds how many windows are open at once.
    #[serde(default = "default_max_drift")]
    pub max_drift: Span,
    /// IANA time zone for calendars and reports.
    #[serde(default = "default_zone")]
    pub zone: String,
}

fn default_max_disorder() -> Span {
    Span::from_secs(5)
}
fn default_idle_timeout() -> Span {
    Span::from_secs(10)
}
fn default_allowed_lateness() -> Span {
    Span::from_secs(30)
}
fn default_max_future() -> Span {
    Span::from_secs(300)
}
fn default_max_drift() -> Span {
    Span::from_secs(300)
}
fn default_zone() -> String {
    "UTC".to_owned()
}

impl Default for Time {
    fn default() -> Time {
        Time {
            max_disorder: default_max_disorder(),
            idle_timeout: default_idle_timeout(),
            allowed_lateness: default_allowed_lateness(),
            max_future: default_max_future(),
            max_drift: default_max_drift(),
            zone: default_zone(),
        }
    }
}

/// A windowed aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// Unique name: lower-case letters, digits and `_`.
    #[schemars(regex(pattern = "^[a-z][a-z0-9_]{0,62}$"))]
    pub name: String,
    /// One SELECT with GROUP BY, one of its keys `tumble(interval '...')`, `hop(interval '...', interval '...')` (slide, size),
    /// `calendar('day')` or `calendar('week', 'Asia/Seoul')` (without a zone: that of `time.zone`). A window is at most seven days long,
    /// and at most a thousand times as long as its slide, of which it must be a multiple.
    pub sql: String,
    /// So many groups are kept apart in a window; further ones are counted together as `__other__`. The name of a service that is listed
    /// in `services` stays, where there is another key. Each partition of the topics has its equal share: set it a quarter higher than
    /// there are groups.
    #[serde(default = "default_max_groups")]
    #[schemars(range(min = 1))]
    pub max_groups: u32,
    /// For so long after a window has closed, `1d` at most, late rows correct it: the groups that they belong to are published again,
    /// with `final: false` and a `sequence`. Its panes are kept in memory for as long.
    #[serde(default)]
    pub corrections: Option<Span>,
}

fn default_max_groups() -> u32 {
    100_000
}

impl View {
    /// A view with the usual limits.
    pub fn new(name: &str, sql: &str) -> View {
        View { name: name.to_owned(), sql: sql.to_owned(), max_groups: default_max_groups(), corrections: None }
    }
}

/// A condition on a view that makes an alert.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Unique name: lower-case letters, digits and `-`.
    #[schemars(regex(pattern = "^[a-z][a-z0-9-]{0,62}$"))]
    pub name: String,
    /// The view whose windows are judged.
    pub on: String,
    /// SQL over the view's columns; `$name` is a parameter. May be absent where `no_data` is given.
    #[serde(default)]
    pub when: Option<String>,
    /// SQL that ends the alert. Default: `when` is not true.
    #[serde(default)]
    pub clear: Option<String>,
    /// The rule's own parameters; a service may set others, for itself or for some of its series. Of a rule with two levels a parameter
    /// may be `{ warn: 0.05, critical: 0.2 }`.
    #[serde(default)]
    pub params: BTreeMap<String, ParamSetting>,
    /// `N of M`: how many of the last M windows must fulfil `when`. Default `1 of 1`.
    #[serde(default, rename = "for")]
    pub for_windows: Option<ForWindows>,
    /// 1 to 5 fires. With `{ warn: 3, critical: 5 }` the rule has two levels, each with its own parameters: one alert, which gets worse.
    #[serde(default)]
    pub severity: Severity,
    /// Alert when a service has sent nothing.
    #[serde(default)]
    pub no_data: Option<NoData>,
    /// One line for people: a template over key, values and parameters.
    #[serde(default)]
    pub summary: Option<String>,
    /// The service that is told, for a view without the column `service`.
    #[serde(default)]
    pub service: Option<String>,
    /// Rules whose alerts explain those of this one: while one of them fires, an alert of this rule joins its incident and tells nobody
    /// by itself.
    #[serde(default)]
    pub explained_by: Vec<String>,
}

/// How bad an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Severity {
    /// 1 to 5 fires.
    One(#[schemars(range(min = 1, max = 5))] u8),
    /// At each of two levels.
    Levels(SeverityLevels),
}

/// The severities of a rule with two levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeverityLevels {
    /// 1 to 5 fires.
    #[schemars(range(min = 1, max = 5))]
    pub warn: u8,
    /// 1 to 5 fires, more than `warn`.
    #[schemars(range(min = 1, max = 5))]
    pub critical: u8,
}

impl Default for Severity {
    fn default() -> Severity {
        Severity::One(3)
    }
}

impl Severity {
    /// The levels that it distinguishes, the lower one first; none for a rule with one threshold.
    pub fn levels(self) -> &'static [Option<AlertLevel>] {
        match self {
            Severity::One(_) => &[None],
            Severity::Levels(_) => &[Some(AlertLevel::Warn), Some(AlertLevel::Critical)],
        }
    }

    /// Fires at a level.
    pub fn at(self, level: Option<AlertLevel>) -> u8 {
        match (self, level) {
            (Severity::One(severity), _) => severity,
            (Severity::Levels(levels), Some(AlertLevel::Critical)) => levels.critical,
            (Severity::Levels(levels), _) => levels.warn,
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Severity::One(severity) => severity.fmt(f),
            Severity::Levels(levels) => write!(f, "{} / {}", levels.warn, levels.critical),
        }
    }
}

/// When silence is an alert.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoData {
    /// Silence of this length.
    pub after: Span,
    /// 1 to 5 fires.
    #[serde(default = "default_no_data_severity")]
    #[schemars(range(min = 1, max = 5))]
    pub severity: u8,
    /// What must be silent.
    #[serde(default)]
    pub per: NoDataPer,
}

fn default_no_data_severity() -> u8 {
    2
}

/// What is judged to be silent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NoDataPer {
    /// All series of a service.
    #[default]
    Service,
    /// Each series.
    Series,
}

/// `N of M`, or just `N` for `N of N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForWindows {
    /// So many windows must fulfil the condition ...
    pub needed: u32,
    /// ... of the last so many.
    pub of: u32,
}

impl Default for ForWindows {
    fn default() -> ForWindows {
        ForWindows { needed: 1, of: 1 }
    }
}

/// The most windows that `for` may look back; bounds the state of a rule.
pub const MAX_FOR_WINDOWS: u32 = 60;

impl std::str::FromStr for ForWindows {
    type Err = String;

    fn from_str(text: &str) -> Result<ForWindows, String> {
        let bad =
            || format!("is not `N of M` with 1 <= N <= M <= {MAX_FOR_WINDOWS}: `{text}`; write for example 2 of 3");
        let number = |part: &str| part.trim().parse::<u32>().map_err(|_| bad());
        let (needed, of) = match text.split_once("of") {
            Some((needed, of)) => (number(needed)?, number(of)?),
            None => (number(text)?, number(text)?),
        };
        if needed == 0 || needed > of || of > MAX_FOR_WINDOWS {
            return Err(bad());
        }
        Ok(ForWindows { needed, of })
    }
}

impl<'de> Deserialize<'de> for ForWindows {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<ForWindows, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Spelling {
            Count(u32),
            Text(String),
        }
        let text = match Spelling::deserialize(deserializer)? {
            Spelling::Count(count) => count.to_string(),
            Spelling::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for ForWindows {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ForWindows".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["string", "integer"], "pattern": "^ *[0-9]+( *of *[0-9]+)? *$", "minimum": 1, "maximum": MAX_FOR_WINDOWS,
        })
    }
}

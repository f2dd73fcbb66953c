//! The command line.

mod backtest;
mod explain;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use bongsu_reporter::weekly::Week;
use bongsu_schemas::duration::Span;
use bongsu_schemas::hours::Hours;
use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use backtest::{Backtest, Moment, Param};
pub(crate) use explain::Explain;

/// Stream processing, alerts and weekly exception reports for microservices, on nothing but Kafka.
///
/// Exit codes: 0 done, 1 a mistake in what was given (configuration, file), 2 wrong usage, 3 a failure at run time. Data goes to stdout,
/// logs go to stderr; BONGSU_LOG (or RUST_LOG) filters them.
#[derive(Debug, Parser)]
#[command(name = "bongsu", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// What the lines on stderr look like
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON document
    Json,
    /// For people
    Table,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the main job in one process: a simulated shop, an outage, the alert; needs nothing, leaves nothing behind
    Demo(Demo),
    /// Run until SIGTERM or Ctrl-C
    Run(Run),
    /// Validate a configuration and plan every view and rule; needs no Kafka
    Check(Check),
    /// List Bongsu's own topics, or create the missing ones
    Topics(Topics),
    /// Make the weekly exception report
    Report(Report),
    /// Tell which alerts would have fired, from the history; needs no Kafka
    Backtest(Backtest),
    /// Tell why an alert fired, and who was told
    Explain(Explain),
    /// Tell where an alert would go, and why
    Route(Route),
    /// Tell nobody about some alerts for a while; prints the silence's id
    Silence(Silence),
    /// List the silences that hold or will hold
    Silences(Silences),
    /// End a silence
    Unsilence(Unsilence),
    /// Take an incident; its messages say who did
    Acknowledge(Acknowledge),
    /// Produce a captured file to a topic
    Replay(Replay),
    /// Print the built-in views and rules, or the schema of configurations
    Config(PrintConfig),
}

impl Command {
    /// Whether it runs until it is told to stop.
    pub(crate) fn is_long_running(&self) -> bool {
        matches!(self, Command::Run(_))
    }
}

#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// Configuration file
    #[arg(long = "config", short, value_name = "FILE", default_value = "bongsu.yaml")]
    pub(crate) path: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// What this process does
    #[arg(long, value_enum, default_value_t = Role::All)]
    pub(crate) role: Role,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Address of the page; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:7070", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    /// Decides what the shop sells, and which card issuer fails
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Stop by itself after this long, such as 90s
    #[arg(long = "for", value_name = "DURATION")]
    pub(crate) stop_after: Option<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Gateway for agents that cannot write to Kafka; there is none in this version
    Ingest,
    /// Events to windows and alerts
    Processor,
    /// Alerts to Slack, e-mail and the dashboard
    Reporter,
    /// Processor and reporter in one process
    All,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// How the plan is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Topics {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// Create those that are missing; existing ones are left alone
    #[arg(long)]
    pub(crate) create: bool,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Report {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// ISO week, such as 2026-W47
    #[arg(long)]
    pub(crate) week: Week,
    /// Only this service
    #[arg(long)]
    pub(crate) service: Option<String>,
    /// Write one .html, .txt and .json for every owner into this folder
    #[arg(long, value_name = "DIR", conflicts_with = "send")]
    pub(crate) out: Option<PathBuf>,
    /// Send it to every owner now, whatever was sent before
    #[arg(long)]
    pub(crate) send: bool,
    /// How the report is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Route {
    /// service=NAME, severity=1..5, environment=NAME, rule=NAME and at=TIME (the end of its window; now where absent); without a service:
    /// an alert that belongs to none
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) alert: Vec<AlertPart>,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

/// One `key=value` of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AlertPart {
    Service(String),
    Severity(u8),
    Environment(String),
    Rule(String),
    At(DateTime<Utc>),
}

impl FromStr for AlertPart {
    type Err = String;

    fn from_str(text: &str) -> Result<AlertPart, String> {
        let name = |name: &str| name.to_owned();
        match text.split_once('=').filter(|(_, value)| !value.is_empty()) {
            Some(("service", value)) => Ok(AlertPart::Service(name(value))),
            Some(("environment", value)) => Ok(AlertPart::Environment(name(value))),
            Some(("rule", value)) => Ok(AlertPart::Rule(name(value))),
            Some(("at", value)) => instant(value).map(AlertPart::At),
            Some(("severity", value)) => match value.parse() {
                Ok(severity @ 1..=5) => Ok(AlertPart::Severity(severity)),
                _ => Err("a severity is a number from 1 to 5".to_owned()),
            },
            _ => Err("write service=NAME, severity=1..5, environment=NAME, rule=NAME or at=TIME".to_owned()),
        }
    }
}

/// A time with its zone.
fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    let parsed = DateTime::parse_from_rfc3339(text);
    let parsed = parsed.map_err(|_| "write a time with its zone, such as 2026-11-24T22:00:00+09:00".to_owned())?;
    Ok(parsed.with_timezone(&Utc))
}

#[derive(Debug, Args)]
pub(crate) struct Silence {
    /// service=NAME, rule=NAME, or a group key of the view with its value; all must fit. `~` before a value makes it a regular expression
    /// over the whole value, `!` negates it: service=~order-.* environment=!production
    #[arg(value_name = "KEY=VALUE", required = true)]
    pub(crate) matchers: Vec<Matcher>,
    /// How long, from its beginning
    #[arg(long = "for", value_name = "DURATION", default_value = "1h", conflicts_with = "until")]
    pub(crate) lasts: Span,
    /// When it begins, by event time [default: now]
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(crate) from: Option<DateTime<Utc>>,
    /// When it ends, by event time, instead of --for
    #[arg(long, value_name = "TIME", value_parser = instant)]
    pub(crate) until: Option<DateTime<Utc>>,
    /// Only in these hours between the two, in time.zone: "Sat,Sun 01:00-03:00", "22:00-06:00"
    #[arg(long, value_name = "HOURS")]
    pub(crate) hours: Option<Hours>,
    /// Why, for others
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
    /// Who asks [default: $USER]
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// How the id is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

/// One `key=value` that an alert must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Matcher {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl FromStr for Matcher {
    type Err = String;

    fn from_str(text: &str) -> Result<Matcher, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                Ok(Matcher { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err("write service=NAME, rule=NAME or KEY=VALUE".to_owned()),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Silences {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Unsilence {
    /// The silence's id, as `bongsu silences` lists it
    pub(crate) id: String,
    /// Who asks [default: $USER]
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// How the outcome is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Acknowledge {
    /// The incident's id, as its message says it
    pub(crate) incident_id: String,
    /// Who takes it [default: $USER]
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// How the outcome is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// File: OKR1 (plain or zstd), or lines of JSON
    #[arg(long = "in", value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Topic to produce to
    #[arg(long)]
    pub(crate) topic: String,
    /// Only records captured from this topic; a file can hold several
    #[arg(long, value_name = "TOPIC")]
    pub(crate) only: Vec<String>,
    /// Record timestamps: `now` moves the first record to the present, a number adds that many milliseconds [default: as captured]
    #[arg(long, value_name = "now|MS", allow_hyphen_values = true)]
    pub(crate) shift: Option<Shift>,
    /// 1 as captured, 10 ten times faster, 0 as fast as possible
    #[arg(long, value_name = "FACTOR", default_value_t = 0.0)]
    pub(crate) pace: f64,
    /// Where a record goes: the partition it was captured from, or by its key
    #[arg(long, value_enum, default_value_t = Partitioning::Key)]
    pub(crate) partition: Partitioning,
    /// Kafka's bootstrap servers, instead of those of the configuration
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) brokers: Option<String>,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// How the count is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Partitioning {
    /// The same partition
    Keep,
    /// By key; records without one are spread
    Key,
}

/// What is added to record timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shift {
    Now,
    Millis(i64),
}

impl FromStr for Shift {
    type Err = String;

    fn from_str(text: &str) -> Result<Shift, String> {
        match text {
            "now" => Ok(Shift::Now),
            millis => {
                millis.parse().map(Shift::Millis).map_err(|_| "write `now` or a number of milliseconds".to_owned())
            }
        }
    }
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct PrintConfig {
    /// Print the built-in views and rules
    #[arg(long)]
    pub(crate) defaults: bool,
    /// Print the JSON Schema of bongsu.yaml, for editors
    #[arg(long)]
    pub(crate) schema: bool,
}

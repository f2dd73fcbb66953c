//! `bongsu silence`, `bongsu silences` and `bongsu unsilence`: which alerts nobody is told about.

use std::collections::BTreeMap;

use anyhow::anyhow;
use bongsu_reporter::commands::Writer;
use bongsu_reporter::silences::{self, check, check_name, new_id};
use bongsu_schemas::command::{Command, Repeat, Silence};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde_json::json;

use super::{load_config, read_commands, somebody};
use crate::cli;
use crate::config::{Config, printable};
use crate::failure::Failure;
use crate::output::{complain_line, print_as, table};

pub(super) async fn silence(options: cli::Silence) -> Result<(), Failure> {
    let config = load_config(&options.config.path)?;
    let now = Utc::now();
    let format = options.format;
    let silence = asked_for(options, &config, now)?;
    check(&silence).map_err(|problem| Failure::Input(anyhow!(problem)))?;
    if silence.until <= now {
        complain_line("the silence has ended already: it holds for alerts of that time only");
    }
    read_commands(&config.kafka).await?;
    Writer::new(&config.kafka)?.write(&Command::Silence(silence.clone()), now).await?;
    print_as(format, &json!(silence), || silence.id.clone())
}

fn asked_for(options: cli::Silence, config: &Config, now: DateTime<Utc>) -> Result<Silence, Failure> {
    let mut matcher = BTreeMap::new();
    for cli::Matcher { name, value } in options.matchers {
        if matcher.insert(name, value).is_some() {
            return Err(Failure::Usage("each key can be given once".to_owned()));
        }
    }
    let from = options.from.unwrap_or_else(|| now.trunc_subsecs(3));
    let lasts = TimeDelta::milliseconds(options.lasts.millis());
    let until = options.until.or_else(|| from.checked_add_signed(lasts));
    let until = until.ok_or_else(|| Failure::Input(anyhow!("there is no time that late; write an earlier --from")))?;
    let by = somebody(options.by);
    Ok(Silence {
        id: new_id(now, &by, &matcher),
        matcher,
        from,
        until,
        repeat: options.hours.map(|hours| Repeat { hours, zone: config.zone }),
        by,
        reason: options.reason,
    })
}

pub(super) async fn silences(options: cli::Silences) -> Result<(), Failure> {
    let config = load_config(&options.config.path)?;
    let silences = known(&config).await?;
    let now = Utc::now();
    let ahead = silences.silences(now);
    let time = |at: DateTime<Utc>| at.with_timezone(&config.zone).format("%Y-%m-%d %H:%M %Z").to_string();
    let row = |silence: &&Silence| {
        let matcher: Vec<String> = silence.matcher.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let hours = silence.repeat.map(|repeat| format!("{} {}", repeat.hours, repeat.zone)).unwrap_or_default();
        let (from, until) = (time(silence.from), time(silence.until));
        [silence.id.clone(), matcher.join(" "), from, until, hours, silence.by.clone(), silence.reason.clone()]
    };
    let rows: Vec<[String; 7]> = ahead.iter().map(row).collect();
    print_as(options.format, &json!({ "silences": ahead }), || {
        table(["ID", "alerts", "from", "until", "hours", "by", "reason"], &rows)
    })
}

pub(super) async fn unsilence(options: cli::Unsilence) -> Result<(), Failure> {
    let config = load_config(&options.config.path)?;
    let (id, by) = (options.id, somebody(options.by));
    check_name(&by).map_err(|problem| Failure::Input(anyhow!("--by {problem}")))?;
    if known(&config).await?.get(&id).is_none() {
        return Err(Failure::Input(anyhow!("there is no silence `{id}`; `bongsu silences` lists them")));
    }
    let command = Command::Unsilence { id: id.clone(), by: by.clone() };
    Writer::new(&config.kafka)?.write(&command, Utc::now()).await?;
    print_as(options.format, &json!({ "id": id, "by": by }), || printable(&format!("silence {id} is ended")))
}

async fn known(config: &Config) -> Result<silences::Silences, Failure> {
    let mut silences = silences::Silences::default();
    for given in read_commands(&config.kafka).await? {
        silences.apply(&given.command);
    }
    Ok(silences)
}

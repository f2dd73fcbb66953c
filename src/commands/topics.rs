//! `bongsu topics`: which of Bongsu's topics exist, and making the others.

use serde_json::json;

use super::load_config;
use crate::cli::Topics;
use crate::failure::Failure;
use crate::kafka::{self, TopicState, TopicStatus, what_is_missing};
use crate::output::{complain_line, print_as, table};

pub(super) async fn run(options: Topics) -> Result<(), Failure> {
    let config = load_config(&options.config.path)?;
    let topics = kafka::topics(&config.kafka, options.create).await?;
    let rows =
        || topics.iter().map(|topic| [topic.spec.name.clone(), partitions(topic), state(topic)]).collect::<Vec<_>>();
    let json = topics.iter().map(|topic| {
        let settings: serde_json::Map<_, _> =
            topic.spec.settings.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
        json!({ "topic": topic.spec.name, "partitions": partition_count(topic), "state": state(topic), "settings": settings })
    });
    let json = json!({ "topics": json.collect::<Vec<_>>() });
    print_as(options.format, &json, || table(["topic", "partitions", "state"], &rows()))?;
    match what_is_missing(&topics, &config.kafka.brokers) {
        Some(text) if options.create => {
            complain_line(&text);
            Err(Failure::Runtime(anyhow::anyhow!("not all topics could be created; the lines above say what to do")))
        }
        Some(text) => {
            complain_line(&text);
            complain_line("or, with the right to: bongsu topics --create");
            Ok(())
        }
        None => Ok(()),
    }
}

fn partition_count(topic: &TopicStatus) -> usize {
    match topic.state {
        TopicState::Exists { partitions } => partitions,
        _ => usize::try_from(topic.spec.partitions).unwrap_or_default(),
    }
}

fn partitions(topic: &TopicStatus) -> String {
    partition_count(topic).to_string()
}

fn state(topic: &TopicStatus) -> String {
    match &topic.state {
        TopicState::Exists { .. } => "exists".to_owned(),
        TopicState::Created => "created".to_owned(),
        TopicState::Missing => "missing".to_owned(),
        TopicState::Unsuitable(why) => format!("unsuitable: {why}"),
        TopicState::Refused(why) => format!("refused: {why}"),
    }
}

//! Block Kit's limits. Over any of them Slack rejects the whole message.

use std::collections::BTreeSet;

use serde_json::Value;

const MAX_BLOCKS: usize = 50;
const MAX_BLOCK_ID: usize = 255;
const MAX_HEADER: usize = 150;
const MAX_SECTION: usize = 3_000;
const MAX_FIELDS: usize = 10;
const MAX_FIELD: usize = 2_000;
const MAX_CONTEXT_ELEMENTS: usize = 10;
const MAX_ACTIONS: usize = 25;
const MAX_BUTTON: usize = 75;
const MAX_URL: usize = 3_000;
const MAX_ALT_TEXT: usize = 2_000;

/// What is wrong with the blocks of a message, if anything.
pub(super) fn check(blocks: &[Value]) -> Result<(), String> {
    if blocks.len() > MAX_BLOCKS {
        return Err(format!("{} blocks, no more than {MAX_BLOCKS} allowed", blocks.len()));
    }
    let mut ids = BTreeSet::new();
    for (position, block) in blocks.iter().enumerate() {
        let at = |problem: String| format!("{problem} [json-pointer:/blocks/{position}]");
        if let Some(id) = block.get("block_id") {
            let id = id.as_str().ok_or_else(|| at("block_id is not text".to_owned()))?;
            length("block_id", id, MAX_BLOCK_ID).map_err(at)?;
            if !ids.insert(id) {
                return Err(at(format!("block_id {id} is there twice")));
            }
        }
        check_block(block).map_err(at)?;
    }
    Ok(())
}

fn check_block(block: &Value) -> Result<(), String> {
    match block["type"].as_str() {
        Some("divider") => Ok(()),
        Some("header") => {
            if block["text"]["type"] != "plain_text" {
                return Err("the text of a header must be plain_text".to_owned());
            }
            text("header", &block["text"], MAX_HEADER)
        }
        Some("section") => {
            let (has_text, fields) = (!block["text"].is_null(), elements(&block["fields"], "fields", MAX_FIELDS)?);
            if !has_text && fields.is_empty() {
                return Err("a section needs text or fields".to_owned());
            }
            if has_text {
                text("section", &block["text"], MAX_SECTION)?;
            }
            fields.iter().try_for_each(|field| text("field", field, MAX_FIELD))
        }
        Some("context") => {
            let parts = elements(&block["elements"], "elements", MAX_CONTEXT_ELEMENTS)?;
            if parts.is_empty() {
                return Err("a context needs elements".to_owned());
            }
            parts.iter().try_for_each(|part| match part["type"].as_str() {
                Some("image") => image(part),
                _ => text("context", part, MAX_SECTION),
            })
        }
        Some("actions") => {
            let parts = elements(&block["elements"], "elements", MAX_ACTIONS)?;
            if parts.is_empty() {
                return Err("actions need elements".to_owned());
            }
            parts.iter().try_for_each(button)
        }
        Some("image") => image(block),
        Some("rich_text") => elements(&block["elements"], "elements", MAX_BLOCKS).map(drop),
        other => Err(format!("unsupported type {other:?}")),
    }
}

fn button(button: &Value) -> Result<(), String> {
    if button["type"] != "button" {
        return Err(format!("unsupported element {}", button["type"]));
    }
    text("button", &button["text"], MAX_BUTTON)?;
    length("url", button["url"].as_str().unwrap_or_default(), MAX_URL)
}

fn image(image: &Value) -> Result<(), String> {
    let alt_text = image["alt_text"].as_str().ok_or("an image needs alt_text")?;
    length("alt_text", alt_text, MAX_ALT_TEXT)?;
    length("image_url", image["image_url"].as_str().ok_or("an image needs image_url")?, MAX_URL)
}

fn text(what: &str, object: &Value, most: usize) -> Result<(), String> {
    if !matches!(object["type"].as_str(), Some("plain_text" | "mrkdwn")) {
        return Err(format!("the text of a {what} is neither plain_text nor mrkdwn"));
    }
    let text = object["text"].as_str().unwrap_or_default();
    if text.is_empty() {
        return Err(format!("the text of a {what} must be more than 0 characters"));
    }
    length(what, text, most)
}

fn length(what: &str, text: &str, most: usize) -> Result<(), String> {
    let characters = text.chars().count();
    if characters > most {
        Err(format!("{what} has {characters} characters, must be less than {}", most + 1))
    } else {
        Ok(())
    }
}

fn elements<'a>(list: &'a Value, what: &str, most: usize) -> Result<&'a [Value], String> {
    let elements = match list {
        Value::Null => &[],
        Value::Array(elements) => elements.as_slice(),
        _ => return Err(format!("{what} is not a list")),
    };
    if elements.len() > most {
        Err(format!("{} {what}, no more than {most} allowed", elements.len()))
    } else {
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Scenario: each limit, met exactly and passed by one.
    /// Guarantees: what Slack takes is taken, what it rejects is rejected.
    #[test]
    fn limits() {
        let mrkdwn = |length: usize| json!({"type": "mrkdwn", "text": "x".repeat(length)});
        let plain = |length: usize| json!({"type": "plain_text", "text": "봉".repeat(length)});
        let section = |length| vec![json!({"type": "section", "text": mrkdwn(length)})];
        let header = |length| vec![json!({"type": "header", "text": plain(length)})];
        let dividers = |count| vec![json!({"type": "divider"}); count];
        let id = |length: usize| vec![json!({"type": "divider", "block_id": "i".repeat(length)})];
        let fields = |count, length| vec![json!({"type": "section", "fields": vec![mrkdwn(length); count]})];
        let context = |count| vec![json!({"type": "context", "elements": vec![mrkdwn(1); count]})];
        let button = |length| vec![json!({"type": "actions", "elements": [{"type": "button", "text": plain(length)}]})];
        let cases = [
            ("section", section(3_000), section(3_001)),
            ("empty section", section(1), section(0)),
            ("header, in characters", header(150), header(151)),
            ("blocks", dividers(50), dividers(51)),
            ("block_id", id(255), id(256)),
            ("fields", fields(10, 2_000), fields(11, 1)),
            ("field", fields(1, 2_000), fields(1, 2_001)),
            ("context", context(10), context(11)),
            ("button", button(75), button(76)),
            ("header is plain", header(1), vec![json!({"type": "header", "text": mrkdwn(1)})]),
            ("known types", dividers(1), vec![json!({"type": "marquee"})]),
            ("unique block_id", id(3), [id(3), id(3)].concat()),
        ];
        for (name, good, bad) in cases {
            assert_eq!(check(&good), Ok(()), "{name}");
            assert!(check(&bad).is_err(), "{name}");
        }
    }
}

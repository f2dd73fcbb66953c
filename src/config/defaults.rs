//! The built-in views and rules: `defaults.yaml`, and which of them are in force.

use bongsu_processor::config::{Rule, View};
use serde::de::DeserializeOwned;

use super::yaml;

/// The file, as `bongsu config --defaults` prints it.
pub(crate) const TEXT: &str = include_str!("defaults.yaml");

/// What is built in.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    pub(super) views: Vec<View>,
    pub(super) rules: Vec<Rule>,
}

impl Defaults {
    /// Reads the built-in file. A test holds that it can be read, so nothing is lost by leaving out what cannot.
    pub(super) fn read() -> Defaults {
        match yaml::parse("defaults.yaml", TEXT) {
            Ok(parsed) => Defaults { views: list(&parsed.value["views"]), rules: list(&parsed.value["rules"]) },
            Err(_) => Defaults::default(),
        }
    }
}

fn list<T: DeserializeOwned>(value: &serde_json::Value) -> Vec<T> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(|item| serde_json::from_value(item.clone()).ok()).collect()
}

/// The table that a built-in view reads: the word after FROM. Built-in views are plain enough for that.
pub(super) fn table_of(view: &View) -> &str {
    let mut words = view.sql.split_whitespace();
    words.find(|word| word.eq_ignore_ascii_case("from"));
    words.next().unwrap_or_default()
}

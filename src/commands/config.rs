//! `bongsu config`: what is built in.

use crate::cli::PrintConfig;
use crate::config::{DEFAULTS_YAML, json_schema};
use crate::failure::Failure;
use crate::output::print;

pub(super) fn run(options: &PrintConfig) -> Result<(), Failure> {
    if options.schema { print(&format!("{:#}", json_schema())) } else { print(DEFAULTS_YAML) }
}

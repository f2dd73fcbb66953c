//! What people meet first: the command line, the configuration and its messages, generated pages, the compose file. Needs no Kafka.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests, too, stop at the first surprise and say why"
)]

mod cli;
mod compose;
mod config;
mod config_reference;

//! Slack: what a message says, and how it gets there.

pub(crate) mod client;
pub mod message;

//! Slack: what a message says, and how it gets there.

mod alert;
pub(crate) mod client;
mod condition;
pub(crate) mod digest;
pub mod message;

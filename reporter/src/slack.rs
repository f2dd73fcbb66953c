//! Slack: what a message says, and how it gets there.

pub mod message;

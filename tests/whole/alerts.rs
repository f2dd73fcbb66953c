//! From events to the messages that people read: scenarios with numbers, on a real Kafka, by the real binary.
//!
//! Each scenario is a stream of events that is the same each time, by minutes of event time. Built-in rules judge windows of one minute
//! that close 35 s after their end: 5 s of disorder, 30 s of lateness.

mod chain;
mod events;
mod exceptions;
mod issuers;
mod killed;
mod scene;
mod silence;
mod thresholds;

//! The whole of Bongsu as its users run it: the real binary on a real Kafka, looked at from outside.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests, too, stop at the first surprise and say why"
)]

mod accounting;
mod alerts;
mod backtest;
mod brokers;
mod captured;
mod demo;
mod evolution;
mod exactly_once;
mod hostile;
mod identity;
mod reload;
mod shutdown;
mod stream;
mod support;
mod topics_and_replay;
mod windows;

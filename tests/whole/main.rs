//! The whole of Bongsu as its users run it: the real binary on a real Kafka, looked at from outside.

mod captured;
mod exactly_once;
mod hostile;
mod shutdown;
mod support;

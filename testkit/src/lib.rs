//! Apache Kafka for tests: a real broker of its own for each test that wants one, and helpers to write and read topics.
//!
//! - [`Broker`] starts Kafka 4.3.1 on free loopback ports, kills and restarts it, and removes all of it in the end;
//! - [`Cluster`] does so with several that replicate to each other;
//! - [`records`] writes and reads topics quickly and synchronously.

mod broker;
mod cluster;
pub mod records;

pub use broker::Broker;
pub use cluster::Cluster;
pub use records::{Message, Record, consume_committed, end_offsets, produce, read_committed};

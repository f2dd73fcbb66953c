//! The agents' side of Bongsu: events on their way into Kafka, and from Kafka's bytes to Arrow batches.
//!
//! In reading order:
//!
//! - [`config`]: `sources`, which say what is in a topic and which tables it fills;
//! - [`producer`]: how Rust agents send events;
//! - [`record`]: a Kafka record as decoders see it;
//! - [`decode`]: records in, rows and rejects out;
//! - [`fingerprint`]: which reports of an exception are the same bug;
//! - [`dead_letter`]: what becomes of a record that cannot be used;
//! - [`okr`]: captured records, for `bongsu replay`.

pub mod config;
pub mod dead_letter;
pub mod decode;
pub mod fingerprint;
pub mod okr;
pub mod producer;
pub mod record;

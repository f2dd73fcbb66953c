//! The contract of Bongsu: what is on the wire, and nothing that performs I/O.
//!
//! In reading order:
//!
//! - [`tables`]: the five tables that every source format is decoded into, as Arrow schemas;
//! - [`native`]: the same events as producers write them in JSON, and their JSON Schema;
//! - [`window`], [`alert`], [`incident`], [`command`]: the records that Bongsu writes and reads;
//! - [`webhook`]: what webhooks are sent;
//! - [`topics`]: names and settings of Bongsu's own topics;
//! - [`dead_letter`]: headers and reasons of records that could not be used;
//! - [`kafka`], [`services`], [`routes`], [`history`], [`duration`], [`hours`]: configuration that more than one crate reads;
//! - [`health`]: which parts of a process can do their work.

pub mod alert;
pub mod command;
pub mod dead_letter;
pub mod duration;
pub mod health;
pub mod history;
pub mod hours;
pub mod incident;
pub mod kafka;
pub mod key;
pub mod native;
pub mod routes;
pub mod services;
pub mod tables;
pub mod topics;
pub mod webhook;
pub mod window;

//! Arrow batches in; windows, alerts and history out. DataFusion, unforked, split at the aggregate.
//!
//! In reading order:
//!
//! - [`config`]: `time`, `views` and `rules`;
//! - [`pipeline`]: from topic to topic, on one screen;
//! - [`window`], [`watermark`], [`sketch`]: arithmetic of event time and of quantiles; pure;
//! - [`sql`], [`quantile`], [`plan`]: a view's SQL becomes two aggregations;
//! - [`evolution`]: which version of a view computes which windows;
//! - `stage1`, [`partials`], [`stage2`]: the two halves and the topic between them;
//! - `presence`: who sends anything at all;
//! - [`rules`]: what closed windows mean;
//! - `history`: closed windows as Parquet;
//! - [`backtest`]: what would have fired, from the history;
//! - [`kill_point`]: where tests kill the process;
//! - [`validate`](mod@validate): all of it without Kafka.

pub mod backtest;
pub mod config;
mod dead_letter;
mod events;
pub mod evolution;
mod history;
mod kafka;
pub mod kill_point;
pub mod partials;
pub mod pipeline;
pub mod plan;
mod presence;
pub mod quantile;
pub mod results;
pub mod rules;
pub mod sketch;
pub mod sql;
mod stage1;
pub mod stage2;
pub mod validate;
pub mod watermark;
pub mod window;

pub use pipeline::run;
pub use validate::{Mistake, validate};

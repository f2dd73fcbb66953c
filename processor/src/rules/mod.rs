//! Rules: a condition on a view's closed windows, and what becomes of it over time.
//!
//! [`condition`] compiles `when` and `clear` and judges a window's rows at once; [`early`] tells which of them need not wait for the
//! window's end; [`series`] is the state machine of one series; [`absence`] watches for silence; [`alert`] makes alert records; [`engine`] ties them together for one
//! partition of the partials.

pub mod absence;
pub mod alert;
pub mod condition;
pub mod early;
pub mod engine;
mod rows;
pub mod series;

//! Rules: a condition on a view's closed windows, and what becomes of it over time.
//!
//! [`condition`] compiles `when` and `clear` and judges a window's rows at once; [`series`] is the state machine of one series;
//! [`alert`] makes alert records; [`engine`] ties them together for one partition of the partials.

pub mod alert;
pub mod condition;
pub mod engine;
pub mod series;

//! Places where a test can kill the process: before and after each step of a commit.
//!
//! `BONGSU_KILL_AT=stage2.offsets-sent:3` ends the process the third time that stage 2 comes past that place, at once and without any
//! clean-up, as SIGKILL would. Without the variable a kill point is one comparison.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The steps of a commit, in their order. A test passes through all of them.
pub const STEPS: [&str; 5] = ["begun", "records-queued", "records-sent", "offsets-sent", "committed"];

/// What `BONGSU_KILL_AT` says: the place, and how many more times it is passed.
static KILL_AT: LazyLock<Option<(String, AtomicU32)>> = LazyLock::new(|| {
    let text = std::env::var("BONGSU_KILL_AT").ok()?;
    let (place, times) = text.split_once(':').unwrap_or((&text, "1"));
    Some((place.to_owned(), AtomicU32::new(times.parse().unwrap_or(1))))
});

/// The process may end here.
pub(crate) fn kill_point(flow: &str, step: &str) {
    let Some((place, times)) = KILL_AT.as_ref() else { return };
    let is_here = place.split_once('.') == Some((flow, step));
    if is_here && times.fetch_sub(1, Ordering::Relaxed) == 1 {
        std::process::abort();
    }
}

//! When the card issuer is down.

use std::time::Duration;

/// From the demo's start to the first outage.
pub(super) const FIRST: Duration = Duration::from_secs(20);
/// How long one lasts.
pub(super) const LENGTH: Duration = Duration::from_secs(60);
/// From one to the next.
const PERIOD: Duration = Duration::from_secs(180);

/// Whether the issuer is down so long after the demo's start.
pub(super) fn is_on(elapsed: Duration) -> bool {
    let Some(since_first) = elapsed.checked_sub(FIRST) else { return false };
    since_first.as_millis() % PERIOD.as_millis() < LENGTH.as_millis()
}

/// From the demo's start to the next time the issuer goes down or comes back, after `elapsed`.
pub(super) fn next_change(elapsed: Duration) -> Duration {
    let Some(since_first) = elapsed.checked_sub(FIRST) else { return FIRST };
    let into_period_ms = since_first.as_millis() % PERIOD.as_millis();
    let period_start = elapsed - Duration::from_millis(u64::try_from(into_period_ms).unwrap_or(u64::MAX));
    if is_on(elapsed) { period_start + LENGTH } else { period_start + PERIOD }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_come_and_go() {
        let secs = Duration::from_secs;
        let cases =
            [(0, false, 20), (19, false, 20), (20, true, 80), (79, true, 80), (80, false, 200), (200, true, 260)];
        for (elapsed, on, change) in cases {
            assert_eq!((is_on(secs(elapsed)), next_change(secs(elapsed))), (on, secs(change)), "{elapsed} s");
        }
        assert_eq!(next_change(Duration::from_micros(20_000_900)), Duration::from_micros(80_000_900));
    }
}

//! How fast something grows, and how long what there is room for will last.

use std::time::Duration;

/// Less time than this says nothing: it counts as this.
const LEAST: Duration = Duration::from_secs(60);
/// Longer than this is for ever.
const MOST: Duration = Duration::from_secs(365 * 24 * 3_600);

/// So many bytes in a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    bytes: u64,
    time: Duration,
}

impl Rate {
    /// So many bytes were written within this time.
    pub fn new(bytes: u64, time: Duration) -> Self {
        Self { bytes, time: time.max(LEAST) }
    }

    /// The bytes that are written in a time.
    pub fn amount(self, time: Duration) -> u64 {
        let bytes = u128::from(self.bytes).saturating_mul(time.as_millis()) / self.time.as_millis().max(1);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// How long it takes to write so many bytes: a year at most.
    pub fn lasts(self, bytes: u64) -> Duration {
        let millis = u128::from(bytes).saturating_mul(self.time.as_millis()) / u128::from(self.bytes.max(1));
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)).min(MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn amount_and_time_follow_from_each_other() {
        let rate = Rate::new(24 * GIB, 24 * HOUR);
        assert_eq!(rate.amount(HOUR), GIB);
        assert_eq!(rate.lasts(10 * GIB), 10 * HOUR);
        assert_eq!(rate.lasts(0), Duration::ZERO);
    }

    #[test]
    fn nothing_written_lasts_for_a_year_and_nothing_overflows() {
        assert_eq!(Rate::new(0, HOUR).lasts(GIB), MOST);
        assert_eq!(Rate::new(0, Duration::ZERO).lasts(u64::MAX), MOST);
        assert_eq!(Rate::new(u64::MAX, Duration::ZERO).amount(Duration::MAX), u64::MAX);
        assert_eq!(Rate::new(u64::MAX, Duration::MAX).lasts(u64::MAX), MOST);
    }

    #[test]
    fn a_moment_counts_as_a_minute() {
        assert_eq!(Rate::new(GIB, Duration::from_secs(1)).lasts(GIB), LEAST);
    }
}

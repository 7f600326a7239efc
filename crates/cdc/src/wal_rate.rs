//! How much log the database writes: within the last day, as long as that was watched.

use feed::{Lsn, Rate};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// The rate is that of this long.
const WINDOW: Duration = Duration::from_secs(24 * 3_600);
/// How often it is noted where the log stands.
const EVERY: Duration = Duration::from_secs(600);

/// Where the log stood, the oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct WalWritten(VecDeque<(Instant, Lsn)>);

impl WalWritten {
    /// The log stands here now; the rate up to now.
    pub(crate) fn at(&mut self, now: Instant, lsn: Lsn) -> Rate {
        // Another server, or an older state of this one: what was noted before says nothing of it.
        if self.0.back().is_some_and(|(_, last)| *last > lsn) {
            self.0.clear();
        }
        while self.0.front().is_some_and(|(noted, _)| now.duration_since(*noted) > WINDOW) {
            self.0.pop_front();
        }
        if self.0.back().is_none_or(|(noted, _)| now.duration_since(*noted) >= EVERY) {
            self.0.push_back((now, lsn));
        }
        let (since, from) = self.0.front().copied().unwrap_or((now, lsn));
        Rate::new(lsn.get().saturating_sub(from.get()), now.duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_that_of_the_last_day() {
        let (begun, mut written) = (Instant::now(), WalWritten::default());
        let mut at = |hours: u32, lsn: u64| written.at(begun + HOUR * hours, Lsn::new(lsn)).amount(HOUR);
        assert_eq!(at(0, 1_000), 0);
        // A hundred an hour for two days, then nothing for one.
        for hour in 1..=48 {
            assert_eq!(at(hour, 1_000 + u64::from(hour) * 100), 100);
        }
        for hour in 49..72 {
            assert!(at(hour, 5_800) < 100);
        }
        assert_eq!(at(73, 5_800), 0);
        // Restored from a backup.
        assert_eq!(at(74, 10), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_for_it_is_bounded() {
        let (begun, mut written) = (Instant::now(), WalWritten::default());
        for second in 0..200_000_u32 {
            written.at(begun + Duration::from_secs(5) * second, Lsn::new(u64::from(second)));
        }
        assert!(written.0.len() <= 146, "{}", written.0.len());
    }
}

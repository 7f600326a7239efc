//! Whether the feed is fresh: whether it has what was in the database's log a while ago.
//!
//! It is judged by what was received, not by the state of a connection. So a connection that stalls, a walsender that decodes a
//! large transaction, and a database that cannot be reached are all seen in the same way, and nothing has to be detected.

use crate::Lsn;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// A feed that lacks what was in the log so long ago is stale. With the time between two looks this is less than the 30 s
/// within which clients are promised to be told.
const STALE_AFTER: Duration = Duration::from_secs(25);
/// It is fresh again when it has what was in the log so long ago. Less than the above, so that a lag about there does not flap.
const FRESH_WITHIN: Duration = Duration::from_secs(12);
/// After a start so much time is left to catch up with what was missed.
const START: Duration = Duration::from_secs(5);
/// Looks that wait for the feed to catch up. Beyond that every other one is forgotten.
const PENDING: usize = 1024;

/// What is known of it.
#[derive(Debug)]
pub(crate) struct Freshness {
    /// When the log ended where: not received yet, oldest first.
    looks: VecDeque<(Instant, Lsn)>,
    /// What was in the log at this moment has been received.
    reached: Instant,
    stale: bool,
}

impl Freshness {
    pub(crate) fn new(now: Instant) -> Self {
        // A clock that has not run for so long yet is that of a machine that has just started.
        let reached = now.checked_sub(STALE_AFTER.saturating_sub(START)).unwrap_or(now);
        Self { looks: VecDeque::new(), reached, stale: false }
    }

    /// At this moment the log did not end before this place.
    pub(crate) fn look(&mut self, at: Instant, end: Lsn) {
        // Another history: what was seen of the one before will not come any more.
        if self.looks.back().is_some_and(|(_, before)| *before > end) {
            self.looks.clear();
        }
        if self.looks.len() == PENDING {
            let mut keep = false;
            self.looks.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.looks.push_back((at, end));
    }

    /// Whether it is stale now that all before this place has been received; `None`: as before.
    pub(crate) fn update(&mut self, received: Lsn, now: Instant) -> Option<bool> {
        while let Some((at, _)) = self.looks.front().filter(|(_, end)| *end <= received) {
            self.reached = self.reached.max(*at);
            self.looks.pop_front();
        }
        let limit = if self.stale { FRESH_WITHIN } else { STALE_AFTER };
        let stale = self.age(now) > limit;
        (std::mem::replace(&mut self.stale, stale) != stale).then_some(stale)
    }

    /// For how long it has not been known to have everything.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A history of one test: seconds since its beginning.
    struct Test {
        start: Instant,
        freshness: Freshness,
    }

    impl Test {
        /// One that has caught up.
        fn begun() -> Self {
            let start = Instant::now();
            let mut freshness = Freshness::new(start);
            freshness.look(start, Lsn::new(1));
            assert_eq!(freshness.update(Lsn::new(1), start), None);
            Self { start, freshness }
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        fn look(&mut self, second: u64, end: u64) {
            self.freshness.look(self.at(second), Lsn::new(end));
        }

        fn update(&mut self, second: u64, received: u64) -> Option<bool> {
            self.freshness.update(Lsn::new(received), self.at(second))
        }
    }

    #[test]
    fn without_looks_it_is_stale_within_thirty_seconds() {
        let mut test = Test::begun();
        let told: Vec<u64> = (0..60).filter(|second| test.update(*second, 1) == Some(true)).collect();
        assert_eq!(told, [26]);
        test.look(60, 1);
        assert_eq!(test.update(60, 1), Some(false));
    }

    #[test]
    fn an_idle_database_has_no_lag() {
        let mut test = Test::begun();
        for second in 0..600 {
            if second % 5 == 0 {
                test.look(second, 1);
            }
            assert_eq!(test.update(second, 1), None);
        }
    }

    #[test]
    fn what_is_not_received_makes_it_stale_while_looks_go_on() {
        let mut test = Test::begun();
        let mut told = Vec::new();
        for second in 0..60 {
            test.look(second, 100 + second);
            told.extend(test.update(second, 99).map(|stale| (second, stale)));
        }
        assert_eq!(told, [(26, true)]);
        // It catches up: not yet with what was there twelve seconds ago, then with that.
        assert_eq!(test.update(60, 147), None);
        assert_eq!(test.update(60, 148), Some(false));
    }

    /// A lag of 30, then 20, then 30 s, and a source that is there for a second now and then.
    #[test]
    fn it_does_not_flap() {
        let mut test = Test::begun();
        let mut told = Vec::new();
        for second in 0..200 {
            test.look(second, 100 + second);
            let lag = if second / 10 % 2 == 0 { 30 } else { 20 };
            let received = if second < lag { 99 } else { 100 + second - lag };
            told.extend(test.update(second, received));
        }
        assert_eq!(told, [true]);

        let mut test = Test::begun();
        let mut told = 0;
        for second in 0..300 {
            if second % 20 == 0 {
                test.look(second, 1);
            }
            told += usize::from(test.update(second, 1).is_some());
        }
        assert_eq!(told, 0);
    }

    #[test]
    fn a_start_has_a_few_seconds() {
        let start = Instant::now() + Duration::from_secs(100);
        let mut freshness = Freshness::new(start);
        assert_eq!(freshness.update(Lsn::new(9), start + Duration::from_secs(5)), None);
        assert_eq!(freshness.update(Lsn::new(9), start + Duration::from_secs(6)), Some(true));
    }

    #[test]
    fn a_log_that_has_gone_back_is_another() {
        let mut test = Test::begun();
        test.look(1, 1_000_000);
        test.look(2, 50);
        assert_eq!(test.update(20, 50), None);
        assert_eq!(test.freshness.age(test.at(20)), Duration::from_secs(18));
    }

    proptest! {
        /// Whatever the looks: it is never called fresh when nothing shows that it has what was there half a minute ago, and what
        /// it holds is bounded.
        #[test]
        fn fresh_is_never_said_without_reason(
            steps in prop::collection::vec((0..8_u64, 0..3_u64, 0..4_u64), 0..4_000),
        ) {
            let mut test = Test::begun();
            let (mut second, mut end, mut received, mut shown, mut stale) = (0, 1, 1, 0, false);
            let mut looks = Vec::new();
            for (wait, written, read) in steps {
                second += wait;
                end += written;
                test.look(second, end);
                looks.push((second, end));
                received = (received + read).min(end);
                for (at, end) in &looks {
                    if *end <= received {
                        shown = shown.max(*at);
                    }
                }
                looks.retain(|(_, end)| *end > received);
                if let Some(told) = test.update(second, received) {
                    prop_assert_ne!(told, stale);
                    stale = told;
                }
                prop_assert!(stale || second - shown <= 25);
                prop_assert!(test.freshness.looks.len() <= PENDING);
            }
        }
    }
}

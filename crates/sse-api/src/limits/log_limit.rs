//! A line of the log that strangers can cause as often as they like: it is written once in a while, with how often it was not.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Allows one line in each interval.
pub(crate) struct LogLimit {
    every: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, state: Mutex::new(State::default()) }
    }

    /// Whether to write now: then how many lines were left out since the last one.
    pub(crate) fn allow(&self) -> Option<u64> {
        let mut state = self.state.lock();
        if state.last.is_some_and(|last| last.elapsed() < self.every) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_in_each_interval_says_how_many_were_left_out() {
        let limit = LogLimit::new(Duration::from_secs(10));
        assert_eq!(limit.allow(), Some(0));
        assert_eq!((limit.allow(), limit.allow()), (None, None));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(limit.allow(), Some(2));
        assert_eq!(limit.allow(), None);
    }
}

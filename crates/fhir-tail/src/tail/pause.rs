//! How long to wait before coming back.

use std::time::Duration;

/// The longest wait that is our own idea.
const CAP: Duration = Duration::from_secs(30);
/// What is waited after the first failure if the service never said how long.
const FIRST: Duration = Duration::from_secs(1);

/// The waits between attempts: what the service asked for, doubled with every attempt that gets nothing, each
/// drawn from its upper half so that many of us do not come back at the same moment.
#[derive(Debug, Default)]
pub(super) struct Pause {
    attempts: u32,
    retry: Option<Duration>,
}

impl Pause {
    /// The stream's `retry`.
    pub(super) fn asked_for(&mut self, retry: Duration) {
        self.retry = Some(retry);
    }

    /// The stream gave something: begin anew.
    pub(super) fn worked(&mut self) {
        self.attempts = 0;
    }

    /// How long to wait now. `at_least`: what a refusal asked for.
    pub(super) fn next(&mut self, at_least: Option<Duration>) -> Duration {
        let first = self.retry.unwrap_or(FIRST);
        // The service has drawn its `retry` for us already.
        let wait = if self.attempts == 0 && self.retry.is_some() {
            first
        } else {
            let ceiling = first.saturating_mul(1 << self.attempts.min(16)).min(CAP.max(first));
            ceiling.mul_f64(0.5 + fastrand::f64() / 2.0)
        };
        self.attempts = self.attempts.saturating_add(1);
        wait.max(at_least.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap() {
        let mut pause = Pause::default();
        let first = pause.next(None);
        assert!((FIRST / 2..=FIRST).contains(&first), "{first:?}");
        for _ in 0..40 {
            assert!(pause.next(None) <= CAP);
        }
        assert!(pause.next(None) >= CAP / 2);
        pause.worked();
        assert!(pause.next(None) <= FIRST);
    }

    #[test]
    fn the_service_is_heeded() {
        let mut pause = Pause::default();
        pause.asked_for(Duration::from_millis(2_719));
        assert_eq!(pause.next(None), Duration::from_millis(2_719));
        assert!(pause.next(None) >= Duration::from_millis(2_719));
        assert!(pause.next(Some(Duration::from_secs(300))) >= Duration::from_secs(300));
        pause.asked_for(Duration::from_secs(60));
        pause.worked();
        assert_eq!(pause.next(None), Duration::from_secs(60));
        assert!(pause.next(None) >= Duration::from_secs(30));
    }
}

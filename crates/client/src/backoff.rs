//! How long to wait before a reconnect.

use std::time::Duration;

/// The longest wait that the service did not ask for.
const CAP: Duration = Duration::from_secs(30);
/// The wait after the first failure if the service has not given one.
const FIRST: Duration = Duration::from_secs(1);

/// Exponential back-off with jitter: it starts from what the service asked for, doubles with every attempt that
/// receives nothing up to 30 s, and each wait is drawn from the upper half, so that clients do not reconnect together.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
    retry: Option<Duration>,
}

impl Backoff {
    /// The first wait from now on: the stream's `retry`.
    pub fn start_from(&mut self, retry: Duration) {
        self.retry = Some(retry);
    }

    /// The stream delivered something: the next wait is the first one again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The next wait. `at_least`: what the service asked for with `Retry-After`.
    pub fn next(&mut self, at_least: Option<Duration>) -> Duration {
        let first = self.retry.unwrap_or(FIRST);
        // The service has drawn its `retry` at random already.
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
        let mut backoff = Backoff::default();
        let first = backoff.next(None);
        assert!((FIRST / 2..=FIRST).contains(&first), "{first:?}");
        for _ in 0..40 {
            assert!(backoff.next(None) <= CAP);
        }
        assert!(backoff.next(None) >= CAP / 2);
        backoff.reset();
        assert!(backoff.next(None) <= FIRST);
    }

    #[test]
    fn the_services_own_wait_is_used() {
        let mut backoff = Backoff::default();
        backoff.start_from(Duration::from_millis(2_719));
        assert_eq!(backoff.next(None), Duration::from_millis(2_719));
        assert!(backoff.next(None) >= Duration::from_millis(2_719));
        assert!(backoff.next(Some(Duration::from_secs(300))) >= Duration::from_secs(300));
        backoff.start_from(Duration::from_secs(60));
        backoff.reset();
        assert_eq!(backoff.next(None), Duration::from_secs(60));
        assert!(backoff.next(None) >= Duration::from_secs(30));
    }
}

//! When to let messages gather.
//!
//! The server sends each message by itself, and wakes whoever waits for it. When they come one after the other that costs both
//! sides more than the message does: then a pause of a tenth of a millisecond takes them in gulps. It is never taken
//! when little comes, so that nobody waits for it.

use std::time::Duration;
use tokio::time::Instant;

/// So few messages were hardly worth being woken for ...
const FEW: usize = 16;
/// ... if each came as soon as this after the one before.
const FAST: Duration = Duration::from_micros(30);
/// Far less than the time in which the server's buffers fill.
const PAUSE: Duration = Duration::from_micros(100);

pub(super) struct Coalesce {
    last: Instant,
}

impl Coalesce {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now }
    }

    /// How long to let messages gather, after so many were taken in one go.
    pub(super) fn pause(&mut self, messages: usize, now: Instant) -> Option<Duration> {
        let since = now.duration_since(std::mem::replace(&mut self.last, now));
        let fast = u32::try_from(messages).is_ok_and(|messages| since < FAST * messages);
        (messages < FEW && fast).then_some(PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_fast_and_singly_is_let_gather() {
        let start = Instant::now();
        let mut coalesce = Coalesce::new(start);
        let micros = |micros| start + Duration::from_micros(micros);
        assert_eq!(coalesce.pause(3, micros(1_000)), None, "a thousand transactions a second");
        assert_eq!(coalesce.pause(3, micros(1_020)), Some(PAUSE));
        assert_eq!(coalesce.pause(40, micros(1_200)), None, "a gulp");
        assert_eq!(coalesce.pause(1, micros(1_210)), Some(PAUSE));
        assert_eq!(coalesce.pause(0, micros(1_210)), None);
    }
}

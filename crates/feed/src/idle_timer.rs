//! A timer for idle streams, on streams that are rarely idle.

use std::pin::Pin;
use tokio::time::{Instant, Sleep};

/// Waits until `at`. From one call to the next `at` may be postponed, but not brought forward. The timer
/// is reset only when it fires: a reset takes a lock that all timers share.
pub async fn idle_timer(mut timer: Pin<&mut Sleep>, at: Instant) {
    loop {
        timer.as_mut().await;
        if Instant::now() >= at {
            return;
        }
        timer.as_mut().reset(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::time::Duration;
    use tokio::time::sleep_until;

    #[tokio::test(start_paused = true)]
    async fn fires_at_the_postponed_instant_and_can_be_used_again() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut timer = pin!(sleep_until(after(10)));
        tokio::select! {
            biased;
            () = idle_timer(timer.as_mut(), after(14)) => panic!("fired before the postponed instant"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(timer.deadline(), after(10), "postponing resets the timer");
        idle_timer(timer.as_mut(), after(14)).await;
        assert_eq!(Instant::now(), after(14));
        idle_timer(timer.as_mut(), after(20)).await;
        assert_eq!(Instant::now(), after(20));
    }
}

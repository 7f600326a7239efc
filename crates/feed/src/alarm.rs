//! A timer for what happens after a silence, where there is hardly ever one.

use std::pin::Pin;
use tokio::time::{Instant, Sleep};

/// Waits until `at`, which may be put off from one wait to the next, but not be brought forward. The timer is moved only when
/// it rings: to move it takes a lock that all timers have in common.
pub async fn rings(mut timer: Pin<&mut Sleep>, at: Instant) {
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
    async fn it_rings_when_it_was_put_off_to_and_again() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut timer = pin!(sleep_until(after(10)));
        tokio::select! {
            biased;
            () = rings(timer.as_mut(), after(14)) => panic!("it is not time"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(timer.deadline(), after(10), "putting it off moves nothing");
        rings(timer.as_mut(), after(14)).await;
        assert_eq!(Instant::now(), after(14));
        rings(timer.as_mut(), after(20)).await;
        assert_eq!(Instant::now(), after(20));
    }
}

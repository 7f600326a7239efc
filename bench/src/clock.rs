//! The clock that all processes of a run share: the machine's own, in microseconds.

use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};

/// Microseconds that never go back, the same in every process.
pub(crate) fn now() -> i64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// Microseconds since 1970, which the database's clock shows as well.
pub(crate) fn of_day() -> i64 {
    read(ClockId::CLOCK_REALTIME)
}

/// Microseconds of processor time that this process has used.
pub(crate) fn processor() -> i64 {
    read(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// Waits for a moment.
#[expect(
    clippy::disallowed_methods,
    reason = "where there is no runtime, and nothing else to be done meanwhile"
)]
pub(crate) fn pause(time: std::time::Duration) {
    std::thread::sleep(time);
}

fn read(clock: ClockId) -> i64 {
    // These clocks exist wherever the service runs.
    clock_gettime(clock).map_or(0, |time| time.num_microseconds())
}

/// Microseconds as seconds.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

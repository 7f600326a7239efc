//! Whether and when to try again: what an SQLSTATE means for that, and how long to wait.

use std::time::Duration;

/// What is to be done about a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// It passes by itself: try again, soon at first.
    Backoff,
    /// Somebody has to mend something: say so, and keep trying at the longest interval.
    Operator,
    /// Trying again cannot help.
    Never,
}

impl Retry {
    /// What an error of the server's asks for. Codes are those of
    /// <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    pub fn of_sql_state(code: &str) -> Self {
        match code {
            // Object in use: another walsender still holds the slot, as a connection that was cut
            // does until the server notices.
            "55006" => Self::Backoff,
            // Object not in prerequisite state: a slot that was invalidated, `wal_level` too low.
            "55000" => Self::Operator,
            _ => match code.get(..2) {
                // Connection exceptions; transactions rolled back (serialization, deadlock);
                // resources (disk, memory, connections, walsenders); intervention (57P01 shutdown,
                // 57P02 crash, 57P03 starting, 57014 cancelled); I/O and internal errors. A server
                // that is being stopped, started, promoted or put behind a pooler says one of these.
                Some("08" | "25" | "40" | "53" | "57" | "58" | "XX" | "55") => Self::Backoff,
                // Authorization (28), catalogue names (3D), privileges and missing objects (42),
                // features (0A), limits (54), configuration (F0), and what nobody foresaw.
                _ => Self::Operator,
            },
        }
    }
}

/// Waits that double from a tenth of a second to a cap, each drawn at random from its upper half, so
/// that many of us do not come back at the same moment.
#[derive(Debug, Default)]
pub struct Backoff {
    attempt: u32,
}

/// The longest wait.
const CAP: Duration = Duration::from_secs(15);
const FIRST: Duration = Duration::from_millis(100);

impl Backoff {
    /// Before the first attempt.
    pub const fn new() -> Self {
        Self { attempt: 0 }
    }

    /// How long to wait before the next attempt.
    pub fn next(&mut self, retry: Retry) -> Duration {
        let ceiling = match retry {
            Retry::Operator | Retry::Never => CAP,
            // 100 ms · 2^8 is beyond the cap.
            Retry::Backoff => FIRST.saturating_mul(1 << self.attempt.min(8)).min(CAP),
        };
        self.attempt = self.attempt.saturating_add(1);
        ceiling.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// It worked: begin anew.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_stay_below_it() {
        let mut backoff = Backoff::new();
        let first = backoff.next(Retry::Backoff);
        assert!(first >= FIRST / 2 && first <= FIRST, "{first:?}");
        for _ in 0..50 {
            assert!(backoff.next(Retry::Backoff) <= CAP);
        }
        assert!(backoff.next(Retry::Backoff) >= CAP / 2);
        backoff.reset();
        assert!(backoff.next(Retry::Backoff) <= FIRST);
        assert!(backoff.next(Retry::Operator) >= CAP / 2);
    }

    #[test]
    fn what_passes_by_itself_is_told_from_what_does_not() {
        for passes in ["57P01", "57P02", "57P03", "53300", "55006", "08006", "40001", "XX000", "58030"] {
            assert_eq!(Retry::of_sql_state(passes), Retry::Backoff, "{passes}");
        }
        for stays in ["28P01", "28000", "42501", "42704", "3D000", "55000", "0A000", "", "é", "99999"] {
            assert_eq!(Retry::of_sql_state(stays), Retry::Operator, "{stays}");
        }
    }
}

//! Moments as the server's binary protocols have them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Microseconds from 1970 to 2000, from which Postgres counts.
const EPOCH: i64 = 946_684_800_000_000;

/// A moment: microseconds since 2000-01-01T00:00:00Z, as in the replication protocol and in `timestamptz`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Now, by this machine's clock; 1970 if it stands before that.
    #[must_use]
    pub fn now() -> Self {
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        Self(i64::try_from(micros).unwrap_or(i64::MAX) - EPOCH)
    }
}

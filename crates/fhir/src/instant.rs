//! Instants: what `meta.lastUpdated`, `_since` and `transactionTime` are made of.
//!
//! Counted in whole microseconds, as Postgres counts them, so that a stamp survives the way from the
//! column to the client and back without rounding.

use std::fmt;

/// A moment, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(i64);

/// Postgres counts from 2000-01-01T00:00:00Z.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

impl Instant {
    /// Before every stamp.
    pub const MIN: Self = Self(i64::MIN);

    /// From microseconds since 1970.
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970.
    pub const fn unix_micros(self) -> i64 {
        self.0
    }

    /// From the binary form of Postgres' `timestamptz`: microseconds since 2000.
    pub const fn from_postgres(micros: i64) -> Self {
        Self(micros.saturating_add(POSTGRES_EPOCH))
    }

    /// The binary form of Postgres' `timestamptz`: microseconds since 2000.
    pub const fn to_postgres(self) -> i64 {
        self.0.saturating_sub(POSTGRES_EPOCH)
    }

    /// As FHIR's `instant`, in UTC with six digits: <https://hl7.org/fhir/R4/datatypes.html#instant>.
    pub fn to_fhir(self) -> String {
        jiff::Timestamp::from_microsecond(self.0).map_or_else(
            // Outside the years that a calendar knows nothing useful can be printed.
            |_| self.0.to_string(),
            |at| format!("{at:.6}"),
        )
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_fhir())
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

//! Our clock.

use fhir::Instant;
use std::time::{SystemTime, UNIX_EPOCH};

/// The time by this machine's clock.
pub(crate) fn now() -> Instant {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    Instant::from_unix_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

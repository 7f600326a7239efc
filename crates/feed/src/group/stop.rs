//! How the steps of a Group's stream end.

use crate::{Anchor, EventId, SourceError};
use fhir::Instant;

/// Why a step has no next one.
#[derive(Clone)]
pub(super) enum Stop {
    /// The stream ends.
    End(SourceError),
    /// It begins again.
    Reset(Box<EventId>, &'static str),
    /// It comes to a place where its Group is gone, or cannot be followed: why, for the client.
    Gone(Box<EventId>, String),
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Self {
        Self::End(error)
    }
}

/// How a shared transition ends.
#[derive(Clone)]
pub(super) enum End {
    /// The members are known, and everything that follows from the change was sent.
    Settled { run: u64, last: Anchor, safe_time: Instant },
    /// It stops, for all subscribers in the same way.
    Stopped(Stop),
    /// Each subscriber continues alone.
    Unshared,
}

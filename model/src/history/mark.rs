//! The mark (W, L), taken in the three steps of the sampler and used when the log is on disk.

use super::clock::{Clock, Instant};
use super::database::{Database, Lsn};
use crate::Bug;

/// One split of history into tables and feed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mark {
    /// Every transaction that stamped at or before it has ended and is visible.
    pub w: Instant,
    /// A place in the log.
    pub l: Lsn,
}

impl Mark {
    /// Whether a change comes from the feed.
    pub(crate) fn leaves_to_feed(&self, stamp: Instant, lsn: Lsn, bug: Option<Bug>) -> bool {
        // The record of the first commit after L was read stands at L.
        stamp > self.w || if bug == Some(Bug::CommitAtLIsBefore) { lsn > self.l } else { lsn >= self.l }
    }
}

/// A mark that is being taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sampler {
    /// None.
    Idle,
    /// The clock was read.
    Clock {
        /// What it showed.
        clock: Instant,
        /// The steps that it had made by then.
        stepped: Instant,
    },
    /// Who is writing was looked up first (a seeded mistake).
    Activity {
        /// The oldest beginning.
        oldest: Option<Instant>,
    },
    /// Both.
    Safe {
        /// W.
        w: Instant,
        /// Whether it is where it was only because it never falls.
        held: bool,
        /// See `Clock`.
        stepped: Instant,
    },
    /// L was read: it holds when the log is on disk.
    Place {
        /// The mark.
        mark: Mark,
        /// See `Clock`.
        stepped: Instant,
    },
}

/// W never falls below the newest mark's.
pub(crate) fn safe_time(
    clock: &Clock,
    read: Instant,
    oldest: Option<Instant>,
    newest: Option<Mark>,
    stepped: Instant,
) -> Sampler {
    let w = clock.safe(oldest.map_or(read, |oldest| oldest.min(read)));
    match newest {
        Some(newest) if newest.w > w => Sampler::Safe { w: newest.w, held: true, stepped },
        _ => Sampler::Safe { w, held: false, stepped },
    }
}

/// The oldest beginning of those who write.
pub(crate) fn oldest_writer(database: &Database) -> Option<Instant> {
    database.transactions.iter().filter_map(|transaction| transaction.writing_since()).min()
}

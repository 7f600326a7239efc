//! The watermark (safe time, fence LSN), taken in the steps of the sampler and used when the log is on disk.

use super::clock::Instant;
use super::database::Lsn;
use crate::Bug;

/// One split of history into tables and feed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Watermark {
    /// Every transaction that stamped at or before it has ended and is visible.
    pub safe_time: Instant,
    /// A place in the log.
    pub fence_lsn: Lsn,
}

impl Watermark {
    /// Whether a change comes from the feed.
    pub(crate) fn leaves_to_feed(&self, stamp: Instant, lsn: Lsn, bug: Option<Bug>) -> bool {
        // The record of the first commit after the fence LSN was read stands at the fence LSN.
        stamp > self.safe_time
            || if bug == Some(Bug::CommitAtFenceIsBefore) {
                lsn > self.fence_lsn
            } else {
                lsn >= self.fence_lsn
            }
    }
}

/// A time that was closed, and who had an id right after that: they may have stamped before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Closing {
    /// The time.
    pub time: Instant,
    /// The transactions, by their bits.
    pub waits_for: u8,
}

/// Closings that are kept while transactions are open.
const CLOSINGS: usize = 2;

/// The closings that are not safe yet, oldest first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Closings([Option<Closing>; CLOSINGS]);

impl Closings {
    /// One more. If there is no room the newest makes it: the older ones are nearer to being safe.
    pub(crate) fn push(&mut self, closing: Closing) {
        let free = self.0.iter().position(Option::is_none).unwrap_or(CLOSINGS - 1);
        self.0[free] = Some(closing);
    }

    /// The newest time that is safe now that only these transactions are open. It and what is older is forgotten.
    pub(crate) fn take_safe(&mut self, open: u8, bug: Option<Bug>) -> Option<Instant> {
        let safe = |closing: &Closing| closing.waits_for & open == 0 || bug == Some(Bug::ClosedIsSafe);
        let newest =
            self.0.iter().flatten().filter(|closing| safe(closing)).map(|closing| closing.time).max()?;
        let mut left = self.0.iter().flatten().copied().filter(|closing| closing.time > newest);
        self.0 = std::array::from_fn(|_| left.next());
        Some(newest)
    }
}

/// A watermark that is being taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sampler {
    /// None.
    Idle,
    /// A time was closed.
    Closed {
        /// The time.
        time: Instant,
    },
    /// Who has an id was looked up first (a seeded mistake).
    Writers {
        /// By their bits.
        open: u8,
    },
    /// The safe time is known.
    Safe {
        /// The safe time.
        safe_time: Instant,
    },
    /// The fence LSN was read: it holds when the log is on disk.
    Place {
        /// The watermark.
        watermark: Watermark,
    },
}

//! Which situations a run has met.
//!
//! Kept beside the states, not in them: as part of a state each would double their number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A set of situations by their numbers. Clones are the same set.
#[derive(Clone, Default, Debug)]
pub struct Coverage(Arc<AtomicU32>);

impl Coverage {
    pub(crate) fn note(&self, situation: u32) {
        // Read first: all threads write here, and nearly always what is there already.
        if !self.has(situation) {
            self.0.fetch_or(1 << situation, Ordering::Relaxed);
        }
    }

    pub(crate) fn has(&self, situation: u32) -> bool {
        self.0.load(Ordering::Relaxed) & 1 << situation != 0
    }
}

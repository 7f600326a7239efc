//! How much is read at once for a client, by how fast it takes that.

use std::time::Duration;

/// A client that takes a read within this time gets a larger one.
const PROMPT: Duration = Duration::from_millis(50);
/// The first read: a client that reads nothing holds no more.
const FIRST_BYTES: usize = 64 << 10;

/// A read is no larger than this part of all that the client has taken at once: the buffers of a connection take some
/// hundred kilobytes for a client that reads nothing.
const PART_OF_TAKEN: usize = 4;

/// How large the reads for one client are.
#[derive(Clone, Copy)]
pub(crate) struct ReadSize {
    /// What the client took at once.
    taken: usize,
    largest: usize,
    prompt: bool,
}

impl ReadSize {
    /// Of reads of at most so many bytes.
    pub(crate) const fn new(largest: usize) -> Self {
        Self { taken: 0, largest, prompt: false }
    }

    /// About how large the next one should be.
    pub(crate) fn bytes(&self) -> usize {
        (self.taken / PART_OF_TAKEN).max(FIRST_BYTES).min(self.largest)
    }

    /// Whether the client took the last one at once.
    pub(crate) const fn is_prompt(&self) -> bool {
        self.prompt
    }

    /// Notes how long the client took for one. While others wait for memory the reads do not grow.
    pub(crate) fn record(&mut self, time: Duration, others_wait: bool) {
        self.prompt = time < PROMPT && !others_wait;
        if self.prompt {
            self.taken = self.taken.saturating_add(self.bytes());
        }
    }

    /// Notes that one was taken back, since others waited.
    pub(crate) const fn reclaimed(&mut self) {
        *self = Self::new(self.largest);
    }
}

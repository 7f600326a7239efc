//! Where the data of changes lies: many in one piece of memory, which goes when the last of them does.
//!
//! The changes of a batch live and die together, so that a piece of memory for each would only cost time.

use bytes::{Bytes, BytesMut};

/// Changes are small; one that is larger has a piece of its own.
const PIECE: usize = 64 * 1024;

#[derive(Default)]
pub(super) struct Arena(BytesMut);

impl Arena {
    /// A copy of the bytes that others may share.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> Bytes {
        // What was kept may be gone: then its place is used again.
        if !self.0.try_reclaim(bytes.len()) {
            self.0 = BytesMut::with_capacity(PIECE.max(bytes.len()));
        }
        self.0.extend_from_slice(bytes);
        self.0.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_kept_stays_as_it_was(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3 * PIECE / 4), 0_usize..4), 1..20)
        ) {
            let mut arena = Arena::default();
            let mut kept = std::collections::VecDeque::new();
            for (bytes, forget) in pieces {
                kept.push_back((arena.keep(&bytes), bytes));
                for (kept, bytes) in &kept {
                    prop_assert_eq!(kept, bytes);
                }
                kept.drain(..forget.min(kept.len()));
            }
        }
    }
}

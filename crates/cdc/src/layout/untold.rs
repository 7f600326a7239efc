//! Deletions that nobody would hear of: rows that a transaction took away and left no tombstone for.
//!
//! Triggers write the tombstones. Where these do not fire, as after a restore that disabled them, only the log shows that
//! a row is gone. So each deletion has to be answered, later in its transaction, by a tombstone for its key or by a new
//! row of that key.

use std::collections::HashSet;
use std::hash::BuildHasher as _;

/// Keys that are remembered one by one: a statement deletes all its rows before it writes the first tombstone. Of what
/// goes beyond it only the number is compared, so that memory does not grow with the transaction.
const REMEMBERED: usize = 1 << 16;

/// The deletions of the transaction that comes in.
#[derive(Default)]
pub(super) struct Untold {
    /// The hashes of keys whose deletion was not answered yet.
    keys: HashSet<u64>,
    /// Deletions beyond those, ...
    beyond: u64,
    /// ... and what may have answered them.
    answers: u64,
}

impl Untold {
    /// Whether nothing waits for an answer.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.beyond == 0
    }

    /// A row was deleted.
    pub(super) fn deleted(&mut self, key: (&[u8], &[u8])) {
        if self.keys.len() < REMEMBERED {
            let hash = self.keys.hasher().hash_one(key);
            self.keys.insert(hash);
        } else {
            self.beyond += 1;
        }
    }

    /// A tombstone or a row was written.
    pub(super) fn told(&mut self, key: (&[u8], &[u8])) {
        let hash = self.keys.hasher().hash_one(key);
        if !self.keys.remove(&hash) && self.beyond > 0 {
            self.answers += 1;
        }
    }

    /// The transaction is over: whether it has told of all deletions, as far as was counted. Begins with the next one.
    pub(super) fn all_told(&mut self) -> bool {
        let told = self.keys.is_empty() && self.answers >= self.beyond;
        self.clear();
        told
    }

    /// Forgets the transaction.
    pub(super) fn clear(&mut self) {
        if !self.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const KEY: (&[u8], &[u8]) = (b"Patient", b"p");

    #[test]
    fn a_deletion_is_answered_after_it_and_within_its_transaction() {
        let mut untold = Untold::default();
        assert!(untold.all_told());
        untold.deleted(KEY);
        untold.told(KEY);
        assert!(untold.all_told());
        untold.told(KEY);
        untold.deleted(KEY);
        assert!(!untold.all_told(), "what came before it is no answer");
        assert!(untold.all_told(), "the next transaction has nothing to do with it");
        untold.deleted(KEY);
        untold.told((b"Patient", b"q"));
        assert!(!untold.all_told(), "the answer is for another key");
        untold.deleted(KEY);
        untold.clear();
        assert!(untold.all_told());
    }

    #[test]
    fn a_large_transaction_is_compared_by_number() {
        let key = |n: usize| n.to_be_bytes();
        let (all, mut untold) = (REMEMBERED * 2, Untold::default());
        (0..all).for_each(|n| untold.deleted((b"Basic", &key(n))));
        assert!(untold.keys.len() <= REMEMBERED);
        (0..all).for_each(|n| untold.told((b"Basic", &key(n))));
        assert!(untold.all_told());
        (0..all).for_each(|n| untold.deleted((b"Basic", &key(n))));
        (0..all - 1).for_each(|n| untold.told((b"Basic", &key(n))));
        assert!(!untold.all_told());
        (0..all).for_each(|n| untold.deleted((b"Basic", &key(n))));
        (1..all).for_each(|n| untold.told((b"Basic", &key(n))));
        assert!(!untold.all_told());
    }

    proptest! {
        /// As a list of all keys would say.
        #[test]
        fn it_says_what_a_map_of_keys_says(events in prop::collection::vec((any::<bool>(), 0_u8..6), 0..40)) {
            let mut untold = Untold::default();
            let mut open = HashMap::new();
            for (deleted, key) in events {
                let id = [key];
                if deleted {
                    untold.deleted((b"Basic", &id));
                } else {
                    untold.told((b"Basic", &id));
                }
                open.insert(key, deleted);
            }
            prop_assert_eq!(untold.all_told(), !open.values().any(|deleted| *deleted));
        }
    }
}

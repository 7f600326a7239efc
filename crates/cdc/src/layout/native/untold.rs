//! Deletions that nobody would hear of: rows that a transaction took away and left no tombstone for.
//!
//! Triggers write the tombstones. Where these do not fire, as after a restore that disabled them, only the log shows that
//! a row is gone. So each deletion has to be answered, later in its transaction, by a tombstone for its key or by a new
//! row of that key.
//!
//! What the row was is kept until then: a new row of that key has no other before image.

use bytes::Bytes;
use feed::Before;
use std::collections::HashMap;
use std::hash::BuildHasher as _;

/// Keys that are remembered one by one: a statement deletes all its rows before it writes the first tombstone. Of what
/// goes beyond it only the number is compared, so that memory does not grow with the transaction.
const REMEMBERED: usize = 1 << 16;

/// Bytes of what rows were that are kept. What others were is not known.
const KEPT_BYTES: usize = 16 << 20;

/// What a row was before a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Was {
    /// To whom it belonged.
    pub(super) before: Before,
    /// What it was, of a Group.
    pub(super) group: Option<Bytes>,
}

impl Was {
    /// Nothing: there was no row.
    pub(super) const NOTHING: Self = Self { before: Before::Nothing, group: None };
    /// It cannot be known.
    pub(super) const UNKNOWN: Self = Self { before: Before::Unknown, group: None };

    fn size(&self) -> usize {
        let patients = match &self.before {
            Before::Patients(patients) => patients.as_bytes().len(),
            Before::Nothing | Before::Unknown => 0,
        };
        patients + self.group.as_ref().map_or(0, Bytes::len)
    }
}

/// The deletions of the transaction that comes in.
#[derive(Default)]
pub(super) struct Untold {
    /// The hashes of keys whose deletion was not answered yet, and what those rows were.
    keys: HashMap<u64, Was>,
    /// The bytes of that.
    kept: usize,
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
    pub(super) fn deleted(&mut self, key: (&[u8], &[u8]), was: Was) {
        if self.keys.len() >= REMEMBERED {
            self.beyond += 1;
            return;
        }
        let was = if self.kept + was.size() > KEPT_BYTES { Was::UNKNOWN } else { was };
        self.kept += was.size();
        let hash = self.keys.hasher().hash_one(key);
        if let Some(earlier) = self.keys.insert(hash, was) {
            self.kept -= earlier.size();
        }
    }

    /// A tombstone or a row was written; what the row with that key was before, as far as this transaction deleted it:
    /// [`Was::NOTHING`] if it did not.
    pub(super) fn told(&mut self, key: (&[u8], &[u8])) -> Was {
        if self.is_empty() {
            return Was::NOTHING;
        }
        let hash = self.keys.hasher().hash_one(key);
        if let Some(was) = self.keys.remove(&hash) {
            self.kept -= was.size();
            return was;
        }
        if self.beyond == 0 {
            return Was::NOTHING;
        }
        self.answers += 1;
        Was::UNKNOWN
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
    use fhir::Patients;
    use proptest::prelude::*;

    const KEY: (&[u8], &[u8]) = (b"Patient", b"p");

    #[test]
    fn a_deletion_is_answered_after_it_and_within_its_transaction() {
        let mut untold = Untold::default();
        assert!(untold.all_told());
        untold.deleted(KEY, Was::UNKNOWN);
        untold.told(KEY);
        assert!(untold.all_told());
        untold.told(KEY);
        untold.deleted(KEY, Was::UNKNOWN);
        assert!(!untold.all_told(), "what came before it is no answer");
        assert!(untold.all_told(), "the next transaction has nothing to do with it");
        untold.deleted(KEY, Was::UNKNOWN);
        untold.told((b"Patient", b"q"));
        assert!(!untold.all_told(), "the answer is for another key");
        untold.deleted(KEY, Was::UNKNOWN);
        untold.clear();
        assert!(untold.all_told());
    }

    #[test]
    fn a_new_row_takes_what_the_deleted_one_was() {
        let of = |id: &str| Was { before: Before::Patients(Patients::from_ids([id])), group: None };
        let mut untold = Untold::default();
        assert_eq!(untold.told(KEY), Was::NOTHING);
        untold.deleted(KEY, of("a"));
        assert_eq!(untold.told((b"Patient", b"q")), Was::NOTHING);
        assert_eq!(untold.told(KEY), of("a"));
        assert_eq!(untold.told(KEY), Was::NOTHING, "taken");
        untold.deleted(KEY, of("a"));
        untold.deleted(KEY, of("b"));
        assert_eq!((untold.kept, untold.told(KEY)), (2, of("b")));
        assert_eq!(untold.kept, 0);
        untold.deleted(KEY, of("a"));
        assert!(!untold.all_told());
        assert_eq!(untold.told(KEY), Was::NOTHING, "of another transaction");
    }

    #[test]
    fn what_is_too_much_to_keep_is_unknown() {
        let many: Vec<String> = (0..100_000).map(|n| format!("patient-number-{n}")).collect();
        let before = Before::Patients(Patients::from_ids(many.iter().map(String::as_str)));
        let many = Was { before, group: Some(Bytes::from(vec![b'x'; 1 << 20])) };
        let mut untold = Untold::default();
        (0..9_u8).for_each(|n| untold.deleted((b"Basic", &[n]), many.clone()));
        assert!(untold.kept <= KEPT_BYTES);
        let known = (0..9_u8).filter(|n| untold.told((b"Basic", &[*n])) == many).count();
        assert!((1..9).contains(&known) && untold.kept == 0, "{known}");
        // Of more keys than are remembered each new row may be one of those.
        let key = |n: usize| n.to_be_bytes();
        (0..=REMEMBERED).for_each(|n| untold.deleted((b"Basic", &key(n)), Was::NOTHING));
        assert_eq!(untold.told((b"Basic", &key(REMEMBERED))), Was::UNKNOWN);
        assert_eq!(untold.told((b"Basic", &key(0))), Was::NOTHING);
    }

    #[test]
    fn a_large_transaction_is_compared_by_number() {
        let key = |n: usize| n.to_be_bytes();
        let (all, mut untold) = (REMEMBERED * 2, Untold::default());
        (0..all).for_each(|n| untold.deleted((b"Basic", &key(n)), Was::UNKNOWN));
        assert!(untold.keys.len() <= REMEMBERED);
        (0..all).for_each(|n| drop(untold.told((b"Basic", &key(n)))));
        assert!(untold.all_told());
        (0..all).for_each(|n| untold.deleted((b"Basic", &key(n)), Was::UNKNOWN));
        (0..all - 1).for_each(|n| drop(untold.told((b"Basic", &key(n)))));
        assert!(!untold.all_told());
        (0..all).for_each(|n| untold.deleted((b"Basic", &key(n)), Was::UNKNOWN));
        (1..all).for_each(|n| drop(untold.told((b"Basic", &key(n)))));
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
                    untold.deleted((b"Basic", &id), Was::UNKNOWN);
                } else {
                    untold.told((b"Basic", &id));
                }
                open.insert(key, deleted);
            }
            prop_assert_eq!(untold.all_told(), !open.values().any(|deleted| *deleted));
        }
    }
}

//! Which sets of patients somebody may be in, without a look at each of them.
//!
//! It may say more than is true: of two patients with the same hash each is said to be in the sets of the other, and a set that is
//! gone is said for a while. So a set that it names is asked. It never says less of a set that is in it.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};

/// So many tables, each of which grows by itself: what makes one of them larger takes microseconds, however many patients there are.
const SHARDS: usize = 256;

/// The index. A set is a number.
pub(crate) struct PatientIndex {
    hashing: RandomState,
    shards: Box<[HashMap<u64, Sets, BuildHasherDefault<Hashed>>]>,
}

/// The sets of patients with one hash.
enum Sets {
    One(u64),
    Several(Vec<u64>),
}

impl PatientIndex {
    pub(crate) fn new() -> Self {
        Self {
            hashing: RandomState::new(),
            shards: std::iter::repeat_with(HashMap::default).take(SHARDS).collect(),
        }
    }

    /// What hashes patients as the index does.
    pub(crate) fn hashing(&self) -> RandomState {
        self.hashing.clone()
    }

    /// The hash of a patient.
    pub(crate) fn hash(&self, id: &str) -> u64 {
        self.hashing.hash_one(id)
    }

    fn shard(hash: u64) -> usize {
        // Bits that the table itself does not look at first.
        (hash >> 24) as usize % SHARDS
    }

    /// Puts a patient into a set.
    pub(crate) fn add(&mut self, hash: u64, set: u64) {
        let sets = &mut self.shards[Self::shard(hash)];
        match sets.get_mut(&hash) {
            None => {
                sets.insert(hash, Sets::One(set));
            }
            Some(Sets::One(one)) if *one == set => {}
            Some(Sets::Several(several)) if several.contains(&set) => {}
            Some(Sets::Several(several)) => several.push(set),
            Some(one @ Sets::One(_)) => {
                let Sets::One(first) = *one else { return };
                *one = Sets::Several(vec![first, set]);
            }
        }
    }

    /// Takes a patient out of a set.
    pub(crate) fn remove(&mut self, hash: u64, set: u64) {
        let sets = &mut self.shards[Self::shard(hash)];
        let empty = match sets.get_mut(&hash) {
            None => return,
            Some(Sets::One(one)) => *one == set,
            Some(Sets::Several(several)) => {
                several.retain(|other| *other != set);
                several.is_empty()
            }
        };
        if empty {
            sets.remove(&hash);
            // What thousands of patients took is not kept for ever.
            if sets.capacity() > 64 && sets.len() < sets.capacity() / 4 {
                sets.shrink_to(2 * sets.len());
            }
        }
    }

    /// The sets that a patient may be in.
    pub(crate) fn sets(&self, id: &str) -> &[u64] {
        let hash = self.hash(id);
        match self.shards[Self::shard(hash)].get(&hash) {
            None => &[],
            Some(Sets::One(one)) => std::slice::from_ref(one),
            Some(Sets::Several(several)) => several,
        }
    }

    /// Whether it has no patients.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.shards.iter().all(HashMap::is_empty)
    }
}

/// What is hashed already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only numbers are keys.
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }
}

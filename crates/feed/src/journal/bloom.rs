//! Which patients a block concerns, in 128 bytes: so that who listens to a few passes over the blocks of all others.
//!
//! A Bloom filter: it may say yes of a patient whom no entry names, once in 300 times for 80 patients, and never no of one who
//! is named.

use crate::Before;
use fhir::{Compartment, Patients, stable_hash};

const WORDS: usize = 16;
/// Bytes of its stored form.
pub(super) const BLOOM_LEN: usize = WORDS * 8;
const BITS: u32 = 1024;
const HASHES: u32 = 8;

/// The patients of a block's entries, before and after.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Bloom([u64; WORDS]);

/// What a reader looks for.
pub(crate) enum Probes {
    /// Everything.
    Everything,
    /// Whatever belongs to a patient.
    AnyPatient,
    /// The bits of each of these.
    Patients(Vec<[u64; WORDS]>),
}

impl Probes {
    /// What the blocks are asked for by who wants this.
    pub(crate) fn of(compartment: &Compartment) -> Self {
        match compartment {
            Compartment::Any => Self::Everything,
            Compartment::AnyPatient => Self::AnyPatient,
            Compartment::Patients(patients) => Self::of_ids(patients.iter()),
            // Whoever that is.
            Compartment::Group { .. } => Self::AnyPatient,
        }
    }

    /// Whatever belongs to one of these.
    pub(crate) fn of_ids<'a>(ids: impl Iterator<Item = &'a str>) -> Self {
        Self::Patients(ids.map(bits).collect())
    }
}

impl Bloom {
    /// Adds those of an entry.
    pub(super) fn add(&mut self, patients: &Patients, before: &Before) {
        self.add_all(patients);
        match before {
            Before::Patients(before) if before != patients => self.add_all(before),
            Before::Patients(_) | Before::Nothing => {}
            // It may have been anybody's.
            Before::Unknown => self.0 = [u64::MAX; WORDS],
        }
    }

    fn add_all(&mut self, patients: &Patients) {
        for id in patients.iter() {
            for (word, bits) in self.0.iter_mut().zip(bits(id)) {
                *word |= bits;
            }
        }
    }

    /// Whether an entry may be what is looked for.
    pub(crate) fn may_have(&self, probes: &Probes) -> bool {
        match probes {
            Probes::Everything => true,
            Probes::AnyPatient => self.0 != [0; WORDS],
            Probes::Patients(all) => {
                all.iter().any(|bits| self.0.iter().zip(bits).all(|(word, bits)| word & bits == *bits))
            }
        }
    }

    pub(super) fn words(&self) -> &[u64; WORDS] {
        &self.0
    }

    pub(super) const fn of_words(words: [u64; WORDS]) -> Self {
        Self(words)
    }
}

/// Each bit of it depends on all of the hash.
const fn mixed(hash: u32) -> u32 {
    let hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// The bits of a patient.
fn bits(id: &str) -> [u64; WORDS] {
    let hash = stable_hash(id.bytes());
    // The hashes of similar ids are similar: these spread them over all bits.
    let (first, step) = (mixed(hash), mixed(!hash) | 1);
    let mut bits = [0; WORDS];
    for n in 0..HASHES {
        let bit = first.wrapping_add(step.wrapping_mul(n)) % BITS;
        bits[(bit / 64) as usize] |= 1 << (bit % 64);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn patients(ids: &[String]) -> Patients {
        Patients::from_ids(ids.iter().map(String::as_str))
    }

    fn may_have(bloom: &Bloom, id: &str) -> bool {
        bloom.may_have(&Probes::of(&Compartment::Patients(Patients::from_ids([id]))))
    }

    #[test]
    fn most_others_are_told_apart() {
        let mut bloom = Bloom::default();
        for n in 0..80 {
            bloom.add(&patients(&[format!("patient-{n}")]), &Before::Nothing);
        }
        let taken = (0..10_000).filter(|n| may_have(&bloom, &format!("other-{n}"))).count();
        assert!(taken < 100, "{taken} of 10,000");
    }

    #[test]
    fn what_is_not_known_may_be_anybody() {
        let mut bloom = Bloom::default();
        bloom.add(&Patients::none(), &Before::Nothing);
        assert!(!bloom.may_have(&Probes::AnyPatient) && bloom.may_have(&Probes::Everything));
        bloom.add(&Patients::none(), &Before::Unknown);
        assert!(may_have(&bloom, "a") && bloom.may_have(&Probes::AnyPatient));
    }

    proptest! {
        #[test]
        fn who_is_in_is_never_passed_over(
            entries in prop::collection::vec((prop::collection::vec("[a-z0-9]{1,8}", 0..4), prop::collection::vec("[a-z0-9]{1,8}", 0..4)), 0..40),
        ) {
            let mut bloom = Bloom::default();
            for (new, old) in &entries {
                bloom.add(&patients(new), &Before::Patients(patients(old)));
            }
            for id in entries.iter().flat_map(|(new, old)| new.iter().chain(old)) {
                prop_assert!(may_have(&bloom, id));
                prop_assert!(bloom.may_have(&Probes::AnyPatient));
            }
        }
    }
}

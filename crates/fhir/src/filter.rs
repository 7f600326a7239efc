//! What a request wants to hear of: the part of it that decides whether a change concerns it.
//!
//! Two requests with equal filters share one channel of the hub; `_since`, `_heartbeat` and the place
//! where a client resumes are no part of it.

use crate::{Patients, ResourceType, TypeSet, compartment_types, stable_hash, stable_hash_after};

/// The changes that a request asks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Filter {
    /// The resource types asked for. `/Observation/$export` and `?_type=Observation` are the same set.
    pub types: TypeSet,
    /// Whose resources.
    pub compartment: Compartment,
}

/// Whose resources a request asks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Compartment {
    /// Everybody's, and those that belong to no patient.
    Any,
    /// Those that belong to at least one patient.
    AnyPatient,
    /// Those that belong to at least one of these.
    Patients(Patients),
    /// Those that belong to at least one member of this Group, whoever that is at the time, and the Group itself.
    Group {
        /// The Group's id.
        id: Box<str>,
        /// Of its members only these.
        only: Option<Patients>,
    },
}

/// What a subscriber is to be told of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The resource as it is now.
    Send,
    /// That it is no longer among what was asked for: deleted, or out of scope.
    Remove,
    /// Nothing.
    Nothing,
}

impl Filter {
    /// Everything.
    pub fn everything() -> Self {
        Self::of_types(TypeSet::all())
    }

    /// All resources of these types.
    pub const fn of_types(types: TypeSet) -> Self {
        Self { types, compartment: Compartment::Any }
    }

    /// Resources of these types that belong to patients. Types that are in no compartment are left out.
    pub fn of_patients(types: TypeSet, compartment: Compartment) -> Self {
        let in_compartments = compartment_types();
        Self { types: types.iter().filter(|kind| in_compartments.contains(*kind)).collect(), compartment }
    }

    /// Resources of these types that belong to members of a Group, and the Group itself if its type is one of them.
    pub fn of_group(types: TypeSet, id: &str, only: Option<Patients>) -> Self {
        let itself = types.contains(ResourceType::GROUP);
        let mut filter = Self::of_patients(types, Compartment::Group { id: id.into(), only });
        if itself {
            filter.types.insert(ResourceType::GROUP);
        }
        filter
    }

    /// Whether a change of a resource of this type may concern the request.
    pub fn matches(&self, resource_type: ResourceType) -> bool {
        self.types.contains(resource_type)
    }

    /// Whether resources can come and go without being created or deleted: then what left cannot be
    /// listed afterwards.
    pub const fn is_scoped(&self) -> bool {
        !matches!(self.compartment, Compartment::Any)
    }

    /// What to tell of a change of a resource that belongs to these patients and belonged to those.
    /// `None`: it does not exist (any more), or did not.
    pub fn decide(
        &self,
        resource_type: ResourceType,
        new: Option<&Patients>,
        old: Option<&Patients>,
    ) -> Verdict {
        if !self.matches(resource_type) {
            Verdict::Nothing
        } else if new.is_some_and(|patients| self.compartment.contains(patients)) {
            Verdict::Send
        } else if old.is_some_and(|patients| self.compartment.contains(patients)) {
            Verdict::Remove
        } else {
            Verdict::Nothing
        }
    }

    /// What ids say of the filter, if they have to: one of another scope does not say what its client has.
    pub fn scope_hash32(&self) -> Option<u32> {
        self.is_scoped().then(|| self.hash32())
    }

    /// A short hash, the same in every process and release: an id given out for one filter must be
    /// recognised as another's.
    pub fn hash32(&self) -> u32 {
        let types = stable_hash(self.types.words().iter().flat_map(|word| word.to_le_bytes()));
        match &self.compartment {
            Compartment::Any => types,
            Compartment::AnyPatient => stable_hash_after(types, *b"\x01"),
            Compartment::Patients(patients) => {
                stable_hash_after(types, [2].into_iter().chain(patients.as_bytes().iter().copied()))
            }
            Compartment::Group { id, only } => {
                let only = only.iter().flat_map(|only| [0].iter().chain(only.as_bytes()));
                stable_hash_after(types, [3].into_iter().chain(id.bytes()).chain(only.copied()))
            }
        }
    }
}

impl Compartment {
    /// Whether a resource that belongs to these patients is in it. Of a Group nobody is known to be a member here.
    pub fn contains(&self, patients: &Patients) -> bool {
        match self {
            Self::Any => true,
            Self::AnyPatient => !patients.is_empty(),
            Self::Patients(asked) => asked.intersects(patients),
            Self::Group { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn only(kind: ResourceType) -> TypeSet {
        [kind].into_iter().collect()
    }

    /// Ids in the hands of clients hold these values: they must not change with a release.
    #[test]
    fn the_hash_stays_the_same_for_ever() {
        assert_eq!(Filter::everything().hash32(), 0xb8fb_01d0);
        assert_eq!(Filter::of_types(only(ResourceType::PATIENT)).hash32(), 0xc5d6_20e5);
        assert_eq!(Filter::of_types(only(ResourceType::GROUP)).hash32(), 0x889d_fbff);
    }

    #[test]
    fn hashes_of_different_compartments_differ() {
        let of = |compartment| Filter { types: only(ResourceType::PATIENT), compartment }.hash32();
        let patients = |ids: &[&str]| Compartment::Patients(Patients::from_ids(ids.iter().copied()));
        let hashes = [
            of(Compartment::Any),
            of(Compartment::AnyPatient),
            of(patients(&[])),
            of(patients(&["a"])),
            of(patients(&["b"])),
            of(patients(&["a", "b"])),
            of(patients(&["ab"])),
        ];
        for (index, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(hash), "{index}");
        }
    }

    #[test]
    fn a_change_is_sent_removed_or_left_out() {
        let ann = Patients::from_ids(["ann"]);
        let both = Patients::from_ids(["ann", "bob"]);
        let none = Patients::none();
        let bobs = Compartment::Patients(Patients::from_ids(["bob"]));
        let filter = Filter::of_patients(TypeSet::all(), bobs);
        let decide = |new, old| filter.decide(ResourceType::PATIENT, new, old);
        assert_eq!(decide(Some(&both), None), Verdict::Send);
        assert_eq!(decide(Some(&both), Some(&both)), Verdict::Send);
        assert_eq!(decide(Some(&ann), Some(&both)), Verdict::Remove);
        assert_eq!(decide(None, Some(&both)), Verdict::Remove);
        assert_eq!(decide(Some(&ann), Some(&ann)), Verdict::Nothing);
        assert_eq!(decide(Some(&none), None), Verdict::Nothing);
        assert_eq!(filter.decide(ResourceType::GROUP, Some(&both), None), Verdict::Nothing);
        let anybody = Filter::of_patients(TypeSet::all(), Compartment::AnyPatient);
        assert_eq!(anybody.decide(ResourceType::PATIENT, Some(&none), Some(&ann)), Verdict::Remove);
    }

    proptest! {
        #[test]
        fn sets_intersect_if_they_share_a_patient(a in prop::collection::vec("[a-d]{1,2}", 0..6), b in prop::collection::vec("[a-d]{1,2}", 0..6)) {
            let set = |ids: &[String]| Patients::from_ids(ids.iter().map(String::as_str));
            prop_assert_eq!(set(&a).intersects(&set(&b)), a.iter().any(|id| b.contains(id)));
        }
    }
}

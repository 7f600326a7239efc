//! What a request wants to hear of: the part of it that decides whether a change concerns it.
//!
//! Two requests with equal filters share one channel of the hub; `_since`, `_heartbeat` and the place
//! where a client resumes are no part of it.

use crate::{ResourceType, TypeSet, stable_hash};

/// The changes that a request asks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Filter {
    /// The resource types asked for. `/Observation/$export` and `?_type=Observation` are the same set.
    pub types: TypeSet,
}

impl Filter {
    /// Everything.
    pub fn everything() -> Self {
        Self { types: TypeSet::all() }
    }

    /// Whether a change of a resource of this type concerns the request.
    pub fn matches(&self, resource_type: ResourceType) -> bool {
        self.types.contains(resource_type)
    }

    /// A short hash, the same in every process and release: an id given out for one filter must be
    /// recognised as another's.
    pub fn hash32(&self) -> u32 {
        stable_hash(self.types.words().iter().flat_map(|word| word.to_le_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids in the hands of clients hold these values: they must not change with a release.
    #[test]
    fn the_hash_stays_the_same_for_ever() {
        let only = |kind| Filter { types: [kind].into_iter().collect() };
        assert_eq!(Filter::everything().hash32(), 0xb8fb_01d0);
        assert_eq!(only(ResourceType::PATIENT).hash32(), 0xc5d6_20e5);
        assert_eq!(only(ResourceType::GROUP).hash32(), 0x889d_fbff);
    }
}

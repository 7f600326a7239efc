//! A set of patients, which may be large and is shared by all who need an equal one.

use fhir::Patients;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, OnceLock};

/// A set of patients. Sets that are made of one another share the ids.
#[derive(Default)]
pub(crate) struct PatientSet {
    ids: HashSet<Arc<str>>,
    /// The sum of the ids' hashes: sets that are not equal are told apart by it without a look at a hundred thousand ids.
    sum: u64,
    sorted: OnceLock<Box<[Arc<str>]>>,
}

impl PatientSet {
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// The ids, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.ids.iter().map(|id| &**id)
    }

    /// Whether one of these patients is in it.
    pub(crate) fn has_any(&self, patients: &Patients) -> bool {
        patients.iter().any(|id| self.contains(id))
    }

    /// Those who are in both: one of the two, if that is all of it.
    pub(crate) fn and(self: &Arc<Self>, other: &Arc<Self>) -> Arc<Self> {
        self.kept(|id| other.contains(id), Some(other))
    }

    /// Those who are not in the other: the same set, if that is all of it.
    pub(crate) fn without(self: &Arc<Self>, other: &Self) -> Arc<Self> {
        self.kept(|id| !other.contains(id), None)
    }

    /// Those who are in one of them: one of the two, if that is all of it.
    pub(crate) fn or(self: &Arc<Self>, other: &Arc<Self>) -> Arc<Self> {
        let (small, large) = if self.len() < other.len() { (self, other) } else { (other, self) };
        if Arc::ptr_eq(small, large) || small.ids.iter().all(|id| large.contains(id)) {
            return large.clone();
        }
        Arc::new(small.ids.iter().chain(&large.ids).cloned().collect())
    }

    fn kept(self: &Arc<Self>, keep: impl Fn(&str) -> bool, or: Option<&Arc<Self>>) -> Arc<Self> {
        if or.is_some_and(|or| Arc::ptr_eq(self, or)) {
            return self.clone();
        }
        let kept = self.ids.iter().filter(|id| keep(id)).count();
        match or {
            _ if kept == self.len() => self.clone(),
            Some(or) if kept == or.len() => or.clone(),
            _ => Arc::new(self.ids.iter().filter(|id| keep(id)).cloned().collect()),
        }
    }

    /// Adds patients.
    pub(crate) fn add<'a>(&mut self, ids: impl IntoIterator<Item = &'a str>) {
        ids.into_iter().for_each(|id| self.insert(id.into()));
    }

    fn insert(&mut self, id: Arc<str>) {
        let hash = hash(&id);
        if self.ids.insert(id) {
            self.sum = self.sum.wrapping_add(hash);
            self.sorted = OnceLock::new();
        }
    }

    /// The ids, sorted.
    pub(crate) fn sorted(&self) -> &[Arc<str>] {
        self.sorted.get_or_init(|| {
            let mut ids: Vec<_> = self.ids.iter().cloned().collect();
            ids.sort_unstable();
            ids.into()
        })
    }
}

impl PartialEq for PatientSet {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || (self.sum == other.sum && self.ids == other.ids)
    }
}

impl Eq for PatientSet {}

impl FromIterator<Arc<str>> for PatientSet {
    fn from_iter<I: IntoIterator<Item = Arc<str>>>(ids: I) -> Self {
        let mut set = Self::default();
        ids.into_iter().for_each(|id| set.insert(id));
        set
    }
}

fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(ids: &BTreeSet<String>) -> Arc<PatientSet> {
        let mut set = PatientSet::default();
        set.add(ids.iter().map(String::as_str));
        Arc::new(set)
    }

    fn ids(set: &PatientSet) -> BTreeSet<String> {
        set.iter().map(str::to_owned).collect()
    }

    proptest! {
        #[test]
        fn it_is_a_set(
            a in prop::collection::btree_set("[a-d]{1,2}", 0..12), b in prop::collection::btree_set("[a-d]{1,2}", 0..12),
        ) {
            let (one, other) = (set(&a), set(&b));
            prop_assert_eq!(ids(&one.and(&other)), a.intersection(&b).cloned().collect());
            prop_assert_eq!(ids(&one.without(&other)), a.difference(&b).cloned().collect());
            prop_assert_eq!(ids(&one.or(&other)), a.union(&b).cloned().collect());
            prop_assert_eq!(*one == *other, a == b);
            prop_assert!(*one.or(&other) == *other.or(&one) && *one.and(&other) == *other.and(&one));
            let sorted: Vec<String> = one.sorted().iter().map(|id| id.to_string()).collect();
            prop_assert_eq!(sorted, a.iter().cloned().collect::<Vec<_>>());
            if a.is_subset(&b) {
                prop_assert!(Arc::ptr_eq(&one.and(&other), &one) || one == other);
                prop_assert!(Arc::ptr_eq(&one.or(&other), &other) || one == other);
            }
        }
    }
}

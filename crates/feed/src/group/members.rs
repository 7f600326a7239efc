//! Who is a member of a Group.

use fhir::{Instant, Patients};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Weak};

/// A set of patients, which may be large.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct PatientSet(HashSet<Box<str>>);

/// The members of a Group at a position of the feed.
#[derive(Clone)]
pub(crate) struct Members {
    pub(crate) patients: Arc<PatientSet>,
    /// The Group and those that are nested in it, whether they are stored or not: their changes may change the members.
    pub(crate) groups: Arc<BTreeSet<Box<str>>>,
    /// When a period begins or ends next; the end of all time if somebody is a member for a period that is over.
    pub(crate) next: Option<Instant>,
}

impl PatientSet {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.0.contains(id)
    }

    /// The ids, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|id| &**id)
    }

    /// Whether one of these patients is in it.
    pub(crate) fn has_any(&self, patients: &Patients) -> bool {
        patients.iter().any(|id| self.contains(id))
    }

    /// Those who are in both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).cloned().collect())
    }

    /// Those who are not in the other.
    pub(crate) fn without(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).cloned().collect())
    }

    /// Adds patients.
    pub(crate) fn add<'a>(&mut self, ids: impl IntoIterator<Item = &'a str>) {
        self.0.extend(ids.into_iter().map(Box::from));
    }

    /// The ids, sorted.
    pub(crate) fn sorted(&self) -> Vec<&str> {
        let mut ids: Vec<&str> = self.0.iter().map(|id| &**id).collect();
        ids.sort_unstable();
        ids
    }
}

/// The sets of members that are in use, by Group: all who follow a Group share them.
#[derive(Default)]
pub(crate) struct MemberSets(Mutex<HashMap<Box<str>, Vec<Used>>>);

/// One that is in use.
struct Used {
    set: Weak<PatientSet>,
    /// See [`Members::next`].
    next: Option<Instant>,
}

impl MemberSets {
    /// The set that is equal to this one and in use, or this one.
    pub(crate) fn share(&self, group: &str, set: PatientSet, next: Option<Instant>) -> Arc<PatientSet> {
        let known: Vec<_> =
            self.0.lock().get(group).into_iter().flatten().filter_map(|used| used.set.upgrade()).collect();
        // Compared without the lock: there may be a hundred thousand members.
        let set = known.into_iter().find(|known| **known == set).unwrap_or_else(|| Arc::new(set));
        let mut sets = self.0.lock();
        let used = sets.entry(group.into()).or_default();
        used.retain(|other| {
            other.set.strong_count() > 0 && !std::ptr::eq(other.set.as_ptr(), &raw const *set)
        });
        used.push(Used { set: Arc::downgrade(&set), next });
        sets.retain(|_, used| used.iter().any(|used| used.set.strong_count() > 0));
        set
    }

    /// The newest moment up to this time at which somebody has come to be a member, or has ceased to be, which somebody who
    /// follows may not know of.
    pub(crate) fn due(&self, time: Instant) -> Option<Instant> {
        let sets = self.0.lock();
        let used = sets.values().flatten().filter(|used| used.set.strong_count() > 0);
        used.filter_map(|used| used.next).filter(|next| *next <= time).max()
    }
}

//! Who is a member of a Group.

use crate::Position;
use fhir::{Instant, Patients};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
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
        let mut ids: Vec<&str> = self.iter().collect();
        ids.sort_unstable();
        ids
    }
}

/// The sets of members that are in use, by Group: all who follow a Group share them.
#[derive(Default)]
pub(crate) struct MemberSets {
    used: Mutex<HashMap<Box<str>, Vec<Used>>>,
    /// The members of some Groups at some positions, newest last: who follows a change of members asks for the same ones again.
    known: Mutex<VecDeque<(Question, Known)>>,
}

/// So many answers are kept. Their sets are not, unless they are in use.
const KNOWN: usize = 256;

/// Whose members are asked for, and when.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) group: Box<str>,
    pub(crate) only: Option<Patients>,
    /// A position is one of its epoch.
    pub(crate) epoch: u64,
    pub(crate) at: Position,
}

struct Known {
    patients: Weak<PatientSet>,
    groups: Arc<BTreeSet<Box<str>>>,
    next: Option<Instant>,
}

/// One that is in use.
struct Used {
    set: Weak<PatientSet>,
    /// See [`Members::next`].
    next: Option<Instant>,
}

impl MemberSets {
    /// The answer, if it is known and its set is in use.
    pub(crate) fn find(&self, question: &Question) -> Option<Members> {
        let known = self.known.lock();
        let (_, Known { patients, groups, next }) =
            known.iter().rev().find(|(asked, _)| asked == question)?;
        Some(Members { patients: patients.upgrade()?, groups: groups.clone(), next: *next })
    }

    /// Keeps an answer.
    pub(crate) fn keep(&self, question: Question, members: &Members) {
        let Members { patients, groups, next } = members;
        let answer = Known { patients: Arc::downgrade(patients), groups: groups.clone(), next: *next };
        let mut known = self.known.lock();
        if known.len() == KNOWN {
            known.pop_front();
        }
        known.push_back((question, answer));
    }

    /// The set that is equal to this one and in use, or this one.
    pub(crate) fn share(&self, group: &str, set: PatientSet, next: Option<Instant>) -> Arc<PatientSet> {
        let known: Vec<_> =
            self.used.lock().get(group).into_iter().flatten().filter_map(|used| used.set.upgrade()).collect();
        // Compared without the lock: there may be a hundred thousand members.
        let set = known.into_iter().find(|known| **known == set).unwrap_or_else(|| Arc::new(set));
        let mut sets = self.used.lock();
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
        let sets = self.used.lock();
        let used = sets.values().flatten().filter(|used| used.set.strong_count() > 0);
        used.filter_map(|used| used.next).filter(|next| *next <= time).max()
    }
}

//! The members of a Group.

use super::in_flight::InFlight;
use super::patient_set::PatientSet;
use crate::{Position, SourceError};
use fhir::{Instant, Patients};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant as Clock;

/// Why it cannot be told who is a member.
#[derive(Clone)]
pub(crate) enum NoMembers {
    /// The Group does not exist, or may not be interpreted: why, for the client.
    Gone(String),
    /// The journal does not go back so far, or the log did not say what a Group was.
    NotKept(&'static str),
    /// The database does not answer.
    Source(SourceError),
}

impl From<SourceError> for NoMembers {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

/// The members of a Group at a position of the feed.
#[derive(Clone)]
pub(crate) struct Members {
    pub(crate) patients: Arc<PatientSet>,
    /// The Group and those that are nested in it, whether they are stored or not: their changes may change the members.
    pub(crate) groups: Arc<BTreeSet<Box<str>>>,
    /// When a period begins or ends next; the end of all time if somebody is a member for a period that is over.
    pub(crate) next: Option<Instant>,
}

/// The sets of members that are in use, by Group: all who follow a Group share them.
#[derive(Default)]
pub(crate) struct MemberSets {
    used: Mutex<HashMap<Box<str>, Vec<Used>>>,
    /// The members of some Groups at some positions, newest last: who follows a change of members asks for the same ones again.
    known: Mutex<VecDeque<(Question, Known)>>,
    pub(super) finding: InFlight<Question, Result<Members, NoMembers>>,
}

/// So many answers are kept. Their sets are kept for a moment only, unless they are in use.
const KNOWN: usize = 256;
/// All who follow a Group ask for the same sets within a moment, and not all of them at once.
pub(super) const MOMENT: Duration = Duration::from_secs(5);

/// Whose members are asked for, and when.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) group: Box<str>,
    pub(crate) only: Option<Patients>,
    /// A position is one of its epoch.
    pub(crate) epoch: u64,
    pub(crate) at: Position,
}

struct Known {
    patients: Weak<PatientSet>,
    /// The same, and since when it is kept.
    kept: Option<(Clock, Arc<PatientSet>)>,
    groups: Arc<BTreeSet<Box<str>>>,
    next: Option<Instant>,
}

impl Known {
    /// The answer, if its set is in use.
    fn members(&self) -> Option<Members> {
        let Self { patients, groups, next, .. } = self;
        Some(Members { patients: patients.upgrade()?, groups: groups.clone(), next: *next })
    }
}

/// One that is in use.
struct Used {
    set: Weak<PatientSet>,
    /// See [`Members::next`]: of each position at which the set is that of the members, as periods may differ where members do
    /// not.
    next: BTreeSet<Instant>,
}

impl MemberSets {
    /// The answer, if it is known and its set is in use.
    pub(crate) fn find(&self, question: &Question) -> Option<Members> {
        let known = self.known.lock();
        known.iter().rev().find(|(asked, _)| asked == question)?.1.members()
    }

    /// What is known of the same Group at another position, as near as there is, and where.
    pub(crate) fn near(&self, question: &Question) -> Option<(Position, Members)> {
        let of_same = |asked: &Question| Question { at: question.at, ..asked.clone() } == *question;
        let known = self.known.lock();
        let mut same: Vec<_> = known.iter().filter(|(asked, _)| of_same(asked)).collect();
        same.sort_by_key(|(asked, _)| asked.at);
        let (before, after) = same.split_at(same.partition_point(|(asked, _)| asked.at <= question.at));
        let nearest = before.iter().rev().chain(after);
        nearest.into_iter().find_map(|(asked, known)| Some((asked.at, known.members()?)))
    }

    /// Keeps an answer.
    pub(crate) fn keep(&self, question: Question, members: &Members) {
        let Members { patients, groups, next } = members;
        let kept = Some((Clock::now(), patients.clone()));
        let answer = Known { patients: Arc::downgrade(patients), kept, groups: groups.clone(), next: *next };
        let mut known = self.known.lock();
        if known.len() == KNOWN {
            known.pop_front();
        }
        known.push_back((question, answer));
    }

    /// Lets go of the sets that were kept for a moment.
    pub(crate) fn forget(&self) {
        let mut known = self.known.lock();
        let gone: Vec<_> = known
            .iter_mut()
            .filter_map(|(_, known)| known.kept.take_if(|(since, _)| since.elapsed() > MOMENT))
            .collect();
        // What nobody uses is freed without the lock.
        drop(known);
        drop(gone);
    }

    /// The set that is equal to this one and in use, or this one.
    pub(crate) fn share(&self, group: &str, set: PatientSet, next: Option<Instant>) -> Arc<PatientSet> {
        let known: Vec<_> =
            self.used.lock().get(group).into_iter().flatten().filter_map(|used| used.set.upgrade()).collect();
        // Compared without the lock: there may be a hundred thousand members.
        let set = known.into_iter().find(|known| **known == set).unwrap_or_else(|| Arc::new(set));
        let mut sets = self.used.lock();
        let used = sets.entry(group.into()).or_default();
        used.retain(|other| other.set.strong_count() > 0);
        match used.iter_mut().find(|other| std::ptr::eq(other.set.as_ptr(), &raw const *set)) {
            Some(known) => known.next.extend(next),
            None => used.push(Used { set: Arc::downgrade(&set), next: next.into_iter().collect() }),
        }
        sets.retain(|_, used| used.iter().any(|used| used.set.strong_count() > 0));
        set
    }

    /// The newest moment up to this time at which somebody has come to be a member, or has ceased to be, which somebody who
    /// follows may not know of.
    pub(crate) fn due(&self, time: Instant) -> Option<Instant> {
        let sets = self.used.lock();
        let used = sets.values().flatten().filter(|used| used.set.strong_count() > 0);
        used.filter_map(|used| used.next.range(..=time).next_back().copied()).max()
    }

    /// Forgets the moments up to the time of a tick that the journal has.
    pub(crate) fn ticked(&self, time: Instant) {
        for used in self.used.lock().values_mut().flatten() {
            used.next.retain(|next| *next > time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_of_one_position_is_due_whatever_is_asked_of_another_with_the_same_members() {
        let sets = MemberSets::default();
        let share = |next: Option<i64>| {
            let mut set = PatientSet::default();
            set.add(["a"]);
            sets.share("g", set, next.map(Instant::from_unix_micros))
        };
        let due = |time| sets.due(Instant::from_unix_micros(time)).map(Instant::unix_micros);
        let set = share(Some(20));
        // As of an earlier position, for somebody who is behind.
        for earlier in [Some(50), None] {
            assert!(Arc::ptr_eq(&set, &share(earlier)));
        }
        assert_eq!((due(19), due(20), due(50)), (None, Some(20), Some(50)));
        sets.ticked(Instant::from_unix_micros(30));
        assert_eq!((due(49), due(50)), (None, Some(50)));
        drop(set);
        assert_eq!(due(50), None);
    }
}

//! Which channels of the hub a change may concern, without a look at all of them.
//!
//! Patients → sets of patients → channels. A change costs one look-up for each of its patients, whether there are ten thousand
//! streams of one patient or a thousand Groups. To put a Group of a hundred thousand into the index takes a while: until it
//! is there, piece by piece ([`Work`]), its set is asked plainly.

use crate::group::PatientSet;
use crate::routing::change_filter::{ChangeFilter, MemberFilter};
use crate::routing::patient_index::PatientIndex;
use crate::{Before, Change};
use fhir::{Compartment, Patients, RESOURCE_TYPES, ResourceType};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

/// A set of no more patients than this is put into the index at once.
pub(crate) const AT_ONCE: usize = 512;

/// Channels by what they hear of. A channel is a number.
pub(crate) struct Routes {
    /// Those that hear of everybody's resources, or of all patients'.
    by_type: Vec<Vec<usize>>,
    /// Those that hear of some patients' resources, or of those of a Group's members, by the set of these.
    sets: HashMap<u64, Set>,
    /// The number of each set.
    numbers: HashMap<Whose, u64>,
    /// The number of the next. None is used again: the index may name a set that is gone.
    next: u64,
    index: PatientIndex,
    /// Sets that are not in the index yet.
    plain: Vec<u64>,
    /// The sets that may change with a Group.
    by_group: HashMap<Box<str>, Vec<u64>>,
    /// Large sets that are to be put into the index, or taken out of it, in this order.
    work: VecDeque<Work>,
}

/// Whose resources channels hear of.
#[derive(PartialEq, Eq, Hash)]
enum Whose {
    These(Patients),
    /// Of a set that lies there in memory, where it stays while there is a channel.
    Members(usize),
}

/// Channels of one set of patients.
struct Set {
    patients: Option<Arc<PatientSet>>,
    groups: Arc<BTreeSet<Box<str>>>,
    has_periods: bool,
    channels: Vec<usize>,
}

/// A large set that is put into the index or taken out of it.
pub(crate) struct Work {
    set: u64,
    adds: bool,
    pub(crate) patients: Arc<PatientSet>,
    hashing: RandomState,
}

impl Work {
    /// What the index knows a patient by.
    pub(crate) fn hash(&self, id: &str) -> u64 {
        self.hashing.hash_one(id)
    }
}

impl Routes {
    pub(crate) fn new() -> Self {
        Self {
            by_type: vec![Vec::new(); RESOURCE_TYPES],
            sets: HashMap::new(),
            numbers: HashMap::new(),
            next: 0,
            index: PatientIndex::new(),
            plain: Vec::new(),
            by_group: HashMap::new(),
            work: VecDeque::new(),
        }
    }

    /// Forgets all channels.
    pub(crate) fn clear(&mut self) {
        // What is being put into the index is not of this one.
        *self = Self { next: self.next, ..Self::new() };
    }

    pub(crate) fn add(&mut self, channel: usize, change_filter: &ChangeFilter) {
        let filter = match change_filter {
            ChangeFilter::Members(members) => return self.add_members(channel, members),
            ChangeFilter::Request(filter) => filter,
        };
        match &filter.compartment {
            Compartment::Patients(patients) => {
                let (number, is_new) = self.set(Whose::These(patients.clone()), channel);
                if is_new {
                    self.put_in(number, patients.iter());
                }
            }
            Compartment::Any | Compartment::AnyPatient | Compartment::Group { .. } => {
                filter.types.iter().for_each(|kind| self.by_type[kind.index()].push(channel));
            }
        }
    }

    /// The set that a channel hears of, and whether it is new.
    fn set(&mut self, whose: Whose, channel: usize) -> (u64, bool) {
        if let Some(number) = self.numbers.get(&whose)
            && let Some(set) = self.sets.get_mut(number)
        {
            set.channels.push(channel);
            return (*number, false);
        }
        let number = self.next;
        self.next += 1;
        self.numbers.insert(whose, number);
        let set = Set { patients: None, groups: Arc::default(), has_periods: false, channels: vec![channel] };
        self.sets.insert(number, set);
        (number, true)
    }

    fn add_members(&mut self, channel: usize, members: &MemberFilter) {
        let patients = &members.send;
        let (number, is_new) = self.set(Whose::Members(Arc::as_ptr(patients).addr()), channel);
        let Some(set) = self.sets.get_mut(&number) else { return };
        set.has_periods |= members.has_periods;
        // The Groups may have come to be more meanwhile, with the same patients in them.
        for id in members.groups.difference(&set.groups) {
            self.by_group.entry(id.clone()).or_default().push(number);
        }
        if !members.groups.is_subset(&set.groups) {
            set.groups = Arc::new(set.groups.union(&members.groups).cloned().collect());
        }
        if !is_new {
            return;
        }
        set.patients = Some(patients.clone());
        if patients.len() <= AT_ONCE {
            self.put_in(number, patients.iter());
        } else {
            self.plain.push(number);
            self.work.push_back(self.large(number, patients, true));
        }
    }

    fn large(&self, set: u64, patients: &Arc<PatientSet>, adds: bool) -> Work {
        Work { set, adds, patients: patients.clone(), hashing: self.index.hashing() }
    }

    pub(crate) fn remove(&mut self, channel: usize, change_filter: &ChangeFilter) {
        let whose = match change_filter {
            ChangeFilter::Members(members) => Whose::Members(Arc::as_ptr(&members.send).addr()),
            ChangeFilter::Request(filter) => match &filter.compartment {
                Compartment::Patients(patients) => Whose::These(patients.clone()),
                Compartment::Any | Compartment::AnyPatient | Compartment::Group { .. } => {
                    for kind in filter.types.iter() {
                        self.by_type[kind.index()].retain(|other| *other != channel);
                    }
                    return;
                }
            },
        };
        let Some(number) = self.numbers.get(&whose).copied() else { return };
        let Some(set) = self.sets.get_mut(&number) else { return };
        set.channels.retain(|other| *other != channel);
        if !set.channels.is_empty() {
            return;
        }
        self.numbers.remove(&whose);
        let Some(Set { patients, groups, .. }) = self.sets.remove(&number) else { return };
        self.plain.retain(|other| *other != number);
        for id in groups.iter() {
            if let Some(sets) = self.by_group.get_mut(id) {
                sets.retain(|other| *other != number);
                if sets.is_empty() {
                    self.by_group.remove(id);
                }
            }
        }
        match (patients, &whose) {
            (Some(patients), _) if patients.len() > AT_ONCE => {
                self.work.push_back(self.large(number, &patients, false));
            }
            (Some(patients), _) => self.take_out(number, patients.iter()),
            (None, Whose::These(patients)) => self.take_out(number, patients.iter()),
            (None, Whose::Members(_)) => {}
        }
    }

    fn put_in<'a>(&mut self, set: u64, patients: impl Iterator<Item = &'a str>) {
        patients.for_each(|id| self.index.add(self.index.hash(id), set));
    }

    fn take_out<'a>(&mut self, set: u64, patients: impl Iterator<Item = &'a str>) {
        patients.for_each(|id| self.index.remove(self.index.hash(id), set));
    }

    /// Whether there is a large set to be put into the index, or taken out of it.
    pub(crate) fn has_work(&self) -> bool {
        !self.work.is_empty()
    }

    /// The next large set to be put into the index, or taken out of it.
    pub(crate) fn next_work(&mut self) -> Option<Work> {
        self.work.pop_front()
    }

    /// Does it for some of its patients; whether to go on. With none it is done.
    pub(crate) fn proceed(&mut self, work: &Work, hashes: &[u64]) -> bool {
        if !work.adds {
            hashes.iter().for_each(|hash| self.index.remove(*hash, work.set));
            return !hashes.is_empty();
        }
        if !self.sets.contains_key(&work.set) {
            // It is gone: what was put in is taken out next.
            return false;
        }
        hashes.iter().for_each(|hash| self.index.add(*hash, work.set));
        if hashes.is_empty() {
            self.plain.retain(|other| *other != work.set);
        }
        !hashes.is_empty()
    }

    fn channels(&self, set: u64) -> impl Iterator<Item = usize> {
        self.sets.get(&set).into_iter().flat_map(|set| set.channels.iter().copied())
    }

    /// The channels whose members may change with a Group.
    pub(crate) fn of_group(&self, id: &str) -> impl Iterator<Item = usize> {
        self.by_group.get(id).into_iter().flatten().flat_map(|set| self.channels(*set))
    }

    /// The channels whose members may change with the time.
    pub(crate) fn with_periods(&self) -> impl Iterator<Item = usize> {
        self.sets.values().filter(|set| set.has_periods).flat_map(|set| set.channels.iter().copied())
    }

    /// Calls `concerned` with each channel that the change may concern: some more than once, one after the other for a change.
    pub(crate) fn each(&self, change: &Change, mut concerned: impl FnMut(usize)) {
        self.by_type[change.resource_type.index()].iter().copied().for_each(&mut concerned);
        if self.sets.is_empty() {
            return;
        }
        let before = match &change.before {
            Before::Unknown if change.resource_type != ResourceType::GROUP => {
                return self.sets.values().flat_map(|set| &set.channels).copied().for_each(concerned);
            }
            Before::Patients(before) if *before != change.patients => Some(before),
            Before::Patients(_) | Before::Nothing | Before::Unknown => None,
        };
        for id in change.patients.iter().chain(before.into_iter().flat_map(Patients::iter)) {
            for set in self.index.sets(id) {
                self.channels(*set).for_each(&mut concerned);
            }
        }
        for number in &self.plain {
            let of_plain = self.sets.get(number).and_then(|set| Some((set, set.patients.as_ref()?)));
            if let Some((set, patients)) = of_plain
                && (patients.has_any(&change.patients)
                    || before.is_some_and(|before| patients.has_any(before)))
            {
                set.channels.iter().copied().for_each(&mut concerned);
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! Which channels of the hub a change may concern, without a look at all of them.
//!
//! Ten thousand streams of one patient each cost a change of somebody else one look-up, not ten thousand.

use crate::group::PatientSet;
use crate::judge::{ByMembers, Judge};
use crate::{Before, Change};
use fhir::{Compartment, RESOURCE_TYPES, ResourceType};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Channels by what they hear of. A channel is a number.
pub(crate) struct Routes {
    /// Those that hear of everybody's resources, or of all patients'.
    by_type: Vec<Vec<usize>>,
    /// Those that hear of some patients' resources.
    by_patient: HashMap<Box<str>, Vec<usize>>,
    /// The same, all of them.
    of_patients: Vec<usize>,
    /// Those that hear of the resources of a Group's members. Requests share the set, and there are few of them.
    by_members: Vec<OfMembers>,
}

/// Channels of one set of members.
struct OfMembers {
    patients: Arc<PatientSet>,
    groups: Arc<BTreeSet<Box<str>>>,
    has_periods: bool,
    channels: Vec<usize>,
}

impl Routes {
    pub(crate) fn new() -> Self {
        Self {
            by_type: vec![Vec::new(); RESOURCE_TYPES],
            by_patient: HashMap::new(),
            of_patients: Vec::new(),
            by_members: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, channel: usize, judge: &Judge) {
        let filter = match judge {
            Judge::Members(members) => return self.add_members(channel, members),
            Judge::Filter(filter) => filter,
        };
        match &filter.compartment {
            Compartment::Patients(patients) => {
                for id in patients.iter() {
                    match self.by_patient.get_mut(id) {
                        Some(channels) => channels.push(channel),
                        None => {
                            self.by_patient.insert(id.into(), vec![channel]);
                        }
                    }
                }
                self.of_patients.push(channel);
            }
            Compartment::Any | Compartment::AnyPatient | Compartment::Group { .. } => {
                filter.types.iter().for_each(|kind| self.by_type[kind.index()].push(channel));
            }
        }
    }

    fn add_members(&mut self, channel: usize, members: &ByMembers) {
        let same = |of: &&mut OfMembers| Arc::ptr_eq(&of.patients, &members.send);
        match self.by_members.iter_mut().find(same) {
            // The Groups may have come to be more meanwhile, with the same patients in them.
            Some(of) => {
                of.channels.push(channel);
                of.groups = Arc::new(of.groups.union(&members.groups).cloned().collect());
                of.has_periods |= members.has_periods;
            }
            None => self.by_members.push(OfMembers {
                patients: members.send.clone(),
                groups: members.groups.clone(),
                has_periods: members.has_periods,
                channels: vec![channel],
            }),
        }
    }

    pub(crate) fn remove(&mut self, channel: usize, judge: &Judge) {
        let filter = match judge {
            Judge::Members(_) => {
                self.by_members.iter_mut().for_each(|of| of.channels.retain(|other| *other != channel));
                self.by_members.retain(|of| !of.channels.is_empty());
                return;
            }
            Judge::Filter(filter) => filter,
        };
        match &filter.compartment {
            Compartment::Patients(patients) => {
                for id in patients.iter() {
                    if let Some(channels) = self.by_patient.get_mut(id) {
                        channels.retain(|other| *other != channel);
                        if channels.is_empty() {
                            self.by_patient.remove(id);
                        }
                    }
                }
                self.of_patients.retain(|other| *other != channel);
            }
            Compartment::Any | Compartment::AnyPatient | Compartment::Group { .. } => {
                for kind in filter.types.iter() {
                    self.by_type[kind.index()].retain(|other| *other != channel);
                }
            }
        }
    }

    /// The channels whose members may change with a Group.
    pub(crate) fn of_group(&self, id: &str) -> impl Iterator<Item = usize> {
        let concerned = move |of: &&OfMembers| of.groups.contains(id);
        self.by_members.iter().filter(concerned).flat_map(|of| of.channels.iter().copied())
    }

    /// The channels whose members may change with the time.
    pub(crate) fn with_periods(&self) -> impl Iterator<Item = usize> {
        self.by_members.iter().filter(|of| of.has_periods).flat_map(|of| of.channels.iter().copied())
    }

    /// Calls `concerned` with each channel that the change may concern: some more than once, one after the other for a change.
    pub(crate) fn each(&self, change: &Change, mut concerned: impl FnMut(usize)) {
        self.by_type[change.resource_type.index()].iter().copied().for_each(&mut concerned);
        if self.by_patient.is_empty() && self.by_members.is_empty() {
            return;
        }
        let before = match &change.before {
            Before::Unknown if change.resource_type != ResourceType::GROUP => {
                let of_members = self.by_members.iter().flat_map(|of| &of.channels);
                return self.of_patients.iter().chain(of_members).copied().for_each(concerned);
            }
            Before::Patients(before) if *before != change.patients => Some(before),
            Before::Patients(_) | Before::Nothing | Before::Unknown => None,
        };
        for id in change.patients.iter().chain(before.into_iter().flat_map(fhir::Patients::iter)) {
            self.by_patient.get(id).into_iter().flatten().copied().for_each(&mut concerned);
        }
        for of in &self.by_members {
            if of.patients.has_any(&change.patients)
                || before.is_some_and(|before| of.patients.has_any(before))
            {
                of.channels.iter().copied().for_each(&mut concerned);
            }
        }
    }
}

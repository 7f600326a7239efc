//! Which channels of the hub a change may concern, without a look at all of them.
//!
//! Ten thousand streams of one patient each cost a change of somebody else one look-up, not ten thousand.

use crate::{Before, Change};
use fhir::{Compartment, Filter, RESOURCE_TYPES};
use std::collections::HashMap;

/// Channels by what they hear of. A channel is a number.
pub(crate) struct Routes {
    /// Those that hear of everybody's resources, or of all patients'.
    by_type: Vec<Vec<usize>>,
    /// Those that hear of some patients' resources.
    by_patient: HashMap<Box<str>, Vec<usize>>,
    /// The same, all of them.
    of_patients: Vec<usize>,
}

impl Routes {
    pub(crate) fn new() -> Self {
        Self {
            by_type: vec![Vec::new(); RESOURCE_TYPES],
            by_patient: HashMap::new(),
            of_patients: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, channel: usize, filter: &Filter) {
        match &filter.compartment {
            Compartment::Any | Compartment::AnyPatient => {
                filter.types.iter().for_each(|kind| self.by_type[kind.index()].push(channel));
            }
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
        }
    }

    pub(crate) fn remove(&mut self, channel: usize, filter: &Filter) {
        match &filter.compartment {
            Compartment::Any | Compartment::AnyPatient => {
                for kind in filter.types.iter() {
                    self.by_type[kind.index()].retain(|other| *other != channel);
                }
            }
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
        }
    }

    /// Calls `concerned` with each channel that the change may concern: some more than once, one after the other for a change.
    pub(crate) fn each(&self, change: &Change, mut concerned: impl FnMut(usize)) {
        self.by_type[change.resource_type.index()].iter().copied().for_each(&mut concerned);
        if self.by_patient.is_empty() {
            return;
        }
        let before = match &change.before {
            Before::Unknown => return self.of_patients.iter().copied().for_each(concerned),
            Before::Patients(before) if *before != change.patients => Some(before),
            Before::Patients(_) | Before::Nothing => None,
        };
        for id in change.patients.iter().chain(before.into_iter().flat_map(fhir::Patients::iter)) {
            self.by_patient.get(id).into_iter().flatten().copied().for_each(&mut concerned);
        }
    }
}

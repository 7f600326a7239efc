//! What a subscriber is told of a change.

use crate::change::decide;
use crate::group::{Members, PatientSet};
use crate::journal::{Entry, JournalError, Probes};
use crate::{Before, Change, Kind, Position};
use fhir::{Compartment, Filter, Patients, ResourceType, Verdict};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Above so many members a block is not asked for each of them.
const PROBED: usize = 64;

/// What decides about changes.
#[derive(Clone)]
pub(crate) enum ChangeFilter {
    /// The request alone.
    Request(Filter),
    /// The request, and who is a member of its Group.
    Members(MemberFilter),
}

/// Who is a member of the request's Group, as far as that is known.
#[derive(Clone)]
pub(crate) struct MemberFilter {
    pub(crate) filter: Filter,
    /// Whose resources are sent.
    pub(crate) send: Arc<PatientSet>,
    /// Whose resources the client may have.
    pub(crate) had: Arc<PatientSet>,
    /// Groups whose changes may change the members ...
    pub(crate) groups: Arc<BTreeSet<Box<str>>>,
    /// ... unless they lie at or before this, which has been looked at.
    pub(crate) handled: Position,
    /// Whether the members may change with the time, too.
    pub(crate) has_periods: bool,
}

impl MemberFilter {
    /// While the members are these.
    pub(crate) fn settled(filter: &Filter, members: &Members, at: Position) -> Self {
        Self {
            filter: filter.clone(),
            send: members.patients.clone(),
            had: members.patients.clone(),
            groups: members.groups.clone(),
            handled: at,
            has_periods: members.next.is_some(),
        }
    }

    /// The id of the request's Group.
    fn group(&self) -> Option<&str> {
        match &self.filter.compartment {
            Compartment::Group { id, .. } => Some(id),
            Compartment::Any | Compartment::AnyPatient | Compartment::Patients(_) => None,
        }
    }

    fn decide(
        &self,
        resource_type: ResourceType,
        kind: Kind,
        id: Option<&str>,
        patients: &Patients,
        before: &Before,
    ) -> Option<Verdict> {
        if !self.filter.matches(resource_type) {
            return Some(Verdict::Nothing);
        }
        if resource_type == ResourceType::GROUP {
            let itself = id.is_some() && id == self.group();
            return Some(match kind {
                _ if !itself => Verdict::Nothing,
                Kind::Upsert => Verdict::Send,
                Kind::Deletion => Verdict::Remove,
            });
        }
        if kind == Kind::Upsert && self.send.has_any(patients) {
            return Some(Verdict::Send);
        }
        match before {
            Before::Nothing => Some(Verdict::Nothing),
            Before::Patients(before) if self.had.has_any(before) => Some(Verdict::Remove),
            Before::Patients(_) => Some(Verdict::Nothing),
            Before::Unknown => None,
        }
    }
}

impl ChangeFilter {
    pub(crate) fn filter(&self) -> &Filter {
        match self {
            Self::Request(filter) => filter,
            Self::Members(members) => &members.filter,
        }
    }

    /// What is to be told of a change; `None`: that cannot be known.
    pub(crate) fn change(&self, change: &Change) -> Option<Verdict> {
        let Change { resource_type, kind, patients, before, .. } = change;
        match self {
            Self::Request(filter) => decide(filter, *resource_type, *kind, patients, before),
            Self::Members(members) => members.decide(*resource_type, *kind, change.id(), patients, before),
        }
    }

    /// The same of an entry.
    pub(crate) fn entry(&self, entry: &Entry<'_>) -> Result<Option<Verdict>, JournalError> {
        let filter = self.filter();
        if entry.is_tick || !filter.matches(entry.resource_type) {
            return Ok(Some(Verdict::Nothing));
        }
        if !filter.is_scoped() {
            return Ok(Some(Verdict::Send));
        }
        let (patients, before) = (entry.patients()?, entry.before()?);
        Ok(match self {
            Self::Request(filter) => decide(filter, entry.resource_type, entry.kind, &patients, &before),
            Self::Members(members) => {
                members.decide(entry.resource_type, entry.kind, entry.id(), &patients, &before)
            }
        })
    }

    /// Whether the members may change with an entry, which has not been looked at.
    pub(crate) fn stops_at(&self, entry: &Entry<'_>) -> bool {
        match self {
            Self::Request(_) => false,
            Self::Members(members) => {
                entry.resource_type == ResourceType::GROUP
                    && entry.position > members.handled
                    && match entry.is_tick {
                        true => members.has_periods,
                        false => entry.id().is_none_or(|id| members.groups.contains(id)),
                    }
            }
        }
    }

    /// Whether a block with resources of these types is to be read if it has what is probed for.
    pub(crate) fn asks_for(&self, resource_type: ResourceType) -> bool {
        let of_group = matches!(self, Self::Members(_)) && resource_type == ResourceType::GROUP;
        of_group || self.filter().matches(resource_type)
    }

    /// What blocks are probed for.
    pub(crate) fn probes(&self) -> Probes {
        match self {
            Self::Request(filter) => Probes::of(&filter.compartment),
            Self::Members(members) if members.send.len() + members.had.len() <= PROBED => {
                Probes::of_ids(members.send.iter().chain(members.had.iter()))
            }
            Self::Members(_) => Probes::AnyPatient,
        }
    }
}

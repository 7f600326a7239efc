//! What the content of a Group says of its members: <https://hl7.org/fhir/R4/group.html>.

use crate::{BaseUrls, Instant, Interval, Reference, ResourceType};
use serde::Deserialize;
use std::borrow::Cow;
use std::ops::Range;

/// Who belongs to a Group. The Groups that are nested in it are only named.
///
/// The ids of its patients are one piece of memory: a hundred thousand small ones, freed a moment later, would leave the
/// allocator with memory that it does not give back.
#[derive(Clone, Debug, Default)]
pub struct GroupContent {
    ids: String,
    /// Its patients, sorted by id; one may stand here several times, with different periods.
    patients: Vec<Member>,
    /// The ids of nested Groups.
    nested: Vec<Box<str>>,
}

/// A patient, and from when to before when he is a member.
#[derive(Clone, Debug)]
struct Member {
    /// Where its id stands.
    id: Range<usize>,
    from: Instant,
    until: Instant,
}

/// The Group has no list of members that may be followed. Says why, for the client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum UninterpretableGroup {
    /// Of another type than `person`.
    #[error("its type is not 'person'")]
    NotPersons,
    /// It describes members instead of listing them.
    #[error("it describes its members (actual is not true) instead of listing them")]
    NotActual,
    /// An extension that changes what the Group means.
    #[error("it has a modifierExtension, which may change who its members are")]
    Modified,
    /// The text is not a Group.
    #[error("its content cannot be read as a Group")]
    Malformed,
}

impl GroupContent {
    /// Reads a Group's text.
    ///
    /// Left out, because they are not members for certain: members that are `inactive`, whose period
    /// cannot be read, or that have a modifierExtension; references that name neither a Patient nor a
    /// Group here ([`BaseUrls`]).
    pub fn read(content: &[u8], bases: &BaseUrls) -> Result<Self, UninterpretableGroup> {
        let group: Text<'_> = serde_json::from_slice(content).map_err(|_| UninterpretableGroup::Malformed)?;
        if group.resource_type != "Group" {
            return Err(UninterpretableGroup::Malformed);
        }
        if group.modifier_extension.is_some_and(|extensions| !extensions.is_empty()) {
            return Err(UninterpretableGroup::Modified);
        }
        if group.kind.as_deref() != Some("person") {
            return Err(UninterpretableGroup::NotPersons);
        }
        if group.actual != Some(true) {
            return Err(UninterpretableGroup::NotActual);
        }
        let mut read = Self::default();
        for member in group.member.unwrap_or_default() {
            read.add(&member, bases);
        }
        let Self { ids, patients, .. } = &mut read;
        let key = |member: &Member| (&ids[member.id.clone()], member.from, member.until);
        patients.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        patients.dedup_by(|a, b| key(a) == key(b));
        read.nested.sort_unstable();
        read.nested.dedup();
        Ok(read)
    }

    fn add(&mut self, member: &MemberText<'_>, bases: &BaseUrls) {
        let modified = member.modifier_extension.as_ref().is_some_and(|extensions| !extensions.is_empty());
        if modified || member.inactive == Some(true) {
            return;
        }
        let Some((from, until)) = period(member.period.as_ref()) else { return };
        let reference = member.entity.as_ref().and_then(|entity| entity.reference.as_deref());
        match reference.and_then(|reference| bases.resolve(reference)) {
            Some(Reference { resource_type: ResourceType::PATIENT, id }) => {
                let start = self.ids.len();
                self.ids.push_str(id);
                self.patients.push(Member { id: start..self.ids.len(), from, until });
            }
            // A period of a nested Group would be one of each of its members: none is known to be used.
            Some(Reference { resource_type: ResourceType::GROUP, id })
                if from == Instant::MIN && until == Instant::MAX =>
            {
                self.nested.push(id.into());
            }
            _ => {}
        }
    }

    /// The ids of the patients who are members at a time, sorted, each once.
    pub fn members_at(&self, time: Instant) -> impl Iterator<Item = &str> {
        let mut last = None;
        let members = self.patients.iter().filter(move |member| member.from <= time && time < member.until);
        members.map(|member| &self.ids[member.id.clone()]).filter(move |id| {
            let again = last == Some(*id);
            last = Some(*id);
            !again
        })
    }

    /// The ids of the Groups that are nested in it, sorted, each once.
    pub fn nested(&self) -> impl Iterator<Item = &str> {
        self.nested.iter().map(|id| &**id)
    }

    /// Whether somebody is a member for some time only.
    pub fn has_periods(&self) -> bool {
        self.patients.iter().any(|member| member.from != Instant::MIN || member.until != Instant::MAX)
    }

    /// The first time after this one at which a period begins or ends.
    pub fn next_change_after(&self, time: Instant) -> Option<Instant> {
        let bounds = self.patients.iter().flat_map(|member| [member.from, member.until]);
        bounds.filter(|bound| *bound > time && *bound < Instant::MAX).min()
    }
}

/// From when to before when; `None` if that cannot be read. A missing end is open.
fn period(period: Option<&Period<'_>>) -> Option<(Instant, Instant)> {
    let Some(period) = period else { return Some((Instant::MIN, Instant::MAX)) };
    let read = |text: &Option<Cow<'_, str>>| match text {
        Some(text) => text.parse::<Interval>().map(Some).ok(),
        None => Some(None),
    };
    let from = read(&period.start)?.map_or(Instant::MIN, |interval| interval.start);
    // An end means the end of that day, month, year: https://hl7.org/fhir/R4/datatypes.html#period.
    let until = read(&period.end)?.map_or(Instant::MAX, |interval| interval.end);
    Some((from, until))
}

#[derive(Deserialize)]
struct Text<'a> {
    #[serde(rename = "resourceType", borrow)]
    resource_type: Cow<'a, str>,
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    actual: Option<bool>,
    #[serde(rename = "modifierExtension", default)]
    modifier_extension: Option<Vec<serde::de::IgnoredAny>>,
    #[serde(borrow, default)]
    member: Option<Vec<MemberText<'a>>>,
}

#[derive(Deserialize)]
struct MemberText<'a> {
    #[serde(borrow, default)]
    entity: Option<Entity<'a>>,
    #[serde(borrow, default)]
    period: Option<Period<'a>>,
    #[serde(default)]
    inactive: Option<bool>,
    #[serde(rename = "modifierExtension", default)]
    modifier_extension: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
struct Entity<'a> {
    #[serde(borrow, default)]
    reference: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Period<'a> {
    #[serde(borrow, default)]
    start: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    end: Option<Cow<'a, str>>,
}

#[cfg(test)]
mod tests;

//! A set of patients, compact: every change carries one for its new content and one for its old.

use crate::is_id;
use std::cmp::Ordering;
use std::fmt;

/// Patients by id: each once, sorted. Most resources belong to one patient or none.
///
/// Each id stands with its length before it in one byte, so that the set is one piece of memory, and
/// the same bytes in the journal. No patient takes no memory.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Patients(Box<[u8]>);

/// The bytes are not those of a [`Patients`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a set of patients")]
pub struct NotPatients;

impl Patients {
    /// No patient.
    pub fn none() -> Self {
        Self::default()
    }

    /// The ids, in any order. What is not a FHIR id is left out.
    pub fn from_ids<'a>(ids: impl IntoIterator<Item = &'a str>) -> Self {
        let mut ids: Vec<&str> = ids.into_iter().filter(|id| is_id(id)).collect();
        ids.sort_unstable();
        ids.dedup();
        Self::from_sorted(ids.into_iter())
    }

    /// Ids that are valid, each once, in their order.
    pub(super) fn from_sorted<'a>(ids: impl Iterator<Item = &'a str> + Clone) -> Self {
        let mut bytes = Vec::with_capacity(ids.clone().map(|id| id.len() + 1).sum());
        for id in ids {
            // An id has at most 64 bytes.
            bytes.extend(u8::try_from(id.len()));
            bytes.extend_from_slice(id.as_bytes());
        }
        Self(bytes.into_boxed_slice())
    }

    /// The set whose [`as_bytes`](Self::as_bytes) these are.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotPatients> {
        let mut rest = bytes;
        let mut last = None;
        while let Some((length, after)) = rest.split_first() {
            let (id, after) = after.split_at_checked(usize::from(*length)).ok_or(NotPatients)?;
            let sorted = last.is_none_or(|last: &[u8]| last < id);
            if !sorted || !std::str::from_utf8(id).is_ok_and(is_id) {
                return Err(NotPatients);
            }
            last = Some(id);
            rest = after;
        }
        Ok(Self(bytes.into()))
    }

    /// The set as bytes, equal for equal sets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is no patient.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            let (id, after) = after.split_at_checked(usize::from(*length))?;
            rest = after;
            std::str::from_utf8(id).ok()
        })
    }

    /// Whether the patient is one of them.
    pub fn contains(&self, id: &str) -> bool {
        self.iter().any(|known| known == id)
    }

    /// Whether the two sets have a patient in common. Both are sorted: it takes one pass over both.
    pub fn intersects(&self, other: &Self) -> bool {
        let (mut these, mut those) = (self.iter().peekable(), other.iter().peekable());
        while let (Some(this), Some(that)) = (these.peek(), those.peek()) {
            match this.cmp(that) {
                Ordering::Equal => return true,
                Ordering::Less => these.next(),
                Ordering::Greater => those.next(),
            };
        }
        false
    }
}

impl fmt::Debug for Patients {
    /// The number only: ids of patients are not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} patients", self.iter().count())
    }
}

//! The patient compartment of R4: which patients a resource belongs to, found in its text.
//!
//! HL7's CompartmentDefinition decides (<https://hl7.org/fhir/R4/compartmentdefinition-patient.html>);
//! its machine-readable part prevails over the narrative. Three decisions are ours:
//!
//! - A Patient belongs to its own id alone. R4 also follows `Patient.link`, which would send another
//!   person's record.
//! - A Group is in no patient's compartment, although R4 lists `Group.member`: a stream of one payer's
//!   members would contain the Groups of all other payers.
//! - A reference counts if its text names a Patient here ([`BaseUrls`]). A contained, logical or `urn:`
//!   reference identifies no patient. No reference is looked up.

mod distinct;
#[cfg(any(test, fuzzing))]
pub(crate) mod oracle;
mod patients;
mod table;

pub use patients::{NotPatients, Patients};

use crate::cursor::Cursor;
use crate::scan::Paths;
use crate::structure::NotAnObject;
use crate::{BaseUrls, RESOURCE_TYPES, ResourceType, TypeSet};
use distinct::Distinct;
use std::borrow::Cow;
use std::sync::LazyLock;

/// Finds the patients in whose compartments a resource is, in a pass over its text.
pub(crate) struct Search<'a> {
    /// Where its type names patients; `None` if nothing is to be looked for.
    paths: Option<&'static Paths>,
    bases: &'a BaseUrls,
    found: Distinct<'a>,
}

impl<'a> Search<'a> {
    /// For a resource of this type and id.
    pub(crate) fn of(resource_type: ResourceType, id: &'a str, bases: &'a BaseUrls) -> Self {
        let mut found = Distinct::default();
        if resource_type == ResourceType::PATIENT {
            found.add(Cow::Borrowed(id));
        }
        Self { paths: PATHS[resource_type.index()].as_ref(), bases, found }
    }

    /// Passes the value of a member of the resource ([`Members::next_by`](crate::members::Members::next_by)).
    pub(crate) fn pass(&mut self, key: &[u8], cursor: &mut Cursor<'a>) -> Result<(), NotAnObject> {
        let Some(paths) = self.paths else { return cursor.skip() };
        paths.pass(key, cursor, &mut |value| {
            if let Some(id) = string(value).and_then(|reference| patient(reference, self.bases)) {
                self.found.add(id);
            }
        })
    }

    /// The patients that were found.
    pub(crate) fn patients(self) -> Patients {
        self.found.patients()
    }
}

/// The types whose resources can be in a patient's compartment, Patient included.
pub fn compartment_types() -> TypeSet {
    ResourceType::all()
        .filter(|kind| *kind == ResourceType::PATIENT || PATHS[kind.index()].is_some())
        .collect()
}

/// Where each type names its patients.
static PATHS: LazyLock<[Option<Paths>; RESOURCE_TYPES]> = LazyLock::new(|| {
    let mut all = [const { None }; RESOURCE_TYPES];
    for (name, elements) in table::ELEMENTS {
        if let Ok(kind) = name.parse::<ResourceType>() {
            let paths: Vec<_> = elements.iter().map(|element| format!("{element}.reference")).collect();
            all[kind.index()] = Some(Paths::new(paths.iter().map(String::as_str)));
        }
    }
    all
});

/// The text that a JSON string means; borrowed unless it has escapes.
fn string(value: &[u8]) -> Option<Cow<'_, str>> {
    match value {
        [b'"', written @ .., b'"'] if memchr::memchr(b'\\', written).is_none() => {
            std::str::from_utf8(written).ok().map(Cow::Borrowed)
        }
        [b'"', ..] => serde_json::from_slice(value).ok().map(Cow::Owned),
        _ => None,
    }
}

/// The id of the patient that a reference names.
fn patient<'a>(reference: Cow<'a, str>, bases: &BaseUrls) -> Option<Cow<'a, str>> {
    match reference {
        Cow::Borrowed(text) => bases.id_of(ResourceType::PATIENT, text).map(Cow::Borrowed),
        Cow::Owned(text) => bases.id_of(ResourceType::PATIENT, &text).map(|id| Cow::Owned(id.to_owned())),
    }
}

#[cfg(test)]
mod tests;

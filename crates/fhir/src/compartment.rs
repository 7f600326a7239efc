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

mod patients;
mod table;

pub use patients::{NotPatients, Patients};

use crate::scan::Paths;
use crate::{BaseUrls, RESOURCE_TYPES, ResourceType, TypeSet};
use std::borrow::Cow;
use std::sync::LazyLock;

/// The patients in whose compartments a resource is.
///
/// `content` is the resource's text. A text that is not a JSON object is in no compartment.
pub fn patients(resource_type: ResourceType, id: &str, content: &[u8], bases: &BaseUrls) -> Patients {
    if resource_type == ResourceType::PATIENT {
        return Patients::from_ids([id]);
    }
    let Some(paths) = &PATHS[resource_type.index()] else { return Patients::none() };
    // All of them first: a resource may name one patient a thousand times.
    let mut found: Vec<Cow<'_, str>> = Vec::new();
    let answer = paths.find(content, |value| {
        found.extend(string(value).and_then(|reference| patient(reference, bases)));
    });
    match answer {
        Ok(()) => Patients::from_ids(found.iter().map(|id| &**id)),
        Err(_) => Patients::none(),
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
        [b'"', written @ .., b'"'] if !written.contains(&b'\\') => {
            std::str::from_utf8(written).ok().map(Cow::Borrowed)
        }
        [b'"', ..] => serde_json::from_slice(value).ok().map(Cow::Owned),
        _ => None,
    }
}

/// The id of the patient that a reference names.
fn patient<'a>(reference: Cow<'a, str>, bases: &BaseUrls) -> Option<Cow<'a, str>> {
    match reference {
        Cow::Borrowed(text) => id_of_patient(text, bases).map(Cow::Borrowed),
        Cow::Owned(text) => id_of_patient(&text, bases).map(|id| Cow::Owned(id.to_owned())),
    }
}

fn id_of_patient<'a>(reference: &'a str, bases: &BaseUrls) -> Option<&'a str> {
    let found = bases.resolve(reference)?;
    (found.resource_type == ResourceType::PATIENT).then_some(found.id)
}

#[cfg(test)]
mod tests;

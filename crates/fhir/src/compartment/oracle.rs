//! Whose a resource is, found by a JSON parser: for the property tests and the fuzzer.

use super::{Patients, table};
use crate::resource::oracle::{COLUMNS, members};
use crate::resource::{patients_of_resource, write_resource, write_resource_with_patients};
use crate::scan::oracle::{json, values};
use crate::{BaseUrls, Columns, ResourceType};

/// Whatever the bytes are: one pass does what two do, and finds the patients that a parser finds.
pub(crate) fn holds(content: &[u8]) {
    let named = json(content).and_then(members).unwrap_or_default();
    let named = named.iter().rev().find(|(key, _)| key == "resourceType");
    let named = named.and_then(|(_, value)| serde_json::from_str::<String>(value).ok()?.parse().ok());
    let others = ["Observation", "Appointment", "Patient"].map(|name| name.parse().ok());
    for resource_type in others.into_iter().chain([named]).flatten() {
        holds_of(content, resource_type);
    }
}

fn holds_of(content: &[u8], resource_type: ResourceType) {
    let bases = BaseUrls::new(["https://ehr.example/fhir"]);
    let columns = Columns { resource_type, ..COLUMNS };
    let (mut plain, mut line) = (Vec::new(), Vec::new());
    let written = write_resource(content, &columns, &mut plain);
    let patients = write_resource_with_patients(content, &columns, &bases, &mut line);
    assert_eq!(patients_of_resource(content, resource_type, columns.id, &bases), patients);
    assert!(line == plain || patients.is_err() && line.is_empty());
    let Some(text) = json(content) else {
        assert!(patients.is_err() || written.is_ok());
        return;
    };
    assert_eq!(patients.as_ref().err(), written.as_ref().err());
    if let Ok(patients) = patients
        && let Some(expected) = expected(text, resource_type, &bases)
    {
        assert_eq!(patients.iter().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
    }
}

/// The patients of a resource; `None` if that cannot be said.
fn expected(text: &str, resource_type: ResourceType, bases: &BaseUrls) -> Option<Patients> {
    if resource_type == ResourceType::PATIENT {
        return Some(Patients::from_ids([COLUMNS.id]));
    }
    let elements = table::ELEMENTS.iter().find(|(name, _)| *name == resource_type.as_str());
    let elements = elements.map_or(&[][..], |(_, elements)| elements);
    let paths: Vec<String> = elements.iter().map(|element| format!("{element}.reference")).collect();
    let values = values(text, &paths.iter().map(String::as_str).collect::<Vec<_>>())?;
    let references: Vec<String> =
        values.iter().filter_map(|value| serde_json::from_str(value).ok()).collect();
    let named = references.iter().filter_map(|reference| bases.resolve(reference));
    let patients = named.filter(|named| named.resource_type == ResourceType::PATIENT);
    Some(Patients::from_ids(patients.map(|named| named.id)))
}

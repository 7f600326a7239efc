//! What holds of any query, for the property tests and the fuzzer.

use super::{ExportRequest, HARMLESS, Handling, Level};
use crate::{Compartment, Filter, Patients, ResourceType, TypeSet};

/// Whatever a client asks: it is refused with a reason, or understood within the bounds that the rest relies on.
pub(crate) fn holds(level: &Level, query: &[(String, String)], handling: Handling) {
    let types = match level {
        Level::Type(only) => [*only].into_iter().collect(),
        _ => TypeSet::all(),
    };
    match ExportRequest::parse(level.clone(), query.iter().map(|(name, value)| (name, value)), handling) {
        Ok(request) => {
            let asked = query.iter().any(|(name, _)| name == "_type");
            let filter = &request.filter;
            assert!(!filter.types.is_empty(), "it asks for nothing");
            assert!(
                filter.types.iter().all(|resource_type| types.contains(resource_type)),
                "beyond its path"
            );
            let everything = match level {
                Level::AllPatients => Filter::of_patients(types, filter.compartment.clone()),
                Level::Patient(id) => {
                    Filter::of_patients(types, Compartment::Patients(Patients::from_ids([id.as_str()])))
                }
                Level::Group(id) => {
                    let only = match &filter.compartment {
                        Compartment::Group { only, .. } => only.clone(),
                        _ => None,
                    };
                    Filter::of_group(types, id, only)
                }
                Level::System | Level::Type(_) => Filter::of_types(types),
            };
            assert!(asked || *filter == everything, "it was not asked for less");
            assert_eq!(filter.compartment, everything.compartment, "somebody else's");
            let nobody = match &filter.compartment {
                Compartment::Patients(patients) | Compartment::Group { only: Some(patients), .. } => {
                    patients.is_empty()
                }
                Compartment::Any | Compartment::AnyPatient | Compartment::Group { only: None, .. } => false,
            };
            assert!(!nobody, "nobody's");
            assert!((2..=60).contains(&request.heartbeat.as_secs()), "a heartbeat out of bounds");
            for id in [&request.last_event_id, &request.library_event_id] {
                assert!(id.as_deref() != Some(""), "an empty id is none");
            }
            if handling == Handling::Strict {
                let harmless = ["_outputFormat", "_format", "_summary"].into_iter().chain(HARMLESS);
                let harmless: Vec<&str> = harmless.collect();
                assert!(
                    request.ignored.iter().all(|name| harmless.contains(&&**name)),
                    "something was ignored"
                );
                assert!(request.ignored_types.is_empty(), "a type was ignored");
                assert!(request.ignored_patients.is_empty(), "a patient was ignored");
            }
        }
        Err(outcome) => {
            assert!(!outcome.issues().is_empty(), "refused without a reason");
            assert!(serde_json::from_str::<serde_json::Value>(&outcome.to_json()).is_ok(), "no JSON");
        }
    }
}

/// The levels, by a number.
pub(crate) fn level(number: u8) -> Level {
    match number % 5 {
        0 => Level::System,
        1 => Level::AllPatients,
        2 => Level::Patient("p1".to_owned()),
        3 => Level::Group("g1".to_owned()),
        _ => Level::Type(ResourceType::PATIENT),
    }
}

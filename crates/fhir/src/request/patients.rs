//! Whose resources a request asks for: the level, and the parameter `patient`.

use super::{Handling, Level, Parsing, add, shown};
use crate::{Compartment, Filter, IssueType, Patients, ResourceType, TypeSet, is_id};

/// The parameter `patient`, as far as it was read.
#[derive(Default)]
pub(super) struct Asked {
    /// The ids, in the order in which they came.
    ids: Vec<String>,
    /// Values that name no patient.
    wrong: Vec<String>,
}

/// A filter, and what of the request it leaves out.
pub(super) struct Scoped {
    pub(super) filter: Filter,
    /// Types that were asked for and are in no patient's compartment.
    pub(super) unsent_types: Vec<ResourceType>,
}

impl Asked {
    /// Takes in a value: ids or relative references, separated by commas.
    pub(super) fn value(&mut self, value: &str) {
        for reference in value.split(',').map(str::trim).filter(|reference| !reference.is_empty()) {
            let id = reference.strip_prefix("Patient/").unwrap_or(reference);
            if is_id(id) {
                add(&mut self.ids, id);
            } else {
                add(&mut self.wrong, &shown(reference));
            }
        }
    }
}

impl Parsing {
    /// What the level, `patient` and the types ask for together.
    pub(super) fn scope(&mut self, level: &Level, types: TypeSet) -> Scoped {
        let patient = self.patient.take();
        let compartment = match level {
            Level::AllPatients => match patient {
                None => Compartment::AnyPatient,
                Some(asked) => Compartment::Patients(self.patients(asked)),
            },
            Level::Patient(id) => {
                self.refuse_patient(patient, "the path names the patient: leave it out");
                Compartment::Patients(Patients::from_ids([id.as_str()]))
            }
            Level::Group(id) => {
                let only = patient.map(|asked| self.patients(asked));
                return self.sent(types, Filter::of_group(types, id, only));
            }
            Level::System | Level::Type(_) => {
                self.refuse_patient(
                    patient,
                    "use it below /fhir/Patient/$export or /fhir/Group/{id}/$export",
                );
                return Scoped { filter: Filter::of_types(types), unsent_types: Vec::new() };
            }
        };
        self.sent(types, Filter::of_patients(types, compartment))
    }

    /// What a filter leaves of the types that were asked for.
    fn sent(&mut self, types: TypeSet, filter: Filter) -> Scoped {
        if !self.types_named {
            return Scoped { filter, unsent_types: Vec::new() };
        }
        let unsent_types: Vec<_> = types.iter().filter(|kind| !filter.matches(*kind)).collect();
        if filter.types.is_empty() && !types.is_empty() {
            let names: Vec<_> = unsent_types.iter().map(|kind| kind.as_str()).collect();
            let text = format!(
                "_type: in no patient's compartment: {}; ask for them with /fhir/$export",
                names.join(", ")
            );
            self.issue(IssueType::NotSupported, "_type", text);
        }
        Scoped { filter, unsent_types }
    }

    fn patients(&mut self, asked: Asked) -> Patients {
        if !asked.wrong.is_empty() && self.handling == Handling::Strict {
            let text = format!("patient: not an id and not Patient/<id>: {}", asked.wrong.join(", "));
            self.issue(IssueType::Value, "patient", text);
        } else if asked.ids.is_empty() {
            self.issue(
                IssueType::Required,
                "patient",
                "patient is empty: name at least one patient, or leave it out".into(),
            );
        }
        self.ignored_patients = asked.wrong;
        Patients::from_ids(asked.ids.iter().map(String::as_str))
    }

    fn refuse_patient(&mut self, patient: Option<Asked>, remedy: &str) {
        match (patient, self.handling) {
            (None, _) => {}
            (Some(_), Handling::Lenient) => self.ignore("patient"),
            (Some(_), Handling::Strict) => {
                self.issue(
                    IssueType::NotSupported,
                    "patient",
                    format!("patient is not for this path: {remedy}"),
                );
            }
        }
    }
}

//! What the clinic reads of its own resources, of each type as little as it needs.

use crate::codes;
use crate::measure::{Finding, VACCINES};
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Practitioner {
    #[serde(default)]
    pub(super) name: Vec<Name>,
}

#[derive(Deserialize, Default)]
pub(super) struct Name {
    pub(super) family: Option<String>,
    #[serde(default)]
    pub(super) given: Vec<String>,
    #[serde(default)]
    pub(super) prefix: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReadPatient {
    #[serde(default)]
    pub(super) meta: ReadMeta,
    #[serde(default)]
    pub(super) name: Vec<Name>,
    #[serde(default)]
    pub(super) gender: String,
    #[serde(default)]
    pub(super) birth_date: String,
    #[serde(default)]
    pub(super) general_practitioner: Vec<Ref>,
}

#[derive(Deserialize, Default)]
pub(super) struct ReadMeta {
    #[serde(default)]
    pub(super) security: Vec<Code>,
}

#[derive(Deserialize)]
pub(super) struct Code {
    #[serde(default)]
    pub(super) code: String,
}

#[derive(Deserialize, Default)]
pub(super) struct Codes {
    #[serde(default)]
    pub(super) coding: Vec<Code>,
}

impl Codes {
    pub(super) fn has(&self, code: &str) -> bool {
        self.coding.iter().any(|coding| coding.code == code)
    }
}

#[derive(Deserialize, Default)]
pub(super) struct Ref {
    #[serde(default)]
    pub(super) reference: String,
}

#[derive(Deserialize)]
pub(super) struct ReadGroup {
    #[serde(default)]
    pub(super) member: Vec<ReadMember>,
}

#[derive(Deserialize)]
pub(super) struct ReadMember {
    pub(super) entity: Ref,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    #[serde(default)]
    pub(super) subject: Ref,
    pub(super) measure: String,
    pub(super) period: ReadPeriod,
    #[serde(default)]
    pub(super) group: Vec<ReadReportGroup>,
    #[serde(default)]
    pub(super) evaluated_resource: Vec<Evaluated>,
}

#[derive(Deserialize)]
pub(super) struct ReadPeriod {
    #[serde(default)]
    pub(super) start: String,
}

#[derive(Deserialize)]
pub(super) struct ReadReportGroup {
    #[serde(default)]
    pub(super) population: Vec<ReadPopulation>,
}

#[derive(Deserialize)]
pub(super) struct ReadPopulation {
    #[serde(default)]
    pub(super) code: Codes,
    #[serde(default)]
    pub(super) count: u32,
}

#[derive(Deserialize)]
pub(super) struct Evaluated {
    #[serde(default)]
    pub(super) extension: Vec<Criteria>,
    #[serde(default)]
    pub(super) reference: String,
}

#[derive(Deserialize)]
pub(super) struct Criteria {
    #[serde(default, rename = "valueString")]
    pub(super) value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Issue {
    #[serde(default)]
    pub(super) modifier_extension: Vec<ReadStatus>,
    #[serde(default)]
    pub(super) evidence: Vec<ReadEvidence>,
}

#[derive(Deserialize)]
pub(super) struct ReadStatus {
    #[serde(default, rename = "valueCodeableConcept")]
    pub(super) value: Codes,
}

#[derive(Deserialize)]
pub(super) struct ReadEvidence {
    #[serde(default)]
    pub(super) detail: Vec<Ref>,
}

/// A Condition, a Procedure, an Observation or an Immunization.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    #[serde(default)]
    pub(super) status: String,
    pub(super) code: Option<Codes>,
    pub(super) vaccine_code: Option<Codes>,
    pub(super) subject: Option<Ref>,
    pub(super) patient: Option<Ref>,
    pub(super) onset_date_time: Option<String>,
    pub(super) effective_date_time: Option<String>,
    pub(super) occurrence_date_time: Option<String>,
    pub(super) performed_date_time: Option<String>,
    pub(super) performed_period: Option<ReadPeriod>,
    pub(super) value_quantity: Option<Amount>,
    #[serde(default)]
    pub(super) component: Vec<ReadComponent>,
}

#[derive(Deserialize)]
pub(super) struct Amount {
    pub(super) value: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReadComponent {
    #[serde(default)]
    pub(super) code: Codes,
    pub(super) value_quantity: Option<Amount>,
}

impl Entry {
    pub(super) fn code(&self) -> Option<&Codes> {
        self.code.as_ref().or(self.vaccine_code.as_ref())
    }

    pub(super) fn day(&self) -> Option<&str> {
        self.onset_date_time
            .as_ref()
            .or(self.effective_date_time.as_ref())
            .or(self.occurrence_date_time.as_ref())
            .or(self.performed_date_time.as_ref())
            .or(self.performed_period.as_ref().map(|period| &period.start))
            .map(String::as_str)
    }

    pub(super) fn finding(&self) -> Option<Finding> {
        let code = self.code()?;
        let is = |concept: crate::resources::Concept| code.has(concept.code());
        let part = |concept: crate::resources::Concept| {
            let component = self.component.iter().find(|it| it.code.has(concept.code()))?;
            Some(component.value_quantity.as_ref()?.value)
        };
        if self.vaccine_code.is_some() {
            return VACCINES.iter().position(|(vaccine, _, _)| is(*vaccine)).map(Finding::Vaccine);
        }
        if is(codes::COLONOSCOPY) {
            Some(Finding::Colonoscopy)
        } else if is(codes::MAMMOGRAPHY) {
            Some(Finding::Mammography)
        } else if is(codes::HOSPICE) {
            Some(Finding::Hospice)
        } else if is(codes::STOOL_TEST) {
            Some(Finding::StoolTest)
        } else if is(codes::HBA1C) {
            self.value_quantity.as_ref().map(|amount| Finding::Hba1c(amount.value))
        } else if is(codes::BLOOD_PRESSURE) {
            Some(Finding::BloodPressure(part(codes::SYSTOLIC)?, part(codes::DIASTOLIC)?))
        } else {
            None
        }
    }
}

//! What happens to a patient.

use super::{Coding, Concept, Head, Period, Quantity, Reference, Time, headed};
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Encounter {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) status: &'static str,
    pub(crate) class: Coding,
    pub(crate) r#type: [Concept; 1],
    pub(crate) subject: Reference,
    pub(crate) participant: [Participant; 1],
    pub(crate) period: Period<Time>,
    pub(crate) service_provider: Reference,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Participant {
    pub(crate) r#type: [Concept; 1],
    pub(crate) individual: Reference,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Observation {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) status: &'static str,
    pub(crate) category: [Concept; 1],
    pub(crate) code: Concept,
    pub(crate) subject: Reference,
    pub(crate) encounter: Reference,
    pub(crate) effective_date_time: Time,
    pub(crate) issued: Time,
    pub(crate) performer: [Reference; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value_quantity: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value_codeable_concept: Option<Concept>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) component: Vec<Component>,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Component {
    pub(crate) code: Concept,
    pub(crate) value_quantity: Quantity,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DiagnosticReport {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) status: &'static str,
    pub(crate) category: [Concept; 1],
    pub(crate) code: Concept,
    pub(crate) subject: Reference,
    pub(crate) encounter: Reference,
    pub(crate) effective_date_time: Time,
    pub(crate) issued: Time,
    pub(crate) performer: [Reference; 1],
    pub(crate) result: Vec<Reference>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) clinical_status: Concept,
    pub(crate) verification_status: Concept,
    pub(crate) category: [Concept; 1],
    pub(crate) code: Concept,
    pub(crate) subject: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encounter: Option<Reference>,
    pub(crate) onset_date_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) abatement_date_time: Option<Time>,
    pub(crate) recorded_date: Time,
    pub(crate) asserter: Reference,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MedicationRequest {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) status: &'static str,
    pub(crate) intent: &'static str,
    pub(crate) medication_codeable_concept: Concept,
    pub(crate) subject: Reference,
    pub(crate) encounter: Reference,
    pub(crate) authored_on: Time,
    pub(crate) requester: Reference,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) reason_reference: Vec<Reference>,
    pub(crate) dosage_instruction: [Dosage; 1],
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Dosage {
    pub(crate) text: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Procedure {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) status: &'static str,
    pub(crate) code: Concept,
    pub(crate) subject: Reference,
    pub(crate) encounter: Reference,
    pub(crate) performed_period: Period<Time>,
    pub(crate) performer: [Performer; 1],
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Performer {
    pub(crate) actor: Reference,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Immunization {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) status: &'static str,
    pub(crate) vaccine_code: Concept,
    pub(crate) patient: Reference,
    pub(crate) encounter: Reference,
    pub(crate) occurrence_date_time: Time,
    pub(crate) primary_source: bool,
    pub(crate) performer: [Performer; 1],
}

headed!(Encounter, Observation, DiagnosticReport, Condition, MedicationRequest, Procedure, Immunization);

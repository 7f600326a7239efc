//! Who there is, and who wrote what.

use super::{Concept, Day, Head, Identifier, Reference, Time, headed};
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Patient {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) identifier: [Identifier; 1],
    pub(crate) active: bool,
    pub(crate) name: [HumanName; 1],
    pub(crate) telecom: [Contact; 1],
    pub(crate) gender: &'static str,
    pub(crate) birth_date: Day,
    pub(crate) address: [Address; 1],
    pub(crate) general_practitioner: [Reference; 1],
    pub(crate) managing_organization: Reference,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct HumanName {
    pub(crate) r#use: &'static str,
    pub(crate) family: &'static str,
    pub(crate) given: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prefix: Option<[&'static str; 1]>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Contact {
    pub(crate) system: &'static str,
    pub(crate) value: String,
    pub(crate) r#use: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Address {
    pub(crate) r#use: &'static str,
    pub(crate) line: [String; 1],
    pub(crate) city: &'static str,
    pub(crate) state: &'static str,
    pub(crate) postal_code: &'static str,
    pub(crate) country: &'static str,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Practitioner {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) identifier: [Identifier; 1],
    pub(crate) active: bool,
    pub(crate) name: [HumanName; 1],
    pub(crate) gender: &'static str,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Organization {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) active: bool,
    pub(crate) r#type: [Concept; 1],
    pub(crate) name: &'static str,
    pub(crate) telecom: [Contact; 1],
    pub(crate) address: [Address; 1],
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Group {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) active: bool,
    pub(crate) r#type: &'static str,
    pub(crate) actual: bool,
    pub(crate) name: String,
    pub(crate) quantity: usize,
    pub(crate) managing_entity: Reference,
    // A Group without members has none of these: FHIR knows no empty list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) member: Vec<Member>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Member {
    pub(crate) entity: Reference,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Provenance {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) target: Vec<Reference>,
    pub(crate) recorded: Time,
    pub(crate) activity: Concept,
    pub(crate) agent: [Agent; 1],
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Agent {
    pub(crate) r#type: Concept,
    pub(crate) who: Reference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) on_behalf_of: Option<Reference>,
}

headed!(Patient, Practitioner, Organization, Group, Provenance);

//! Measures, their reports, and the gaps that follow from them, as Da Vinci DEQM has them.

use super::{Concept, Day, Extension, Head, Period, Reference, Time, headed};
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measure {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) url: String,
    pub(crate) version: &'static str,
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) status: &'static str,
    pub(crate) experimental: bool,
    pub(crate) date: &'static str,
    pub(crate) publisher: &'static str,
    pub(crate) description: &'static str,
    pub(crate) scoring: Concept,
    pub(crate) r#type: [Concept; 1],
    pub(crate) improvement_notation: Concept,
    pub(crate) group: [MeasureGroup; 1],
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct MeasureGroup {
    pub(crate) id: &'static str,
    pub(crate) population: Vec<MeasurePopulation>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct MeasurePopulation {
    pub(crate) id: &'static str,
    pub(crate) code: Concept,
    pub(crate) description: &'static str,
    pub(crate) criteria: Expression,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Expression {
    pub(crate) language: &'static str,
    pub(crate) expression: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MeasureReport {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) extension: Vec<Extension>,
    pub(crate) status: &'static str,
    pub(crate) r#type: &'static str,
    pub(crate) measure: String,
    pub(crate) subject: Reference,
    pub(crate) date: Time,
    pub(crate) reporter: Reference,
    pub(crate) period: Period<Day>,
    pub(crate) improvement_notation: Concept,
    pub(crate) group: [ReportGroup; 1],
    pub(crate) evaluated_resource: Vec<Reference>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReportGroup {
    pub(crate) id: &'static str,
    pub(crate) extension: [Extension; 1],
    pub(crate) population: Vec<ReportPopulation>,
    /// Absent where there is nobody to be scored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) measure_score: Option<Score>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReportPopulation {
    pub(crate) extension: [Extension; 1],
    pub(crate) code: Concept,
    pub(crate) count: u8,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Score {
    pub(crate) value: u8,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DetectedIssue {
    #[serde(flatten)]
    pub(crate) head: Head,
    pub(crate) modifier_extension: [Extension; 1],
    pub(crate) status: &'static str,
    pub(crate) code: Concept,
    pub(crate) patient: Reference,
    pub(crate) identified_date_time: Time,
    pub(crate) author: Reference,
    pub(crate) evidence: [Evidence; 1],
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Evidence {
    pub(crate) detail: [Reference; 1],
}

headed!(Measure, MeasureReport, DetectedIssue);

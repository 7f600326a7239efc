//! A gap in care: the report that finds it, and the issue that says so.

use crate::Resource;
use crate::codes::hl7;
use crate::dates::midnight;
use crate::measure::{Evidence, Judgement, Measure, Year};
use crate::resources::quality::{
    DetectedIssue, Evidence as Detail, MeasureReport, ReportGroup, ReportPopulation, Score,
};
use crate::resources::{
    Coding, Concept, Day, Extension, Head, Meta, Period, Reference, Time, Value, written,
};
use crate::staff::{CLINIC, REPORTING};
use crate::subject::Subject;
use jiff::Timestamp;

/// How a gap stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    Open,
    Closed,
    /// It will open when its year begins, unless something is done before.
    Prospective,
    NotApplicable,
}

impl Status {
    pub(crate) fn code(self) -> &'static str {
        self.concept().code()
    }

    fn concept(self) -> Concept {
        const fn status(coding: &'static [Coding]) -> Concept {
            Concept { coding, text: None }
        }
        const SYSTEM: &str = "http://hl7.org/fhir/uv/deqm/CodeSystem/deqm-gaps-status";
        match self {
            Self::Open => status(&[Coding { system: SYSTEM, code: "open-gap", display: Some("Open Gap") }]),
            Self::Closed => {
                status(&[Coding { system: SYSTEM, code: "closed-gap", display: Some("Closed Gap") }])
            }
            Self::Prospective => status(&[Coding {
                system: SYSTEM,
                code: "prospective-gap",
                display: Some("Prospective Gap"),
            }]),
            Self::NotApplicable => {
                status(&[Coding { system: SYSTEM, code: "not-applicable", display: Some("Not Applicable") }])
            }
        }
    }

    /// Read back from an issue.
    pub(crate) fn of_code(code: &str) -> Option<Self> {
        [Self::Open, Self::Closed, Self::Prospective, Self::NotApplicable]
            .into_iter()
            .find(|status| status.code() == code)
    }

    /// What a judgement means at a time.
    pub(crate) fn of(judgement: &Judgement<'_>, year: Year, at: Timestamp) -> Self {
        match judgement {
            Judgement::NotApplicable(_) => Self::NotApplicable,
            Judgement::Met(_) => Self::Closed,
            Judgement::Unmet(_) if at < midnight(year.start()) => Self::Prospective,
            Judgement::Unmet(_) => Self::Open,
        }
    }
}

/// Whether next year's gap is to be announced, if there will be one; `this`: how this year's stands. What is open need
/// not be announced, and what has to be done each year goes without saying.
pub(crate) fn announced(
    measure: Measure,
    this: Option<Status>,
    next: Year,
    subject: &Subject,
    evidence: &[Evidence],
) -> bool {
    let of_interest = match measure {
        Measure::Colorectal | Measure::Breast => this == Some(Status::Closed),
        Measure::Childhood => this.is_none(),
        Measure::Hba1c | Measure::BloodPressure => false,
    };
    of_interest
        && measure.concerns(subject, next)
        && matches!(measure.judge(subject, evidence, next), Judgement::Unmet(_))
}

/// The ids of a report and its issue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ids {
    pub(crate) report: String,
    pub(crate) issue: String,
}

/// A measure computed for a patient and a year: the report, the issue, and how the gap stands.
pub(crate) fn assess(
    measure: Measure,
    year: Year,
    subject: &Subject,
    evidence: &[Evidence],
    at: Timestamp,
    ids: &Ids,
) -> (Status, [Resource; 2]) {
    let judgement = measure.judge(subject, evidence, year);
    let status = Status::of(&judgement, year, at);
    let report = report(measure, year, subject, evidence, &judgement, at, ids);
    (status, [report, issue(status, subject, at, ids)])
}

fn report(
    measure: Measure,
    year: Year,
    subject: &Subject,
    evidence: &[Evidence],
    judgement: &Judgement<'_>,
    at: Timestamp,
    ids: &Ids,
) -> Resource {
    let (met, excluded) = match judgement {
        Judgement::NotApplicable(_) => (false, true),
        Judgement::Met(_) => (true, false),
        Judgement::Unmet(_) => (false, false),
    };
    let population = |code, link, is: bool| ReportPopulation {
        extension: [Extension { url: POPULATION_LINK, value: Value::Text(link) }],
        code,
        count: u8::from(is),
    };
    let for_whom: &[&str] = &["initial-population", "denominator"];
    let mut evaluated = vec![criterion(for_whom, subject.reference().reference)];
    if let Some(visit) = Measure::visit(evidence, year) {
        evaluated.push(criterion(for_whom, visit.resource.clone()));
    }
    match judgement {
        Judgement::NotApplicable(why) => {
            evaluated.push(criterion(&["denominator-exclusion"], why.resource.clone()));
        }
        Judgement::Met(by) | Judgement::Unmet(by) => {
            evaluated.extend(by.iter().map(|it| criterion(&["numerator"], it.resource.clone())));
        }
    }
    written(&MeasureReport {
        head: Head {
            meta: Meta { profile: &[REPORT_PROFILE], ..Meta::TEST },
            ..Head::new("MeasureReport", ids.report.clone())
        },
        extension: vec![
            Extension { url: SCORING, value: Value::Concept(hl7::PROPORTION) },
            Extension { url: VENDOR, value: Value::Reference(Box::new(Reference::to(REPORTING))) },
        ],
        status: "complete",
        r#type: "individual",
        measure: measure.canonical(),
        subject: Reference::named(subject.reference().reference, &subject.name),
        date: Time(at),
        reporter: Reference::to(CLINIC),
        period: Period { start: Day(year.start()), end: Some(Day(year.end())) },
        improvement_notation: hl7::INCREASE,
        group: [ReportGroup {
            id: measure.id(),
            extension: [Extension { url: GROUP_LINK, value: Value::Text(measure.id()) }],
            population: vec![
                population(hl7::INITIAL_POPULATION, "initial-population", true),
                population(hl7::DENOMINATOR, "denominator", true),
                population(hl7::EXCLUSION, "denominator-exclusion", excluded),
                population(hl7::NUMERATOR, "numerator", met),
            ],
            measure_score: (!excluded).then_some(Score { value: u8::from(met) }),
        }],
        evaluated_resource: evaluated,
    })
}

fn issue(status: Status, subject: &Subject, at: Timestamp, ids: &Ids) -> Resource {
    written(&DetectedIssue {
        head: Head {
            meta: Meta { profile: &[ISSUE_PROFILE], ..Meta::TEST },
            ..Head::new("DetectedIssue", ids.issue.clone())
        },
        modifier_extension: [Extension { url: GAP_STATUS, value: Value::Concept(status.concept()) }],
        status: "final",
        code: hl7::CARE_GAP,
        patient: Reference::named(subject.reference().reference, &subject.name),
        identified_date_time: Time(at),
        author: Reference::to(REPORTING),
        evidence: [Detail { detail: [Reference::to(format!("MeasureReport/{}", ids.report))] }],
    })
}

fn criterion(populations: &[&'static str], resource: String) -> Reference {
    let extension =
        populations.iter().map(|population| Extension { url: CRITERIA, value: Value::Text(population) });
    Reference { extension: extension.collect(), ..Reference::to(resource) }
}

const REPORT_PROFILE: &str = "http://hl7.org/fhir/uv/deqm/StructureDefinition/deqm-individualmeasurereport";
const ISSUE_PROFILE: &str = "http://hl7.org/fhir/uv/deqm/StructureDefinition/deqm-gapsincaredetectedissue";
const SCORING: &str = "http://hl7.org/fhir/uv/deqm/StructureDefinition/deqm-measureScoring";
const VENDOR: &str = "http://hl7.org/fhir/uv/deqm/StructureDefinition/deqm-reportingVendor";
const GAP_STATUS: &str = "http://hl7.org/fhir/uv/deqm/StructureDefinition/deqm-gapStatus";
const CRITERIA: &str = "http://hl7.org/fhir/StructureDefinition/cqf-criteriaReference";
const GROUP_LINK: &str = "http://hl7.org/fhir/5.0/StructureDefinition/extension-MeasureReport.group.linkId";
const POPULATION_LINK: &str =
    "http://hl7.org/fhir/5.0/StructureDefinition/extension-MeasureReport.group.population.linkId";

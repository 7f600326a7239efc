//! What the clinic reads at its start: the patients, and what is known of them.

use super::shapes::{Entry, Evaluated, Issue, Practitioner, ReadGroup, ReadPatient, Report};
use super::{Clinic, Gap, Patient};
use crate::chart::Numbers;
use crate::codes::{self, hl7};
use crate::dates::parse_day;
use crate::gap::{Ids, Status};
use crate::measure::{Evidence, Measure, Year};
use crate::random::Random;
use crate::staff::{Belonging, Doctor, PAYERS};
use crate::subject::{Chronic, Diagnosis, Sex, Subject};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Resources that the clinic has to see, each type in the order in which they were written.
#[derive(Clone, Copy, Debug)]
pub struct Needed {
    /// Their type.
    pub resource_type: &'static str,
    /// Codes of which one is in their text; without any all are needed.
    pub codes: &'static [&'static str],
}

/// What [`Records::add`] is to be given.
pub const NEEDED: &[Needed] = &[
    Needed { resource_type: "Practitioner", codes: &[] },
    Needed { resource_type: "Patient", codes: &[] },
    Needed { resource_type: "Group", codes: &[] },
    Needed {
        resource_type: "Condition",
        codes: &[
            Chronic::Hypertension.concept().code(),
            Chronic::Diabetes.concept().code(),
            Chronic::Hyperlipidemia.concept().code(),
            Chronic::Asthma.concept().code(),
        ],
    },
    Needed {
        resource_type: "Procedure",
        codes: &[codes::COLONOSCOPY.code(), codes::MAMMOGRAPHY.code(), codes::HOSPICE.code()],
    },
    Needed {
        resource_type: "Observation",
        codes: &[codes::BLOOD_PRESSURE.code(), codes::HBA1C.code(), codes::STOOL_TEST.code()],
    },
    Needed { resource_type: "Immunization", codes: &[] },
    Needed { resource_type: "MeasureReport", codes: &[] },
    Needed { resource_type: "DetectedIssue", codes: &[] },
];

/// Why a clinic cannot be run on what was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// There is nobody, or nobody to treat them.
    Empty,
    /// This patient is not marked as test data.
    NotOurs(String),
    /// This resource cannot be read.
    Unreadable {
        /// Such as `Patient/17`.
        resource: String,
        /// What is wrong; no content.
        problem: String,
    },
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("there are no sample patients in the database"),
            Self::NotOurs(id) => write!(
                f,
                "Patient/{id} is not marked as test data (meta.security with HTEST): sample data must not be mixed \
                 with that of real people. Use a database of its own"
            ),
            Self::Unreadable { resource, problem } => write!(f, "{resource} cannot be read: {problem}"),
        }
    }
}

impl std::error::Error for Unfit {}

/// What was read so far.
#[derive(Default)]
pub struct Records {
    doctors: Vec<Doctor>,
    patients: Vec<Patient>,
    by_reference: HashMap<String, usize>,
    members: BTreeMap<String, Vec<String>>,
    /// Reports by their ids: whose, of what, and what closed it.
    reports: HashMap<String, (usize, Measure, Year, Vec<String>)>,
    /// The newest report of each, and its issue.
    newest: BTreeMap<(usize, Measure, Year), String>,
    issues: HashMap<String, (String, Status)>,
}

impl Records {
    /// Takes a resource in. [`NEEDED`] says which, and in which order.
    pub fn add(&mut self, resource_type: &str, id: &str, content: &str) -> Result<(), Unfit> {
        let unreadable = |error: serde_json::Error| Unfit::Unreadable {
            resource: format!("{resource_type}/{id}"),
            // Its Display may repeat a value.
            problem: format!("{:?} error in column {}", error.classify(), error.column()),
        };
        match resource_type {
            "Practitioner" => self.practitioner(id, serde_json::from_str(content).map_err(unreadable)?),
            "Patient" => self.patient(id, serde_json::from_str(content).map_err(unreadable)?)?,
            "Group" => self.group(id, serde_json::from_str(content).map_err(unreadable)?),
            "MeasureReport" => self.report(id, serde_json::from_str(content).map_err(unreadable)?),
            "DetectedIssue" => self.issue(id, serde_json::from_str(content).map_err(unreadable)?),
            _ => self.entry(resource_type, id, &serde_json::from_str(content).map_err(unreadable)?),
        }
        Ok(())
    }

    /// The clinic. `run` must be another one each time, and the same for the same state of the database if its steps
    /// are to be the same: its ids begin with it.
    pub fn clinic(self, seed: u64, run: u64) -> Result<Clinic, Unfit> {
        if self.patients.is_empty() || self.doctors.is_empty() {
            return Err(Unfit::Empty);
        }
        let Self { doctors, mut patients, mut members, newest, reports, issues, .. } = self;
        for ((patient, measure, year), report) in newest {
            let Some((issue, status)) = issues.get(&report).cloned() else { continue };
            let by = reports.get(&report).map(|(.., by)| by.clone()).unwrap_or_default();
            patients[patient].gaps.insert((measure, year), Gap { ids: Ids { report, issue }, status, by });
        }
        let belongings = (0..doctors.len()).map(Belonging::CareTeam);
        let members = belongings
            .chain((0..PAYERS.len()).map(Belonging::Payer))
            .map(|belonging| {
                let id = belonging.id(&doctors);
                let patients = members.remove(&id).unwrap_or_default();
                (id, (belonging, patients))
            })
            .collect();
        Ok(Clinic {
            random: Random::part(seed, run),
            numbers: Numbers::new(format!("s{run}")),
            doctors,
            members,
            patients,
            observed: VecDeque::new(),
            performed: VecDeque::new(),
        })
    }

    fn practitioner(&mut self, id: &str, read: Practitioner) {
        let name = read.name.into_iter().next().unwrap_or_default();
        let words = name.prefix.into_iter().chain(name.given).chain(name.family).collect::<Vec<_>>();
        self.doctors.push(Doctor { id: id.to_owned(), name: words.join(" ") });
    }

    fn patient(&mut self, id: &str, read: ReadPatient) -> Result<(), Unfit> {
        if !read.meta.security.iter().any(|coding| coding.code == hl7::TEST_DATA.code) {
            return Err(Unfit::NotOurs(id.to_owned()));
        }
        let name = read.name.into_iter().next().unwrap_or_default();
        let first = name.given.into_iter().next();
        let name = first.into_iter().chain(name.family).collect::<Vec<_>>().join(" ");
        let doctor = read.general_practitioner.first().and_then(|doctor| {
            self.doctors.iter().position(|it| doctor.reference.strip_prefix("Practitioner/") == Some(&it.id))
        });
        let (Some(birth), Some(doctor)) = (parse_day(&read.birth_date), doctor) else { return Ok(()) };
        let sex = if read.gender == "female" { Sex::Female } else { Sex::Male };
        self.by_reference.insert(format!("Patient/{id}"), self.patients.len());
        self.patients.push(Patient {
            subject: Subject { id: id.to_owned(), name, sex, birth, doctor, diagnoses: Vec::new() },
            evidence: Vec::new(),
            gaps: BTreeMap::new(),
            taken: Vec::new(),
        });
        Ok(())
    }

    fn group(&mut self, id: &str, read: ReadGroup) {
        let patients = read
            .member
            .into_iter()
            .filter_map(|member| Some(member.entity.reference.strip_prefix("Patient/")?.to_owned()));
        self.members.insert(id.to_owned(), patients.collect());
    }

    fn report(&mut self, id: &str, read: Report) {
        let patient = self.by_reference.get(&read.subject.reference).copied();
        let measure = Measure::of_canonical(&read.measure);
        let year = parse_day(&read.period.start).map(|day| Year(day.year()));
        let (Some(patient), Some(measure), Some(year)) = (patient, measure, year) else { return };
        let numerator = |it: &Evaluated| it.extension.iter().any(|criteria| criteria.value == "numerator");
        let met = read
            .group
            .iter()
            .flat_map(|group| &group.population)
            .any(|population| population.count > 0 && population.code.has("numerator"));
        let by = read.evaluated_resource.into_iter().filter(|it| met && numerator(it));
        let by = by.map(|it| it.reference).collect();
        self.reports.insert(id.to_owned(), (patient, measure, year, by));
        // They come in the order in which they were written.
        self.newest.insert((patient, measure, year), id.to_owned());
    }

    fn issue(&mut self, id: &str, read: Issue) {
        let status = read.modifier_extension.iter().find_map(|extension| {
            extension.value.coding.iter().find_map(|coding| Status::of_code(&coding.code))
        });
        let detail = read.evidence.into_iter().flat_map(|evidence| evidence.detail).next();
        let report =
            detail.and_then(|detail| Some(detail.reference.strip_prefix("MeasureReport/")?.to_owned()));
        if let (Some(status), Some(report)) = (status, report) {
            self.issues.insert(report, (id.to_owned(), status));
        }
    }

    /// What happened to a patient.
    fn entry(&mut self, resource_type: &str, id: &str, read: &Entry) {
        let of = read.subject.as_ref().or(read.patient.as_ref());
        let Some(patient) = of.and_then(|of| self.by_reference.get(&of.reference)).copied() else { return };
        let Some(on) = read.day().and_then(parse_day) else { return };
        if read.status == "entered-in-error" {
            return;
        }
        let resource = format!("{resource_type}/{id}");
        if resource_type == "Condition" {
            let chronic = read
                .code()
                .and_then(|code| Chronic::ALL.into_iter().find(|it| code.has(it.concept().code())));
            if let Some(chronic) = chronic {
                let diagnosis = Diagnosis { chronic, condition: resource, since: on };
                self.patients[patient].subject.diagnoses.push(diagnosis);
            }
        } else if let Some(finding) = read.finding() {
            self.patients[patient].evidence.push(Evidence { finding, resource, on });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resource;
    use crate::body::Body;
    use crate::chart::{Chart, Reading};
    use crate::measure::{Finding, VACCINES};
    use crate::staff::CLINIC;
    use jiff::civil::date;

    /// Whatever a chart counts as evidence is asked of the database, and is the same evidence when it is read.
    #[test]
    fn what_a_chart_counts_is_needed_and_read_back() {
        let subject = Subject {
            id: "p1".to_owned(),
            name: "Ann Example".to_owned(),
            sex: Sex::Female,
            birth: date(1960, 2, 3),
            doctor: 0,
            diagnoses: Chronic::ALL
                .iter()
                .enumerate()
                .map(|(number, chronic)| Diagnosis {
                    chronic: *chronic,
                    condition: format!("Condition/c{number}"),
                    since: date(2020, 5, 1),
                })
                .collect(),
        };
        let (mut evidence, mut out) = (Vec::new(), Vec::new());
        let mut chart = Chart {
            subject: &subject,
            doctor: &Doctor { id: "d1".to_owned(), name: "Dr. Bob Example".to_owned() },
            numbers: &mut Numbers::new("n".to_owned()),
            evidence: &mut evidence,
            out: &mut out,
        };
        for diagnosis in &subject.diagnoses {
            chart.problem(diagnosis);
        }
        let at = "2026-03-04T15:00:00Z".parse().unwrap();
        let visit = chart.visit(codes::CHECK_UP, at, 20, CLINIC);
        chart.vital_signs(&visit, &Body::of(&subject), &mut Random::part(1, 1));
        chart.laboratory(&visit, codes::HBA1C, 7.1, "%");
        chart.observe(&visit, hl7::LABORATORY, codes::STOOL_TEST, Reading::Concept(codes::NEGATIVE));
        let procedures = [
            (codes::COLONOSCOPY, Finding::Colonoscopy),
            (codes::MAMMOGRAPHY, Finding::Mammography),
            (codes::HOSPICE, Finding::Hospice),
        ];
        for (code, finding) in procedures {
            chart.procedure(&visit, code, Some(finding));
        }
        for (vaccine, ..) in VACCINES {
            chart.immunize(&visit, vaccine);
        }

        let mut records = Records::default();
        records.by_reference.insert("Patient/p1".to_owned(), 0);
        records.patients.push(Patient {
            subject: Subject { diagnoses: Vec::new(), ..subject.clone() },
            evidence: Vec::new(),
            gaps: BTreeMap::new(),
            taken: Vec::new(),
        });
        for Resource { resource_type, id, content } in &out {
            let needed = NEEDED.iter().find(|needed| needed.resource_type == *resource_type);
            if needed
                .is_some_and(|it| it.codes.is_empty() || it.codes.iter().any(|code| content.contains(code)))
            {
                records.add(resource_type, id, content).unwrap();
            }
        }
        let read = &records.patients[0];
        assert_eq!(read.subject.diagnoses, subject.diagnoses);
        // Visits are in the reports themselves.
        evidence.retain(|it| it.finding != Finding::Visit);
        assert_eq!(read.evidence, evidence);
        assert_eq!(evidence.len(), 6 + VACCINES.len());
    }
}

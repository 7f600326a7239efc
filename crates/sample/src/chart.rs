//! A patient's chart, into which visits write: each entry a resource, and evidence where a measure asks for it.

use crate::Resource;
use crate::body::Body;
use crate::codes::{self, hl7};
use crate::dates::{day_of, midnight, minutes_after};
use crate::measure::{Evidence, Finding, VACCINES};
use crate::random::Random;
use crate::resources::administrative::{Agent, Provenance};
use crate::resources::clinical::{
    Component, Condition, DiagnosticReport, Dosage, Encounter, Immunization, MedicationRequest, Observation,
    Participant, Performer, Procedure,
};
use crate::resources::{Concept, Head, Period, Quantity, Reference, Time, written};
use crate::staff::{CLINIC, Doctor, LABORATORY};
use crate::subject::{Diagnosis, Subject};
use jiff::Timestamp;

/// Ids that nobody else gives.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    stem: String,
    last: u32,
}

impl Numbers {
    pub(crate) fn new(stem: String) -> Self {
        Self { stem, last: 0 }
    }

    pub(crate) fn next(&mut self) -> String {
        self.last += 1;
        format!("{}-{}", self.stem, self.last)
    }
}

/// Where entries go.
pub(crate) struct Chart<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) doctor: &'a Doctor,
    pub(crate) numbers: &'a mut Numbers,
    pub(crate) evidence: &'a mut Vec<Evidence>,
    pub(crate) out: &'a mut Vec<Resource>,
}

/// A visit, to which entries belong.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub(crate) encounter: String,
    pub(crate) at: Timestamp,
    minutes: i32,
}

/// A value that was observed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reading {
    Quantity(f64, &'static str),
    Concept(Concept),
    /// Systolic and diastolic.
    Pressure(f64, f64),
}

impl Chart<'_> {
    fn head(&mut self, resource_type: &'static str) -> Head {
        Head::new(resource_type, self.numbers.next())
    }

    fn finding(&mut self, finding: Finding, resource: &Resource, at: Timestamp) {
        self.evidence.push(Evidence { finding, resource: resource.reference(), on: day_of(at) });
    }

    /// Somebody comes: so many minutes, to that organization.
    pub(crate) fn visit(&mut self, kind: Concept, at: Timestamp, minutes: i32, provider: &str) -> Visit {
        let encounter = written(&Encounter {
            head: self.head("Encounter"),
            status: "finished",
            class: hl7::AMBULATORY,
            r#type: [kind],
            subject: Reference::named(self.subject.reference().reference, &self.subject.name),
            participant: [Participant { r#type: [hl7::PERFORMER], individual: self.doctor.reference() }],
            period: Period { start: Time(at), end: Some(Time(minutes_after(at, minutes))) },
            service_provider: Reference::to(provider),
        });
        self.finding(Finding::Visit, &encounter, at);
        let visit = Visit { encounter: encounter.reference(), at, minutes };
        self.out.push(encounter);
        visit
    }

    /// Something is measured.
    pub(crate) fn observe(
        &mut self,
        visit: &Visit,
        category: Concept,
        code: Concept,
        reading: Reading,
    ) -> Observation {
        let laboratory = category == hl7::LABORATORY;
        let mut observation = Observation {
            head: self.head("Observation"),
            status: "final",
            category: [category],
            code,
            subject: self.subject.reference(),
            encounter: Reference::to(visit.encounter.as_str()),
            effective_date_time: Time(visit.at),
            issued: Time(minutes_after(visit.at, visit.minutes)),
            performer: [if laboratory { Reference::to(LABORATORY) } else { self.doctor.reference() }],
            value_quantity: None,
            value_codeable_concept: None,
            component: Vec::new(),
        };
        set(&mut observation, reading);
        let resource = written(&observation);
        if let Some(finding) = finding_of(code, reading) {
            self.finding(finding, &resource, visit.at);
        }
        self.out.push(resource);
        observation
    }

    /// What is measured at every visit; a child's blood pressure from three years on.
    pub(crate) fn vital_signs(
        &mut self,
        visit: &Visit,
        body: &Body,
        random: &mut Random,
    ) -> Vec<Observation> {
        let day = day_of(visit.at);
        let years = self.subject.age(day);
        let (height, weight) = (body.height(day), body.weight(day, random));
        let mut observed = vec![
            (codes::HEIGHT, Reading::Quantity(height, "cm")),
            (codes::WEIGHT, Reading::Quantity(weight, "kg")),
        ];
        if years >= 18 {
            let index = crate::body::rounded(weight / (height / 100.0).powi(2), 1);
            observed.push((codes::BODY_MASS_INDEX, Reading::Quantity(index, "kg/m2")));
        }
        observed.push((codes::HEART_RATE, Reading::Quantity(body.pulse(day, false, random), "/min")));
        if years >= 3 {
            let (systolic, diastolic) = body.blood_pressure(day, random);
            observed.push((codes::BLOOD_PRESSURE, Reading::Pressure(systolic, diastolic)));
        }
        observed
            .into_iter()
            .map(|(code, reading)| self.observe(visit, hl7::VITAL_SIGNS, code, reading))
            .collect()
    }

    /// Something is measured in the laboratory.
    pub(crate) fn laboratory(
        &mut self,
        visit: &Visit,
        code: Concept,
        value: f64,
        unit: &'static str,
    ) -> Observation {
        self.observe(visit, hl7::LABORATORY, code, Reading::Quantity(value, unit))
    }

    /// Several results, and the report that holds them together.
    pub(crate) fn panel(&mut self, visit: &Visit, code: Concept, results: &[(Concept, f64, &'static str)]) {
        let result = results
            .iter()
            .map(|(code, value, unit)| {
                let observation = self.laboratory(visit, *code, *value, unit);
                Reference::named(format!("Observation/{}", observation.head.id), code.words())
            })
            .collect();
        let report = written(&DiagnosticReport {
            head: self.head("DiagnosticReport"),
            status: "final",
            category: [hl7::REPORT_LABORATORY],
            code,
            subject: self.subject.reference(),
            encounter: Reference::to(visit.encounter.as_str()),
            effective_date_time: Time(visit.at),
            issued: Time(minutes_after(visit.at, visit.minutes)),
            performer: [Reference::to(LABORATORY)],
            result,
        });
        self.out.push(report);
    }

    /// The blood lipids.
    pub(crate) fn lipids(&mut self, visit: &Visit, body: &Body, random: &mut Random) {
        let [total, triglycerides, ldl, hdl] = body.lipids(day_of(visit.at), random);
        self.panel(
            visit,
            codes::LIPID_PANEL,
            &[
                (codes::TOTAL_CHOLESTEROL, total, "mg/dL"),
                (codes::TRIGLYCERIDES, triglycerides, "mg/dL"),
                (codes::LDL, ldl, "mg/dL"),
                (codes::HDL, hdl, "mg/dL"),
            ],
        );
    }

    /// Sugar, kidneys and salts.
    pub(crate) fn metabolism(&mut self, visit: &Visit, body: &Body, random: &mut Random) {
        let day = day_of(visit.at);
        let glucose = body.glucose(day, random);
        let creatinine = body.creatinine(day, random);
        let mut near = |mean, spread, digits| crate::body::rounded(random.near(mean, spread), digits);
        let (urea, calcium) = (near(15.0, 2.5, 0), near(9.4, 0.2, 1));
        let (sodium, potassium) = (near(140.0, 1.5, 0), near(4.3, 0.25, 1));
        let (chloride, carbon_dioxide) = (near(103.0, 1.2, 0), near(25.5, 1.0, 0));
        self.panel(
            visit,
            codes::METABOLIC_PANEL,
            &[
                (codes::GLUCOSE, glucose, "mg/dL"),
                (codes::UREA_NITROGEN, urea, "mg/dL"),
                (codes::CREATININE, creatinine, "mg/dL"),
                (codes::CALCIUM, calcium, "mg/dL"),
                (codes::SODIUM, sodium, "mmol/L"),
                (codes::POTASSIUM, potassium, "mmol/L"),
                (codes::CHLORIDE, chloride, "mmol/L"),
                (codes::CARBON_DIOXIDE, carbon_dioxide, "mmol/L"),
            ],
        );
    }

    /// A chronic condition is put on the list of problems.
    pub(crate) fn problem(&mut self, diagnosis: &Diagnosis) {
        let id = diagnosis.condition.trim_start_matches("Condition/").to_owned();
        let since = Time(midnight(diagnosis.since));
        let condition = written(&Condition {
            head: Head::new("Condition", id),
            clinical_status: hl7::ACTIVE,
            verification_status: hl7::CONFIRMED,
            category: [hl7::PROBLEM],
            code: diagnosis.chronic.concept(),
            subject: self.subject.reference(),
            encounter: None,
            onset_date_time: since,
            abatement_date_time: None,
            recorded_date: since,
            asserter: self.doctor.reference(),
        });
        self.out.push(condition);
    }

    /// Something that passes by itself: its Condition, to which a prescription refers. `over`: it has passed since.
    pub(crate) fn illness(&mut self, visit: &Visit, code: Concept, over: Option<Timestamp>) -> String {
        let condition = written(&Condition {
            head: self.head("Condition"),
            clinical_status: if over.is_some() { hl7::RESOLVED } else { hl7::ACTIVE },
            verification_status: hl7::CONFIRMED,
            category: [hl7::DIAGNOSIS],
            code,
            subject: self.subject.reference(),
            encounter: Some(Reference::to(visit.encounter.as_str())),
            onset_date_time: Time(visit.at),
            abatement_date_time: over.map(Time),
            recorded_date: Time(visit.at),
            asserter: self.doctor.reference(),
        });
        let reference = condition.reference();
        self.out.push(condition);
        reference
    }

    /// A prescription.
    pub(crate) fn prescribe(
        &mut self,
        visit: &Visit,
        (medication, how): (Concept, &'static str),
        reason: &str,
        status: &'static str,
    ) -> MedicationRequest {
        let request = MedicationRequest {
            head: self.head("MedicationRequest"),
            status,
            intent: "order",
            medication_codeable_concept: medication,
            subject: self.subject.reference(),
            encounter: Reference::to(visit.encounter.as_str()),
            authored_on: Time(visit.at),
            requester: self.doctor.reference(),
            reason_reference: vec![Reference::to(reason)],
            dosage_instruction: [Dosage { text: how }],
        };
        self.out.push(written(&request));
        request
    }

    /// A procedure.
    pub(crate) fn procedure(&mut self, visit: &Visit, code: Concept, finding: Option<Finding>) -> Procedure {
        let procedure = Procedure {
            head: self.head("Procedure"),
            status: "completed",
            code,
            subject: self.subject.reference(),
            encounter: Reference::to(visit.encounter.as_str()),
            performed_period: Period {
                start: Time(visit.at),
                end: Some(Time(minutes_after(visit.at, visit.minutes))),
            },
            performer: [Performer { actor: self.doctor.reference() }],
        };
        let resource = written(&procedure);
        if let Some(finding) = finding {
            self.finding(finding, &resource, visit.at);
        }
        self.out.push(resource);
        procedure
    }

    /// A vaccination.
    pub(crate) fn immunize(&mut self, visit: &Visit, vaccine: Concept) {
        let immunization = written(&Immunization {
            head: self.head("Immunization"),
            status: "completed",
            vaccine_code: vaccine,
            patient: self.subject.reference(),
            encounter: Reference::to(visit.encounter.as_str()),
            occurrence_date_time: Time(visit.at),
            primary_source: true,
            performer: [Performer { actor: self.doctor.reference() }],
        });
        if let Some(of_childhood) = VACCINES.iter().position(|(code, _, _)| *code == vaccine) {
            self.finding(Finding::Vaccine(of_childhood), &immunization, visit.at);
        }
        self.out.push(immunization);
    }

    /// Who entered these.
    pub(crate) fn provenance(&mut self, target: Vec<Reference>, recorded: Timestamp) {
        let provenance = written(&Provenance {
            head: self.head("Provenance"),
            target,
            recorded: Time(recorded),
            activity: hl7::CREATE,
            agent: [Agent {
                r#type: hl7::AUTHOR,
                who: self.doctor.reference(),
                on_behalf_of: Some(Reference::to(CLINIC)),
            }],
        });
        self.out.push(provenance);
    }
}

/// Gives an observation its value.
pub(crate) fn set(observation: &mut Observation, reading: Reading) {
    match reading {
        Reading::Quantity(value, unit) => observation.value_quantity = Some(Quantity::of(value, unit)),
        Reading::Concept(concept) => observation.value_codeable_concept = Some(concept),
        Reading::Pressure(systolic, diastolic) => {
            observation.component = [(codes::SYSTOLIC, systolic), (codes::DIASTOLIC, diastolic)]
                .map(|(code, value)| Component { code, value_quantity: Quantity::of(value, "mm[Hg]") })
                .to_vec();
        }
    }
}

/// What a reading shows that a measure asks for.
pub(crate) fn finding_of(code: Concept, reading: Reading) -> Option<Finding> {
    match reading {
        Reading::Pressure(systolic, diastolic) => Some(Finding::BloodPressure(systolic, diastolic)),
        Reading::Quantity(value, _) if code == codes::HBA1C => Some(Finding::Hba1c(value)),
        Reading::Concept(_) if code == codes::STOOL_TEST => Some(Finding::StoolTest),
        Reading::Quantity(..) | Reading::Concept(_) => None,
    }
}

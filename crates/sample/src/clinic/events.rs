//! What happens at the clinic, event by event.

use super::{Clinic, Event, Patient, Write};
use crate::Resource;
use crate::body::{Body, rounded};
use crate::chart::{Reading, finding_of, set};
use crate::codes::{self, hl7};
use crate::dates::{day_of, minutes_after, months_after};
use crate::gap::Status;
use crate::history::{ill, review};
use crate::measure::{Evidence, Finding, Measure, VACCINES, Year, missing};
use crate::person::Person;
use crate::resources::clinical::Observation;
use crate::resources::{Reference, written};
use crate::staff::{Belonging, CLINIC, HOSPITAL};
use crate::subject::Chronic;
use jiff::Timestamp;

/// How many are asked before it is taken that nobody is concerned.
const ATTEMPTS: usize = 60;

impl Clinic {
    /// The writes of an event; none if there is nothing to which it could happen.
    pub(super) fn happen(&mut self, event: Event, now: Timestamp) -> Vec<Write> {
        let mut out = Vec::new();
        match event {
            Event::Illness => self.illness(now, &mut out),
            Event::Review => self.review(now, &mut out),
            Event::Results => self.results(now, &mut out),
            Event::Closing => self.closing(now, &mut out),
            Event::Correction => self.correction(now, &mut out),
            Event::Retraction => return self.retraction(now),
            Event::Turn => self.turn(now, &mut out),
            Event::Registration => self.registration(now, &mut out),
            Event::Transfer => self.transfer(&mut out),
            Event::Import => self.import(now, &mut out),
        }
        out.into_iter().map(Write::Put).collect()
    }

    fn illness(&mut self, now: Timestamp, out: &mut Vec<Resource>) {
        let patient = self.anybody();
        let body = Body::of(&self.patients[patient].subject);
        let observed = self.chart(patient, out, |chart, random| {
            let visit = chart.visit(codes::SYMPTOM, minutes_after(now, -15), 15, CLINIC);
            ill(chart, &body, &visit, None, random)
        });
        self.remember(patient, observed);
    }

    fn review(&mut self, now: Timestamp, out: &mut Vec<Resource>) {
        let patient = self.anybody();
        let day = day_of(now);
        let body = Body::of(&self.patients[patient].subject);
        let child = self.patients[patient].subject.age(day) < 18;
        let (observed, reviewed) = self.chart(patient, out, |chart, random| {
            let kind = if child { codes::WELL_CHILD } else { codes::FOLLOW_UP };
            let visit = chart.visit(kind, minutes_after(now, -20), 20, CLINIC);
            let observed = chart.vital_signs(&visit, &body, random);
            (observed, review(chart, &body, &visit, day, true, random))
        });
        // What is prescribed now takes the place of what was.
        let before = std::mem::replace(&mut self.patients[patient].taken, reviewed.prescribed);
        out.extend(before.into_iter().map(|mut request| {
            request.status = "completed";
            written(&request)
        }));
        self.remember(patient, observed.into_iter().chain(reviewed.observed));
        self.reassess(patient, None, now, out);
    }

    fn results(&mut self, now: Timestamp, out: &mut Vec<Resource>) {
        let patient = self.anybody();
        let body = Body::of(&self.patients[patient].subject);
        self.chart(patient, out, |chart, random| {
            let visit = chart.visit(codes::CHECK_UP, minutes_after(now, -10), 10, CLINIC);
            if random.chance(0.5) {
                chart.lipids(&visit, &body, random);
            } else {
                chart.metabolism(&visit, &body, random);
            }
        });
    }

    /// Does what closes a gap of somebody's.
    fn closing(&mut self, now: Timestamp, out: &mut Vec<Resource>) {
        // Few come before it is time.
        let ahead = self.random.chance(0.1);
        let Some((patient, measure, year)) = self.somebody(|patient| {
            patient.gaps.iter().find(|((measure, year), gap)| {
                let attended = gap.status == Status::Open || (ahead && gap.status == Status::Prospective);
                attended && closable(patient, *measure, *year, now)
            })
        }) else {
            return;
        };
        match measure {
            Measure::Colorectal => {
                // A stool test is for the year in which it is done.
                if year.start() <= day_of(now) && self.random.chance(0.4) {
                    self.chart(patient, out, |chart, _| {
                        let visit = chart.visit(codes::CHECK_UP, minutes_after(now, -10), 10, CLINIC);
                        let negative = Reading::Concept(codes::NEGATIVE);
                        chart.observe(&visit, hl7::LABORATORY, codes::STOOL_TEST, negative);
                    });
                } else {
                    self.screening(patient, (codes::COLONOSCOPY, Finding::Colonoscopy), now, out);
                }
            }
            Measure::Breast => {
                self.screening(patient, (codes::MAMMOGRAPHY, Finding::Mammography), now, out);
            }
            Measure::Hba1c | Measure::BloodPressure => {
                let observed = self.chart(patient, out, |chart, random| {
                    let visit = chart.visit(codes::FOLLOW_UP, minutes_after(now, -20), 20, CLINIC);
                    // The treatment has had its effect.
                    if measure == Measure::Hba1c {
                        let percent = rounded(random.uniform(6.2, 7.7), 1);
                        chart.laboratory(&visit, codes::HBA1C, percent, "%")
                    } else {
                        let systolic = f64::from(random.between(114, 137));
                        let diastolic = f64::from(random.between(66, 86));
                        let pressure = Reading::Pressure(systolic, diastolic);
                        chart.observe(&visit, hl7::VITAL_SIGNS, codes::BLOOD_PRESSURE, pressure)
                    }
                });
                self.remember(patient, [observed]);
            }
            Measure::Childhood => self.chart(patient, out, |chart, _| {
                let lacking = missing(&chart.evidence.iter().collect::<Vec<_>>());
                let visit = chart.visit(codes::WELL_CHILD, minutes_after(now, -30), 30, CLINIC);
                // One dose of each: the next one has its time.
                for (vaccine, _) in lacking {
                    chart.immunize(&visit, VACCINES[vaccine].0);
                }
            }),
        }
        self.reassess(patient, None, now, out);
    }

    fn screening(
        &mut self,
        patient: usize,
        (code, finding): (crate::resources::Concept, Finding),
        now: Timestamp,
        out: &mut Vec<Resource>,
    ) {
        let procedure = self.chart(patient, out, |chart, _| {
            let visit = chart.visit(codes::OUTPATIENT_PROCEDURE, minutes_after(now, -45), 45, HOSPITAL);
            chart.procedure(&visit, code, Some(finding))
        });
        self.remember_procedure(patient, procedure);
    }

    /// A value was mistyped.
    fn correction(&mut self, now: Timestamp, out: &mut Vec<Resource>) {
        if self.observed.is_empty() {
            return;
        }
        let chosen = self.random.below(self.observed.len());
        let factor = self.random.near(1.0, 0.05);
        let (patient, observation) = &mut self.observed[chosen];
        let patient = *patient;
        let Some(reading) = reading_of(observation) else { return };
        let reading = match reading {
            // These would not be believed if they were far off.
            Reading::Quantity(value, unit @ ("cm" | "kg" | "Cel")) => {
                Reading::Quantity(rounded(value * (1.0 + (factor - 1.0) / 10.0), 1), unit)
            }
            Reading::Quantity(value, unit) => {
                Reading::Quantity(rounded(value * factor, i32::from(unit != "/min")), unit)
            }
            Reading::Pressure(systolic, diastolic) => {
                Reading::Pressure(rounded(systolic * factor, 0), rounded(diastolic * factor, 0))
            }
            concept @ Reading::Concept(_) => concept,
        };
        observation.status = "corrected";
        set(observation, reading);
        let (code, resource) = (observation.code, written(observation));
        let reference = resource.reference();
        out.push(resource);
        if let Some(finding) = finding_of(code, reading) {
            let evidence = &mut self.patients[patient].evidence;
            if let Some(evidence) = evidence.iter_mut().find(|it| it.resource == reference) {
                evidence.finding = finding;
            }
            self.reassess(patient, Some(&reference), now, out);
        }
    }

    /// An entry was made for the wrong patient. What nothing refers to is deleted; what a report refers to stays, and
    /// says that it was an error.
    fn retraction(&mut self, now: Timestamp) -> Vec<Write> {
        if !self.performed.is_empty() && self.random.chance(0.15) {
            let chosen = self.random.below(self.performed.len());
            let Some((patient, mut procedure)) = self.performed.remove(chosen) else { return Vec::new() };
            procedure.status = "entered-in-error";
            let resource = written(&procedure);
            let reference = resource.reference();
            self.patients[patient].evidence.retain(|it| it.resource != reference);
            let mut out = vec![resource];
            self.reassess(patient, Some(&reference), now, &mut out);
            return out.into_iter().map(Write::Put).collect();
        }
        let deletable = |observation: &Observation| {
            reading_of(observation).is_some_and(|reading| finding_of(observation.code, reading).is_none())
        };
        let candidates: Vec<usize> =
            (0..self.observed.len()).filter(|at| deletable(&self.observed[*at].1)).collect();
        if candidates.is_empty() {
            return Vec::new();
        }
        let chosen = *self.random.pick(&candidates);
        self.observed
            .remove(chosen)
            .map(|(_, observation)| Write::Delete { resource_type: "Observation", id: observation.head.id })
            .into_iter()
            .collect()
    }

    /// A year that has ended gives way to this one, or one that was ahead has begun.
    fn turn(&mut self, now: Timestamp, out: &mut Vec<Resource>) {
        let this = Year(day_of(now).year());
        let Some((patient, measure, year)) = self.somebody(|patient| {
            patient.gaps.iter().find(|((measure, year), gap)| {
                let later = patient.gaps.keys().any(|(of, later)| of == measure && later > year);
                (*year < this && !later) || (*year <= this && gap.status == Status::Prospective)
            })
        }) else {
            return;
        };
        if year == this {
            self.reassess(patient, None, now, out);
        } else if measure.concerns(&self.patients[patient].subject, this) {
            self.assess(patient, measure, this, true, now, out);
        } else {
            // It concerns them no longer: what was found last remains.
            self.patients[patient].gaps.remove(&(measure, year));
        }
    }

    fn registration(&mut self, now: Timestamp, out: &mut Vec<Resource>) {
        let today = day_of(now);
        let person = Person::draw(self.numbers.next(), today, self.doctors.len(), &mut self.random);
        out.push(person.patient(&self.doctors));
        let (doctor, payer) = (person.subject.doctor, person.payer);
        let id = person.subject.id.clone();
        let body = Body::of(&person.subject);
        let child = person.subject.age(today) < 18;
        self.patients.push(Patient {
            subject: person.subject,
            evidence: Vec::new(),
            gaps: std::collections::BTreeMap::new(),
            taken: Vec::new(),
        });
        let patient = self.patients.len() - 1;
        let observed = self.chart(patient, out, |chart, random| {
            for diagnosis in &chart.subject.diagnoses {
                chart.problem(diagnosis);
            }
            let target = chart.out.iter().map(|it| Reference::to(it.reference())).collect();
            chart.provenance(target, now);
            let kind = if child { codes::WELL_CHILD } else { codes::GENERAL_EXAMINATION };
            let visit = chart.visit(kind, minutes_after(now, -40), 40, CLINIC);
            chart.vital_signs(&visit, &body, random)
        });
        self.remember(patient, observed);
        for belonging in [Belonging::CareTeam(doctor), Belonging::Payer(payer)] {
            let group = belonging.id(&self.doctors);
            let (_, members) = self.members.entry(group).or_insert((belonging, Vec::new()));
            members.push(id.clone());
            out.push(belonging.group(&self.doctors, members));
        }
        self.reassess(patient, None, now, out);
    }

    /// Somebody leaves a payer's Group and is in another's from now on.
    fn transfer(&mut self, out: &mut Vec<Resource>) {
        let patient = self.anybody();
        let id = &self.patients[patient].subject.id;
        let payers: Vec<&String> = self
            .members
            .iter()
            .filter(|(_, (belonging, _))| matches!(belonging, Belonging::Payer(_)))
            .map(|(group, _)| group)
            .collect();
        let Some(from) = payers.iter().position(|group| self.members[*group].1.contains(id)) else { return };
        if payers.len() < 2 {
            return;
        }
        let to = (from + 1 + self.random.below(payers.len() - 1)) % payers.len();
        let [from, to] = [from, to].map(|payer| payers[payer].clone());
        let id = id.clone();
        for (group, joins) in [(from, false), (to, true)] {
            let Some((belonging, members)) = self.members.get_mut(&group) else { continue };
            members.retain(|member| *member != id);
            if joins {
                members.push(id.clone());
            }
            out.push(belonging.group(&self.doctors, members));
        }
    }

    /// A night's readings arrive from another system.
    fn import(&mut self, now: Timestamp, out: &mut Vec<Resource>) {
        let many = usize::from(self.random.chance(0.5)) * 20 + 40;
        let mut chosen: Vec<usize> = (0..many).map(|_| self.anybody()).collect();
        chosen.sort_unstable();
        chosen.dedup();
        for patient in chosen {
            let body = Body::of(&self.patients[patient].subject);
            let diabetes = self.patients[patient].subject.diagnosis(Chronic::Diabetes).is_some();
            let day = day_of(now);
            let begun = out.len();
            self.chart(patient, out, |chart, random| {
                let visit = chart.visit(codes::CHECK_UP, minutes_after(now, -60), 10, HOSPITAL);
                chart.vital_signs(&visit, &body, random);
                if diabetes {
                    let percent = body.a1c(day, random);
                    chart.laboratory(&visit, codes::HBA1C, percent, "%");
                }
                let target = chart.out[begun..].iter().map(|it| Reference::to(it.reference())).collect();
                chart.provenance(target, now);
            });
            self.reassess(patient, None, now, out);
        }
    }

    /// Asks patients at random until one of their gaps is what is looked for.
    fn somebody<'a, G: 'a>(
        &'a mut self,
        find: impl for<'p> Fn(&'p Patient) -> Option<(&'p (Measure, Year), &'p G)>,
    ) -> Option<(usize, Measure, Year)> {
        (0..ATTEMPTS).find_map(|_| {
            let patient = self.anybody();
            find(&self.patients[patient]).map(|((measure, year), _)| (patient, *measure, *year))
        })
    }
}

/// Whether it can be closed today.
fn closable(patient: &Patient, measure: Measure, year: Year, now: Timestamp) -> bool {
    let today = day_of(now);
    let begun = year.start() <= today;
    match measure {
        Measure::Childhood => {
            let given: Vec<&Evidence> = patient.evidence.iter().collect();
            today <= months_after(patient.subject.birth, 24) && !missing(&given).is_empty()
        }
        // These may be done before the year begins.
        Measure::Colorectal | Measure::Breast => today <= year.end(),
        Measure::Hba1c | Measure::BloodPressure => begun && today <= year.end(),
    }
}

/// What was observed.
fn reading_of(observation: &Observation) -> Option<Reading> {
    if let [systolic, diastolic] = observation.component[..] {
        return Some(Reading::Pressure(systolic.value_quantity.value.0, diastolic.value_quantity.value.0));
    }
    observation.value_quantity.map(|quantity| Reading::Quantity(quantity.value.0, quantity.unit))
}

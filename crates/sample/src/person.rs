//! A made-up person: who they are, and what ails them.

use crate::Resource;
use crate::codes::hl7;
use crate::dates::{age, days_after, months_after};
use crate::names::{FAMILY, GIVEN, STREETS, TOWNS};
use crate::random::Random;
use crate::resources::administrative::{Address, Contact, HumanName, Patient};
use crate::resources::{Day, Head, Identifier, Reference, written};
use crate::staff::{CLINIC, Doctor, PAYERS};
use crate::subject::{Chronic, Diagnosis, Sex, Subject};
use jiff::civil::Date;

/// Who they are.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) subject: Subject,
    /// Which of the payers insures them.
    pub(crate) payer: usize,
    family: &'static str,
    given: Vec<&'static str>,
    phone: i32,
    line: String,
    town: (&'static str, &'static str),
}

/// How many are how old: shares of a hundred, and ages.
const AGES: [(i32, i32, i32); 5] = [(9, 0, 3), (11, 4, 17), (20, 18, 44), (36, 45, 64), (24, 65, 88)];

impl Person {
    /// Draws one who is alive at that day.
    pub(crate) fn draw(id: String, today: Date, doctors: usize, random: &mut Random) -> Self {
        let birth = born(today, random);
        let years = age(birth, today);
        let sex = if random.chance(0.52) { Sex::Female } else { Sex::Male };
        let (female, male) = GIVEN[match birth.year() {
            ..1965 => 0,
            1965..1995 => 1,
            _ => 2,
        }];
        let names = if sex == Sex::Female { female } else { male };
        let family = *random.pick(FAMILY);
        let first = *random.pick(names);
        // Some go by one name.
        let second = Some(*random.pick(names)).filter(|second| *second != first && random.chance(0.6));
        let given: Vec<_> = [first].into_iter().chain(second).collect();
        let payer = if years >= 65 { PAYERS.len() - 1 } else { random.below(PAYERS.len() - 1) };
        let mut diagnoses = Vec::new();
        for chronic in Chronic::ALL {
            if random.chance(frequency(chronic, years)) {
                let condition = format!("Condition/{id}-{}", slug(chronic));
                diagnoses.push(Diagnosis { chronic, condition, since: onset(chronic, birth, today, random) });
            }
        }
        let name = format!("{first} {family}");
        let doctor = random.below(doctors);
        Self {
            subject: Subject { id, name, sex, birth, doctor, diagnoses },
            payer,
            family,
            given,
            phone: random.between(100, 199),
            line: format!("{} {}", random.between(1, 240), random.pick(STREETS)),
            town: *random.pick(TOWNS),
        }
    }

    /// Their Patient.
    pub(crate) fn patient(&self, doctors: &[Doctor]) -> Resource {
        let Subject { id, sex, birth, doctor, .. } = &self.subject;
        let (city, postal_code) = self.town;
        written(&Patient {
            head: Head::new("Patient", id.clone()),
            identifier: [Identifier {
                r#type: Some(hl7::RECORD_NUMBER),
                system: "https://fhir-tail.example/record-number",
                value: id.to_uppercase(),
            }],
            active: true,
            name: [HumanName {
                r#use: "official",
                family: self.family,
                given: self.given.clone(),
                prefix: None,
            }],
            telecom: [Contact {
                system: "phone",
                // These numbers are kept for fiction.
                value: format!("(617) 555-0{}", self.phone),
                r#use: "home",
            }],
            gender: sex.code(),
            birth_date: Day(*birth),
            address: [Address {
                r#use: "home",
                line: [self.line.clone()],
                city,
                state: "MA",
                postal_code,
                country: "US",
            }],
            general_practitioner: [doctors[*doctor].reference()],
            managing_organization: Reference::to(CLINIC),
        })
    }
}

fn born(today: Date, random: &mut Random) -> Date {
    let mut share = random.between(0, 99);
    let (_, youngest, oldest) = AGES
        .into_iter()
        .find(|(of_a_hundred, _, _)| {
            share -= of_a_hundred;
            share < 0
        })
        .unwrap_or(AGES[0]);
    let years = random.between(youngest, oldest);
    days_after(months_after(today, -12 * years), -random.between(1, 364))
}

/// How often people of an age have it.
fn frequency(chronic: Chronic, years: i16) -> f64 {
    let [child, young, middle, old] = match chronic {
        Chronic::Hypertension => [0.0, 0.08, 0.34, 0.58],
        Chronic::Diabetes => [0.0, 0.03, 0.16, 0.25],
        Chronic::Hyperlipidemia => [0.0, 0.06, 0.35, 0.5],
        Chronic::Asthma => [0.09, 0.08, 0.07, 0.06],
    };
    match years {
        _ if years <= earliest(chronic) => 0.0,
        ..18 => child,
        18..45 => young,
        45..65 => middle,
        _ => old,
    }
}

/// The age from which on it is looked for.
fn earliest(chronic: Chronic) -> i16 {
    match chronic {
        Chronic::Asthma => 4,
        Chronic::Hypertension => 25,
        Chronic::Diabetes | Chronic::Hyperlipidemia => 30,
    }
}

/// When it was found: in the last twelve years, at an age at which it is found.
fn onset(chronic: Chronic, birth: Date, today: Date, random: &mut Random) -> Date {
    let earliest = months_after(birth, 12 * i32::from(earliest(chronic)));
    days_after(today, -random.between(30, 12 * 365)).max(earliest)
}

fn slug(chronic: Chronic) -> &'static str {
    match chronic {
        Chronic::Hypertension => "hypertension",
        Chronic::Diabetes => "diabetes",
        Chronic::Hyperlipidemia => "hyperlipidemia",
        Chronic::Asthma => "asthma",
    }
}

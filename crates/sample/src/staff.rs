//! The organizations and practitioners, and the Groups by which patients belong to them.

use crate::Resource;
use crate::codes::hl7;
use crate::names::{FAMILY, GIVEN};
use crate::random::Random;
use crate::resources::administrative::{
    Address, Contact, Group, HumanName, Member, Organization, Practitioner,
};
use crate::resources::{Head, Identifier, Reference, written};
use crate::subject::Sex;

/// Where patients are seen.
pub(crate) const CLINIC: &str = "Organization/clinic";
/// Where they have what a clinic cannot do.
pub(crate) const HOSPITAL: &str = "Organization/hospital";
/// Where blood goes.
pub(crate) const LABORATORY: &str = "Organization/laboratory";
/// Who computes the measures.
pub(crate) const REPORTING: &str = "Organization/quality-reporting";

/// The payers: ids and names. The last one is for those of 65 and over.
pub(crate) const PAYERS: [(&str, &str); 4] = [
    ("payer-blue-heron", "Blue Heron Health Plan"),
    ("payer-stonebridge", "Stonebridge Mutual"),
    ("payer-maple-valley", "Maple Valley Care Cooperative"),
    ("payer-lantern", "Lantern Senior Plan"),
];

/// A practitioner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Doctor {
    pub(crate) id: String,
    pub(crate) name: String,
}

impl Doctor {
    pub(crate) fn reference(&self) -> Reference {
        Reference::named(format!("Practitioner/{}", self.id), &self.name)
    }
}

/// The practitioners that so many patients need.
pub(crate) fn doctors(seed: u64, patients: usize) -> Vec<(Doctor, Resource)> {
    let number = patients.div_ceil(150).clamp(3, FAMILY.len());
    (1..=number)
        .map(|number| {
            let mut random = Random::part(seed, DOCTORS + number as u64);
            let sex = if random.chance(0.5) { Sex::Female } else { Sex::Male };
            let (female, male) = GIVEN[1];
            let given = *random.pick(if sex == Sex::Female { female } else { male });
            // Each family name once: a team is called by its doctor's.
            let family = FAMILY[(number * 37 + start(seed)) % FAMILY.len()];
            let doctor = Doctor { id: format!("d{number}"), name: format!("Dr. {given} {family}") };
            let resource = written(&Practitioner {
                head: Head::new("Practitioner", doctor.id.clone()),
                identifier: [Identifier {
                    r#type: None,
                    system: "http://hl7.org/fhir/sid/us-npi",
                    value: npi(number),
                }],
                active: true,
                name: [HumanName { r#use: "official", family, given: vec![given], prefix: Some(["Dr."]) }],
                gender: sex.code(),
            });
            (doctor, resource)
        })
        .collect()
}

/// The parts of the seed from here on are those of the practitioners.
const DOCTORS: u64 = 1 << 40;

fn start(seed: u64) -> usize {
    Random::part(seed, DOCTORS).below(FAMILY.len())
}

/// A number of the range that is not given out, with the check digit that an NPI has.
fn npi(number: usize) -> String {
    let digits = format!("99999{number:04}");
    // Luhn's algorithm, over the digits with 80840 before them, whose sum is 24.
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit - b'0');
            if place % 2 == 0 { (digit * 2) / 10 + (digit * 2) % 10 } else { digit }
        })
        .sum();
    format!("{digits}{}", (10 - (sum + 24) % 10) % 10)
}

/// Every organization.
pub(crate) fn organizations() -> impl Iterator<Item = Resource> {
    let providers = [
        ("clinic", "Fernhill Family Medicine", "100 Fernhill Road", "0100"),
        ("hospital", "Saint Alban General Hospital", "1 Saint Alban Square", "0101"),
        ("laboratory", "Fernhill Clinical Laboratory", "102 Fernhill Road", "0102"),
        ("quality-reporting", "Fernhill Quality Reporting", "104 Fernhill Road", "0103"),
    ]
    .map(|(id, name, line, phone)| (id, name, line, phone, hl7::PROVIDER));
    let payers = PAYERS.map(|(id, name)| (id, name, "1 Market Street", "0110", hl7::PAYER));
    providers.into_iter().chain(payers).map(|(id, name, line, phone, kind)| {
        written(&Organization {
            head: Head::new("Organization", id.to_owned()),
            active: true,
            r#type: [kind],
            name,
            telecom: [Contact { system: "phone", value: format!("(617) 555-{phone}"), r#use: "work" }],
            address: [Address {
                r#use: "work",
                line: [line.to_owned()],
                city: "Boston",
                state: "MA",
                postal_code: "02118",
                country: "US",
            }],
        })
    })
}

/// Which Group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Belonging {
    /// The patients of a practitioner.
    CareTeam(usize),
    /// Those whom a payer insures.
    Payer(usize),
}

impl Belonging {
    /// The id of its Group.
    pub(crate) fn id(self, doctors: &[Doctor]) -> String {
        match self {
            Self::CareTeam(doctor) => format!("care-team-{}", doctors[doctor].id),
            Self::Payer(payer) => PAYERS[payer].0.to_owned(),
        }
    }

    /// Its Group, with these patients.
    pub(crate) fn group(self, doctors: &[Doctor], patients: &[String]) -> Resource {
        let (name, managing_entity) = match self {
            Self::CareTeam(doctor) => {
                (format!("Care team of {}", doctors[doctor].name), Reference::to(CLINIC))
            }
            Self::Payer(payer) => {
                let (id, name) = PAYERS[payer];
                (format!("Members of {name}"), Reference::named(format!("Organization/{id}"), name))
            }
        };
        written(&Group {
            head: Head::new("Group", self.id(doctors)),
            active: true,
            r#type: "person",
            actual: true,
            name,
            quantity: patients.len(),
            managing_entity,
            member: patients
                .iter()
                .map(|id| Member { entity: Reference::to(format!("Patient/{id}")) })
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_npi_has_its_check_digit() {
        // The example of the standard: 123456789 has the check digit 3.
        let check = |digits: &str| {
            let all = format!("80840{digits}");
            all.bytes()
                .rev()
                .enumerate()
                .map(|(place, digit)| {
                    let digit = u32::from(digit - b'0');
                    if place % 2 == 1 { (digit * 2) / 10 + (digit * 2) % 10 } else { digit }
                })
                .sum::<u32>()
                % 10
        };
        assert_eq!(check("1234567893"), 0);
        for number in [1, 2, 17, 115] {
            assert_eq!(check(&npi(number)), 0, "{}", npi(number));
        }
    }

    #[test]
    fn no_two_doctors_share_a_family_name() {
        let mut names: Vec<_> = doctors(3, 100_000)
            .iter()
            .map(|(doctor, _)| doctor.name.rsplit(' ').next().unwrap().to_owned())
            .collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}

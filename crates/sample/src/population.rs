//! A population: everybody, and everything that is known of them.

use crate::Resource;
use crate::chart::{Chart, Numbers};
use crate::codes::hl7;
use crate::dates::{days_after, first_of, midnight};
use crate::gap::{Ids, announced, assess};
use crate::history;
use crate::measure::{Evidence, Measure, Year};
use crate::person::Person;
use crate::random::Random;
use crate::resources::administrative::{Agent, Provenance};
use crate::resources::{Head, Reference, Time, written};
use crate::staff::{Belonging, CLINIC, Doctor, PAYERS, REPORTING, doctors, organizations};
use jiff::Timestamp;
use jiff::civil::Date;

/// The last resource of a population, type and id: where it is, the whole population is.
pub const COMPLETE: (&str, &str) = ("Provenance", "sample-population");

/// People and their records, the same for the same seed, number and day.
#[derive(Clone, Copy, Debug)]
pub struct Population {
    seed: u64,
    patients: u32,
    today: Date,
}

impl Population {
    /// So many patients, as their records are on that day.
    #[must_use]
    pub fn new(seed: u64, patients: u32, today: Date) -> Self {
        Self { seed, patients, today }
    }

    /// Everything, what is referred to mostly before what refers to it, and [`COMPLETE`] at the end.
    pub fn resources(&self) -> impl Iterator<Item = Resource> {
        let this = *self;
        let (staff, practitioners): (Vec<Doctor>, Vec<Resource>) =
            doctors(self.seed, self.patients as usize).into_iter().unzip();
        let groups = staff.clone();
        organizations()
            .chain(Measure::ALL.map(Measure::definition))
            .chain(practitioners)
            .chain((1..=self.patients).flat_map(move |number| this.patient(number, &staff)))
            .chain(std::iter::once_with(move || this.end(&groups)).flatten())
    }

    fn person(&self, number: u32, doctors: usize) -> (Person, Random) {
        let mut random = Random::part(self.seed, u64::from(number));
        (Person::draw(format!("p{number}"), self.today, doctors, &mut random), random)
    }

    /// One patient and all that belongs to them.
    fn patient(&self, number: u32, doctors: &[Doctor]) -> Vec<Resource> {
        let (person, mut random) = self.person(number, doctors.len());
        let subject = &person.subject;
        let mut out = Vec::with_capacity(96);
        out.push(person.patient(doctors));
        let mut evidence = Vec::new();
        let mut numbers = Numbers::new(subject.id.clone());
        let mut chart = Chart {
            subject,
            doctor: &doctors[subject.doctor],
            numbers: &mut numbers,
            evidence: &mut evidence,
            out: &mut out,
        };
        history::write(&mut chart, self.today, &mut random);
        let registered =
            chart.out.iter().filter(|it| it.resource_type == "Condition" || it.resource_type == "Patient");
        let target = registered.map(|it| Reference::to(it.reference())).collect();
        chart.provenance(target, midnight(self.today));
        self.gaps(&person, &evidence, &mut random, &mut out);
        out
    }

    /// What the measures say. Of some patients last year's are the newest: their payers are late.
    fn gaps(&self, person: &Person, evidence: &[Evidence], random: &mut Random, out: &mut Vec<Resource>) {
        let subject = &person.subject;
        let this_year = self.today.year();
        let late = random.chance(0.4);
        for measure in Measure::ALL {
            let mut assessed = |year: Year, at: Timestamp| {
                let id = format!("{}-{}-{}", subject.id, measure.id(), year.0);
                let ids = Ids { report: id.clone(), issue: id };
                let (status, resources) = assess(measure, year, subject, evidence, at, &ids);
                out.extend(resources);
                status
            };
            let (last, this, next) = (Year(this_year - 1), Year(this_year), Year(this_year + 1));
            if late && measure.concerns(subject, last) {
                let computed = days_after(first_of(this_year), 20).min(self.today);
                assessed(last, midnight(computed));
                continue;
            }
            let now = midnight(self.today);
            let status = measure.concerns(subject, this).then(|| assessed(this, now));
            if announced(measure, status, next, subject, evidence) {
                assessed(next, now);
            }
        }
    }

    /// The Groups, and the end.
    fn end(&self, doctors: &[Doctor]) -> Vec<Resource> {
        let mut teams = vec![Vec::new(); doctors.len()];
        let mut payers = vec![Vec::new(); PAYERS.len()];
        for number in 1..=self.patients {
            let (person, _) = self.person(number, doctors.len());
            teams[person.subject.doctor].push(person.subject.id.clone());
            payers[person.payer].push(person.subject.id);
        }
        let teams = teams.iter().enumerate().map(|(at, members)| (Belonging::CareTeam(at), members));
        let payers = payers.iter().enumerate().map(|(at, members)| (Belonging::Payer(at), members));
        let mut out: Vec<Resource> =
            teams.chain(payers).map(|(belonging, members)| belonging.group(doctors, members)).collect();
        let target = out.iter().map(|group| Reference::to(group.reference())).collect();
        let (resource_type, id) = COMPLETE;
        out.push(written(&Provenance {
            head: Head::new(resource_type, id.to_owned()),
            target,
            recorded: Time(midnight(self.today)),
            activity: hl7::CREATE,
            agent: [Agent {
                r#type: hl7::ASSEMBLER,
                who: Reference::to(REPORTING),
                on_behalf_of: Some(Reference::to(CLINIC)),
            }],
        }));
        out
    }
}

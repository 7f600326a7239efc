//! A clinic that goes on: what it knows, and what happens next.
//!
//! It keeps what it needs of each patient in memory, read from the database at the start ([`Records`]), and gives
//! one [`Step`] after the other: each a transaction to be written whole. Decisions follow from the seed, the run and
//! the clock. A step that was not written must not be followed by another: read anew instead.

mod events;
mod gaps;
mod records;
mod shapes;

pub use records::{NEEDED, Needed, Records, Unfit};

use crate::Resource;
use crate::chart::{Chart, Numbers};
use crate::codes;
use crate::dates::whole_seconds;
use crate::gap::{Ids, Status};
use crate::measure::{Evidence, Measure, Year};
use crate::random::Random;
use crate::resources::clinical::{MedicationRequest, Observation, Procedure};
use crate::staff::{Belonging, Doctor};
use crate::subject::Subject;
use jiff::Timestamp;
use std::collections::{BTreeMap, VecDeque};

/// So many of the latest entries can still turn out to be wrong.
const RECENT: usize = 300;

/// What is to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Write {
    /// A resource, new or changed.
    Put(Resource),
    /// A resource that was entered in error.
    Delete {
        /// Its type.
        resource_type: &'static str,
        /// Its id.
        id: String,
    },
}

/// What happened, written in one transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// What it was.
    pub event: Event,
    /// What it writes: each resource once.
    pub writes: Vec<Write>,
}

/// What can happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Event {
    /// Somebody is ill and comes.
    Illness,
    /// A chronic condition is looked at, or a child.
    Review,
    /// Results come from the laboratory.
    Results,
    /// A gap in care is attended to.
    Closing,
    /// An entry is corrected.
    Correction,
    /// An entry that was made in error is taken back.
    Retraction,
    /// For somebody another year begins to count.
    Turn,
    /// Somebody new comes.
    Registration,
    /// Somebody changes the insurer.
    Transfer,
    /// Another system sends many records at once.
    Import,
}

/// How often each happens, of a thousand. A Closing finds the less to do the fewer gaps are open.
const FREQUENCY: [(Event, usize); 10] = [
    (Event::Illness, 180),
    (Event::Review, 260),
    (Event::Results, 120),
    (Event::Closing, 190),
    (Event::Correction, 80),
    (Event::Retraction, 70),
    (Event::Turn, 50),
    (Event::Registration, 27),
    (Event::Transfer, 20),
    (Event::Import, 3),
];

/// The clinic.
#[derive(Debug)]
pub struct Clinic {
    random: Random,
    numbers: Numbers,
    doctors: Vec<Doctor>,
    members: BTreeMap<String, (Belonging, Vec<String>)>,
    patients: Vec<Patient>,
    observed: VecDeque<(usize, Observation)>,
    performed: VecDeque<(usize, Procedure)>,
}

/// A patient, as far as the clinic remembers.
#[derive(Debug)]
struct Patient {
    subject: Subject,
    evidence: Vec<Evidence>,
    gaps: BTreeMap<(Measure, Year), Gap>,
    /// What was prescribed in this run and is still taken.
    taken: Vec<MedicationRequest>,
}

/// A gap as it was written last.
#[derive(Clone, Debug)]
struct Gap {
    ids: Ids,
    status: Status,
    /// What closed it.
    by: Vec<String>,
}

impl Clinic {
    /// What happens next.
    pub fn step(&mut self, now: Timestamp) -> Step {
        let now = whole_seconds(now);
        let mut drawn = self.random.below(FREQUENCY.iter().map(|(_, times)| times).sum());
        let drawn = FREQUENCY
            .into_iter()
            .find(|(_, times)| match drawn.checked_sub(*times) {
                Some(left) => {
                    drawn = left;
                    false
                }
                None => true,
            })
            .map_or(Event::Illness, |(event, _)| event);
        // There is always somebody who can fall ill.
        [drawn, Event::Illness]
            .into_iter()
            .map(|event| Step { event, writes: self.happen(event, now) })
            .find(|step| !step.writes.is_empty())
            .unwrap_or(Step { event: Event::Illness, writes: Vec::new() })
    }

    /// How many patients there are.
    #[must_use]
    pub fn patients(&self) -> usize {
        self.patients.len()
    }

    /// One of the patients.
    fn anybody(&mut self) -> usize {
        self.random.below(self.patients.len())
    }

    /// Writes in the chart of a patient.
    fn chart<T>(
        &mut self,
        patient: usize,
        out: &mut Vec<Resource>,
        write: impl FnOnce(&mut Chart<'_>, &mut Random) -> T,
    ) -> T {
        let Patient { subject, evidence, .. } = &mut self.patients[patient];
        let mut chart = Chart {
            subject,
            doctor: &self.doctors[subject.doctor],
            numbers: &mut self.numbers,
            evidence,
            out,
        };
        write(&mut chart, &mut self.random)
    }

    /// Remembers what may turn out to be wrong.
    fn remember(&mut self, patient: usize, observed: impl IntoIterator<Item = Observation>) {
        // What is computed of others is never entered.
        let entered = observed.into_iter().filter(|it| it.code != codes::BODY_MASS_INDEX);
        self.observed.extend(entered.map(|observation| (patient, observation)));
        while self.observed.len() > RECENT {
            self.observed.pop_front();
        }
    }

    fn remember_procedure(&mut self, patient: usize, procedure: Procedure) {
        self.performed.push_back((patient, procedure));
        while self.performed.len() > RECENT {
            self.performed.pop_front();
        }
    }
}

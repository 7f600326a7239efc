//! The record of a person up to today: what a clinic would have written down of them.

use crate::body::Body;
use crate::chart::{Chart, Reading, Visit};
use crate::codes::{self, hl7};
use crate::dates::{age, days_after, months_after, office_hours};
use crate::measure::{Finding, VACCINES};
use crate::random::Random;
use crate::resources::Concept;
use crate::resources::clinical::{MedicationRequest, Observation};
use crate::staff::{CLINIC, HOSPITAL};
use crate::subject::{Chronic, Sex, Subject};
use jiff::civil::{Date, Weekday};

/// How far back ordinary visits go.
const YEARS: i32 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Occasion {
    /// At so many months of age.
    WellChild(i32),
    Annual,
    FollowUp,
    Illness,
    Colonoscopy,
    StoolTest,
    Mammography,
    Hospice,
}

impl Occasion {
    /// Whether chronic conditions are looked at.
    fn reviews(self) -> bool {
        matches!(self, Self::WellChild(_) | Self::Annual | Self::FollowUp)
    }

    /// Whether it is for them, at that day.
    fn is_for(self, subject: &Subject, day: Date) -> bool {
        let years = subject.age(day);
        match self {
            Self::WellChild(_) | Self::Annual | Self::Hospice => true,
            Self::FollowUp => subject.diagnoses.iter().any(|diagnosis| diagnosis.since <= day),
            Self::Illness => days_after(subject.birth, 90) <= day,
            Self::Colonoscopy | Self::StoolTest => (45..=80).contains(&years),
            Self::Mammography => (50..=76).contains(&years),
        }
    }
}

/// What brings people in: the condition, and whom it can befall.
pub(crate) const ILLNESSES: [(Concept, std::ops::RangeInclusive<i16>); 4] = [
    (codes::SINUSITIS, 6..=120),
    (codes::PHARYNGITIS, 2..=120),
    (codes::BRONCHITIS, 4..=120),
    (codes::OTITIS, 0..=9),
];

/// Vaccines of childhood for which no measure asks, or not at that age, and the ages in months.
const OTHER_VACCINES: [(Concept, &[i32]); 9] = [
    (codes::ROTAVIRUS, &[2, 4]),
    (codes::HEPATITIS_A, &[12, 18]),
    (codes::DTAP, &[48]),
    (codes::POLIO, &[48]),
    (codes::MMR, &[48]),
    (codes::VARICELLA, &[48]),
    (codes::TDAP, &[132]),
    (codes::HPV, &[132, 144]),
    (codes::MENINGOCOCCAL, &[132, 192]),
];

/// Writes it all, in the order of time. Nothing lies on today or after it.
pub(crate) fn write(chart: &mut Chart<'_>, today: Date, random: &mut Random) {
    let subject = chart.subject;
    let body = Body::of(subject);
    for diagnosis in &subject.diagnoses {
        chart.problem(diagnosis);
    }
    let occasions = plan(subject, today, random);
    let last_review = occasions.iter().rposition(|(_, it)| it.reviews());
    for (number, (day, occasion)) in occasions.iter().enumerate() {
        let latest = last_review == Some(number);
        happen(chart, &body, (*day, today), *occasion, latest, random);
    }
}

/// What happened when.
fn plan(subject: &Subject, today: Date, random: &mut Random) -> Vec<(Date, Occasion)> {
    let mut plan = Vec::new();
    let years = subject.age(today);
    let birth = subject.birth;
    // Some people come whenever they should, others now and then.
    let diligence = random.uniform(0.55, 1.0);
    if years < 18 {
        let early = if years <= 4 { &[1, 2, 4, 6, 9, 12, 15, 18, 24][..] } else { &[] };
        let yearly = (3..=i32::from(years)).rev().take(YEARS.unsigned_abs() as usize).map(|years| years * 12);
        for months in early.iter().copied().chain(yearly) {
            if random.chance(0.8 + 0.2 * diligence) {
                // Never early, even if it is brought forward from a weekend.
                let late = random.between(2, 12);
                plan.push((days_after(months_after(birth, months), late), Occasion::WellChild(months)));
            }
        }
    } else {
        let first = random.between(1, 365);
        for year in 0..YEARS {
            if random.chance(diligence) {
                plan.push((days_after(today, -first - 365 * year), Occasion::Annual));
            }
        }
    }
    if !subject.diagnoses.is_empty() {
        let mut ago = random.between(5, 130);
        while ago < 365 * YEARS {
            if random.chance(diligence * 0.8) {
                plan.push((days_after(today, -ago), Occasion::FollowUp));
            }
            ago += random.between(90, 180);
        }
    }
    for _ in 0..random.between(0, 3) {
        plan.push((days_after(today, -random.between(1, 365 * YEARS)), Occasion::Illness));
    }
    if years >= 46 {
        let ago = random.between(1, 3_900);
        if random.chance(0.6) && age(birth, days_after(today, -ago)) >= 45 {
            plan.push((days_after(today, -ago), Occasion::Colonoscopy));
        } else if random.chance(0.3) {
            plan.push((days_after(today, -random.between(1, 430)), Occasion::StoolTest));
        }
    }
    if subject.sex == Sex::Female && (51..=76).contains(&years) && random.chance(0.8) {
        plan.push((days_after(today, -random.between(1, 1_300)), Occasion::Mammography));
    }
    if years >= 70 && random.chance(0.05) {
        plan.push((days_after(today, -random.between(1, 300)), Occasion::Hospice));
    }
    for (day, _) in &mut plan {
        *day = working_day(*day);
    }
    plan.retain(|(day, occasion)| *day > birth && *day < today && occasion.is_for(subject, *day));
    plan.sort_by_key(|(day, _)| *day);
    // Nobody comes twice a day, and from then on the hospice cares for them.
    plan.dedup_by_key(|(day, _)| *day);
    if let Some(hospice) = plan.iter().position(|(_, it)| *it == Occasion::Hospice) {
        plan.truncate(hospice + 1);
    }
    plan
}

/// The day, or the Friday before its weekend.
fn working_day(day: Date) -> Date {
    days_after(
        day,
        match day.weekday() {
            Weekday::Saturday => -1,
            Weekday::Sunday => -2,
            _ => 0,
        },
    )
}

fn happen(
    chart: &mut Chart<'_>,
    body: &Body,
    (day, today): (Date, Date),
    occasion: Occasion,
    latest: bool,
    random: &mut Random,
) {
    let at = office_hours(day, random);
    match occasion {
        Occasion::WellChild(months) => {
            let visit = chart.visit(codes::WELL_CHILD, at, 30, CLINIC);
            chart.vital_signs(&visit, body, random);
            for (vaccine, _, ages) in VACCINES {
                // What is due at birth is given at the first visit.
                let due = ages.iter().filter(|age| **age == months || (months == 1 && **age == 0)).count();
                if due > 0 && random.chance(0.985) {
                    chart.immunize(&visit, vaccine);
                }
            }
            for (vaccine, ages) in OTHER_VACCINES {
                if ages.contains(&months) && random.chance(0.95) {
                    chart.immunize(&visit, vaccine);
                }
            }
            review(chart, body, &visit, day, latest, random);
            season(chart, &visit, day, months >= 6, random);
        }
        Occasion::Annual => {
            let grown = chart.subject.age(day) >= 18;
            let kind = if grown { codes::GENERAL_EXAMINATION } else { codes::WELL_CHILD };
            let visit = chart.visit(kind, at, 45, CLINIC);
            chart.vital_signs(&visit, body, random);
            chart.procedure(&visit, codes::MEDICATION_RECONCILIATION, None);
            if chart.subject.age(day) >= 40 {
                chart.lipids(&visit, body, random);
            }
            review(chart, body, &visit, day, latest, random);
            season(chart, &visit, day, true, random);
        }
        Occasion::FollowUp => {
            let visit = chart.visit(codes::FOLLOW_UP, at, 20, CLINIC);
            chart.vital_signs(&visit, body, random);
            review(chart, body, &visit, day, latest, random);
        }
        Occasion::Illness => {
            let visit = chart.visit(codes::SYMPTOM, at, 15, CLINIC);
            // That of the last days has not passed yet.
            let over = Some(days_after(day, random.between(7, 14))).filter(|over| *over < today);
            let over = over.map(|over| office_hours(over, random));
            ill(chart, body, &visit, over, random);
        }
        Occasion::Colonoscopy => {
            let visit = chart.visit(codes::OUTPATIENT_PROCEDURE, at, 60, HOSPITAL);
            chart.procedure(&visit, codes::COLONOSCOPY, Some(Finding::Colonoscopy));
        }
        Occasion::Mammography => {
            let visit = chart.visit(codes::OUTPATIENT_PROCEDURE, at, 30, HOSPITAL);
            chart.procedure(&visit, codes::MAMMOGRAPHY, Some(Finding::Mammography));
        }
        Occasion::StoolTest => {
            let visit = chart.visit(codes::CHECK_UP, at, 10, CLINIC);
            chart.observe(&visit, hl7::LABORATORY, codes::STOOL_TEST, Reading::Concept(codes::NEGATIVE));
        }
        Occasion::Hospice => {
            let visit = chart.visit(codes::CHECK_UP, at, 60, HOSPITAL);
            chart.procedure(&visit, codes::HOSPICE, Some(Finding::Hospice));
        }
    }
}

/// Somebody is ill: what it is, and what is given. `over`: when it has passed.
pub(crate) fn ill(
    chart: &mut Chart<'_>,
    body: &Body,
    visit: &Visit,
    over: Option<jiff::Timestamp>,
    random: &mut Random,
) -> Vec<Observation> {
    let day = crate::dates::day_of(visit.at);
    let years = chart.subject.age(day);
    let possible: Vec<Concept> =
        ILLNESSES.iter().filter(|(_, ages)| ages.contains(&years)).map(|(code, _)| *code).collect();
    let code = *random.pick(&possible);
    let fever = random.chance(0.6);
    let temperature = Reading::Quantity(Body::temperature(fever, random), "Cel");
    let pulse = Reading::Quantity(body.pulse(day, fever, random), "/min");
    let observed = vec![
        chart.observe(visit, hl7::VITAL_SIGNS, codes::TEMPERATURE, temperature),
        chart.observe(visit, hl7::VITAL_SIGNS, codes::HEART_RATE, pulse),
    ];
    let condition = chart.illness(visit, code, over);
    // An infant's dose is not for tablets.
    let medication = match years {
        ..2 => None,
        2..12 => Some((codes::ACETAMINOPHEN_CHEWABLE, "1 tablet every 6 hours as needed")),
        // The other one is not for the old, nor for those with a high blood pressure.
        _ if years >= 65 || chart.subject.has(Chronic::Hypertension, day) || random.chance(0.5) => {
            Some((codes::ACETAMINOPHEN, "2 tablets every 6 hours as needed"))
        }
        _ => Some((codes::IBUPROFEN, "2 tablets every 8 hours as needed, with food")),
    };
    if let Some(medication) = medication {
        let status = if over.is_some() { "completed" } else { "active" };
        chart.prescribe(visit, medication, &condition, status);
    }
    observed
}

/// The chronic conditions are looked at, and their medication is renewed. `latest`: that of this visit is still taken.
pub(crate) fn review(
    chart: &mut Chart<'_>,
    body: &Body,
    visit: &Visit,
    day: Date,
    latest: bool,
    random: &mut Random,
) -> Reviewed {
    let subject = chart.subject;
    let mut reviewed = Reviewed::default();
    if subject.has(Chronic::Diabetes, day) {
        let percent = body.a1c(day, random);
        reviewed.observed.push(chart.laboratory(visit, codes::HBA1C, percent, "%"));
    }
    if subject.has(Chronic::Hypertension, day) || subject.has(Chronic::Diabetes, day) {
        chart.metabolism(visit, body, random);
    }
    for diagnosis in subject.diagnoses.iter().filter(|diagnosis| diagnosis.since <= day) {
        let status = if latest { "active" } else { "completed" };
        // The same one each time.
        let choice = diagnosis.chronic.medication();
        let medication = choice[usize::from(subject.birth.day().unsigned_abs()) % choice.len()];
        reviewed.prescribed.push(chart.prescribe(visit, medication, &diagnosis.condition, status));
    }
    reviewed
}

/// What came of a review.
#[derive(Default)]
pub(crate) struct Reviewed {
    pub(crate) observed: Vec<Observation>,
    pub(crate) prescribed: Vec<MedicationRequest>,
}

/// In autumn many are vaccinated against influenza.
fn season(chart: &mut Chart<'_>, visit: &Visit, day: Date, old_enough: bool, random: &mut Random) {
    if old_enough && day.month() >= 9 && random.chance(0.6) {
        chart.immunize(visit, codes::INFLUENZA);
    }
}

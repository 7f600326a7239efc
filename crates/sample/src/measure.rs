//! The five measures: whom each concerns, what it asks for, and what a patient's evidence says.

use crate::Resource;
use crate::codes::{self, hl7};
use crate::dates::{first_of, last_of, months_after};
use crate::resources::quality::{Expression, Measure as Definition, MeasureGroup, MeasurePopulation};
use crate::resources::{Concept, Head, written};
use crate::subject::{Chronic, Sex, Subject};
use jiff::civil::Date;

/// A measure of quality.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Measure {
    /// Colorectal cancer screening.
    Colorectal,
    /// Breast cancer screening.
    Breast,
    /// Haemoglobin A1c control in diabetes.
    Hba1c,
    /// Blood pressure control in hypertension.
    BloodPressure,
    /// Childhood immunization.
    Childhood,
}

/// A year for which a measure is computed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Year(pub(crate) i16);

impl Year {
    pub(crate) fn start(self) -> Date {
        first_of(self.0)
    }

    pub(crate) fn end(self) -> Date {
        last_of(self.0)
    }

    fn holds(self, day: Date) -> bool {
        day.year() == self.0
    }
}

/// What a resource shows that a measure asks for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Finding {
    /// Somebody was seen.
    Visit,
    Colonoscopy,
    StoolTest,
    Mammography,
    /// Per cent.
    Hba1c(f64),
    /// Systolic and diastolic.
    BloodPressure(f64, f64),
    /// Which of [`VACCINES`].
    Vaccine(usize),
    /// Care that no longer aims at prevention.
    Hospice,
}

/// A resource that counts.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Evidence {
    pub(crate) finding: Finding,
    /// Such as `Procedure/…`.
    pub(crate) resource: String,
    pub(crate) on: Date,
}

/// The vaccines that a child should have had by the second birthday, how often, and at which ages in months.
pub(crate) const VACCINES: [(Concept, usize, &[i32]); 7] = [
    (codes::DTAP, 4, &[2, 4, 6, 15]),
    (codes::POLIO, 3, &[2, 4, 6]),
    (codes::MMR, 1, &[12]),
    (codes::HIB, 3, &[2, 4, 12]),
    (codes::HEPATITIS_B, 3, &[0, 2, 6]),
    (codes::VARICELLA, 1, &[12]),
    (codes::PNEUMOCOCCAL, 4, &[2, 4, 6, 12]),
];

/// What the evidence says.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Judgement<'a> {
    /// Excluded, for that reason.
    NotApplicable(&'a Evidence),
    /// Done, and by what.
    Met(Vec<&'a Evidence>),
    /// Not done; what there is of it.
    Unmet(Vec<&'a Evidence>),
}

impl Measure {
    /// Every measure.
    pub const ALL: [Self; 5] =
        [Self::Colorectal, Self::Breast, Self::Hba1c, Self::BloodPressure, Self::Childhood];

    /// The id of its Measure.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::Colorectal => "colorectal-cancer-screening",
            Self::Breast => "breast-cancer-screening",
            Self::Hba1c => "hba1c-control",
            Self::BloodPressure => "blood-pressure-control",
            Self::Childhood => "childhood-immunization",
        }
    }

    /// What it is called.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Colorectal => "Colorectal Cancer Screening",
            Self::Breast => "Breast Cancer Screening",
            Self::Hba1c => "Diabetes: HbA1c Control (< 8%)",
            Self::BloodPressure => "Controlling High Blood Pressure (< 140/90)",
            Self::Childhood => "Childhood Immunization Status",
        }
    }

    /// Its canonical URL with its version, as reports name it.
    #[must_use]
    pub fn canonical(self) -> String {
        format!("{}|{VERSION}", self.url())
    }

    fn url(self) -> String {
        format!("https://fhir-tail.example/Measure/{}", self.id())
    }

    /// Read back from a report.
    #[must_use]
    pub fn of_canonical(canonical: &str) -> Option<Self> {
        let url = canonical.split_once('|').map_or(canonical, |(url, _)| url);
        Self::ALL.into_iter().find(|measure| measure.url() == url)
    }

    /// Whether it concerns them in that year.
    pub(crate) fn concerns(self, subject: &Subject, year: Year) -> bool {
        let age = subject.age(year.end());
        match self {
            Self::Colorectal => (46..=75).contains(&age),
            Self::Breast => subject.sex == Sex::Female && (52..=74).contains(&age),
            Self::Hba1c => (18..=75).contains(&age) && subject.has(Chronic::Diabetes, year.end()),
            Self::BloodPressure => (18..=85).contains(&age) && subject.has(Chronic::Hypertension, year.end()),
            Self::Childhood => age == 2,
        }
    }

    /// What the evidence says of that year.
    pub(crate) fn judge<'a>(self, subject: &Subject, evidence: &'a [Evidence], year: Year) -> Judgement<'a> {
        let until = |evidence: &&Evidence| evidence.on <= year.end();
        let hospice = evidence.iter().filter(until).find(|evidence| evidence.finding == Finding::Hospice);
        if let Some(hospice) = hospice {
            return Judgement::NotApplicable(hospice);
        }
        match self {
            Self::Colorectal => {
                let since = months_after(year.start(), -9 * 12);
                newest(evidence.iter().filter(until).filter(|it| match it.finding {
                    Finding::Colonoscopy => it.on >= since,
                    Finding::StoolTest => year.holds(it.on),
                    _ => false,
                }))
                .map_or(Judgement::Unmet(Vec::new()), |it| Judgement::Met(vec![it]))
            }
            Self::Breast => {
                // 27 months: every two years, and a quarter to get there.
                let since = months_after(year.start(), -15);
                newest(
                    evidence
                        .iter()
                        .filter(until)
                        .filter(|it| it.finding == Finding::Mammography && it.on >= since),
                )
                .map_or(Judgement::Unmet(Vec::new()), |it| Judgement::Met(vec![it]))
            }
            Self::Hba1c => latest(evidence, year, |finding| match finding {
                Finding::Hba1c(percent) => Some(percent < 8.0),
                _ => None,
            }),
            Self::BloodPressure => latest(evidence, year, |finding| match finding {
                Finding::BloodPressure(systolic, diastolic) => Some(systolic < 140.0 && diastolic < 90.0),
                _ => None,
            }),
            Self::Childhood => {
                let birthday = months_after(subject.birth, 24);
                let given: Vec<&Evidence> = evidence
                    .iter()
                    .filter(|it| matches!(it.finding, Finding::Vaccine(_)) && it.on <= birthday)
                    .collect();
                if missing(&given).is_empty() { Judgement::Met(given) } else { Judgement::Unmet(given) }
            }
        }
    }

    /// What tells whom it concerns, and whether they were seen: the newest visit of the year or before.
    pub(crate) fn visit(evidence: &[Evidence], year: Year) -> Option<&Evidence> {
        newest(evidence.iter().filter(|it| it.finding == Finding::Visit && it.on <= year.end()))
    }

    /// Its definition.
    pub(crate) fn definition(self) -> Resource {
        let (name, description, kind, numerator) = match self {
            Self::Colorectal => (
                "ColorectalCancerScreening",
                "Adults of 46 to 75 years who had a colonoscopy in the last ten years or a stool test in this one.",
                hl7::PROCESS,
                "A colonoscopy in the measurement year or the nine before it, or a stool test in the measurement year",
            ),
            Self::Breast => (
                "BreastCancerScreening",
                "Women of 52 to 74 years who had a mammography in the 27 months up to the end of the year.",
                hl7::PROCESS,
                "A mammography in the 27 months up to the end of the measurement year",
            ),
            Self::Hba1c => (
                "HbA1cControl",
                "Adults of 18 to 75 years with diabetes whose latest HbA1c of the year is below 8%.",
                hl7::OUTCOME,
                "The latest HbA1c of the measurement year is below 8%",
            ),
            Self::BloodPressure => (
                "BloodPressureControl",
                "Adults of 18 to 85 years with hypertension whose latest blood pressure of the year is below 140/90.",
                hl7::OUTCOME,
                "The latest blood pressure of the measurement year is below 140/90 mm Hg",
            ),
            Self::Childhood => (
                "ChildhoodImmunization",
                "Children who turn two in the year and had 4 DTaP, 3 polio, 1 MMR, 3 Hib, 3 hepatitis B, 1 varicella and \
                 4 pneumococcal vaccinations by then.",
                hl7::PROCESS,
                "All vaccinations by the second birthday",
            ),
        };
        let population = [
            ("initial-population", hl7::INITIAL_POPULATION, description, "Initial Population"),
            ("denominator", hl7::DENOMINATOR, "As the initial population", "Denominator"),
            ("denominator-exclusion", hl7::EXCLUSION, "In hospice care", "Denominator Exclusion"),
            ("numerator", hl7::NUMERATOR, numerator, "Numerator"),
        ];
        written(&Definition {
            head: Head::new("Measure", self.id().to_owned()),
            url: self.url(),
            version: VERSION,
            name,
            title: self.title(),
            status: "active",
            experimental: true,
            date: "2026-01-01",
            publisher: "fhir-tail sample data",
            description,
            scoring: hl7::PROPORTION,
            r#type: [kind],
            improvement_notation: hl7::INCREASE,
            group: [MeasureGroup {
                id: self.id(),
                population: population
                    .into_iter()
                    .map(|(id, code, description, expression)| MeasurePopulation {
                        id,
                        code,
                        description,
                        criteria: Expression { language: "text/cql-identifier", expression },
                    })
                    .collect(),
            }],
        })
    }
}

/// The version of all definitions.
const VERSION: &str = "1.0.0";

/// The vaccines of which a child has not had enough, with how many are lacking.
pub(crate) fn missing(given: &[&Evidence]) -> Vec<(usize, usize)> {
    let count = |vaccine| given.iter().filter(|it| it.finding == Finding::Vaccine(vaccine)).count();
    VACCINES
        .iter()
        .enumerate()
        .filter_map(|(vaccine, (_, needed, _))| Some((vaccine, needed.checked_sub(count(vaccine))?)))
        .filter(|(_, lacking)| *lacking > 0)
        .collect()
}

/// The one of the latest day; of several of that day the last that was recorded.
fn newest<'a>(evidence: impl Iterator<Item = &'a Evidence>) -> Option<&'a Evidence> {
    evidence.max_by_key(|it| it.on)
}

/// Whether the year's last reading is good.
fn latest(evidence: &[Evidence], year: Year, good: impl Fn(Finding) -> Option<bool>) -> Judgement<'_> {
    let readings = evidence.iter().filter(|it| year.holds(it.on) && good(it.finding).is_some());
    match newest(readings) {
        Some(it) if good(it.finding) == Some(true) => Judgement::Met(vec![it]),
        Some(it) => Judgement::Unmet(vec![it]),
        None => Judgement::Unmet(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Diagnosis;
    use jiff::civil::date;

    const YEAR: Year = Year(2026);

    fn woman(birth: Date) -> Subject {
        let diagnoses = [Chronic::Diabetes, Chronic::Hypertension].map(|chronic| Diagnosis {
            chronic,
            condition: "Condition/c".to_owned(),
            since: date(2020, 5, 1),
        });
        Subject {
            id: "p".to_owned(),
            name: "Ann".to_owned(),
            sex: Sex::Female,
            birth,
            doctor: 0,
            diagnoses: diagnoses.to_vec(),
        }
    }

    fn evidence(finding: Finding, on: Date) -> Evidence {
        Evidence { finding, resource: format!("Any/{on}"), on }
    }

    fn met(measure: Measure, birth: Date, evidence: &[Evidence]) -> bool {
        matches!(measure.judge(&woman(birth), evidence, YEAR), Judgement::Met(_))
    }

    #[test]
    fn each_concerns_its_ages() {
        for (measure, ages) in [
            (Measure::Colorectal, 46..=75),
            (Measure::Breast, 52..=74),
            (Measure::Hba1c, 18..=75),
            (Measure::BloodPressure, 18..=85),
            (Measure::Childhood, 2..=2),
        ] {
            for age in 0..100 {
                let subject = woman(date(2026 - age, 12, 31));
                assert_eq!(measure.concerns(&subject, YEAR), ages.contains(&age), "{measure:?} at {age}");
            }
        }
        let man = Subject { sex: Sex::Male, ..woman(date(1960, 1, 1)) };
        assert!(!Measure::Breast.concerns(&man, YEAR));
        let healthy = Subject { diagnoses: Vec::new(), ..woman(date(1960, 1, 1)) };
        assert!(!Measure::Hba1c.concerns(&healthy, YEAR) && !Measure::BloodPressure.concerns(&healthy, YEAR));
    }

    #[test]
    fn screenings_count_as_long_as_they_should() {
        let birth = date(1965, 3, 3);
        let colorectal = |finding, on| met(Measure::Colorectal, birth, &[evidence(finding, on)]);
        assert!(colorectal(Finding::Colonoscopy, date(2017, 1, 1)));
        assert!(!colorectal(Finding::Colonoscopy, date(2016, 12, 31)));
        assert!(!colorectal(Finding::Colonoscopy, date(2027, 1, 1)));
        assert!(colorectal(Finding::StoolTest, date(2026, 12, 31)));
        assert!(!colorectal(Finding::StoolTest, date(2025, 12, 31)));
        let breast = |on| met(Measure::Breast, birth, &[evidence(Finding::Mammography, on)]);
        assert!(breast(date(2024, 10, 1)));
        assert!(!breast(date(2024, 9, 30)));
    }

    #[test]
    fn the_latest_reading_of_the_year_decides() {
        let birth = date(1965, 3, 3);
        let good = evidence(Finding::Hba1c(7.9), date(2026, 2, 1));
        let bad = evidence(Finding::Hba1c(8.0), date(2026, 6, 1));
        assert!(met(Measure::Hba1c, birth, std::slice::from_ref(&good)));
        assert!(!met(Measure::Hba1c, birth, &[good.clone(), bad.clone()]));
        assert!(!met(Measure::Hba1c, birth, &[bad, good]));
        assert!(!met(Measure::Hba1c, birth, &[evidence(Finding::Hba1c(7.0), date(2025, 6, 1))]));
        let pressure = |systolic, diastolic| {
            met(
                Measure::BloodPressure,
                birth,
                &[evidence(Finding::BloodPressure(systolic, diastolic), date(2026, 6, 1))],
            )
        };
        assert!(pressure(139.0, 89.0));
        assert!(!pressure(140.0, 80.0) && !pressure(120.0, 90.0));
    }

    #[test]
    fn a_child_needs_all_vaccines_by_the_second_birthday() {
        let birth = date(2024, 6, 15);
        let mut all: Vec<Evidence> = VACCINES
            .iter()
            .enumerate()
            .flat_map(|(vaccine, (_, needed, ages))| {
                assert_eq!(*needed, ages.len());
                ages.iter().map(move |age| evidence(Finding::Vaccine(vaccine), months_after(birth, *age)))
            })
            .collect();
        assert!(met(Measure::Childhood, birth, &all));
        all[3].on = date(2026, 6, 16);
        assert!(!met(Measure::Childhood, birth, &all));
        let given: Vec<&Evidence> = all.iter().filter(|it| it.on < date(2026, 6, 16)).collect();
        assert_eq!(missing(&given), [(0, 1)]);
    }

    #[test]
    fn hospice_care_excludes() {
        let evidence = [evidence(Finding::Hospice, date(2025, 1, 1))];
        let subject = woman(date(1960, 1, 1));
        assert_eq!(
            Measure::Colorectal.judge(&subject, &evidence, YEAR),
            Judgement::NotApplicable(&evidence[0])
        );
    }

    #[test]
    fn a_canonical_is_read_back() {
        for measure in Measure::ALL {
            assert_eq!(Measure::of_canonical(&measure.canonical()), Some(measure));
        }
        assert_eq!(Measure::of_canonical("https://fhir-tail.example/Measure/other|1.0.0"), None);
    }
}

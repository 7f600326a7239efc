//! A patient, as far as charts and measures need to know.

use crate::codes;
use crate::dates::age;
use crate::resources::{Concept, Reference};
use jiff::civil::Date;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sex {
    Female,
    Male,
}

impl Sex {
    /// FHIR's code.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Female => "female",
            Self::Male => "male",
        }
    }
}

/// A condition that stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Chronic {
    Hypertension,
    Diabetes,
    Hyperlipidemia,
    Asthma,
}

impl Chronic {
    pub(crate) const ALL: [Self; 4] =
        [Self::Hypertension, Self::Diabetes, Self::Hyperlipidemia, Self::Asthma];

    pub(crate) const fn concept(self) -> Concept {
        match self {
            Self::Hypertension => codes::HYPERTENSION,
            Self::Diabetes => codes::DIABETES,
            Self::Hyperlipidemia => codes::HYPERLIPIDEMIA,
            Self::Asthma => codes::ASTHMA,
        }
    }

    /// What it is treated with, and how that is taken.
    pub(crate) fn medication(self) -> &'static [(Concept, &'static str)] {
        match self {
            Self::Hypertension => &[
                (codes::LISINOPRIL, "1 tablet once daily"),
                (codes::AMLODIPINE, "1 tablet once daily"),
                (codes::HYDROCHLOROTHIAZIDE, "1 tablet every morning"),
            ],
            Self::Diabetes => &[(codes::METFORMIN, "2 tablets once daily with the evening meal")],
            Self::Hyperlipidemia => &[(codes::SIMVASTATIN, "1 tablet every evening")],
            Self::Asthma => &[(codes::FLUTICASONE, "2 puffs twice daily")],
        }
    }
}

/// A chronic condition of a patient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Diagnosis {
    pub(crate) chronic: Chronic,
    /// `Condition/…`.
    pub(crate) condition: String,
    pub(crate) since: Date,
}

/// Who is treated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Subject {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) sex: Sex,
    pub(crate) birth: Date,
    /// Which of the practitioners is theirs.
    pub(crate) doctor: usize,
    pub(crate) diagnoses: Vec<Diagnosis>,
}

impl Subject {
    pub(crate) fn reference(&self) -> Reference {
        Reference::to(format!("Patient/{}", self.id))
    }

    pub(crate) fn age(&self, on: Date) -> i16 {
        age(self.birth, on)
    }

    pub(crate) fn diagnosis(&self, of: Chronic) -> Option<&Diagnosis> {
        self.diagnoses.iter().find(|diagnosis| diagnosis.chronic == of)
    }

    /// Whether they have it at that day.
    pub(crate) fn has(&self, chronic: Chronic, on: Date) -> bool {
        self.diagnosis(chronic).is_some_and(|diagnosis| diagnosis.since <= on)
    }
}

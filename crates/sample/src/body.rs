//! A patient's body: what would be measured on a day. Each value has a level of its own, a trend over the years, and
//! some scatter, so that a record shows a history and not noise.
//!
//! It follows from who the patient is and nothing else, so that nobody has to remember it.

use crate::dates::{first_of, years_between};
use crate::random::Random;
use crate::subject::{Chronic, Sex, Subject};
use fhir::stable_hash;
use jiff::civil::Date;

/// Age in years, and height in cm and weight in kg in the middle of it.
const GROWTH: [(f64, f64, f64); 12] = [
    (0.0, 50.0, 3.4),
    (0.5, 67.0, 7.8),
    (1.0, 75.0, 9.6),
    (2.0, 87.0, 12.2),
    (3.0, 95.0, 14.3),
    (5.0, 109.0, 18.3),
    (8.0, 128.0, 26.0),
    (10.0, 138.0, 32.0),
    (12.0, 150.0, 41.0),
    (14.0, 160.0, 51.0),
    (16.0, 166.0, 59.0),
    (18.0, 169.0, 64.0),
];

/// Where trends are counted from.
const EPOCH: i16 = 2024;

/// A value that changes slowly.
#[derive(Clone, Copy, Debug)]
struct Trend {
    level: f64,
    yearly: f64,
    scatter: f64,
}

impl Trend {
    fn on(self, day: Date, random: &mut Random) -> f64 {
        let years = years_between(first_of(EPOCH), day).clamp(-10.0, 10.0);
        random.near(self.level + self.yearly * years, self.scatter)
    }
}

/// What can be measured.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    birth: Date,
    /// Compared with the middle of the age.
    height: f64,
    weight: f64,
    pulse: Trend,
    systolic: Trend,
    a1c: Trend,
    ldl: Trend,
    hdl: Trend,
    triglycerides: Trend,
    creatinine: Trend,
}

impl Body {
    pub(crate) fn of(subject: &Subject) -> Self {
        let mut random = Random::part(
            u64::from(stable_hash(subject.id.bytes().chain(subject.birth.to_string().bytes()))),
            0,
        );
        let random = &mut random;
        let has = |chronic| subject.diagnosis(chronic).is_some();
        let tall = if subject.sex == Sex::Male { 1.035 } else { 0.965 };
        let height = random.uniform(0.95, 1.05) * tall;
        let heavy = if has(Chronic::Diabetes) { 1.4 } else { 1.2 };
        let mut trend = |(least, most): (f64, f64), yearly: f64, scatter: f64| Trend {
            level: random.uniform(least, most),
            yearly: random.near(yearly, yearly.abs() / 3.0),
            scatter,
        };
        Self {
            birth: subject.birth,
            pulse: trend((62.0, 82.0), 0.0, 4.0),
            systolic: if has(Chronic::Hypertension) {
                trend((124.0, 150.0), -1.0, 5.0)
            } else {
                trend((104.0, 128.0), 0.5, 4.0)
            },
            a1c: if has(Chronic::Diabetes) {
                trend((6.4, 8.8), -0.1, 0.25)
            } else {
                trend((4.9, 5.6), 0.01, 0.1)
            },
            ldl: if has(Chronic::Hyperlipidemia) {
                trend((95.0, 165.0), -4.0, 8.0)
            } else {
                trend((70.0, 125.0), 0.5, 7.0)
            },
            hdl: trend((38.0, 66.0), 0.1, 3.0),
            triglycerides: trend((70.0, 190.0), 1.0, 15.0),
            creatinine: trend((0.65, 1.15), 0.01, 0.05),
            height,
            // What is tall weighs more: the body mass index is what differs between people.
            weight: random.uniform(0.85, 1.25) * height.powi(2),
        }
        .heavier(heavy)
    }

    /// Adults weigh more than at 18.
    fn heavier(mut self, adults: f64) -> Self {
        if years_between(self.birth, first_of(EPOCH)) >= 18.0 {
            self.weight *= adults;
        }
        self
    }

    fn growth(&self, on: Date) -> (f64, f64) {
        let age = years_between(self.birth, on).max(0.0);
        let mut before = GROWTH[0];
        for point in GROWTH {
            if point.0 > age {
                let part = (age - before.0) / (point.0 - before.0);
                return (before.1 + part * (point.1 - before.1), before.2 + part * (point.2 - before.2));
            }
            before = point;
        }
        (before.1, before.2)
    }

    /// cm
    pub(crate) fn height(&self, on: Date) -> f64 {
        rounded(self.growth(on).0 * self.height, 1)
    }

    /// kg
    pub(crate) fn weight(&self, on: Date, random: &mut Random) -> f64 {
        rounded(self.growth(on).1 * self.weight * random.near(1.0, 0.01), 1)
    }

    /// Beats a minute; in a fever more.
    pub(crate) fn pulse(&self, on: Date, fever: bool, random: &mut Random) -> f64 {
        let young = (55.0 - 4.5 * years_between(self.birth, on)).max(0.0);
        let fever = if fever { random.near(14.0, 3.0) } else { 0.0 };
        rounded(self.pulse.on(on, random) + young + fever, 0)
    }

    /// Degrees Celsius; in a fever more.
    pub(crate) fn temperature(fever: bool, random: &mut Random) -> f64 {
        rounded(if fever { random.near(38.2, 0.3) } else { random.near(36.8, 0.2) }, 1)
    }

    /// Systolic and diastolic, mm Hg.
    pub(crate) fn blood_pressure(&self, on: Date, random: &mut Random) -> (f64, f64) {
        let young = (2.0 * (years_between(self.birth, on) - 18.0)).clamp(-30.0, 0.0);
        let systolic = rounded(self.systolic.on(on, random) + young, 0);
        (systolic, rounded(random.near(0.62 * systolic, 2.0), 0))
    }

    /// Per cent.
    pub(crate) fn a1c(&self, on: Date, random: &mut Random) -> f64 {
        rounded(self.a1c.on(on, random).max(4.5), 1)
    }

    /// mg/dL, from what the haemoglobin says of the last months.
    pub(crate) fn glucose(&self, on: Date, random: &mut Random) -> f64 {
        let mean = 28.7 * self.a1c.on(on, random) - 46.7;
        rounded(random.near(mean, 6.0).max(60.0), 0)
    }

    /// mg/dL
    pub(crate) fn creatinine(&self, on: Date, random: &mut Random) -> f64 {
        rounded(self.creatinine.on(on, random).max(0.4), 2)
    }

    /// Total, triglycerides, LDL, HDL: mg/dL. They obey Friedewald's formula.
    pub(crate) fn lipids(&self, on: Date, random: &mut Random) -> [f64; 4] {
        let triglycerides = rounded(self.triglycerides.on(on, random).max(40.0), 0);
        let ldl = rounded(self.ldl.on(on, random).max(40.0), 0);
        let hdl = rounded(self.hdl.on(on, random).max(25.0), 0);
        [rounded(ldl + hdl + triglycerides / 5.0, 0), triglycerides, ldl, hdl]
    }
}

/// To so many digits after the point.
pub(crate) fn rounded(value: f64, digits: i32) -> f64 {
    let factor = 10_f64.powi(digits);
    (value * factor).round() / factor
}

//! The measures are computed again when there is a reason to, and gaps open and close.

use super::{Clinic, Gap, Patient};
use crate::Resource;
use crate::dates::day_of;
use crate::gap::{Ids, Status, announced, assess};
use crate::measure::{Finding, Judgement, Measure, Year};
use jiff::Timestamp;

/// So much evidence of a patient is kept before what newer evidence has replaced is forgotten.
const KEPT: usize = 60;

impl Clinic {
    /// Computes a patient's measures: what changed is written. `touched`: evidence that was changed itself.
    pub(super) fn reassess(
        &mut self,
        patient: usize,
        touched: Option<&str>,
        now: Timestamp,
        out: &mut Vec<Resource>,
    ) {
        let this = Year(day_of(now).year());
        for measure in Measure::ALL {
            let Patient { subject, evidence, gaps, .. } = &self.patients[patient];
            let of_measure = gaps.iter().filter(|((of, _), _)| *of == measure);
            let changed: Vec<Year> = of_measure
                .clone()
                .filter(|((_, year), gap)| {
                    let judgement = measure.judge(subject, evidence, *year);
                    Status::of(&judgement, *year, now) != gap.status
                        || touched.is_some_and(|touched| gap.by.iter().any(|by| by == touched))
                })
                .map(|((_, year), _)| *year)
                .collect();
            // Whose last year still counts comes into this one by a turn.
            let counted = of_measure.clone().any(|((_, year), _)| *year <= this);
            let first = !counted && measure.concerns(subject, this);
            for year in changed {
                // Some systems change what they said, some say something new.
                let anew = self.random.chance(0.5);
                self.assess(patient, measure, year, anew, now, out);
            }
            if first && !self.patients[patient].gaps.contains_key(&(measure, this)) {
                self.assess(patient, measure, this, true, now, out);
            }
            let next = Year(this.0 + 1);
            let Patient { subject, evidence, gaps, .. } = &self.patients[patient];
            let status = gaps.get(&(measure, this)).map(|gap| gap.status);
            if !gaps.contains_key(&(measure, next)) && announced(measure, status, next, subject, evidence) {
                self.assess(patient, measure, next, true, now, out);
            }
        }
        self.forget(patient);
    }

    /// Computes a measure and writes report and issue: anew, or over those that there are.
    pub(super) fn assess(
        &mut self,
        patient: usize,
        measure: Measure,
        year: Year,
        anew: bool,
        now: Timestamp,
        out: &mut Vec<Resource>,
    ) {
        let Patient { subject, evidence, gaps, .. } = &mut self.patients[patient];
        let ids = match gaps.get(&(measure, year)) {
            Some(gap) if !anew => gap.ids.clone(),
            _ => Ids { report: self.numbers.next(), issue: self.numbers.next() },
        };
        let (status, resources) = assess(measure, year, subject, evidence, now, &ids);
        let by = match measure.judge(subject, evidence, year) {
            Judgement::Met(by) => by.iter().map(|it| it.resource.clone()).collect(),
            Judgement::NotApplicable(_) | Judgement::Unmet(_) => Vec::new(),
        };
        gaps.insert((measure, year), Gap { ids, status, by });
        out.extend(resources);
    }

    /// Forgets old readings and visits, of which only the latest decides.
    fn forget(&mut self, patient: usize) {
        let evidence = &mut self.patients[patient].evidence;
        if evidence.len() <= KEPT {
            return;
        }
        let mut spare = evidence.len() - KEPT / 2;
        evidence.retain(|it| {
            let replaced =
                matches!(it.finding, Finding::Visit | Finding::BloodPressure(..) | Finding::Hba1c(_))
                    && spare > 0;
            spare -= usize::from(replaced);
            !replaced
        });
    }
}

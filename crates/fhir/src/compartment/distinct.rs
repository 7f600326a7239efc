//! Collects the ids of patients that a resource names, each of them once.

use super::Patients;
use std::borrow::Cow;

/// Ids that were added. What is held is at most about twice as many as are different, and adding `n` of
/// them takes `n log n` steps at most.
///
/// Most resources name one patient, however often: for these nothing is allocated.
#[derive(Default)]
pub(super) struct Distinct<'a> {
    first: Option<Cow<'a, str>>,
    /// Others than the first. Repetitions are removed when there are `limit` of them.
    more: Vec<Cow<'a, str>>,
    limit: usize,
}

/// From how many ids on repetitions are looked for.
const SMALL: usize = 16;

impl<'a> Distinct<'a> {
    /// Adds a valid id.
    pub(super) fn add(&mut self, id: Cow<'a, str>) {
        match &self.first {
            None => self.first = Some(id),
            Some(first) if *first == id => {}
            Some(_) if self.more.last() == Some(&id) => {}
            Some(_) => {
                if self.more.len() >= self.limit.max(SMALL) {
                    self.more.sort_unstable();
                    self.more.dedup();
                    self.limit = 2 * self.more.len();
                }
                self.more.push(id);
            }
        }
    }

    /// The set of them.
    pub(super) fn patients(self) -> Patients {
        let ids = self.first.iter().chain(&self.more).map(|id| &**id);
        if self.more.is_empty() { Patients::from_sorted(ids) } else { Patients::from_ids(ids) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_take_no_room() {
        let mut found = Distinct::default();
        let ids: Vec<String> = (0..20).map(|number| format!("p{number}")).collect();
        for id in ids.iter().cycle().take(100_000) {
            found.add(Cow::Borrowed(id));
            assert!(found.more.len() <= 2 * ids.len());
        }
        assert_eq!(found.patients(), Patients::from_ids(ids.iter().map(String::as_str)));
    }

    #[test]
    fn one_patient_allocates_nothing() {
        let mut found = Distinct::default();
        for _ in 0..1_000 {
            found.add(Cow::Borrowed("p"));
        }
        assert_eq!(found.more.capacity(), 0);
    }

    /// What is looked at again when repetitions are removed is bounded by what was added since.
    #[test]
    fn many_different_ones_are_sorted_seldom() {
        let ids: Vec<String> = (0..100_000).rev().map(|number| format!("p{number}")).collect();
        let (mut found, mut sorted, mut limit) = (Distinct::default(), 0, 0);
        for id in &ids {
            found.add(Cow::Borrowed(id));
            if found.limit != limit {
                limit = found.limit;
                sorted += found.more.len();
            }
        }
        assert!(sorted < 3 * ids.len(), "{sorted} were sorted on the way");
        assert_eq!(found.patients().iter().count(), ids.len());
    }
}

use super::*;
use crate::group::Members;
use crate::{Change, Kind, Position};
use bytes::Bytes;
use fhir::{Filter, Instant, TypeSet};
use proptest::prelude::*;

const PATIENTS: usize = AT_ONCE + 40;

fn name(patient: usize) -> String {
    format!("p{patient}")
}

/// A channel, and what it hears of.
struct Listener {
    channel: usize,
    change_filter: ChangeFilter,
}

impl Listener {
    fn hears_of(&self, change: &Change) -> bool {
        let has = |patients: &Patients| match &self.change_filter {
            ChangeFilter::Members(members) => members.send.has_any(patients),
            ChangeFilter::Request(filter) => filter.compartment.contains(patients),
        };
        match &change.before {
            Before::Unknown => true,
            Before::Nothing => has(&change.patients),
            Before::Patients(before) => has(&change.patients) || has(before),
        }
    }
}

fn of_members(set: &Arc<PatientSet>, group: &str) -> ChangeFilter {
    let groups = Arc::new([Box::from(group)].into_iter().collect());
    let members = Members { patients: set.clone(), groups, next: None };
    let filter = Filter::of_group(TypeSet::default(), group, None);
    ChangeFilter::Members(MemberFilter::settled(&filter, &members, Position::ZERO))
}

fn change(patients: &[usize], before: Before) -> Change {
    let names: Vec<String> = patients.iter().copied().map(name).collect();
    Change {
        position: Position::ZERO,
        stamp: Instant::MIN,
        resource_type: "Observation".parse().unwrap(),
        kind: Kind::Upsert,
        patients: Patients::from_ids(names.iter().map(String::as_str)),
        before,
        group_before: None,
        tick: None,
        data: Bytes::new(),
    }
}

fn found(routes: &Routes, change: &Change) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    routes.each(change, |channel| {
        found.insert(channel);
    });
    found
}

/// Does a part of the work that there is.
fn work(routes: &mut Routes, at_hand: &mut Option<(Work, Vec<u64>)>) {
    if at_hand.is_none() {
        *at_hand = routes.next_work().map(|work| {
            let hashes = work.patients.iter().map(|id| work.hash(id)).collect();
            (work, hashes)
        });
    }
    if let Some((work, hashes)) = at_hand {
        let slice = hashes.split_off(hashes.len().saturating_sub(200));
        if !routes.proceed(work, &slice) {
            *at_hand = None;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Over sets that come and go, the index says what a look at each of them says.
    #[test]
    fn the_index_and_a_look_at_every_set_agree(seed in any::<u64>()) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut routes = Routes::new();
        let mut listeners: Vec<Listener> = Vec::new();
        let mut sets: Vec<Arc<PatientSet>> = Vec::new();
        let (mut next, mut at_hand) = (0, None);
        for _ in 0..200 {
            match random.u8(..10) {
                // A set that others may listen to, too; some are large.
                0..4 => {
                    if sets.len() < 2 || random.u8(..3) == 0 {
                        let most = if random.bool() { PATIENTS } else { 6 };
                        let mut set = PatientSet::default();
                        let names: Vec<_> = (0..most).filter(|_| random.u8(..20) > 0).map(name).collect();
                        set.add(names.iter().map(String::as_str));
                        sets.push(Arc::new(set));
                    }
                    let set = &sets[random.usize(..sets.len())];
                    listeners.push(Listener { channel: next, change_filter: of_members(set, ["g", "h"][random.usize(..2)]) });
                }
                4 => {
                    let some = [name(random.usize(..8)), name(random.usize(..PATIENTS))];
                    let patients = Compartment::Patients(Patients::from_ids(some.iter().map(String::as_str)));
                    let types = ["Observation".parse().unwrap()].into_iter().collect();
                    listeners.push(Listener { channel: next, change_filter: ChangeFilter::Request(Filter::of_patients(types, patients)) });
                }
                5 | 6 if !listeners.is_empty() => {
                    let gone = listeners.swap_remove(random.usize(..listeners.len()));
                    routes.remove(gone.channel, &gone.change_filter);
                }
                7 if random.u8(..6) == 0 => sets.clear(),
                7 if random.u8(..30) == 0 => {
                    routes.clear();
                    listeners.clear();
                }
                _ => work(&mut routes, &mut at_hand),
            }
            if let Some(new) = listeners.last().filter(|new| new.channel == next) {
                routes.add(next, &new.change_filter);
                next += 1;
            }
            let of = |random: &mut fastrand::Rng| [random.usize(..8), random.usize(..PATIENTS)];
            let (new, old) = (of(&mut random), of(&mut random).map(name));
            let before = match random.u8(..8) {
                0 => Before::Unknown,
                1..4 => Before::Nothing,
                _ => Before::Patients(Patients::from_ids(old.iter().map(String::as_str))),
            };
            let change = change(&new[..random.usize(..3)], before);
            let found = found(&routes, &change);
            let there: BTreeSet<usize> = listeners.iter().map(|listener| listener.channel).collect();
            prop_assert!(found.is_subset(&there), "{found:?} of {there:?}");
            let wanted: BTreeSet<usize> = listeners
                .iter()
                .filter(|listener| listener.hears_of(&change))
                .map(|listener| listener.channel)
                .collect();
            // Without two patients of one hash it says no more than is true.
            prop_assert_eq!(found, wanted);
            for group in ["g", "h"] {
                let of_group: BTreeSet<usize> = routes.of_group(group).collect();
                let wanted: BTreeSet<usize> = listeners
                    .iter()
                    .filter(|listener| matches!(&listener.change_filter, ChangeFilter::Members(members) if members.groups.contains(group)))
                    .map(|listener| listener.channel)
                    .collect();
                prop_assert!(of_group.is_superset(&wanted) && of_group.is_subset(&there), "{of_group:?} {wanted:?}");
            }
        }
        for gone in listeners.drain(..) {
            routes.remove(gone.channel, &gone.change_filter);
        }
        while at_hand.is_some() || routes.has_work() {
            work(&mut routes, &mut at_hand);
        }
        prop_assert!(routes.index.is_empty() && routes.sets.is_empty() && routes.plain.is_empty());
        prop_assert!(routes.numbers.is_empty() && routes.by_group.is_empty());
    }
}

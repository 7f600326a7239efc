//! The judge must see every kind of fault: a correct subscriber is made, then spoilt.

use super::*;

const W: i64 = 1_000;

/// A random history of a few resources, and the tables that it leads to.
fn history(random: &mut fastrand::Rng) -> (History, Table) {
    let mut entries = Vec::new();
    let mut table = Table::default();
    for version in 1..=200_i64 {
        let resource_type = if random.bool() { "Patient" } else { "Observation" };
        let key = Key::new(resource_type, &random.u8(0..12).to_string());
        // A transaction may stamp early and commit late, but of one resource the stamps rise.
        let stamp = version * 10 - random.i64(0..5);
        let deleted = table.resources.contains_key(&key) && random.u8(0..4) == 0;
        if deleted {
            table.resources.remove(&key);
            table.tombstones.insert(key.clone(), stamp);
        } else {
            table.tombstones.remove(&key);
            table.resources.insert(key.clone(), (version, stamp));
        }
        entries.push(Entry { key, version, stamp, deleted, n: (!deleted).then_some(version) });
    }
    (History::new(entries).unwrap(), table)
}

fn say(entry: &Entry) -> What {
    let key = entry.key.clone();
    if entry.deleted {
        return What::Deletion { key, stamp: entry.stamp };
    }
    What::Resource { key, version: entry.version, stamp: entry.stamp, n: entry.n }
}

fn notice(code: &str) -> What {
    What::Notice { code: code.to_owned(), transaction_time: None }
}

fn live(w: i64) -> What {
    let w = jiff::Timestamp::from_microsecond(w).unwrap().to_string();
    What::Notice { code: "live".to_owned(), transaction_time: Some(w) }
}

fn heard(whats: Vec<What>) -> Vec<Heard> {
    let heard = |what| Heard { connection: 1, event_id: "x".to_owned(), what };
    whats.into_iter().map(heard).collect()
}

/// What a subscriber should get: the state as of W, then everything after it.
fn correct(history: &History, since: Option<i64>, w: i64) -> Vec<What> {
    let mut state: Vec<&Entry> = Vec::new();
    for entry in history.entries.iter().filter(|entry| entry.stamp <= w) {
        state.retain(|other| other.key != entry.key);
        state.push(entry);
    }
    state.retain(|entry| since.map_or(!entry.deleted, |since| entry.stamp > since));
    let later = history.entries.iter().filter(|entry| entry.stamp > w);
    let mut whats = vec![notice("start")];
    whats.extend(state.into_iter().map(say));
    whats.push(live(w));
    whats.extend(later.map(say));
    whats
}

fn expect<'a>(history: &'a History, table: &'a Table, since: Option<i64>) -> Expect<'a> {
    Expect { history, table, types: &[], since, resets: false }
}

#[test]
fn a_correct_subscriber_passes_and_every_fault_is_seen() {
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (history, table) = history(&mut random);
        for since in [None, Some(500)] {
            let expect = expect(&history, &table, since);
            let good = correct(&history, since, W);
            check(&heard(good.clone()), expect).unwrap();
            let live = good.iter().position(|what| what.code() == Some("live")).unwrap();
            let changes = |from: usize| (from..good.len()).filter(|&at| good[at].key().is_some());
            let spoilt = |what: &str, bad: Vec<What>| {
                assert!(
                    check(&heard(bad), expect).is_err(),
                    "seed {seed}, since {since:?}: {what} was not seen"
                );
            };
            for lost in changes(1) {
                let mut bad = good.clone();
                bad.remove(lost);
                // A version that is replaced later is not missed in a replay, but this one was the newest at the safe time.
                let superseded =
                    lost < live && good[live..].iter().any(|what| what.key() == good[lost].key());
                if !superseded {
                    spoilt(&format!("loss of event {lost}"), bad);
                }
            }
            for twice in changes(1) {
                let mut bad = good.clone();
                bad.insert(random.usize(twice + 1..=good.len()), good[twice].clone());
                spoilt(&format!("event {twice} twice"), bad);
            }
            for swapped in changes(live).skip(1) {
                let mut bad = good.clone();
                bad.swap(swapped, swapped - 1);
                spoilt(&format!("events {swapped} and the one before, swapped"), bad);
            }
            let mut reset = good.clone();
            reset.insert(live, notice("reset"));
            spoilt("an unexpected reset", reset);
            let mut other = good.clone();
            other.push(What::Resource { key: Key::new("Patient", "1"), version: 999, stamp: 5_000, n: None });
            spoilt("a version that never was", other);
        }
    }
}

#[test]
fn another_content_under_a_right_version_is_seen() {
    let (history, table) = history(&mut fastrand::Rng::with_seed(1));
    let mut bad = correct(&history, None, W);
    let n = bad.iter_mut().find_map(|what| match what {
        What::Resource { n, .. } => Some(n),
        _ => None,
    });
    *n.unwrap() = Some(12_345);
    assert!(check(&heard(bad), expect(&history, &table, None)).is_err());
}

#[test]
fn what_was_not_asked_for_is_seen() {
    let (history, table) = history(&mut fastrand::Rng::with_seed(2));
    let all = heard(correct(&history, None, W));
    let patients = Expect { types: &["Patient"], ..expect(&history, &table, None) };
    assert!(check(&all, patients).is_err());
    let mut only = all;
    only.retain(|heard| heard.what.key().is_none_or(|key| key.resource_type == "Patient"));
    check(&only, patients).unwrap();
    assert!(check(&only, expect(&history, &table, None)).is_err());
}

#[test]
fn after_a_reset_the_newest_state_may_come_again_but_must_be_whole() {
    let (history, table) = history(&mut fastrand::Rng::with_seed(3));
    let mut again = correct(&history, Some(0), W);
    again.truncate(again.len() / 2);
    again.push(notice("reset"));
    // As of an instant beyond everything that it has heard.
    again.extend(correct(&history, Some(0), W + 900).split_off(1));
    let expect = Expect { resets: true, ..expect(&history, &table, Some(0)) };
    check(&heard(again.clone()), expect).unwrap_or_else(|error| panic!("{error:#}"));
    let last = again.len() - 1;
    again.remove(last);
    assert!(check(&heard(again), expect).is_err());
}

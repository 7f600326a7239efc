//! The clinic at work, on a store in memory.

use crate::store::{Store, code_of, text};
use jiff::civil::date;
use jiff::{Timestamp, ToSpan as _};
use proptest::prelude::*;
use sample::Population;
use sample::clinic::{Event, Records, Step, Unfit, Write};
use std::collections::BTreeMap;

fn noon() -> Timestamp {
    "2026-11-25T12:00:00Z".parse().unwrap()
}

fn population(seed: u64, patients: u32) -> Store {
    Store::of(Population::new(seed, patients, date(2026, 11, 25)).resources())
}

/// So many steps of a new run; what happened how often.
fn work(store: &mut Store, seed: u64, run: u64, steps: i64) -> BTreeMap<Event, usize> {
    let mut clinic = store.clinic(seed, run);
    let mut happened = BTreeMap::new();
    for number in 0..steps {
        let Step { event, writes } = clinic.step(noon().checked_add(number.seconds()).unwrap());
        assert!(!writes.is_empty());
        let mut keys: Vec<_> = writes.iter().map(key).collect();
        keys.sort();
        let all = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), all, "{event:?} writes something twice");
        writes.iter().for_each(|write| store.write(write));
        *happened.entry(event).or_default() += 1;
    }
    happened
}

fn key(write: &Write) -> String {
    match write {
        Write::Put(resource) => resource.reference(),
        Write::Delete { resource_type, id } => format!("{resource_type}/{id}"),
    }
}

#[test]
fn what_it_writes_is_fhir_and_everything_happens() {
    let mut store = population(1, 100);
    let before = store.check_gaps();
    let happened = work(&mut store, 1, 1_000, 2_000);
    for event in [
        Event::Illness,
        Event::Review,
        Event::Results,
        Event::Closing,
        Event::Correction,
        Event::Retraction,
        Event::Turn,
        Event::Registration,
        Event::Transfer,
        Event::Import,
    ] {
        assert!(happened.contains_key(&event), "{event:?} never happened: {happened:?}");
    }
    store.check_types();
    store.check_references();
    let after = store.check_gaps();
    assert!(after.of("closed-gap") > before.of("closed-gap"), "{before:?} {after:?}");
    let wrong = store.all("Procedure").iter().filter(|it| it["status"] == "entered-in-error").count();
    assert!(wrong > 0, "nothing was entered in error");
    let corrected = store.all("Observation").iter().filter(|it| it["status"] == "corrected").count();
    assert!(corrected > 0, "nothing was corrected");
}

#[test]
fn everybody_has_one_payer_at_a_time() {
    let mut store = population(5, 60);
    let payers = |store: &Store| {
        let mut of: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for group in store.all("Group").iter().filter(|it| text(&it["id"]).starts_with("payer-")) {
            for member in group["member"].as_array().unwrap() {
                of.entry(text(&member["entity"]["reference"])).or_default().push(text(&group["id"]));
            }
        }
        of
    };
    let before = payers(&store);
    assert!(work(&mut store, 5, 1, 1_000)[&Event::Transfer] > 5);
    let after = payers(&store);
    assert_eq!(after.len(), store.all("Patient").len());
    assert!(after.values().all(|payers| payers.len() == 1), "{after:?}");
    let moved = before.iter().filter(|(patient, payers)| after[*patient] != **payers).count();
    assert!(moved > 5, "{moved} have another payer");
}

#[test]
fn gaps_close_in_both_ways_and_open_again() {
    let mut store = population(3, 100);
    let mut clinic = store.clinic(3, 1);
    let status = |store: &Store, issue: &str| {
        let issue = store.get(issue).filter(|it| it["resourceType"] == "DetectedIssue")?;
        Some(text(&issue["modifierExtension"][0]["valueCodeableConcept"]["coding"][0]["code"]))
    };
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for number in 0..2_000 {
        let step = clinic.step(noon().checked_add(number.seconds()).unwrap());
        for write in &step.writes {
            let reference = key(write);
            let before = status(&store, &reference);
            store.write(write);
            if !reference.starts_with("DetectedIssue/") {
                continue;
            }
            let after = status(&store, &reference).unwrap();
            let way = match (before.as_deref(), after.as_str()) {
                (Some("open-gap"), "closed-gap") => "closed by an update",
                (None, "closed-gap") => "closed anew",
                (Some("closed-gap"), "open-gap") => "opened by an update",
                (None, "open-gap") => "opened anew",
                (Some("prospective-gap"), "closed-gap") => "closed before it opened",
                _ => "other",
            };
            *seen.entry(way).or_default() += 1;
        }
    }
    for way in [
        "closed by an update",
        "closed anew",
        "opened by an update",
        "opened anew",
        "closed before it opened",
    ] {
        assert!(seen.contains_key(way), "{way}: {seen:?}");
    }
}

#[test]
fn a_gap_that_closes_has_what_closed_it_in_the_same_transaction_or_before() {
    let mut store = population(9, 40);
    let mut clinic = store.clinic(9, 1);
    for number in 0..500 {
        let step = clinic.step(noon().checked_add(number.seconds()).unwrap());
        step.writes.iter().for_each(|write| store.write(write));
        if number % 100 == 99 {
            store.check_gaps();
            store.check_references();
        }
    }
}

#[test]
fn an_import_is_a_transaction_of_hundreds() {
    let store = population(1, 200);
    let mut clinic = store.clinic(1, 1);
    let import = (0..5_000)
        .map(|number| clinic.step(noon().checked_add(number.seconds()).unwrap()))
        .find(|step| step.event == Event::Import)
        .unwrap();
    assert!(import.writes.len() >= 200, "{}", import.writes.len());
}

#[test]
fn a_year_that_begins_opens_gaps_that_were_ahead() {
    let mut store = population(1, 150);
    let before = store.check_gaps();
    let mut clinic = store.clinic(1, 1);
    let new_year: Timestamp = "2027-01-01T09:00:00Z".parse().unwrap();
    for number in 0..1_800 {
        let step = clinic.step(new_year.checked_add(number.seconds()).unwrap());
        step.writes.iter().for_each(|write| store.write(write));
    }
    let statuses = store.check_gaps();
    let ahead = statuses.from("prospective-gap", "2027-01-01");
    assert!(ahead < before.from("prospective-gap", "2027-01-01") / 3, "{statuses:?}");
    let of_this_year =
        store.all("MeasureReport").iter().filter(|it| it["period"]["start"] == "2027-01-01").count();
    assert!(of_this_year > 50, "{of_this_year}");
    store.check_references();
}

#[test]
fn the_same_state_seed_run_and_clock_give_the_same_steps() {
    let store = population(4, 40);
    let steps = |seed, run| -> Vec<Step> {
        let mut clinic = store.clinic(seed, run);
        (0..100).map(|number| clinic.step(noon().checked_add(number.seconds()).unwrap())).collect()
    };
    assert_eq!(steps(1, 5), steps(1, 5));
    assert_ne!(steps(1, 5), steps(2, 5));
    assert_ne!(steps(1, 5), steps(1, 6));
}

#[test]
fn it_goes_on_from_what_it_reads_and_gives_no_id_twice() {
    let mut store = population(6, 50);
    work(&mut store, 6, 100, 600);
    let patients = store.count("Patient");
    work(&mut store, 6, 200, 600);
    assert!(store.count("Patient") > patients, "nobody new came");
    store.check_references();
    store.check_gaps();
    let members: usize = store
        .all("Group")
        .iter()
        .filter(|group| text(&group["id"]).starts_with("care-team-"))
        .map(|group| group["member"].as_array().map_or(0, Vec::len))
        .sum();
    assert_eq!(members, store.count("Patient"));
    assert!(store.all("Procedure").iter().any(|it| code_of(it) == "73761001"));
}

#[test]
fn it_refuses_data_that_is_not_marked_as_a_test() {
    let mut records = Records::default();
    let real = r#"{"resourceType":"Patient","id":"real","birthDate":"1980-01-01"}"#;
    assert_eq!(records.add("Patient", "real", real), Err(Unfit::NotOurs("real".to_owned())));
    assert_eq!(Records::default().clinic(1, 1).err(), Some(Unfit::Empty));
    let unreadable = records.add("Patient", "odd", "{").unwrap_err().to_string();
    assert!(unreadable.contains("Patient/odd"), "{unreadable}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn it_holds_together_whatever_the_seed(seed in any::<u64>(), run in 1u64..1 << 40) {
        let mut store = population(seed, 25);
        work(&mut store, seed, run, 250);
        store.check_references();
        store.check_gaps();
    }
}

//! A population as it is loaded.

use crate::store::{Store, age, code_of, day, happened, text};
use jiff::civil::{Date, Weekday, date};
use proptest::prelude::*;
use sample::{COMPLETE, Population};
use std::collections::{BTreeMap, BTreeSet};

const TODAY: Date = date(2026, 11, 25);

fn store(seed: u64, patients: u32, today: Date) -> Store {
    Store::of(Population::new(seed, patients, today).resources())
}

#[test]
fn every_resource_is_fhir() {
    store(1, 150, TODAY).check_types();
}

#[test]
fn the_same_seed_and_day_give_the_same_bytes() {
    let write = |seed, today| -> Vec<String> {
        Population::new(seed, 20, today).resources().map(|resource| resource.content).collect()
    };
    let first = write(7, TODAY);
    assert_eq!(first, write(7, TODAY));
    assert_ne!(first, write(8, TODAY));
    assert_ne!(first, write(7, date(2026, 11, 26)));
    assert!(first.iter().all(|line| line.starts_with("{\"resourceType\":\"") && !line.contains('\n')));
}

#[test]
fn the_last_resource_says_that_it_is_whole() {
    let last = Population::new(1, 3, TODAY).resources().last().unwrap();
    assert_eq!((last.resource_type, last.id.as_str()), COMPLETE);
}

#[test]
fn it_has_every_kind_of_record_and_every_kind_of_gap() {
    let store = store(1, 400, TODAY);
    for (resource_type, least) in [
        ("Patient", 400),
        ("Practitioner", 3),
        ("Organization", 8),
        ("Group", 7),
        ("Measure", 5),
        ("Encounter", 1_500),
        ("Observation", 6_000),
        ("DiagnosticReport", 500),
        ("Condition", 600),
        ("MedicationRequest", 800),
        ("Procedure", 500),
        ("Immunization", 500),
        ("Provenance", 401),
        ("MeasureReport", 400),
        ("DetectedIssue", 400),
    ] {
        assert!(store.count(resource_type) >= least, "{resource_type}: {}", store.count(resource_type));
    }
    let statuses = store.check_gaps();
    for status in ["open-gap", "closed-gap", "prospective-gap", "not-applicable"] {
        assert!(statuses.of(status) >= 3, "{statuses:?}");
    }
    let measures: BTreeSet<String> =
        store.all("MeasureReport").iter().map(|it| text(&it["measure"])).collect();
    assert_eq!(measures.len(), 5);
}

#[test]
fn ages_fit() {
    let store = store(5, 400, TODAY);
    let born: BTreeMap<String, _> =
        store.all("Patient").into_iter().map(|it| (format!("Patient/{}", text(&it["id"])), it)).collect();
    let mut oldest = 0;
    for patient in born.values() {
        let years = age(patient, TODAY);
        assert!((0..=100).contains(&years), "{years}");
        oldest = oldest.max(years);
    }
    assert!(oldest > 80);
    for kind in ["Encounter", "Procedure", "Immunization", "Observation", "MedicationRequest", "Condition"] {
        for entry in store.all(kind) {
            let of = if entry["subject"].is_null() { &entry["patient"] } else { &entry["subject"] };
            let patient = &born[&text(&of["reference"])];
            let on = happened(&entry);
            assert!(on < TODAY && on >= day(&text(&patient["birthDate"])), "{entry}");
            let later = [&entry["abatementDateTime"], &entry["issued"], &entry["period"]["end"]];
            for later in later.into_iter().filter_map(|time| time.as_str()) {
                assert!((on..TODAY).contains(&day(later)), "{entry}");
            }
            let weekend = matches!(on.weekday(), Weekday::Saturday | Weekday::Sunday);
            assert!(!weekend || kind == "Condition", "{entry}");
            if kind == "Encounter" {
                continue;
            }
            let years = age(patient, on);
            let expected = match code_of_any(&entry).as_str() {
                "24623002" => 50..=80,
                "73761001" | "29771-3" => 45..=80,
                "385763009" => 65..=110,
                "49" | "08" | "133" | "119" | "83" => 0..=2,
                "20" | "10" | "03" | "21" => 0..=4,
                "115" | "165" | "114" => 11..=17,
                "59621000" | "314076" => 25..=100,
                "44054006" | "55822004" | "4548-4" | "860975" => 30..=100,
                "85354-9" => 3..=100,
                "65363002" => 0..=9,
                "313782" => 12..=100,
                "310965" => 12..=64,
                _ => 0..=110,
            };
            assert!(expected.contains(&years), "{years} years: {entry}");
        }
    }
}

fn code_of_any(entry: &serde_json::Value) -> String {
    let medication = &entry["medicationCodeableConcept"]["coding"][0]["code"];
    if medication.is_null() { code_of(entry) } else { text(medication) }
}

#[test]
fn values_are_plausible_and_a_history_is_no_noise() {
    let store = store(2, 300, TODAY);
    let mut weights: BTreeMap<String, Vec<(Date, f64)>> = BTreeMap::new();
    for it in store.all("Observation") {
        let value = it["valueQuantity"]["value"].as_f64();
        let plausible = match code_of(&it).as_str() {
            "8302-2" => 45.0..=200.0,
            "29463-7" => 2.5..=180.0,
            "39156-5" => 15.0..=50.0,
            "8867-4" => 45.0..=170.0,
            "8310-5" => 36.0..=40.0,
            "4548-4" => 5.0..=12.0,
            "2339-0" => 60.0..=300.0,
            "38483-4" => 0.4..=2.0,
            "6299-2" => 7.0..=23.0,
            "49765-1" => 8.5..=10.3,
            "2947-0" => 133.0..=147.0,
            "2069-3" => 98.0..=107.0,
            "20565-8" => 22.0..=29.0,
            "6298-4" => 3.4..=5.4,
            "2093-3" => 100.0..=340.0,
            "18262-6" => 40.0..=220.0,
            "2085-9" => 25.0..=90.0,
            "2571-8" => 40.0..=260.0,
            _ => continue,
        };
        assert!(value.is_some_and(|value| plausible.contains(&value)), "{it}");
        if code_of(&it) == "29463-7" {
            let of = text(&it["subject"]["reference"]);
            weights.entry(of).or_default().push((happened(&it), value.unwrap()));
        }
    }
    // An adult's weight goes with that of the visit before.
    for (patient, mut weights) in weights {
        if age(&store.get(&patient).unwrap(), TODAY) < 22 {
            continue;
        }
        weights.sort_by_key(|(day, _)| *day);
        for pair in weights.windows(2) {
            assert!((pair[0].1 - pair[1].1).abs() < 0.1 * pair[0].1, "{patient}: {pair:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn it_holds_together_whatever_the_seed_and_the_day(
        seed in any::<u64>(),
        patients in 1u32..60,
        days in 0i64..1_500,
    ) {
        let today = date(2024, 1, 1).checked_add(jiff::Span::new().days(days)).unwrap();
        let store = store(seed, patients, today);
        store.check_references();
        store.check_gaps();
    }
}

//! Resources as a database holds them, and what has to be true of them together.

use fhir_model::r4b::resources::Resource as Model;
use jiff::civil::Date;
use sample::Resource;
use sample::clinic::{Clinic, NEEDED, Records, Write};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Resources by type and id, in the order in which they were written last.
#[derive(Default)]
pub(crate) struct Store {
    resources: BTreeMap<(String, String), (u64, String)>,
    writes: u64,
}

impl Store {
    pub(crate) fn of(resources: impl Iterator<Item = Resource>) -> Self {
        let mut store = Self::default();
        for resource in resources {
            assert!(store.put(&resource), "{} comes twice", resource.reference());
        }
        store
    }

    /// Whether it is new.
    fn put(&mut self, resource: &Resource) -> bool {
        self.writes += 1;
        let key = (resource.resource_type.to_owned(), resource.id.clone());
        self.resources.insert(key, (self.writes, resource.content.clone())).is_none()
    }

    pub(crate) fn write(&mut self, write: &Write) {
        match write {
            Write::Put(resource) => drop(self.put(resource)),
            Write::Delete { resource_type, id } => {
                let key = ((*resource_type).to_owned(), id.clone());
                assert!(self.resources.remove(&key).is_some(), "{resource_type}/{id} is not there");
            }
        }
    }

    pub(crate) fn get(&self, reference: &str) -> Option<Value> {
        let (resource_type, id) = reference.split_once('/')?;
        let (_, content) = self.resources.get(&(resource_type.to_owned(), id.to_owned()))?;
        Some(serde_json::from_str(content).unwrap())
    }

    /// Those of a type, in the order in which they were written.
    pub(crate) fn all(&self, resource_type: &str) -> Vec<Value> {
        self.texts(resource_type).into_iter().map(|(_, text)| serde_json::from_str(text).unwrap()).collect()
    }

    fn texts(&self, of: &str) -> Vec<(&str, &str)> {
        let mut found: Vec<_> = self
            .resources
            .iter()
            .filter(|((resource_type, _), _)| resource_type == of)
            .map(|((_, id), (write, text))| (*write, id.as_str(), text.as_str()))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id, text)| (id, text)).collect()
    }

    /// A clinic that goes on from here.
    pub(crate) fn clinic(&self, seed: u64, run: u64) -> Clinic {
        let mut records = Records::default();
        for needed in NEEDED {
            for (id, text) in self.texts(needed.resource_type) {
                if needed.codes.is_empty() || needed.codes.iter().any(|code| text.contains(code)) {
                    records.add(needed.resource_type, id, text).unwrap();
                }
            }
        }
        records.clinic(seed, run).unwrap()
    }

    pub(crate) fn count(&self, resource_type: &str) -> usize {
        self.texts(resource_type).len()
    }

    /// Every reference leads somewhere.
    pub(crate) fn check_references(&self) {
        for ((resource_type, id), (_, text)) in &self.resources {
            let mut found = Vec::new();
            references(&serde_json::from_str(text).unwrap(), &mut found);
            for reference in found {
                let (to_type, to_id) = reference.split_once('/').unwrap();
                let there = self.resources.contains_key(&(to_type.to_owned(), to_id.to_owned()));
                assert!(there, "{resource_type}/{id} refers to {reference}, which is not there");
            }
        }
    }

    /// Every resource is one of FHIR's, with all that it must have and nothing that FHIR does not know.
    pub(crate) fn check_types(&self) {
        for ((resource_type, id), (_, text)) in &self.resources {
            let model: Model = serde_json::from_str(text)
                .unwrap_or_else(|error| panic!("{resource_type}/{id} is no FHIR: {error}\n{text}"));
            let again = serde_json::to_value(&model).unwrap();
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(value["id"], **id);
            if let Some(lost) = difference(&value, &again, resource_type) {
                panic!("{resource_type}/{id}: FHIR does not know {lost}\n{text}");
            }
            assert!(fhir::is_id(id), "{id}");
            assert!(!empty(&value), "{resource_type}/{id} has something empty: {text}");
            assert_eq!(value["meta"]["security"][0]["code"], "HTEST");
        }
    }

    /// Gaps and reports agree, with each other and with the evidence.
    pub(crate) fn check_gaps(&self) -> Statuses {
        let mut statuses = Statuses::default();
        let measures: BTreeSet<String> = self
            .all("Measure")
            .iter()
            .map(|measure| format!("{}|{}", text(&measure["url"]), text(&measure["version"])))
            .collect();
        let mut newest: BTreeMap<(String, String, String), (String, Value)> = BTreeMap::new();
        for report in self.all("MeasureReport") {
            assert!(measures.contains(&text(&report["measure"])), "{}", report["measure"]);
            let key = (
                text(&report["subject"]["reference"]),
                text(&report["measure"]),
                text(&report["period"]["start"]),
            );
            let date = text(&report["date"]);
            if newest.get(&key).is_none_or(|(before, _)| *before <= date) {
                newest.insert(key, (date, report));
            }
        }
        let mut issues: BTreeMap<String, Value> = BTreeMap::new();
        for issue in self.all("DetectedIssue") {
            let report = text(&issue["evidence"][0]["detail"][0]["reference"]);
            let of = self.get(&report).unwrap();
            assert_eq!(issue["patient"], of["subject"]);
            assert_eq!(issue["code"]["coding"][0]["code"], "CAREGAP");
            assert_eq!(
                issue["modifierExtension"][0]["url"],
                "http://hl7.org/fhir/uv/deqm/StructureDefinition/deqm-gapStatus"
            );
            assert!(issues.insert(report.clone(), issue).is_none(), "{report} has two issues");
        }
        assert_eq!(issues.len(), self.count("MeasureReport"), "a report without an issue");
        for ((patient, measure, start), (_, report)) in newest {
            let issue = &issues[&format!("MeasureReport/{}", text(&report["id"]))];
            let status = text(&issue["modifierExtension"][0]["valueCodeableConcept"]["coding"][0]["code"]);
            self.check_gap(&patient, &measure, &start, &report, &status);
            *statuses.0.entry((status, start)).or_default() += 1;
        }
        statuses
    }

    fn check_gap(&self, patient: &str, measure: &str, start: &str, report: &Value, status: &str) {
        let of = format!("{measure} of {patient} from {start}");
        let count = |code: &str| {
            let populations = report["group"][0]["population"].as_array().unwrap();
            let population = populations.iter().find(|it| it["code"]["coding"][0]["code"] == code).unwrap();
            population["count"].as_u64().unwrap()
        };
        assert_eq!((count("initial-population"), count("denominator")), (1, 1), "{of}");
        let (numerator, excluded) = (count("numerator"), count("denominator-exclusion"));
        let expected = match status {
            "closed-gap" => (1, 0, Some(1)),
            "open-gap" | "prospective-gap" => (0, 0, Some(0)),
            "not-applicable" => (0, 1, None),
            other => panic!("{of}: {other}"),
        };
        let score = report["group"][0]["measureScore"]["value"].as_u64();
        assert_eq!((numerator, excluded, score), expected, "{of}");
        assert_eq!(report["type"], "individual");

        let (start, end) = (day(start), day(&text(&report["period"]["end"])));
        assert_eq!(end, start.last_of_year(), "{of}");
        let ahead = text(&report["date"]).as_str() < start.to_string().as_str();
        assert_eq!(ahead && numerator == 0 && excluded == 0, status == "prospective-gap", "{of}");

        let person = self.get(patient).unwrap();
        let age = age(&person, end);
        let women = person["gender"] == "female";
        let ages = match measure_of(measure) {
            "colorectal-cancer-screening" => 46..=75,
            "breast-cancer-screening" => {
                assert!(women, "{of}");
                52..=74
            }
            "hba1c-control" => 18..=75,
            "blood-pressure-control" => 18..=85,
            "childhood-immunization" => 2..=2,
            other => panic!("{other}"),
        };
        assert!(ages.contains(&age), "{of}: {age} years");

        let criteria = |it: &Value| -> Vec<String> {
            it["extension"].as_array().unwrap().iter().map(|it| text(&it["valueString"])).collect()
        };
        let evaluated = report["evaluatedResource"].as_array().unwrap();
        assert_eq!(evaluated[0]["reference"], patient, "{of}");
        let by: Vec<Value> = evaluated
            .iter()
            .filter(|it| criteria(it).contains(&"numerator".to_owned()))
            .map(|it| self.get(&text(&it["reference"])).unwrap())
            .collect();
        for entry in &by {
            let whose = if entry["subject"].is_null() { &entry["patient"] } else { &entry["subject"] };
            assert_eq!(whose["reference"], patient, "{of}");
            assert!(happened(entry) <= end, "{of}");
        }
        let codes: Vec<String> = by.iter().map(code_of).collect();
        if status != "closed-gap" {
            return;
        }
        for entry in &by {
            let status = text(&entry["status"]);
            assert!(["completed", "final", "corrected"].contains(&status.as_str()), "{of}: {status}");
        }
        let [entry] = &by[..] else {
            assert_eq!(measure_of(measure), "childhood-immunization", "{of}");
            let times = |code: &str| codes.iter().filter(|it| *it == code).count();
            for (vaccine, least) in
                [("20", 4), ("10", 3), ("03", 1), ("49", 3), ("08", 3), ("21", 1), ("133", 4)]
            {
                assert!(times(vaccine) >= least, "{of}: {vaccine}");
            }
            return;
        };
        let on = happened(entry);
        match (measure_of(measure), codes[0].as_str()) {
            ("colorectal-cancer-screening", "73761001") => assert!(start.year() - on.year() <= 9, "{of}"),
            ("colorectal-cancer-screening", "29771-3") => assert!(on >= start, "{of}"),
            ("breast-cancer-screening", "24623002") => assert!(start.year() - on.year() <= 2, "{of}"),
            ("hba1c-control", "4548-4") => {
                assert!(on >= start && entry["valueQuantity"]["value"].as_f64().unwrap() < 8.0, "{of}");
            }
            ("blood-pressure-control", "85354-9") => {
                let part = |at: usize| entry["component"][at]["valueQuantity"]["value"].as_f64().unwrap();
                assert!(on >= start && part(0) < 140.0 && part(1) < 90.0, "{of}");
            }
            (measure, code) => panic!("{measure} by {code}"),
        }
    }
}

/// How many gaps have which status, for periods that begin on which day.
#[derive(Default, Debug)]
pub(crate) struct Statuses(BTreeMap<(String, String), usize>);

impl Statuses {
    pub(crate) fn of(&self, status: &str) -> usize {
        self.0.iter().filter(|((of, _), _)| of == status).map(|(_, count)| count).sum()
    }

    pub(crate) fn from(&self, status: &str, start: &str) -> usize {
        self.0.get(&(status.to_owned(), start.to_owned())).copied().unwrap_or_default()
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

pub(crate) fn day(text: &str) -> Date {
    text[..10].parse().unwrap()
}

pub(crate) fn code_of(entry: &Value) -> String {
    let code = if entry["code"].is_null() { &entry["vaccineCode"] } else { &entry["code"] };
    text(&code["coding"][0]["code"])
}

/// The day of an entry in a record.
pub(crate) fn happened(entry: &Value) -> Date {
    let times = [
        &entry["performedPeriod"]["start"],
        &entry["effectiveDateTime"],
        &entry["occurrenceDateTime"],
        &entry["period"]["start"],
        &entry["authoredOn"],
        &entry["onsetDateTime"],
    ];
    day(&text(times.into_iter().find(|time| !time.is_null()).unwrap()))
}

/// In whole years.
pub(crate) fn age(patient: &Value, on: Date) -> i16 {
    let birth = day(&text(&patient["birthDate"]));
    let early = (on.month(), on.day()) < (birth.month(), birth.day());
    on.year() - birth.year() - i16::from(early)
}

fn measure_of(canonical: &str) -> &str {
    canonical.rsplit('/').next().unwrap().split('|').next().unwrap()
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                match value {
                    Value::String(reference) if key == "reference" => found.push(reference.clone()),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// FHIR allows nothing to be empty.
fn empty(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.is_empty() || members.values().any(empty),
        Value::Array(values) => values.is_empty() || values.iter().any(empty),
        Value::String(text) => text.is_empty(),
        Value::Null => true,
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The first place at which the second lacks what the first has.
fn difference(one: &Value, other: &Value, at: &str) -> Option<String> {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => one.iter().find_map(|(key, value)| {
            let place = format!("{at}.{key}");
            match other.get(key) {
                Some(other) => difference(value, other, &place),
                None => Some(place),
            }
        }),
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            one.iter().zip(other).find_map(|(one, other)| difference(one, other, at))
        }
        (Value::Number(one), Value::Number(other)) => {
            (one.as_f64() != other.as_f64()).then(|| format!("{at}: {one}, {other}"))
        }
        // A time may be written in several ways.
        (Value::String(one), Value::String(other)) => {
            let same = one == other || one.parse::<jiff::Timestamp>().ok() == other.parse().ok();
            (!same).then(|| format!("{at}: {one}, {other}"))
        }
        _ => (one != other).then(|| format!("{at}: {one}, {other}")),
    }
}

use super::oracle::holds;
use super::*;
use crate::{Compartment, Patients};
use proptest::prelude::*;

fn parse(level: Level, query: &[(&str, &str)], handling: Handling) -> Result<ExportRequest, Outcome> {
    ExportRequest::parse(level, query.iter().copied(), handling)
}

fn strict(query: &[(&str, &str)]) -> Result<ExportRequest, Outcome> {
    parse(Level::System, query, Handling::Strict)
}

fn lenient(query: &[(&str, &str)]) -> Result<ExportRequest, Outcome> {
    parse(Level::System, query, Handling::Lenient)
}

fn types(names: &[&str]) -> TypeSet {
    names.iter().map(|name| name.parse::<ResourceType>().unwrap()).collect()
}

/// The only issue of a refusal.
fn refused(result: Result<ExportRequest, Outcome>) -> String {
    let outcome = result.unwrap_err();
    assert_eq!(outcome.issues().len(), 1, "{}", outcome.to_json());
    outcome.to_json()
}

#[test]
fn without_parameters_everything_is_asked_for() {
    let request = strict(&[]).unwrap();
    assert_eq!(request.filter, Filter::everything());
    assert_eq!((request.since, request.last_event_id), (None, None));
    assert_eq!(request.heartbeat, Duration::from_secs(15));
    assert!(request.ignored.is_empty() && request.ignored_types.is_empty());
}

#[test]
fn types_are_separated_or_repeated() {
    let request =
        strict(&[("_type", "Patient, Observation,"), ("_type", "Goal"), ("_type", "Goal")]).unwrap();
    assert_eq!(request.filter.types, types(&["Patient", "Observation", "Goal"]));
}

#[test]
fn unknown_types_are_named() {
    let query = [("_type", "Patient,Pateint"), ("_type", "patient,Pateint")];
    let refusal = refused(strict(&query));
    assert!(refusal.contains("R4: Pateint, patient\""), "{refusal}");
    assert!(refusal.contains(r#""code":"code-invalid""#) && refusal.contains(r#""expression":["_type"]"#));
    let request = lenient(&query).unwrap();
    assert_eq!(request.filter.types, types(&["Patient"]));
    assert_eq!(request.ignored_types, ["Pateint", "patient"]);
}

#[test]
fn no_type_at_all_is_refused() {
    for value in ["", " ", ",", ", ,"] {
        assert!(refused(strict(&[("_type", value)])).contains("names no resource type"));
        assert!(refused(lenient(&[("_type", value)])).contains("names no resource type"));
    }
    let refusal = refused(lenient(&[("_type", "Nonsense")]));
    assert!(refusal.contains("names no resource type of FHIR R4 (it has: Nonsense)"), "{refusal}");
    assert!(refused(strict(&[("_type", "Nonsense")])).contains("Nonsense"));
}

#[test]
fn below_a_type_only_that_type_can_be_asked_for() {
    let level = || Level::Type("Observation".parse().unwrap());
    let only = types(&["Observation"]);
    assert_eq!(parse(level(), &[], Handling::Strict).unwrap().filter.types, only);
    let both = [("_type", "Patient,Observation")];
    assert_eq!(parse(level(), &both, Handling::Strict).unwrap().filter.types, only);
    let refusal = refused(parse(level(), &[("_type", "Patient")], Handling::Lenient));
    assert!(refusal.contains("does not name Observation"), "{refusal}");
}

#[test]
fn since_is_an_instant() {
    let request = strict(&[("_since", "2024-05-01T14:30:00 02:00")]).unwrap();
    assert_eq!(request.since.unwrap().to_fhir(), "2024-05-01T12:30:00.000000Z");
    let refusal = refused(lenient(&[("_since", "2024-05-01")]));
    assert!(refusal.contains("_since: '2024-05-01' is a date without a time"), "{refusal}");
    assert!(refusal.contains(r#""expression":["_since"]"#));
}

#[test]
fn the_heartbeat_has_bounds() {
    for (value, seconds) in [("2", 2), ("60", 60), ("+7", 7)] {
        assert_eq!(strict(&[("_heartbeat", value)]).unwrap().heartbeat, Duration::from_secs(seconds));
    }
    for value in ["1", "61", "-5", "2.5", "", "ten", "99999999999999999999"] {
        assert!(refused(lenient(&[("_heartbeat", value)])).contains("from 2 to 60"));
    }
}

#[test]
fn an_empty_last_event_id_is_none() {
    assert_eq!(strict(&[("_lastEventId", "")]).unwrap().last_event_id, None);
    assert_eq!(strict(&[("_lastEventId", "x y")]).unwrap().last_event_id.as_deref(), Some("x y"));
}

#[test]
fn what_has_one_value_is_given_once() {
    let at = "2024-05-01T14:30:00Z";
    for (name, value) in [
        ("_since", at),
        ("_heartbeat", "5"),
        ("_lastEventId", "a"),
        ("_outputFormat", "ndjson"),
        ("_format", "json"),
        ("_summary", "false"),
    ] {
        let refusal = refused(lenient(&[(name, value), (name, value)]));
        assert!(refusal.contains("more than once") && refusal.contains(name), "{refusal}");
    }
}

#[test]
fn unknown_parameters_are_named_together() {
    let query = [("since", "x"), ("foo", "secret"), ("_TYPE", "y"), ("foo", "")];
    let refusal = refused(strict(&query));
    assert!(
        refusal
            .contains("unknown parameters: since (did you mean _since?), foo, _TYPE (did you mean _type?);"),
        "{refusal}"
    );
    assert!(refusal.contains(r#""expression":["since","foo","_TYPE"]"#), "{refusal}");
    assert!(!refusal.contains("secret"));
    assert_eq!(lenient(&query).unwrap().ignored, ["since", "foo", "_TYPE"]);
}

#[test]
fn what_bulk_data_has_and_we_have_not_yet_says_so() {
    for name in NOT_YET {
        assert!(refused(strict(&[(name, "x"),])).contains("not supported yet"));
        assert_eq!(lenient(&[(name, "x")]).unwrap().ignored, [name]);
    }
}

#[test]
fn an_output_format_that_fits_is_ignored() {
    for name in ["_outputFormat", "_format"] {
        let spelled = [
            "",
            "Application/FHIR+JSON",
            "application/fhir json",
            "application/fhir+json; fhirVersion=4.0",
            "application/json;charset=\"UTF-8\"",
            "application/fhir ndjson",
        ];
        for value in FORMATS.into_iter().chain(spelled) {
            assert_eq!(strict(&[(name, value)]).unwrap().ignored, [name], "{value}");
        }
        for value in ["text/csv", "xml", "application/fhir+json; fhirVersion=5.0", "json, xml"] {
            let refusal = refused(strict(&[(name, value)]));
            assert!(refusal.contains(value) && refusal.contains(&format!("[\"{name}\"]")), "{refusal}");
            assert_eq!(lenient(&[(name, value)]).unwrap().ignored, [name]);
        }
    }
    let both = strict(&[("_outputFormat", "ndjson"), ("_format", "json")]).unwrap();
    assert_eq!(both.ignored, ["_outputFormat", "_format"]);
}

#[test]
fn what_changes_nothing_is_ignored_and_named() {
    for (name, value) in
        [("_pretty", "true"), ("_pretty", ""), ("_summary", "false"), ("_summary", ""), ("_", "17")]
    {
        assert_eq!(strict(&[(name, value)]).unwrap().ignored, [name]);
    }
    assert_eq!(strict(&[("_pretty", "true"), ("_pretty", "true")]).unwrap().ignored, ["_pretty"]);
    for value in ["true", "text", "data", "count", "False"] {
        let refusal = refused(strict(&[("_summary", value)]));
        assert!(refusal.contains("whole resources") && refusal.contains(r#"["_summary"]"#), "{refusal}");
        assert_eq!(lenient(&[("_summary", value)]).unwrap().ignored, ["_summary"]);
    }
}

#[test]
fn libraries_give_the_id_back_by_other_names() {
    for name in LIBRARY_EVENT_ID {
        let request = strict(&[("_lastEventId", "a"), (name, "b")]).unwrap();
        assert_eq!(request.last_event_id.as_deref(), Some("a"));
        assert_eq!(request.library_event_id.as_deref(), Some("b"));
        assert_eq!(strict(&[(name, "")]).unwrap().library_event_id, None);
        assert_eq!(strict(&[(name, "b"), (name, "")]).unwrap().library_event_id.as_deref(), Some("b"));
    }
    let [a, b, _] = LIBRARY_EVENT_ID;
    assert!(strict(&[(a, "x"), (b, "x")]).is_ok());
    for handling in [Handling::Strict, Handling::Lenient] {
        let refusal = refused(parse(Level::System, &[(a, "x"), (b, "y")], handling));
        assert!(refusal.contains("another parameter gives") && refusal.contains(b), "{refusal}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let query = [("_since", "x"), ("_heartbeat", "x"), ("_type", "x"), ("x", "x"), ("_elements", "x")];
    assert_eq!(strict(&query).unwrap_err().issues().len(), query.len());
}

fn of(ids: &[&str]) -> Compartment {
    Compartment::Patients(Patients::from_ids(ids.iter().copied()))
}

#[test]
fn a_path_of_patients_asks_for_their_compartments() {
    let one = parse(Level::Patient("p1".into()), &[], Handling::Strict).unwrap();
    assert_eq!(one.filter, Filter::of_patients(TypeSet::all(), of(&["p1"])));
    assert!(one.unsent_types.is_empty(), "nobody named them");
    let all = parse(Level::AllPatients, &[], Handling::Strict).unwrap();
    assert_eq!(all.filter, Filter::of_patients(TypeSet::all(), Compartment::AnyPatient));
}

#[test]
fn patients_are_named_by_id_or_reference() {
    let query = [("patient", "Patient/a, b,"), ("patient", "c"), ("patient", "b")];
    let some = parse(Level::AllPatients, &query, Handling::Strict).unwrap();
    assert_eq!(some.filter.compartment, of(&["a", "b", "c"]));
    for value in ["", " , ", "Patient/"] {
        let refusal = refused(parse(Level::AllPatients, &[("patient", value)], Handling::Strict));
        assert!(refusal.contains(r#""expression":["patient"]"#), "{refusal}");
    }
    let wrong = [("patient", "a,Group/1,Patient/a/_history/1,http://x/Patient/a,ä")];
    let refusal = refused(parse(Level::AllPatients, &wrong, Handling::Strict));
    assert!(refusal.contains(r#""code":"value""#), "{refusal}");
    assert!(refusal.contains("Group/1, Patient/a/_history/1, http://x/Patient/a, ä"), "{refusal}");
    let lenient = parse(Level::AllPatients, &wrong, Handling::Lenient).unwrap();
    assert_eq!(lenient.filter.compartment, of(&["a"]));
    assert_eq!(lenient.ignored_patients.len(), 4);
}

#[test]
fn patients_are_named_only_where_many_are_asked_for() {
    let type_level = Level::Type("Condition".parse().unwrap());
    for level in [Level::System, type_level, Level::Patient("p1".into())] {
        let refusal = refused(parse(level.clone(), &[("patient", "a")], Handling::Strict));
        assert!(refusal.contains("patient is not for this path"), "{refusal}");
        let lenient = parse(level, &[("patient", "a")], Handling::Lenient).unwrap();
        assert_eq!(lenient.ignored, ["patient"]);
    }
}

#[test]
fn types_outside_of_compartments_are_named_or_refused() {
    let level = || Level::Patient("p1".into());
    let mixed =
        parse(level(), &[("_type", "Patient,Practitioner,Group,Observation")], Handling::Strict).unwrap();
    assert_eq!(mixed.filter.types, types(&["Patient", "Observation"]));
    assert_eq!(mixed.unsent_types.iter().copied().collect::<TypeSet>(), types(&["Practitioner", "Group"]));
    for handling in [Handling::Strict, Handling::Lenient] {
        let refusal = refused(parse(level(), &[("_type", "Practitioner,Group")], handling));
        assert!(
            refusal.contains(r#""code":"not-supported""#) && refusal.contains("Practitioner"),
            "{refusal}"
        );
    }
}

#[test]
fn long_values_are_not_repeated_whole() {
    let long = "ü".repeat(10_000);
    let query = [("_since", &*long), ("_heartbeat", &long), ("_type", &long), (&long, "x")];
    assert!(strict(&query).unwrap_err().to_json().len() < 3_000);
}

proptest! {
    #[test]
    fn nothing_panics_and_what_is_taken_is_what_was_asked(
        query in proptest::collection::vec(
            ("_type|_since|_heartbeat|(_l|l)astEventId|evs_last_event_id|_outputFormat|_format|_pretty|_summary|patient|\\PC{0,5}", "\\PC{0,12}|[0-9]{1,2}|Patient(,Goal)?|ndjson"),
            0..6,
        ),
        level in any::<u8>().prop_map(super::oracle::level),
        handling in prop_oneof![Just(Handling::Strict), Just(Handling::Lenient)],
    ) {
        holds(&level, &query, handling);
    }
}

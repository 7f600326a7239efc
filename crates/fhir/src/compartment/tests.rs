use super::*;
use crate::resource::oracle::COLUMNS;
use crate::{BadResource, Columns, patients_of_resource, write_resource_with_patients};
use proptest::prelude::*;
use serde_json::json;

fn of(content: &str) -> Vec<String> {
    let tree: serde_json::Value = serde_json::from_str(content).unwrap();
    let kind = tree["resourceType"].as_str().unwrap().parse().unwrap();
    let bases = BaseUrls::new(["https://ehr.example/fhir"]);
    let patients = patients_of_resource(content.as_bytes(), kind, "own-id", &bases).unwrap();
    patients.iter().map(str::to_owned).collect()
}

#[test]
fn every_way_of_naming_a_patient_counts() {
    let observation = json!({
        "resourceType": "Observation",
        "subject": {"reference": "Patient/b"},
        "performer": [{"reference": "Practitioner/x"}, {"reference": "https://ehr.example/fhir/Patient/a/_history/2"}],
        "focus": [{"reference": "Patient/not-in-the-compartment"}],
        "contained": [{"resourceType": "Observation", "subject": {"reference": "Patient/contained"}}],
    });
    assert_eq!(of(&observation.to_string()), ["a", "b"]);
    assert_eq!(of(r#"{"resourceType":"Observation","subject":{"reference":"Patient\/\u0063"}}"#), ["c"]);
    let appointment = json!({
        "resourceType": "Appointment",
        "participant": [{"actor": {"reference": "Patient/p"}}, {"actor": {"reference": "Patient/q"}}, {"actor": {"reference": "Patient/p"}}],
    });
    assert_eq!(of(&appointment.to_string()), ["p", "q"]);
}

#[test]
fn what_identifies_no_patient_here_does_not_count() {
    for reference in [
        "#p",
        "urn:uuid:6f1a0e6e-7f4e-4f2c-9d3e-000000000000",
        "https://other.example/Patient/p",
        "Group/g",
        "Patient/",
    ] {
        let content = json!({"resourceType": "Condition", "subject": {"reference": reference}});
        assert_eq!(of(&content.to_string()), [""; 0], "{reference}");
    }
    let logical =
        json!({"resourceType": "Condition", "subject": {"type": "Patient", "identifier": {"value": "p"}}});
    assert_eq!(of(&logical.to_string()), [""; 0]);
}

#[test]
fn a_patient_belongs_to_itself_alone() {
    let content = json!({"resourceType": "Patient", "link": [{"other": {"reference": "Patient/other"}}]});
    assert_eq!(of(&content.to_string()), ["own-id"]);
}

#[test]
fn a_group_and_a_practitioner_are_in_no_compartment() {
    let group = json!({"resourceType": "Group", "member": [{"entity": {"reference": "Patient/p"}}]});
    assert_eq!(of(&group.to_string()), [""; 0]);
    assert_eq!(of(r#"{"resourceType":"Practitioner"}"#), [""; 0]);
    let types = compartment_types();
    assert!(types.contains(ResourceType::PATIENT) && !types.contains(ResourceType::GROUP));
    // R4 lists 67 types with parameters, Group and Patient among them.
    assert_eq!(types.iter().count(), 66);
}

/// The patients of a content, which are the same for an old one and for a new one.
fn found(kind: &str, id: &str, content: &str) -> Result<Patients, BadResource> {
    let (bases, mut out) = (BaseUrls::default(), Vec::new());
    let columns = Columns { resource_type: kind.parse().unwrap(), id, ..COLUMNS };
    let new = write_resource_with_patients(content.as_bytes(), &columns, &bases, &mut out);
    assert_eq!(out.is_empty(), new.is_err(), "on an error nothing is appended");
    assert_eq!(patients_of_resource(content.as_bytes(), columns.resource_type, id, &bases), new);
    new
}

#[test]
fn what_cannot_be_read_is_not_taken_for_what_belongs_to_nobody() {
    for kind in ["Observation", "Patient", "Practitioner"] {
        for content in ["", "[]", r#"{"subject":{"reference":"Patient/a"}"#, r#"{"resourceType":"X"}{}"#] {
            assert_eq!(found(kind, "o", content), Err(BadResource::NotAnObject), "{content}");
        }
        for content in ["{}", r#"{"resourceType":"Group"}"#, r#"{"resourceType":1}"#] {
            assert_eq!(found(kind, "o", content), Err(BadResource::OtherType), "{content}");
        }
        let content = format!(r#"{{"resourceType":"{kind}"}}"#);
        assert_eq!(found(kind, "no id", &content), Err(BadResource::InvalidId));
        let content = format!(r#"{{"resourceType":"{kind}","meta":{{"a":1,}}}}"#);
        assert_eq!(found(kind, "o", &content), Err(BadResource::NotAnObject));
        assert!(found(kind, "o", &content.replace(",}", "}")).is_ok());
    }
}

#[test]
fn an_element_that_may_name_a_patient_has_to_be_json() {
    let content = r#"{"resourceType":"Observation","subject":{1},"code":{1}}"#;
    assert_eq!(found("Observation", "o", content), Err(BadResource::NotAnObject));
    let content = content.replace("subject", "focus");
    assert_eq!(found("Observation", "o", &content), Ok(Patients::none()));
}

#[test]
fn a_hundred_thousand_patients_are_found() {
    let content = |names: &mut dyn Iterator<Item = u32>| {
        let targets: Vec<_> = names.map(|n| json!({"reference": format!("Patient/p{n}")})).collect();
        json!({"resourceType": "Provenance", "target": targets}).to_string()
    };
    let different = content(&mut (0..100_000));
    assert_eq!(found("Provenance", "p", &different).unwrap().iter().count(), 100_000);
    let few = content(&mut (0..100_000).map(|n| n % 3));
    assert_eq!(found("Provenance", "p", &few), Ok(Patients::from_ids(["p0", "p1", "p2"])));
}

#[test]
fn debug_shows_no_id() {
    assert_eq!(format!("{:?}", Patients::from_ids(["secret"])), "1 patients");
}

/// A resource whose elements often name patients, or have the names of elements that do.
fn resource() -> impl Strategy<Value = String> {
    let scalar = prop::sample::select(vec![
        r#""Patient/a""#,
        r#""Patient/b""#,
        r#""Patient\/\u0063""#,
        r#""https://ehr.example/fhir/Patient/d/_history/2""#,
        r#""https://other.example/Patient/e""#,
        r#""Practitioner/f""#,
        r##""#g""##,
        r#""Patient/\ud800""#,
        r#""Observation""#,
        "null",
        "1.50",
    ])
    .prop_map(str::to_owned);
    let name = prop::sample::select(vec![
        "subject",
        "performer",
        "participant",
        "actor",
        "reference",
        "\\u0073ubject",
        "r\\u0065ference",
        "activity",
        "detail",
        "resourceType",
        "meta",
        "id",
        "",
    ]);
    let object = move |value: BoxedStrategy<String>| {
        prop::collection::vec((name.clone(), value), 0..5).prop_map(|members| {
            let members: Vec<_> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
            members.join(" ,\n")
        })
    };
    let nested = object.clone();
    let value = scalar.prop_recursive(5, 60, 5, move |inner| {
        prop_oneof![
            3 => nested(inner.clone().boxed()).prop_map(|members| format!("{{{members}}}")),
            1 => prop::collection::vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(", "))),
        ]
    });
    let kind =
        prop::sample::select(vec!["Observation", "Appointment", "CarePlan", "Patient", "Practitioner"]);
    (kind, object(value.boxed())).prop_map(|(kind, members)| {
        let comma = if members.is_empty() { "" } else { "," };
        format!(r#"{{{members}{comma}"resourceType":"{kind}"}}"#)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]
    #[test]
    fn one_pass_finds_what_a_parser_finds(content in resource()) {
        crate::fuzzing::scan(content.as_bytes());
    }

    #[test]
    fn damage_is_an_error_or_without_effect(
        content in resource(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut bytes = content.into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        crate::fuzzing::scan(&bytes);
    }
}

/// What the fuzzer begins with.
#[test]
fn every_seed_holds() {
    for target in ["scan", "splice"] {
        let seeds = std::fs::read_dir(format!("{}/../../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR")));
        let count = seeds
            .unwrap()
            .map(|seed| crate::fuzzing::scan(&std::fs::read(seed.unwrap().path()).unwrap()))
            .count();
        assert!(count > 5, "{target}");
    }
}

proptest! {
    #[test]
    fn a_set_survives_its_bytes(ids in prop::collection::vec("[A-Za-z0-9.-]{1,64}|[^a]{0,3}", 0..12)) {
        let set = Patients::from_ids(ids.iter().map(String::as_str));
        prop_assert_eq!(&Patients::from_bytes(set.as_bytes()), &Ok(set.clone()));
        let mut expected: Vec<_> = ids.iter().map(String::as_str).filter(|id| crate::is_id(id)).collect();
        expected.sort_unstable();
        expected.dedup();
        prop_assert_eq!(set.iter().collect::<Vec<_>>(), expected);
        prop_assert_eq!(set.is_empty(), set.iter().next().is_none());
    }

    #[test]
    fn bytes_are_a_set_or_refused(bytes in prop::collection::vec(prop_oneof![0_u8..4, prop::sample::select(&b"ab-\xff"[..])], 0..12)) {
        if let Ok(set) = Patients::from_bytes(&bytes) {
            prop_assert_eq!(Patients::from_ids(set.iter()), set);
        }
    }
}

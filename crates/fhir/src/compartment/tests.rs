use super::*;
use proptest::prelude::*;
use serde_json::json;

fn of(content: &str) -> Vec<String> {
    let tree: serde_json::Value = serde_json::from_str(content).unwrap();
    let kind = tree["resourceType"].as_str().unwrap().parse().unwrap();
    let bases = BaseUrls::new(["https://ehr.example/fhir"]);
    patients(kind, "own-id", content.as_bytes(), &bases).iter().map(str::to_owned).collect()
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

#[test]
fn what_is_not_an_object_is_in_no_compartment() {
    let kind = "Observation".parse().unwrap();
    for content in ["", "[]", r#"{"subject":{"reference":"Patient/a"}"#] {
        assert!(patients(kind, "o", content.as_bytes(), &BaseUrls::default()).is_empty(), "{content}");
    }
}

#[test]
fn debug_shows_no_id() {
    assert_eq!(format!("{:?}", Patients::from_ids(["secret"])), "1 patients");
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

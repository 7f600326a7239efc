use super::*;
use serde_json::{Value, json};

fn read(group: &Value) -> Result<GroupContent, UninterpretableGroup> {
    GroupContent::read(group.to_string().as_bytes(), &BaseUrls::new(["https://ehr.example/fhir"]))
}

fn of(members: &Value) -> GroupContent {
    read(&json!({"resourceType": "Group", "type": "person", "actual": true, "member": members})).unwrap()
}

fn at<'a>(group: &'a GroupContent, time: &str) -> Vec<&'a str> {
    group.members_at(time.parse().unwrap()).collect()
}

#[test]
fn patients_and_nested_groups_are_members() {
    let group = of(&json!([
        {"entity": {"reference": "Patient/b"}},
        {"entity": {"reference": "https://ehr.example/fhir/Patient/a"}},
        {"entity": {"reference": "Patient/b/_history/2"}},
        {"entity": {"reference": "Group/g2"}},
        {"entity": {"reference": "Practitioner/x"}},
        {"entity": {"reference": "https://other.example/fhir/Patient/c"}},
        {"entity": {"display": "nobody"}},
        {},
    ]));
    assert_eq!(at(&group, "2026-01-01T00:00:00Z"), ["a", "b"]);
    assert_eq!(group.nested().collect::<Vec<_>>(), ["g2"]);
    assert_eq!(group.next_change_after(Instant::MIN), None);
}

#[test]
fn a_member_counts_only_while_active_and_within_its_period() {
    let group = of(&json!([
        {"entity": {"reference": "Patient/inactive"}, "inactive": true},
        {"entity": {"reference": "Patient/a"}, "period": {"start": "2026-01-01", "end": "2026-06-30"}},
        {"entity": {"reference": "Patient/a"}, "period": {"start": "2026-09"}},
        {"entity": {"reference": "Patient/b"}, "period": {"end": "2026-03-01T12:00:00+01:00"}},
        {"entity": {"reference": "Patient/bad"}, "period": {"end": "soon"}},
        {"entity": {"reference": "Patient/modified"}, "modifierExtension": [{"url": "https://x.example"}]},
    ]));
    assert_eq!(at(&group, "2025-12-31T23:59:59Z"), ["b"]);
    assert_eq!(at(&group, "2026-01-01T00:00:00Z"), ["a", "b"]);
    // The second that is named belongs to the period.
    assert_eq!(at(&group, "2026-03-01T11:00:00.999Z"), ["a", "b"]);
    assert_eq!(at(&group, "2026-03-01T11:00:01Z"), ["a"]);
    assert_eq!(at(&group, "2026-06-30T23:59:59Z"), ["a"]);
    assert_eq!(at(&group, "2026-07-01T00:00:00Z"), [""; 0]);
    assert_eq!(at(&group, "2027-01-01T00:00:00Z"), ["a"]);
    let mut changes = Vec::new();
    let mut time = Instant::MIN;
    while let Some(next) = group.next_change_after(time) {
        changes.push(next.to_fhir());
        time = next;
    }
    assert_eq!(
        changes,
        [
            "2026-01-01T00:00:00.000000Z",
            "2026-03-01T11:00:01.000000Z",
            "2026-07-01T00:00:00.000000Z",
            "2026-09-01T00:00:00.000000Z"
        ]
    );
}

#[test]
fn a_group_that_does_not_list_persons_is_not_interpreted() {
    let group = |member: Value| {
        let mut group = json!({"resourceType": "Group", "type": "person", "actual": true});
        group.as_object_mut().unwrap().extend(member.as_object().unwrap().clone());
        read(&group).map(|read| read.members_at(Instant::MIN).count())
    };
    assert_eq!(group(json!({"type": "device"})), Err(UninterpretableGroup::NotPersons));
    assert_eq!(group(json!({"actual": false})), Err(UninterpretableGroup::NotActual));
    assert_eq!(group(json!({"actual": null})), Err(UninterpretableGroup::NotActual));
    assert_eq!(group(json!({"modifierExtension": [{}]})), Err(UninterpretableGroup::Modified));
    assert_eq!(group(json!({"modifierExtension": []})), Ok(0));
    assert_eq!(group(json!({"member": 1})), Err(UninterpretableGroup::Malformed));
    assert_eq!(group(json!({"resourceType": "Patient"})), Err(UninterpretableGroup::Malformed));
    let cut_off = GroupContent::read(b"{", &BaseUrls::default());
    assert_eq!(cut_off.map(|_| ()), Err(UninterpretableGroup::Malformed));
}

#[test]
fn a_hundred_thousand_members_are_read() {
    let members: Vec<_> =
        (0..100_000).map(|n| json!({"entity": {"reference": format!("Patient/p{n}")}})).collect();
    assert_eq!(of(&Value::Array(members)).members_at(Instant::MIN).count(), 100_000);
}

//! Streams of patients: selection, and patients that do not exist.

use super::*;
use feed::EventId;
use fhir::{Compartment, Filter, Patients, TypeSet};

const STREAM: &str = "Prefer: respond-eventsource";

fn of(ids: &[&str]) -> Filter {
    Filter::of_patients(TypeSet::all(), Compartment::Patients(Patients::from_ids(ids.iter().copied())))
}

#[tokio::test]
async fn path_and_parameter_select_the_patients() {
    let mut service = Service::start().await;
    let (mut client, stream) = service.stream("/fhir/Patient/$export", &[]).await;
    assert_eq!(stream.filter, Filter::of_patients(TypeSet::all(), Compartment::AnyPatient));
    let start = client.until("start:").await + &client.until("\n\n").await;
    assert!(start.contains("of all patients"), "{start}");
    let (_client, stream) = service.stream("/fhir/Patient/p1/$export", &[]).await;
    assert_eq!(stream.filter, of(&["p1"]));
    let (mut client, stream) =
        service.stream("/fhir/Patient/$export?patient=Patient/p1,p2&_type=Patient,Location", &[]).await;
    assert_eq!(stream.filter.compartment, of(&["p1", "p2"]).compartment);
    let start = client.until("start:").await + &client.until("\n\n").await;
    assert!(start.contains("of 2 patients") && start.contains("compartment: Location"), "{start}");
}

#[tokio::test]
async fn missing_patients_are_named() {
    let mut service = Service::start().await;
    for method in ["GET", "HEAD"] {
        let response = service.answer(method, "/fhir/Patient/x1/$export", &[STREAM]).await;
        assert_eq!(response.status, 404, "{method}");
    }
    let response = service.answer("GET", "/fhir/Patient/x1/$export", &[STREAM]).await;
    assert_eq!(response.issue()["code"], "not-found");
    assert!(response.diagnostics().contains("x1"));
    let target = "/fhir/Patient/$export?patient=x1,p1,x2";
    let response = service.answer("GET", target, &[STREAM]).await;
    assert_eq!((response.status, &response.issue()["code"]), (400, &"value".into()));
    assert!(response.diagnostics().contains("x1, x2;"), "{}", response.diagnostics());
    let lenient = "Prefer: handling=lenient, respond-eventsource";
    let (mut client, stream) = service.stream(target, &[lenient]).await;
    // They may come to be: what is asked for is the same when the client comes back.
    assert_eq!(stream.filter, of(&["p1", "x1", "x2"]));
    let start = client.until("start:").await + &client.until("\n\n").await;
    assert!(start.contains("not stored: x1, x2"), "{start}");
    // The path names a patient, with any handling.
    assert_eq!(service.answer("GET", "/fhir/Patient/x1/$export", &[lenient]).await.status, 404);
}

#[tokio::test]
async fn resume_without_a_received_event_starts_over() {
    let service = Service::start().await;
    for id in [EventId::beginning().to_string(), "nonsense".into()] {
        let header = format!("Last-Event-ID: {id}");
        let response = service.answer("GET", "/fhir/Patient/x1/$export", &[STREAM, &header]).await;
        assert_eq!(response.status, 404, "{id}");
    }
}

#[tokio::test]
async fn unavailable_and_unmigrated_databases_are_rejected_differently() {
    let service = Service::start().await;
    for (id, says) in [("away", "not available"), ("old", "fhir-tail migrate")] {
        let target = format!("/fhir/Patient/{id}/$export");
        let response = service.answer("GET", &target, &[STREAM]).await;
        assert_eq!(response.status, 503, "{id}");
        assert!(response.header("retry-after").is_some());
        assert!(response.diagnostics().contains(says), "{}", response.diagnostics());
        // An EventSource does not reconnect after a 503.
        let response = service.answer("GET", &target, &["Accept: text/event-stream"]).await;
        assert_eq!(response.status, 200);
        assert!(response.text().contains(says) && response.text().contains("retry:"));
    }
}

#[tokio::test]
async fn the_groups_themselves_are_a_type() {
    let service = Service::start().await;
    let response = service.answer("GET", "/fhir/Group/$export", &[STREAM]).await;
    assert_eq!(response.status, 404);
    assert!(response.diagnostics().contains("_type=Group"));
}

#[tokio::test]
async fn group_is_selected_by_its_id() {
    let mut service = Service::start().await;
    let (mut client, stream) = service.stream("/fhir/Group/g1/$export", &[]).await;
    assert_eq!(stream.filter, Filter::of_group(TypeSet::all(), "g1", None));
    let start = client.until("start:").await + &client.until("\n\n").await;
    assert!(start.contains("of the Group's members"), "{start}");
    // The journal of this feed begins with 1970.
    for (since, says) in [
        ("1969-01-01T00:00:00Z", "no longer known who was a member"),
        ("2000-01-01T00:00:00Z", "changes after 2000"),
        ("2099-01-01T00:00:00Z", "2099-01-01T00:00:00.000000Z) is ahead of the clock"),
    ] {
        let target = format!("/fhir/Group/g1/$export?_since={since}");
        let (mut client, _stream) = service.stream(&target, &[]).await;
        let start = client.until("start:").await + &client.until("\n\n").await;
        assert!(start.contains(says), "{start}");
    }
    let (_client, stream) = service.stream("/fhir/Group/g1/$export?patient=p1&_type=Patient", &[]).await;
    let only = Some(Patients::from_ids(["p1"]));
    assert_eq!(stream.filter.compartment, Filter::of_group(TypeSet::all(), "g1", only).compartment);
    let response = service.answer("GET", "/fhir/Group/g1/$export?patient=p1,p9", &[STREAM]).await;
    assert_eq!((response.status, &response.issue()["code"]), (400, &"value".into()));
    assert!(response.diagnostics().contains("members with the id p9;"), "{}", response.diagnostics());
}

#[tokio::test]
async fn missing_or_unfollowable_group_is_rejected() {
    let service = Service::start().await;
    for method in ["GET", "HEAD"] {
        assert_eq!(service.answer(method, "/fhir/Group/x1/$export", &[STREAM]).await.status, 404);
    }
    let response = service.answer("GET", "/fhir/Group/device/$export", &[STREAM]).await;
    assert_eq!((response.status, &response.issue()["code"]), (422, &"processing".into()));
    assert!(response.diagnostics().contains("'person'"), "{}", response.diagnostics());
    assert_eq!(service.answer("GET", "/fhir/Group/away/$export", &[STREAM]).await.status, 503);
}

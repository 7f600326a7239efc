//! Where a stream begins.

use super::*;
use feed::{Begin, EventId};

#[tokio::test]
async fn the_header_wins_over_the_query_and_both_over_since() {
    let mut service = Service::start().await;
    let id = EventId::beginning().to_string();
    let since = "2026-01-01T00:00:00Z";
    let known = format!("Last-Event-ID: {id}");

    let (_client, stream) = service.stream("/fhir/$export", &[]).await;
    assert!(matches!(stream.begin, Begin::Since(None)));

    let (_client, stream) = service.stream(&format!("/fhir/$export?_since={since}"), &[]).await;
    assert!(matches!(stream.begin, Begin::Since(Some(_))));

    // An unreadable id in the header is a reset, a readable one in the query besides or not.
    for target in ["/fhir/$export".to_owned(), format!("/fhir/$export?_lastEventId={id}")] {
        for header in ["Last-Event-ID: nonsense", "Last-Event-ID: \u{e9}"] {
            let (_client, stream) = service.stream(&target, &[header]).await;
            assert!(matches!(stream.begin, Begin::After { id: None, since: None }), "{target} {header}");
        }
    }

    // A readable one in the header makes the query's no matter.
    for target in ["/fhir/$export".to_owned(), "/fhir/$export?_lastEventId=nonsense".to_owned()] {
        let (_client, stream) = service.stream(&target, &[&known]).await;
        let Begin::After { id: Some(found), since: None } = &stream.begin else {
            panic!("{:?}", stream.begin)
        };
        assert_eq!(found.to_string(), id);
    }

    // An empty id counts as absent.
    for header in ["Last-Event-ID:", "Last-Event-ID: "] {
        let (_client, stream) = service.stream("/fhir/$export", &[header]).await;
        assert!(matches!(stream.begin, Begin::Since(None)), "{header:?}");
        let target = format!("/fhir/$export?_lastEventId={id}&_since={since}");
        let (_client, stream) = service.stream(&target, &[header]).await;
        assert!(matches!(stream.begin, Begin::After { id: Some(_), since: Some(_) }), "{header:?}");
    }
    let (_client, stream) = service.stream("/fhir/$export?_lastEventId=", &[]).await;
    assert!(matches!(stream.begin, Begin::Since(None)));
}

/// A polyfill that cannot send the header adds a parameter to the URL that it was made with.
#[tokio::test]
async fn library_parameter_wins_over_last_event_id_parameter() {
    let mut service = Service::start().await;
    let id = EventId::beginning().to_string();
    for name in ["lastEventId", "Last-Event-ID", "evs_last_event_id"] {
        for query in [format!("{name}={id}"), format!("_lastEventId=nonsense&padding=true&{name}={id}")] {
            let (_client, stream) = service.stream(&format!("/fhir/$export?{query}"), &[]).await;
            let Begin::After { id: Some(found), since: None } = &stream.begin else {
                panic!("{query}: {:?}", stream.begin)
            };
            assert_eq!(found.to_string(), id);
        }
        // As in the header: the library would repeat it forever.
        let (_client, stream) = service.stream(&format!("/fhir/$export?{name}=nonsense"), &[]).await;
        assert!(matches!(stream.begin, Begin::After { id: None, since: None }), "{:?}", stream.begin);
        let target = format!("/fhir/$export?{name}=nonsense");
        let (_client, stream) = service.stream(&target, &[&format!("Last-Event-ID: {id}")]).await;
        assert!(matches!(stream.begin, Begin::After { id: Some(_), .. }), "{:?}", stream.begin);
        let (_client, stream) = service.stream(&format!("/fhir/$export?{name}="), &[]).await;
        assert!(matches!(stream.begin, Begin::Since(None)), "{:?}", stream.begin);
    }
}

#[tokio::test]
async fn an_unreadable_id_in_the_query_is_an_error() {
    let service = Service::start().await;
    let target = "/fhir/$export?_lastEventId=nonsense";
    let response = service.answer("GET", target, &["Prefer: respond-eventsource"]).await;
    assert_eq!(response.status, 400);
    assert!(response.issue()["expression"][0].as_str().unwrap().contains("_lastEventId"));
}

#[tokio::test]
async fn start_says_what_was_understood() {
    let mut service = Service::start().await;
    for (target, expected) in [
        ("/fhir/$export", &["every resource type", "current state", "15 s"][..]),
        ("/fhir/$export?_type=Condition,Encounter", &["Condition, Encounter"]),
        ("/fhir/$export?_since=2020-01-01T00:00:00Z", &["changes after 2020-01-01T00:00:00"]),
        ("/fhir/$export?_since=9000-01-01T00:00:00Z", &["ahead of the clock"]),
        ("/fhir/$export?_heartbeat=3", &["3 s"]),
    ] {
        let (client, _stream) = service.stream(target, &[]).await;
        let response = Response::of(&client.read);
        for part in expected {
            assert!(response.text().contains(part), "{target}: {}", response.text());
        }
    }
    let (client, _stream) = service.stream("/fhir/$export", &["Last-Event-ID: nonsense"]).await;
    assert!(Response::of(&client.read).text().contains("cannot be read"));
}

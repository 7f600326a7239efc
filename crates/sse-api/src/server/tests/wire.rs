//! Streams on the wire.

use super::*;
use crate::ServerSettings;
use crate::scripted_feed::change;
use fhir::ResourceType;
use std::time::Duration;

#[tokio::test]
async fn the_headers_of_a_stream_are_these_and_no_others() {
    let mut service = Service::start().await;
    let (client, _stream) = service.stream("/fhir/$export", &["Accept: application/fhir+json"]).await;
    let response = Response::of(&client.read);
    assert_eq!((response.version.as_str(), response.status), ("HTTP/1.1", 200));
    assert_eq!(
        response.names(),
        [
            "cache-control",
            "connection",
            "content-security-policy",
            "content-type",
            "cross-origin-resource-policy",
            "date",
            "preference-applied",
            "referrer-policy",
            "transfer-encoding",
            "vary",
            "x-accel-buffering",
            "x-content-type-options"
        ]
    );
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    assert_eq!(response.header("cache-control"), Some("no-store, no-transform"));
    assert_eq!(response.header("x-accel-buffering"), Some("no"));
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(response.header("vary"), Some("Accept, Prefer, Origin"));
    assert_eq!(response.header("preference-applied"), Some("respond-eventsource"));

    let mut client = service.send("GET", "/fhir/$export", &["Accept: text/event-stream"]).await;
    client.until("}\n\n").await;
    let response = Response::of(&client.read);
    assert_eq!(response.status, 200);
    assert_eq!(response.header("preference-applied"), None);
}

#[tokio::test]
async fn frames_are_sent_without_delay() {
    let mut service = Service::start().await;
    let (mut client, stream) = service.stream("/fhir/$export", &[]).await;
    let response = Response::of(&client.read);
    let (retry, frame) = response.text().split_once('\n').unwrap();
    let millis: u64 = retry.strip_prefix("retry: ").unwrap().parse().unwrap();
    assert!((1_000..=4_000).contains(&millis));
    assert!(
        frame.starts_with("id: id-0\nevent: OperationOutcome\ndata: {\"resourceType\":\"OperationOutcome\"")
    );

    let begun = response.body.len();
    stream.send(change("x1", ResourceType::PATIENT, br#"{"resourceType":"Patient"}"#));
    client.until("x1\n").await;
    stream.send(change("x2", ResourceType::BUNDLE, b"{}"));
    client.until("{}\n\n").await;
    assert_eq!(
        &Response::of(&client.read).text()[begun..],
        "id: x1\nevent: Patient\ndata: {\"resourceType\":\"Patient\"}\n\nid: x2\nevent: Bundle\ndata: {}\n\n"
    );
}

#[tokio::test]
async fn http_1_0_is_served_without_chunks_and_without_a_host() {
    let mut service = Service::start().await;
    let mut client = service.connect().await;
    client.write(b"GET /fhir/$export HTTP/1.0\r\nAccept: text/event-stream\r\n\r\n").await;
    let stream = service.streams.recv().await.unwrap();
    stream.send(change("x1", ResourceType::PATIENT, b"{}"));
    client.until("data: {}\n\n").await;
    service.stopping.cancel();
    let response = client.rest().await;
    assert_eq!((response.version.as_str(), response.status), ("HTTP/1.0", 200));
    assert_eq!(response.header("transfer-encoding"), None);
    assert!(response.text().starts_with("retry: "));
    assert!(response.text().contains("shutdown"));
}

#[tokio::test]
async fn head_sends_the_headers_and_begins_no_stream() {
    let mut service = Service::start().await;
    let response = service.answer("HEAD", "/fhir/$export", &["Prefer: respond-eventsource"]).await;
    assert_eq!(response.status, 200);
    assert!(response.body.is_empty());
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    assert_eq!(response.header("preference-applied"), Some("respond-eventsource"));
    assert_eq!(response.header("content-length"), None);
    assert!(service.streams.try_recv().is_err());

    let response = service.answer("HEAD", "/fhir/$export", &[]).await;
    assert_eq!(response.status, 400);
    assert!(response.body.is_empty());
}

#[tokio::test]
async fn encoded_dollar_sign_is_accepted() {
    let mut service = Service::start().await;
    for target in ["/fhir/%24export", "/fhir/$export"] {
        let (_client, stream) = service.stream(target, &[]).await;
        assert_eq!(stream.filter, fhir::Filter::everything());
    }
    for target in ["/fhir/Condition/%24export", "/fhir/$export?_type=Condition"] {
        let (_client, stream) = service.stream(target, &[]).await;
        assert_eq!(stream.filter.types.iter().map(ResourceType::as_str).collect::<Vec<_>>(), ["Condition"]);
    }
}

#[tokio::test]
async fn disconnect_ends_the_stream() {
    let mut service = Service::start().await;
    let (client, stream) = service.stream("/fhir/$export", &[]).await;
    drop(client);
    stream.dropped().await;
}

/// A client that does not read costs its socket's buffers; when it reads it gets everything.
#[tokio::test]
async fn slow_client_within_the_timeout_is_kept() {
    const CHANGES: usize = 1_000;
    let mut service = Service::start().await;
    let (mut client, stream) = service.stream("/fhir/$export", &[]).await;
    let data = format!("\"{}\"", "x".repeat(64 * 1024));
    for number in 0..CHANGES {
        stream.send(change(&format!("n{number}"), ResourceType::PATIENT, data.as_bytes()));
    }
    // There is one thread: each answer to somebody else is a turn for the stream as well.
    for _ in 0..100 {
        assert_eq!(service.answer("GET", "/health/live", &[]).await.status, 200);
    }
    let taken = stream.taken();
    assert!(taken < CHANGES / 2, "{taken} of {CHANGES} were taken for a client that reads nothing");

    client.until(&format!("id: n{}\n", CHANGES - 1)).await;
    service.stopping.cancel();
    let response = client.rest().await;
    let ids: Vec<_> =
        response.text().lines().filter_map(|line| line.strip_prefix("id: n")).map(str::to_owned).collect();
    assert_eq!(ids, (0..CHANGES).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// Who takes nothing at all holds what others could use; it comes back with its last id.
#[tokio::test]
async fn stalled_client_is_disconnected_after_the_timeout() {
    let settings = ServerSettings { client_timeout: Duration::from_millis(300), ..ServerSettings::default() };
    let mut service = Service::start_with(settings).await;
    let (client, stream) = service.stream("/fhir/$export", &[]).await;
    let data = format!("\"{}\"", "x".repeat(64 * 1024));
    while stream.send(change("n", ResourceType::PATIENT, data.as_bytes())) {
        // Each answer to somebody else is a turn for the stream as well.
        assert_eq!(service.answer("GET", "/health/live", &[]).await.status, 200);
    }
    stream.dropped().await;
    drop(client);
}

//! Retryable rejections: a status, or a frame for an EventSource.

use super::*;
use feed::EventId;

/// The lines of the one frame: the wait in milliseconds, the id, and the issue.
fn frame(response: &Response) -> (u64, Vec<u8>, serde_json::Value) {
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    assert_eq!(response.header("cache-control"), Some("no-store, no-transform"));
    assert_eq!(response.header("retry-after"), None);
    let lines: Vec<&[u8]> = response.body.split(|byte| *byte == b'\n').collect();
    let [retry, id, event, data, b"", b""] = lines.as_slice() else { panic!("{response:?}") };
    let retry = std::str::from_utf8(retry.strip_prefix(b"retry: ").unwrap()).unwrap().parse().unwrap();
    assert_eq!(*event, b"event: OperationOutcome");
    let outcome: serde_json::Value = serde_json::from_slice(data.strip_prefix(b"data: ").unwrap()).unwrap();
    (retry, id.strip_prefix(b"id: ").unwrap().to_vec(), outcome["issue"][0].clone())
}

#[tokio::test]
async fn new_stream_without_the_database_is_rejected() {
    let mut service = Service::start().await;
    service.disconnect();
    for method in ["GET", "HEAD"] {
        let response = service.answer(method, "/fhir/$export", &["Prefer: respond-eventsource"]).await;
        assert_eq!(response.status, 503);
        let seconds: u64 = response.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds));
        if method == "GET" {
            assert_eq!(response.issue()["code"], "transient");
        }
    }

    let response = service.answer("GET", "/fhir/$export", &["Accept: text/event-stream"]).await;
    let (retry, id, issue) = frame(&response);
    assert!((1_000..=60_000).contains(&retry));
    assert_eq!(id, EventId::beginning().to_string().as_bytes());
    assert_eq!(issue["code"], "transient");
    assert!(service.streams.try_recv().is_err());
}

/// The id is the client's own, byte for byte: whatever it is, its next attempt must be the same as this one.
#[tokio::test]
async fn event_source_gets_its_id_back() {
    let service = Service::start().await;
    service.disconnect();
    for id in
        [&b"not ours"[..], b"caf\xc3\xa9", b"\xff\xfe", b"a\tb", EventId::beginning().to_string().as_bytes()]
    {
        let mut client = service.connect().await;
        client.write(b"GET /fhir/$export HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n").await;
        client.write(b"Accept: text/event-stream\r\nLast-Event-ID: ").await;
        client.write(id).await;
        client.write(b"\r\n\r\n").await;
        assert_eq!(frame(&client.rest().await).1, id);
    }
    let beginning = EventId::beginning();
    let target = format!("/fhir/$export?_lastEventId={beginning}");
    let response = service.answer("GET", &target, &["Accept: text/event-stream"]).await;
    assert_eq!(frame(&response).1, beginning.to_string().as_bytes());
}

#[tokio::test]
async fn permanent_rejections_keep_their_status() {
    let service = Service::start().await;
    service.disconnect();
    for (target, status) in [
        ("/fhir/$export?foo=1", 400),
        ("/fhir/$export?_lastEventId=nonsense", 400),
        ("/fhir/$export?_lastEventId=a%0Adata:%20x", 400),
        ("/fhir/Widget/$export", 404),
    ] {
        let response = service.answer("GET", target, &["Accept: text/event-stream"]).await;
        assert_eq!(response.status, status, "{target}");
        response.issue();
    }
}

#[tokio::test]
async fn stream_limit_is_enforced() {
    let mut service =
        Service::start_with(ServerSettings { max_streams: 1, ..ServerSettings::default() }).await;
    let (client, stream) = service.stream("/fhir/$export", &[]).await;

    let response = service.answer("GET", "/fhir/$export", &["Prefer: respond-eventsource"]).await;
    assert_eq!(response.status, 429);
    assert!(response.header("retry-after").is_some());
    assert_eq!(response.issue()["code"], "throttled");
    let response = service.answer("GET", "/fhir/$export", &["Accept: text/event-stream"]).await;
    assert_eq!(frame(&response).2["code"], "throttled");
    let metrics = service.answer("GET", "/metrics", &[]).await;
    assert!(metrics.text().contains("fhir_tail_streams_open 1\n"));

    drop(client);
    stream.dropped().await;
    service.stream("/fhir/$export", &[]).await;
}

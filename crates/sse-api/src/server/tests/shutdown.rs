//! The end of the service.

use super::*;
use crate::scripted_feed::change;
use fhir::ResourceType;

#[tokio::test]
async fn shutdown_notifies_every_stream_and_closes_every_connection() {
    let mut service = Service::start().await;
    let (mut first, stream) = service.stream("/fhir/$export", &[]).await;
    let (mut second, _other) = service.stream("/fhir/Condition/$export", &[]).await;
    stream.send(change("x1", ResourceType::PATIENT, b"{}"));
    first.until("{}\n\n").await;
    // One that waits between requests, and one that has not said anything yet.
    let mut idle = service.send("GET", "/health/live", &[]).await;
    idle.until("true}").await;
    let mut silent = service.connect().await;
    assert_eq!(service.answer("GET", "/health/live", &[]).await.status, 200);

    service.stopping.cancel();
    for (client, id) in [(&mut first, "id-1"), (&mut second, "id-0")] {
        let response = client.rest().await;
        let last = response.text().rsplit("retry: ").next().unwrap();
        let (millis, frame) = last.split_once('\n').unwrap();
        assert!((1_000..=4_000).contains(&millis.parse::<u64>().unwrap()));
        assert!(frame.starts_with(&format!("id: {id}\nevent: OperationOutcome\ndata: ")), "{frame}");
        assert!(frame.contains("\"shutdown\"") && frame.ends_with("}\n\n"), "{frame}");
        assert!(client.read.ends_with(b"\r\n0\r\n\r\n"), "the response has its proper end");
    }
    assert_eq!(idle.rest().await.status, 200);
    let mut nothing = Vec::new();
    silent.socket.read_to_end(&mut nothing).await.unwrap();
    assert!(nothing.is_empty());
    service.running.await.unwrap();
    assert!(TcpStream::connect(service.address).await.is_err());
}

/// Who does not read is cut off in time, by a clock that only moves when everybody waits.
#[tokio::test]
async fn stalled_client_does_not_delay_shutdown_beyond_the_grace_period() {
    let mut service = Service::start().await;
    let (_client, stream) = service.stream("/fhir/$export", &[]).await;
    let data = vec![b'x'; 64 * 1024];
    for number in 0..1_000 {
        stream.send(change(&format!("n{number}"), ResourceType::PATIENT, &data));
    }
    for _ in 0..100 {
        assert_eq!(service.answer("GET", "/health/live", &[]).await.status, 200);
    }
    assert!(stream.taken() < 1_000);

    tokio::time::pause();
    let asked = tokio::time::Instant::now();
    service.stopping.cancel();
    service.running.await.unwrap();
    stream.dropped().await;
    assert!(asked.elapsed().as_secs() < 10, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn request_during_shutdown_is_retryable() {
    let mut service = Service::start().await;
    let mut client = service.connect().await;
    client.write(b"GET /fhir/$export HTTP/1.1\r\nHost: localhost\r\n").await;
    // There is one thread: with this answer the beginning above has been read as well.
    assert_eq!(service.answer("GET", "/health/live", &[]).await.status, 200);
    service.stopping.cancel();
    client.write(b"Prefer: respond-eventsource\r\n\r\n").await;
    let response = client.rest().await;
    assert_eq!(response.status, 503);
    assert!(response.header("retry-after").is_some());
    assert_eq!(response.issue()["code"], "transient");
    service.running.await.unwrap();
    assert!(service.streams.try_recv().is_err(), "a stream has begun");
}

#[tokio::test]
async fn request_pipelined_after_a_stream_is_ignored() {
    let mut service = Service::start().await;
    let (mut client, stream) = service.stream("/fhir/$export", &[]).await;
    client.send("GET", "/fhir/$export", &["Prefer: respond-eventsource"]).await;
    service.stopping.cancel();
    assert!(client.rest().await.text().contains("\"shutdown\""));
    stream.dropped().await;
    service.running.await.unwrap();
    assert!(service.streams.try_recv().is_err(), "the second request has begun a stream");
}

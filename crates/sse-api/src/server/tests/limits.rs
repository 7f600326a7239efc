//! Clients that take all connections: later requests are answered all the same.

use super::*;
use std::time::Duration;

/// Few, so that a test reaches them: 3 streams, and 4 other connections.
fn few() -> ServerSettings {
    ServerSettings { max_streams: 3, spare_connections: 4, ..ServerSettings::default() }
}

/// Reads to the end of a connection that was closed, in whichever way.
async fn closed(client: &mut Client) {
    let mut rest = Vec::new();
    let _ = client.socket.read_to_end(&mut rest).await;
}

/// The value of a metric.
async fn metric(service: &Service, sample: &str) -> u64 {
    let response = service.answer("GET", "/metrics", &[]).await;
    let line = response.text().lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample}")).parse().unwrap()
}

#[tokio::test]
async fn the_longest_idle_connection_is_closed_and_streams_stay() {
    let mut service = Service::start_with(few()).await;
    let (mut streaming, stream) = service.stream("/fhir/$export", &[]).await;
    let mut silent = service.connect().await;
    // Accepted in the order in which they came.
    let mut half = service.connect().await;
    half.write(b"GET /health/live HTTP/1.1\r\nHost: local").await;
    let mut kept = service.send("GET", "/health/live", &[]).await;
    kept.until("true}").await;
    let mut more = Vec::new();
    for _ in 0..40 {
        let mut client = service.send("GET", "/health/live", &[]).await;
        client.until("true}").await;
        more.push(client);
    }
    closed(&mut silent).await;
    closed(&mut half).await;
    closed(&mut kept).await;
    for client in &mut more[..30] {
        closed(client).await;
    }
    assert_eq!(service.answer("GET", "/health/ready", &[]).await.status, 200);
    assert!(metric(&service, "fhir_tail_connections_closed_total{limit=\"all\"}").await > 30);
    assert_eq!(metric(&service, "fhir_tail_connections_limit").await, 7);
    assert_eq!(metric(&service, "fhir_tail_connections_open").await, 7);

    stream.send(crate::scripted_feed::change("x1", fhir::ResourceType::PATIENT, b"{}"));
    streaming.until("{}\n\n").await;
}

/// A connection on which requests come again and again is not idle.
#[tokio::test]
async fn a_connection_in_use_is_kept() {
    let service = Service::start_with(few()).await;
    let mut kept = service.connect().await;
    for _ in 0..30 {
        let _ = service.connect().await;
        kept.read.clear();
        kept.send("GET", "/health/live", &[]).await;
        kept.until("true}").await;
    }
}

#[tokio::test]
async fn probes_are_answered_when_every_stream_is_taken() {
    let mut service = Service::start_with(few()).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(service.stream("/fhir/$export", &[]).await);
    }
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(service.connect().await);
    }
    for target in ["/health/live", "/health/ready", "/metrics"] {
        assert_eq!(service.answer("GET", target, &[]).await.status, 200, "{target}");
    }
    let response = service.answer("GET", "/fhir/$export", &["Prefer: respond-eventsource"]).await;
    assert_eq!(response.status, 429);
    for (client, stream) in &mut streams {
        stream.send(crate::scripted_feed::change("x1", fhir::ResourceType::PATIENT, b"{}"));
        client.until("{}\n\n").await;
    }
}

/// Thousands connect at once and send little or nothing: streams continue and probes are answered.
#[tokio::test]
async fn a_storm_of_connections_leaves_streams_and_probes_alone() {
    let mut service = Service::start_with(ServerSettings { spare_connections: 16, ..few() }).await;
    let (mut client, stream) = service.stream("/fhir/$export", &[]).await;
    let mut held = std::collections::VecDeque::new();
    for number in 0..3_000 {
        let mut stranger = service.connect().await;
        if number % 2 == 0 {
            // It may be closed already.
            let _ = stranger.socket.write_all(b"GET / HT").await;
        }
        held.push_back(stranger);
        if held.len() > 100 {
            held.pop_front();
        }
        if number % 500 == 0 {
            assert_eq!(service.answer("GET", "/health/live", &[]).await.status, 200);
            stream.send(crate::scripted_feed::change(
                &format!("n{number}"),
                fhir::ResourceType::PATIENT,
                b"{}",
            ));
            client.until(&format!("id: n{number}\n")).await;
        }
    }
    assert!(metric(&service, "fhir_tail_connections_open").await <= 19);
}

/// The time limits, by a clock that only moves when everybody waits.
#[tokio::test]
async fn slow_requests_time_out() {
    let service = Service::start().await;
    let mut silent = service.connect().await;
    let mut slow = service.send("GET", "/health/live", &[]).await;
    slow.until("true}").await;
    slow.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nA: ").await;
    let mut kept = service.send("GET", "/health/live", &[]).await;
    kept.until("true}").await;
    // Read before the clock is stopped: there is one thread.
    assert_eq!(service.answer("GET", "/health/live", &[]).await.status, 200);
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    for client in [&mut silent, &mut slow, &mut kept] {
        closed(client).await;
    }
    assert!(began.elapsed() < Duration::from_secs(65), "{:?}", began.elapsed());
}

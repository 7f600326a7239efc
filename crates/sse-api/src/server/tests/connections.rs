//! Connections that become streams: earlier responses, later bytes, and the end.

use super::*;
use crate::ServerSettings;
use crate::scripted_feed::change;
use fhir::ResourceType;
use tokio::net::TcpSocket;

/// A chunked response as the chunks that it consists of, each of which must be whole, and nothing behind the last.
fn chunks(response: &[u8]) -> Vec<Vec<u8>> {
    let end = response.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let mut rest = &response[end + 4..];
    let mut chunks = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        rest = &rest[line + 2..];
        let (chunk, behind) = rest.split_at(size);
        rest = behind.strip_prefix(b"\r\n").unwrap();
        if size == 0 {
            assert!(rest.is_empty(), "{} bytes behind the last chunk", rest.len());
            return chunks;
        }
        chunks.push(chunk.to_vec());
    }
}

/// The frame of a change.
fn frame(id: &str, data: &str) -> String {
    format!("id: {id}\nevent: Patient\ndata: {data}\n\n")
}

/// Every write to a socket with little room ends somewhere in a chunk: in its size, its bytes, or behind them. What is there
/// while one is written makes the next, up to a limit.
#[tokio::test]
async fn chunks_are_whole_frames_for_a_slow_reader_too() {
    let mut service = Service::start().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2 * 1024).unwrap();
    let mut client = Client { socket: socket.connect(service.address).await.unwrap(), read: Vec::new() };
    client.send("GET", "/fhir/$export", &["Prefer: respond-eventsource"]).await;
    client.until("}\n\n").await;
    let stream = service.streams.recv().await.unwrap();

    let frames: Vec<_> = (0..1_000)
        .map(|number| {
            let data = "x".repeat(if number % 300 == 299 { 500_000 } else { number * 7 % 400 });
            (format!("n{number}"), data)
        })
        .collect();
    for (id, data) in &frames {
        stream.send(change(id, ResourceType::PATIENT, data.as_bytes()));
    }
    let mut piece = [0; 1_371];
    while !client.read.ends_with(b"data: x\n\n\r\n") {
        let count = client.socket.read(&mut piece).await.unwrap();
        assert!(count > 0, "the connection ended");
        client.read.extend_from_slice(&piece[..count]);
        if stream.taken() == frames.len() {
            stream.send(change("last", ResourceType::PATIENT, b"x"));
        }
    }
    service.stopping.cancel();
    client.rest().await;

    let chunks = chunks(&client.read);
    let (first, chunks) = chunks.split_first().unwrap();
    assert!(first.starts_with(b"retry: "));
    let mut frames = frames.iter().map(|(id, data)| frame(id, data)).chain([frame("last", "x")]).peekable();
    let mut several = 0;
    for chunk in chunks {
        let (mut rest, mut count) = (&chunk[..], 0);
        while let Some(behind) = frames.peek().and_then(|frame| rest.strip_prefix(frame.as_bytes())) {
            rest = behind;
            count += 1;
            assert!(
                rest.is_empty() || chunk.len() - rest.len() < 64 << 10,
                "more than was to be taken in hand"
            );
            frames.next();
        }
        several += usize::from(count > 1);
        assert!(rest.is_empty() || frames.peek().is_none(), "a chunk that ends within a frame");
    }
    assert!(frames.next().is_none(), "not all came");
    assert!(several > 3, "{several} chunks of several frames");
    assert!(String::from_utf8_lossy(chunks.last().unwrap()).contains("\"shutdown\""));
}

#[tokio::test]
async fn a_stream_by_http_1_0_is_its_frames_and_the_end_of_the_connection() {
    let mut service = Service::start().await;
    let mut client = service.connect().await;
    client
        .write(b"GET /fhir/$export HTTP/1.0\r\nConnection: keep-alive\r\nAccept: text/event-stream\r\n\r\n")
        .await;
    let stream = service.streams.recv().await.unwrap();
    stream.send(change("x1", ResourceType::PATIENT, b"{}"));
    stream.send(change("x2", ResourceType::PATIENT, b"{}"));
    client.until(&frame("x2", "{}")).await;
    service.stopping.cancel();
    let response = client.rest().await;
    assert_eq!(response.header("connection"), Some("close"));
    let (start, rest) = response.text().split_once("\n\n").unwrap();
    assert!(start.starts_with("retry: "), "{start}");
    let rest = rest.strip_prefix(&(frame("x1", "{}") + &frame("x2", "{}"))).unwrap();
    assert!(rest.starts_with("retry: ") && rest.ends_with("}\n\n"), "{rest}");
}

/// How many bytes of streams have been sent.
async fn bytes_sent(service: &Service) -> String {
    let metrics = service.answer("GET", "/metrics", &[]).await;
    let line = metrics.text().lines().find(|line| line.starts_with("fhir_tail_bytes_sent_total"));
    line.unwrap().to_owned()
}

/// Nothing is written on the way: the next heartbeat is not needed to find out.
#[tokio::test]
async fn disconnect_frees_the_slot_at_once() {
    let mut service =
        Service::start_with(ServerSettings { max_streams: 1, ..ServerSettings::default() }).await;
    let (client, stream) = service.stream("/fhir/$export?_heartbeat=50", &[]).await;
    let before = bytes_sent(&service).await;
    drop(client);
    stream.dropped().await;
    assert_eq!(bytes_sent(&service).await, before);
    service.stream("/fhir/$export", &[]).await;
}

#[tokio::test]
async fn few_bytes_after_a_request_are_dropped() {
    let mut service = Service::start().await;
    let mut client = service
        .send(
            "GET",
            "/fhir/$export",
            &["Prefer: respond-eventsource", "Content-Length: 3", "Expect: 100-continue"],
        )
        .await;
    client.write(b"abc").await;
    client.until("}\n\n").await;
    let stream = service.streams.recv().await.unwrap();
    for number in 0..60 {
        client.write(&[b'y'; 1024]).await;
        let id = format!("n{number}");
        stream.send(change(&id, ResourceType::PATIENT, b"{}"));
        client.until(&frame(&id, "{}")).await;
    }
    service.stopping.cancel();
    let response = client.rest().await;
    assert_eq!(response.status, 200);
    assert_eq!(chunks(&client.read).len(), 62);
}

#[tokio::test]
async fn kept_alive_connection_becomes_a_stream() {
    let mut service = Service::start().await;
    let mut client = service.send("GET", "/fhir/metadata", &[]).await;
    let head = client.until("\r\n\r\n").await;
    let response = Response::of(head.as_bytes());
    assert_eq!(response.status, 200);
    let length: usize = response.header("content-length").unwrap().parse().unwrap();
    let mut rest = vec![0; length - response.body.len()];
    client.socket.read_exact(&mut rest).await.unwrap();
    client.read.clear();
    client.send("GET", "/fhir/$export", &["Prefer: respond-eventsource"]).await;
    client.until("}\n\n").await;
    let stream = service.streams.recv().await.unwrap();
    stream.send(change("x1", ResourceType::PATIENT, b"{}"));
    client.until(&frame("x1", "{}")).await;
    service.stopping.cancel();
    client.rest().await;
    assert_eq!(chunks(&client.read).len(), 3);
}

/// The client takes none of the answers before all its requests are on their way.
#[tokio::test]
async fn stream_follows_all_earlier_responses() {
    const BEFORE: usize = 500;
    let mut service = Service::start().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2 * 1024).unwrap();
    let mut client = Client { socket: socket.connect(service.address).await.unwrap(), read: Vec::new() };
    let mut requests = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(BEFORE);
    requests.push_str("GET /fhir/$export HTTP/1.1\r\nHost: localhost\r\nPrefer: respond-eventsource\r\n\r\n");
    let (mut reading, mut writing) = client.socket.split();
    let read = async {
        // Nobody reads until hyper can write no more.
        for _ in 0..20 {
            assert_eq!(service.answer("GET", "/health/live", &[]).await.status, 200);
        }
        while !client.read.ends_with(b"}\n\n\r\n") {
            let count = reading.read_buf(&mut client.read).await.unwrap();
            assert!(count > 0, "the connection ended");
        }
    };
    let write = async { writing.write_all(requests.as_bytes()).await.unwrap() };
    tokio::join!(read, write);
    let stream = service.streams.recv().await.unwrap();
    stream.send(change("x1", ResourceType::PATIENT, b"{}"));
    client.until(&frame("x1", "{}")).await;

    let mut rest = &client.read[..];
    for number in 0..BEFORE {
        let response = Response::of(rest);
        let head = rest.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let length: usize = response.header("content-length").unwrap().parse().unwrap();
        assert_eq!(response.status, 200);
        assert!(rest[head + 4..].starts_with(b"# HELP fhir_tail_"), "answer {number}");
        rest = &rest[head + 4 + length..];
    }
    let response = Response::of(rest);
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    assert!(response.text().starts_with("retry: ") && response.text().ends_with(&frame("x1", "{}")));
}

#[tokio::test]
async fn disconnect_before_the_stream_begins_leaves_nothing() {
    let mut service =
        Service::start_with(ServerSettings { max_streams: 1, ..ServerSettings::default() }).await;
    for _ in 0..20 {
        let mut client = service.connect().await;
        client.send("GET", "/fhir/$export", &["Prefer: respond-eventsource"]).await;
        client.socket.shutdown().await.unwrap();
        drop(client);
        if let Some(stream) = service.streams.recv().await {
            stream.dropped().await;
        }
    }
    service.stream("/fhir/$export", &[]).await;
}

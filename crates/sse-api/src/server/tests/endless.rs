//! Clients that never stop sending: each is read up to a limit, then its connection is closed.

use super::*;
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio::net::tcp::OwnedWriteHalf;

/// More than all buffers on the way hold: who can send as much is read from.
const MANY: usize = 64 << 20;
/// Of a read: what lies in buffers on the way comes on top.
const PIECE: usize = 16 << 10;

/// A connection whose own buffers are small, as a stranger's would not be.
async fn connect(service: &Service) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(4 * 1024).unwrap();
    socket.connect(service.address).await.unwrap()
}

/// Sends this again and again until the connection is closed, and gives how much it could send.
async fn pour(socket: &mut OwnedWriteHalf, piece: &[u8]) -> usize {
    let mut sent = 0;
    while sent < MANY {
        match socket.write(piece).await {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    sent
}

/// Sends a head, and after it `piece` for ever; takes what comes meanwhile. What came, and how much could be sent.
async fn endless(service: &Service, head: &str, piece: &[u8]) -> (String, usize) {
    let (mut reading, mut writing) = connect(service).await.into_split();
    writing.write_all(head.as_bytes()).await.unwrap();
    let read = async {
        let mut came = Vec::new();
        // A connection that is closed while more comes is reset.
        let _ = reading.read_to_end(&mut came).await;
        String::from_utf8_lossy(&came).into_owned()
    };
    tokio::join!(read, pour(&mut writing, piece))
}

#[tokio::test]
async fn a_stream_whose_client_never_stops_sending_is_closed() {
    let mut service =
        Service::start_with(ServerSettings { max_streams: 1, ..ServerSettings::default() }).await;
    for piece in [&[b'y'; PIECE][..], b"GET /fhir/$export HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let (mut client, stream) = service.stream("/fhir/$export", &[]).await;
        // It reads nothing more itself, so that a stream cannot end for want of a reader.
        let mut sent = 0;
        while sent < MANY {
            match client.socket.write(piece).await {
                Ok(count) => sent += count,
                Err(_) => break,
            }
        }
        assert!(sent < MANY, "all of {sent} bytes were read");
        stream.dropped().await;
        assert!(service.streams.try_recv().is_err(), "what came behind began a stream");
    }
    service.stream("/fhir/$export", &[]).await;
}

/// The body of a request means nothing here, whatever is asked, and however it is framed.
#[tokio::test]
async fn an_endless_body_is_not_read() {
    let service = Service::start().await;
    let chunk = format!("{PIECE:x}\r\n{}\r\n", "y".repeat(PIECE));
    for (method, target) in [
        ("GET", "/health/live"),
        ("GET", "/fhir/$export"),
        ("HEAD", "/fhir/$export"),
        ("POST", "/fhir/$export"),
        ("POST", "/"),
        ("PUT", "/fhir/Patient/1"),
        ("DELETE", "/nothing"),
        ("OPTIONS", "/fhir/$export"),
        ("GET", "/fhir/Widget/$export"),
    ] {
        for framed in ["Content-Length: 99999999999\r\n", "Transfer-Encoding: chunked\r\n"] {
            let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{framed}\r\n");
            let piece = if framed.starts_with("Transfer") { chunk.as_bytes() } else { &[b'y'; PIECE][..] };
            let (_, sent) = endless(&service, &head, piece).await;
            assert!(sent < MANY, "{method} {target} {framed}: all of {sent} bytes were read");
        }
    }
}

#[tokio::test]
async fn invalid_request_is_rejected_and_closed() {
    let service = Service::start().await;
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "a: b\r\n".repeat(101));
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(20_000));
    for (head, piece, statuses) in [
        // A handshake of TLS, HTTP/2, and noise.
        ("\u{16}\u{3}\u{1}", "\u{2}\u{0}\u{1}".repeat(100), &["400"][..]),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "x".to_owned(), &["400", "505"]),
        ("", "\u{1}garbage ".repeat(100), &["400"]),
        ("", "\r\n".repeat(1_000), &["400", "431"]),
        ("", "x".repeat(1_000), &["400", "414", "431"]),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n", "a: b\r\n".repeat(100), &["431"]),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nA: ", "b".repeat(1_000), &["431"]),
        (&many, "x".to_owned(), &["431"]),
        (&long, "x".to_owned(), &["414", "431"]),
    ] {
        let (came, sent) = endless(&service, head, piece.as_bytes()).await;
        assert!(sent < MANY, "{head:.40}: all of {sent} bytes were read");
        // Nothing of it comes where the reset overtook the answer.
        let status = came.get(9..12);
        assert!(
            status.is_none_or(|status| statuses.contains(&status)),
            "{head:.40}: {status:?} instead of {statuses:?}"
        );
    }
    assert_eq!(service.answer("GET", "/health/live", &[]).await.status, 200);
}

/// Requests that come one behind the other are answered as fast as the answers are taken, and no faster.
#[tokio::test]
async fn requests_are_not_read_while_their_answers_are_not_taken() {
    let service = Service::start_with(ServerSettings {
        client_timeout: Duration::from_millis(300),
        ..ServerSettings::default()
    })
    .await;
    let (reading, mut writing) = connect(&service).await.into_split();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let sent = pour(&mut writing, request.as_bytes()).await;
    assert!(sent < MANY, "all of {sent} bytes were read");
    drop(reading);
}

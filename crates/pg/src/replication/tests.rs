//! The connection against a server of a few lines, over a pipe, with a clock that the test moves.

use super::connection::Start;
use super::login::{Login, login};
use super::*;
use crate::Lsn;
use bytes::{Buf, BufMut, BytesMut};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_postgres::config::ChannelBinding;

/// The server's side of the pipe.
struct Server(DuplexStream);

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.put_u32(u32::try_from(body.len() + 4).unwrap());
    message.extend_from_slice(body);
    message
}

fn error(code: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0C{code}\0Mno\0Hdo it\0\0").as_bytes())
}

fn xlog(lsn: u64, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![b'w'];
    body.put_u64(lsn);
    body.put_u64(lsn);
    body.put_i64(0);
    body.extend_from_slice(payload);
    message(b'd', &body)
}

fn keepalive(lsn: u64, ask: bool) -> Vec<u8> {
    let mut body = vec![b'k'];
    body.put_u64(lsn);
    body.put_i64(0);
    body.put_u8(u8::from(ask));
    message(b'd', &body)
}

impl Server {
    async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The next message of the client's.
    async fn read(&mut self) -> (u8, Vec<u8>) {
        let tag = self.0.read_u8().await.unwrap();
        (tag, self.read_untagged().await)
    }

    async fn read_untagged(&mut self) -> Vec<u8> {
        let length = self.0.read_u32().await.unwrap() as usize - 4;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        body
    }

    /// The next status update: written, durable, applied.
    async fn status(&mut self) -> [u64; 3] {
        let (tag, body) = self.read().await;
        let mut body = body.as_slice();
        assert_eq!((tag, body.get_u8(), body.len()), (b'd', b'r', 33));
        [body.get_u64(), body.get_u64(), body.get_u64()]
    }
}

const fn as_role(private: bool, password: Option<&'static [u8]>) -> Login<'static> {
    Login {
        user: "ann",
        password,
        dbname: "fhir",
        options: None,
        binding_policy: ChannelBinding::Prefer,
        server_end_point: None,
        private,
    }
}

/// What the pipe holds.
const PIPE: usize = 1 << 20;

const READY: &[u8] = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x08a\0b\0K\0\0\0\x0c\0\0\0\x2a\0\0\0\x01Z\0\0\0\x05I";

/// A client that is logged in.
async fn connected() -> (Connection<DuplexStream>, Server) {
    let (client, server) = duplex(PIPE);
    let mut server = Server(server);
    server.write(READY).await;
    let connection = login(client, &as_role(true, None)).await.unwrap();
    let startup = server.read_untagged().await;
    assert!(String::from_utf8_lossy(&startup).contains("replication\0database\0"));
    (connection, server)
}

/// A stream that has begun at 1000, with what is durable. The first status update is read.
async fn streaming(durable: watch::Receiver<Lsn>) -> (Stream<DuplexStream>, Server) {
    streaming_at_once(durable, &[]).await
}

/// The same, where the first messages come with the answer.
async fn streaming_at_once(durable: watch::Receiver<Lsn>, first: &[u8]) -> (Stream<DuplexStream>, Server) {
    let (connection, mut server) = connected().await;
    server.write(&message(b'N', b"SNOTICE\0C00000\0Mhello\0\0")).await;
    server.write(&[b"W\0\0\0\x07\0\0\0", first].concat()).await;
    let start = Start {
        slot: "slot",
        publication: "it's",
        from: Lsn::new(1000),
        status_interval: Duration::from_secs(10),
        durable,
    };
    let stream = connection.start(start).await.unwrap();
    let (tag, command) = server.read().await;
    assert_eq!(
        (tag, String::from_utf8_lossy(&command).as_ref()),
        (
            b'Q',
            "START_REPLICATION SLOT \"slot\" LOGICAL 0/3E8 \
             (proto_version '1', publication_names '\"it''s\"', messages 'true')\0"
        )
    );
    server.status().await;
    (stream, server)
}

#[tokio::test(start_paused = true)]
async fn what_comes_with_the_answer_is_seen_at_once() {
    let (_written, durable) = watch::channel(Lsn::new(1000));
    let (mut stream, _server) = streaming_at_once(durable, &xlog(1001, b"first")).await;
    assert!(matches!(stream.try_next(), Some(Ok(Event::Message(message))) if message == "first"));
    assert!(stream.try_next().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_read_takes_much_at_once() {
    let (_written, durable) = watch::channel(Lsn::new(1000));
    let (mut stream, mut server) = streaming(durable).await;
    server.write(&xlog(1001, &[0; 1000]).repeat(60)).await;
    let _first = stream.next().await.unwrap();
    assert_eq!(server.0.write(&[0; PIPE]).await.unwrap(), PIPE, "the pipe is empty");
}

#[tokio::test(start_paused = true)]
async fn commands_are_answered() {
    let (mut connection, mut server) = connected().await;
    assert_eq!(connection.pid(), 42);
    let row = |fields: &[&str]| {
        let mut body = BytesMut::new();
        body.put_u16(u16::try_from(fields.len()).unwrap());
        for field in fields {
            body.put_u32(u32::try_from(field.len()).unwrap());
            body.put_slice(field.as_bytes());
        }
        [message(b'D', &body), message(b'C', b"X\0"), message(b'Z', b"I")].concat()
    };
    server.write(&row(&["7259", "3", "1/A0", "fhir"])).await;
    let system = connection.identify_system().await.unwrap();
    assert_eq!(system, System { id: 7259, timeline: 3, flushed: Lsn::new(0x1_0000_00a0) });
    server.write(&row(&["slot", "0/64", "", "pgoutput"])).await;
    assert_eq!(connection.create_slot("slot", false).await.unwrap(), Lsn::new(100));
    server.write(&row(&["00000003.history", "1\t0/10\tx\n2\t0/20\ty\n"])).await;
    assert_eq!(connection.timeline_history(3).await.unwrap().len(), 2);
    server.write(&row(&["nonsense"])).await;
    assert!(matches!(connection.identify_system().await, Err(Error::Protocol(_))));
    server.write(&error("42501")).await;
    let refused = connection.create_slot("slot", false).await.unwrap_err();
    assert_eq!(refused.sql_state(), Some("42501"));
    assert_eq!(refused.retry(), crate::Retry::Operator);
    assert_eq!(refused.to_string(), "the server refused: no (SQLSTATE 42501); do it");
}

#[tokio::test(start_paused = true)]
async fn a_login_that_cannot_be_is_an_error() {
    let cases: [(&[u8], Login<'_>, &str); 5] = [
        (b"R\0\0\0\x08\0\0\0\x03", as_role(false, Some(b"x")), "over an open network"),
        (b"R\0\0\0\x08\0\0\0\x03", as_role(true, None), "PGPASSWORD"),
        (b"R\0\0\0\x08\0\0\0\x07", as_role(true, None), "scram-sha-256"),
        (b"R\0\0\0\x0d\0\0\0\x0aOLD\0\0", as_role(true, Some(b"x")), "no SCRAM-SHA-256"),
        (b"HTTP/1.1 400 Bad Request", as_role(true, None), "cannot be read"),
    ];
    for (answer, role, expected) in cases {
        let (client, server) = duplex(4096);
        let mut server = Server(server);
        server.write(answer).await;
        let error = login(client, &role).await.err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn notices_and_parameters_within_the_stream_are_passed_over() {
    let (_durable, receiver) = watch::channel(Lsn::new(1000));
    let (mut stream, mut server) = streaming(receiver).await;
    server.write(&message(b'S', b"a\0b\0")).await;
    server.write(&message(b'N', b"SNOTICE\0C00000\0Mhello\0\0")).await;
    assert!(stream.try_next().is_none());
    server.write(&[xlog(1010, b"first"), keepalive(1020, false)].concat()).await;
    assert_eq!(stream.next().await.unwrap(), Event::Message("first".into()));
    assert_eq!(stream.try_next().unwrap().unwrap(), Event::Keepalive(Lsn::new(1020)));
    assert!(stream.try_next().is_none());
    server.write(&error("57P01")).await;
    assert_eq!(stream.next().await.unwrap_err().sql_state(), Some("57P01"));
    drop(server);
    assert!(matches!(stream.next().await, Err(Error::Closed | Error::Io(_))));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_of_the_stream_is_an_error() {
    for wrong in [message(b'd', b"w short"), message(b'd', b""), message(b'd', b"x"), message(b'1', b"")] {
        let (_durable, receiver) = watch::channel(Lsn::new(1000));
        let (mut stream, mut server) = streaming(receiver).await;
        server.write(&wrong).await;
        assert!(matches!(stream.next().await, Err(Error::Protocol(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_message_comes_whole() {
    let (_durable, receiver) = watch::channel(Lsn::new(1000));
    let (mut stream, mut server) = streaming(receiver).await;
    let payload: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let sent = xlog(1, &payload);
    let writing = tokio::spawn(async move {
        server.write(&sent).await;
        server
    });
    assert_eq!(stream.next().await.unwrap(), Event::Message(payload.into()));
    writing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_server_is_told_what_is_durable() {
    let (durable, receiver) = watch::channel(Lsn::new(900));
    let (mut stream, mut server) = streaming(receiver).await;
    let mut acked = stream.acked();
    // Nobody reads the stream meanwhile, and an update comes all the same.
    let began = Instant::now();
    assert_eq!(server.status().await, [900; 3]);
    assert_eq!(began.elapsed(), Duration::from_secs(10));

    // Beyond what this server has told us of is another history.
    durable.send(Lsn::new(5000)).unwrap();
    let began = Instant::now();
    assert_eq!(server.status().await, [1000; 3]);
    assert!(began.elapsed() <= Duration::from_millis(100));
    server.write(&keepalive(2000, false)).await;
    stream.next().await.unwrap();
    assert_eq!(server.status().await, [2000; 3]);

    // Many changes, one update.
    server.write(&keepalive(9000, false)).await;
    stream.next().await.unwrap();
    for lsn in 5001..5050 {
        durable.send(Lsn::new(lsn)).unwrap();
    }
    assert_eq!(server.status().await, [5049; 3]);
    acked.wait_for(|lsn| *lsn == Lsn::new(5049)).await.unwrap();
    assert!(timeout(Duration::from_secs(9), server.status()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_asks_is_answered_at_once_and_who_asks_too_often_is_let_go() {
    let (_durable, receiver) = watch::channel(Lsn::new(1000));
    let (mut stream, mut server) = streaming(receiver).await;
    let began = Instant::now();
    server.write(&keepalive(1000, true)).await;
    stream.next().await.unwrap();
    assert_eq!(server.status().await, [1000; 3]);
    assert_eq!(began.elapsed(), Duration::ZERO);

    // Ten a second are asked by a server with a short wal_sender_timeout ...
    for _ in 0..30 {
        tokio::time::advance(Duration::from_millis(110)).await;
        server.write(&keepalive(1000, true)).await;
        stream.next().await.unwrap();
        server.status().await;
    }
    // ... more by one that wants to go.
    for _ in 0..10 {
        server.write(&keepalive(1000, true)).await;
        if let Err(error) = stream.next().await {
            assert!(matches!(error, Error::ShuttingDown));
            return;
        }
    }
    panic!("held on to a server that shuts down");
}

#[tokio::test(start_paused = true)]
async fn the_end_is_a_last_update_and_copy_done() {
    let (durable, receiver) = watch::channel(Lsn::new(1000));
    let (mut stream, mut server) = streaming(receiver).await;
    server.write(&keepalive(2000, false)).await;
    stream.next().await.unwrap();
    durable.send(Lsn::new(2000)).unwrap();
    let closing = tokio::spawn(stream.close());
    loop {
        match server.read().await {
            (b'c', _) => break,
            (tag, body) => assert_eq!((tag, body.first()), (b'd', Some(&b'r'))),
        }
    }
    server.write(&[message(b'c', b""), message(b'C', b"COPY 0\0"), message(b'Z', b"I")].concat()).await;
    closing.await.unwrap().unwrap();
}

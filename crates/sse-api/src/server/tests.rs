//! The service as its clients see it: bytes on a socket.

mod connections;
mod endless;
mod limits;
mod negotiate;
mod other_routes;
mod patients;
mod rejections;
mod resume;
mod shutdown;
mod wire;

use crate::scripted_feed::{Scripted, ScriptedFeed, scripted};
use crate::{Server, ServerSettings, SourceSnapshot, bind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A running service with a feed in the hands of the test.
struct Service {
    address: SocketAddr,
    streams: UnboundedReceiver<Scripted>,
    connected: Arc<AtomicBool>,
    stopping: CancellationToken,
    running: JoinHandle<()>,
}

impl Service {
    async fn start() -> Self {
        Self::start_with(ServerSettings::default()).await
    }

    async fn start_with(settings: ServerSettings) -> Self {
        let server: Server =
            bind(ServerSettings { listen: vec!["127.0.0.1:0".parse().unwrap()], ..settings })
                .await
                .unwrap()
                .with_routes(dashboard::routes());
        let address = server.local_addrs().next().unwrap();
        let (feed, streams): (ScriptedFeed, _) = scripted();
        let connected = Arc::new(AtomicBool::new(true));
        let stopping = CancellationToken::new();
        let source = {
            let connected = Arc::clone(&connected);
            Arc::new(move || SourceSnapshot {
                connected: connected.load(SeqCst),
                ..SourceSnapshot::default()
            })
        };
        let running = tokio::spawn(server.run(feed, source, stopping.clone()));
        Self { address, streams, connected, stopping, running }
    }

    fn disconnect(&self) {
        self.connected.store(false, SeqCst);
    }

    async fn connect(&self) -> Client {
        Client { socket: TcpStream::connect(self.address).await.unwrap(), read: Vec::new() }
    }

    /// Sends a request of our own name by HTTP/1.1, with these further header lines.
    async fn send(&self, method: &str, target: &str, headers: &[&str]) -> Client {
        let mut client = self.connect().await;
        client.send(method, target, headers).await;
        client
    }

    /// The whole response to a request.
    async fn answer(&self, method: &str, target: &str, headers: &[&str]) -> Response {
        let mut client = self.send(method, target, &[headers, &["Connection: close"]].concat()).await;
        client.rest().await
    }

    /// A stream that was asked for by Prefer.
    async fn stream(&mut self, target: &str, headers: &[&str]) -> (Client, Scripted) {
        let mut client =
            self.send("GET", target, &[headers, &["Prefer: respond-eventsource"]].concat()).await;
        client.until("}\n\n").await;
        (client, self.streams.recv().await.unwrap())
    }
}

/// A client that looks at bytes.
struct Client {
    socket: TcpStream,
    read: Vec<u8>,
}

impl Client {
    async fn send(&mut self, method: &str, target: &str, headers: &[&str]) {
        let mut request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
        for line in headers {
            request.push_str(line);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        self.write(request.as_bytes()).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// Reads until this has come, and gives all that has come.
    async fn until(&mut self, text: &str) -> String {
        // What was looked at need not be looked at again, but for a part of the text at its end.
        let mut looked = 0;
        loop {
            if self.read[looked..].windows(text.len()).any(|window| window == text.as_bytes()) {
                return String::from_utf8_lossy(&self.read).into_owned();
            }
            looked = self.read.len().saturating_sub(text.len());
            let count = self.socket.read_buf(&mut self.read).await.unwrap();
            assert!(
                count > 0,
                "the connection ended before {text:?}: {}",
                String::from_utf8_lossy(&self.read)
            );
        }
    }

    /// Reads to the end of the connection.
    async fn rest(&mut self) -> Response {
        self.socket.read_to_end(&mut self.read).await.unwrap();
        Response::of(&self.read)
    }
}

/// A response, taken apart.
#[derive(Debug)]
struct Response {
    version: String,
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Response {
    fn of(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap().split(' ');
        let version = first.next().unwrap().to_owned();
        let status = first.next().unwrap().parse().unwrap();
        let headers: Vec<_> = lines
            .map(|line| line.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned())).unwrap())
            .collect();
        let mut body = bytes[end + 4..].to_vec();
        if headers.contains(&("transfer-encoding".to_owned(), "chunked".to_owned())) {
            body = unchunked(&body);
        }
        Self { version, status, headers, body }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as an OperationOutcome: its first issue.
    fn issue(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/fhir+json"));
        let outcome: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(outcome["resourceType"], "OperationOutcome");
        assert!(outcome["issue"][0]["severity"].is_string() && outcome["issue"][0]["code"].is_string());
        outcome["issue"][0].clone()
    }

    fn diagnostics(&self) -> String {
        self.issue()["diagnostics"].as_str().unwrap().to_owned()
    }
}

/// The contents of chunks, of as many as have come whole.
fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        let Some(chunk) = bytes.get(end + 2..end + 2 + size) else { break };
        body.extend_from_slice(chunk);
        bytes = bytes.get(end + 2 + size + 2..).unwrap_or_default();
    }
    body
}

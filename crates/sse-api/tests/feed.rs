//! The real feed behind the real service: a replay, a change as it is published, and a client that comes back.

// clippy takes helpers of an integration test for ordinary code.
#![allow(clippy::unwrap_used)]

use feed::{
    Answer, Batch, Before, Change, Feed, Kind, Lsn, Options, Origin, Page, PageRequest, PageRows, Position,
    Publisher, Sample, Source, Transaction, Watermark,
};
use fhir::{Instant, Patients, ResourceType, TypeSet};
use sse_api::{EventStream, ServerSettings, SourceSnapshot, bind};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const WATERMARK: Watermark =
    Watermark { safe_time: Instant::from_unix_micros(1_000), fence_lsn: Lsn::new(150) };

/// Tables with one patient in them.
struct OnePatient;

impl Source for OnePatient {
    fn watermark(&self) -> Answer<'_, Sample> {
        let taken = tokio::time::Instant::now();
        Box::pin(async move { Ok(Sample { watermark: WATERMARK, taken, tombstones_purged: None }) })
    }

    fn confirm(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn present(
        &self,
        _: Option<Instant>,
        _: TypeSet,
        _: Option<Arc<Patients>>,
    ) -> Answer<'_, Vec<(Kind, ResourceType)>> {
        Box::pin(async { Ok(vec![(Kind::Upsert, ResourceType::PATIENT)]) })
    }

    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>> {
        Box::pin(async { Ok(None) })
    }

    fn page<'a>(&'a self, request: PageRequest, rows: &'a mut dyn PageRows) -> Answer<'a, Page> {
        let wanted = request.resource_type == ResourceType::PATIENT
            && request.kind == Kind::Upsert
            && request.since.is_none()
            && request.after.is_none();
        if wanted {
            rows.row(Instant::from_unix_micros(500), "stored", &mut |out| {
                out.extend_from_slice(br#"{"resourceType":"Patient","id":"stored"}"#);
                true
            });
        }
        Box::pin(async { Ok(Page::default()) })
    }

    fn holding_back(&self) -> Option<String> {
        None
    }
}

fn open(directory: &Path) -> (Feed, Publisher) {
    let options = Options {
        directory: directory.to_owned(),
        retention_bytes: 1 << 30,
        retention_age: Duration::from_secs(3600),
        concurrent_pages: 2,
        held_bytes: 8 << 20,
        base_urls: fhir::BaseUrls::default(),
    };
    Feed::open(options, Arc::new(EventStream)).unwrap()
}

/// A transaction that leaves one patient.
fn patient(id: &str, lsn: u64) -> Batch {
    let commit_lsn = Lsn::new(lsn);
    let stamp = Instant::from_unix_micros(i64::try_from(lsn).unwrap() * 100);
    let change = Change {
        position: Position::first_at(commit_lsn),
        stamp,
        resource_type: ResourceType::PATIENT,
        kind: Kind::Upsert,
        patients: Patients::none(),
        before: Before::Nothing,
        group_before: None,
        tick: None,
        data: format!(r#"{{"resourceType":"Patient","id":"{id}"}}"#).into(),
    };
    let transaction = Transaction { commit_lsn, xid: 1, commit_time: stamp };
    Batch { changes: vec![change], transactions: vec![transaction], passed: Some(Lsn::new(lsn + 1)) }
}

async fn ask(address: SocketAddr, target: &str, header: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    // By HTTP/1.0, so that there are no chunks between the lines.
    let request = format!("GET {target} HTTP/1.0\r\nPrefer: respond-eventsource\r\n{header}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

async fn until(socket: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    loop {
        let so_far = String::from_utf8_lossy(&read).into_owned();
        if so_far.find(text).is_some_and(|at| so_far[at..].contains("\n\n")) {
            return so_far;
        }
        let count = socket.read_buf(&mut read).await.unwrap();
        assert!(count > 0, "the stream ended before {text:?}: {so_far}");
    }
}

/// The id of the frame that holds this.
fn id_of(stream: &str, text: &str) -> String {
    let frame = stream.split("\n\n").find(|frame| frame.contains(text)).unwrap();
    frame.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnecting_client_resumes_after_its_event() {
    let directory = tempfile::tempdir().unwrap();
    let (feed, mut publisher) = open(directory.path());
    let origin = Origin { system: 1, timeline: 1, identity: String::new() };
    publisher.begin_epoch(origin, Lsn::new(100), Instant::from_unix_micros(1), false).await.unwrap();
    feed.set_source(Arc::new(OnePatient));
    // A keepalive: the log has been read to beyond the watermark.
    publisher.publish(Batch { passed: Some(Lsn::new(160)), ..Batch::default() }).await.unwrap();

    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let server = bind(ServerSettings { listen, ..ServerSettings::default() }).await.unwrap();
    let address = server.local_addrs().next().unwrap();
    let stopping = CancellationToken::new();
    let source = Arc::new(|| SourceSnapshot { connected: true, ..SourceSnapshot::default() });
    let running = tokio::spawn(server.run(feed.clone(), source, stopping.clone()));

    let mut client = ask(address, "/fhir/$export", "").await;
    let replay = until(&mut client, "\"code\":\"live\"").await;
    let (stored, live) = (replay.find("\"id\":\"stored\""), replay.find("\"code\":\"live\""));
    assert!(stored.is_some() && stored < live, "{replay}");
    assert!(replay.contains("\nevent: Patient\ndata: {\"resourceType\":\"Patient\",\"id\":\"stored\"}\n\n"));

    publisher.publish(patient("first", 200)).await.unwrap();
    let heard = until(&mut client, "\"id\":\"first\"").await;
    let last = id_of(&heard, "\"id\":\"first\"");
    drop(client);

    publisher.publish(patient("second", 300)).await.unwrap();
    for (target, header) in [
        ("/fhir/$export".to_owned(), format!("Last-Event-ID: {last}\r\n")),
        (format!("/fhir/$export?_lastEventId={last}"), String::new()),
    ] {
        let mut client = ask(address, &target, &header).await;
        let heard = until(&mut client, "\"id\":\"second\"").await;
        assert!(!heard.contains("\"first\"") && !heard.contains("reset"), "{heard}");
        assert_eq!(id_of(&heard, "\"code\":\"start\""), last);
    }

    let mut narrow = ask(address, "/fhir/Observation/$export", &format!("Last-Event-ID: {last}\r\n")).await;
    until(&mut narrow, "\"code\":\"start\"").await;
    stopping.cancel();
    let end = until(&mut narrow, "\"code\":\"shutdown\"").await;
    assert!(!end.contains("event: Patient"), "{end}");
    running.await.unwrap();
}

use super::*;
use crate::admin::scrape::scrape;
use crate::metrics::Metrics;
use crate::scripted_feed::{Scripted, change, status, subscriber};
use crate::source::SourceSnapshot;
use crate::stream::registry::StreamRegistry;
use feed::Notice;
use fhir::{Instant as FhirInstant, ResourceType};
use futures_util::{FutureExt as _, StreamExt as _};
use std::pin::Pin;
use std::sync::Arc;

struct Test {
    body: Pin<Box<dyn Stream<Item = Result<Bytes, Infallible>> + Send>>,
    feed: Scripted,
    stopping: CancellationToken,
    metrics: Arc<Metrics>,
    streams: Arc<StreamRegistry>,
}

fn stream(heartbeat: u64) -> Test {
    let metrics = Arc::new(Metrics::new().unwrap());
    let streams = Arc::new(StreamRegistry::new(1, 1, Arc::clone(&metrics)));
    let open = streams.open("system", "127.0.0.1:1".parse().unwrap()).unwrap();
    let (subscriber, feed) = subscriber();
    let stopping = CancellationToken::new();
    let opening = StreamOptions { start: r#"{"s":1}"#.to_owned(), heartbeat: Duration::from_secs(heartbeat) };
    let body = Box::pin(event_body(subscriber, opening, open, stopping.clone()));
    Test { body, feed, stopping, metrics, streams }
}

impl Test {
    async fn next(&mut self) -> String {
        let bytes = self.body.next().await.unwrap().unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    async fn is_over(&mut self) -> bool {
        self.body.next().await.is_none()
    }

    fn sample(&self, name: &str) -> f64 {
        let text = scrape(&self.metrics, &status(), &SourceSnapshot::default()).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }
}

/// The millis of a `retry:` line, and the rest.
fn retry(frame: &str) -> (u64, &str) {
    let (millis, rest) = frame.strip_prefix("retry: ").unwrap().split_once('\n').unwrap();
    (millis.parse().unwrap(), rest)
}

#[tokio::test(start_paused = true)]
async fn start_comes_first_and_at_once() {
    let mut test = stream(15);
    let first = test.next().now_or_never().unwrap();
    let (millis, frame) = retry(&first);
    assert!((1_000..=4_000).contains(&millis));
    assert_eq!(frame, "id: id-0\nevent: OperationOutcome\ndata: {\"s\":1}\n\n");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_gets_a_comment_line_and_only_a_quiet_one() {
    let mut test = stream(15);
    test.next().await;
    let begun = Instant::now();
    assert_eq!(test.next().await, ": still here\n");
    assert_eq!(begun.elapsed().as_secs(), 15);

    tokio::time::advance(Duration::from_secs(10)).await;
    test.feed.send(change("x", ResourceType::PATIENT, b"{}"));
    assert_eq!(test.next().await, "id: x\nevent: Patient\ndata: {}\n\n");
    let sent = Instant::now();
    assert_eq!(test.next().await, ": still here\n");
    assert_eq!(sent.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn waiting_sends_nothing_and_does_not_delay_the_heartbeat() {
    let mut test = stream(2);
    test.next().await;
    let begun = Instant::now();
    test.feed.send(Item::Waiting("somebody".to_owned()));
    assert_eq!(test.next().await, ": still here\n");
    assert_eq!(begun.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn notices_carry_the_position_passed() {
    let mut test = stream(15);
    test.next().await;
    let at = FhirInstant::from_unix_micros(1_234_567);
    let notices = [
        (Notice::Live { transaction_time: at }, "live", at.to_fhir()),
        (Notice::Position { transaction_time: at }, "position", at.to_fhir()),
        (Notice::Stale { transaction_time: at }, "stale", at.to_fhir()),
        (Notice::Fresh { transaction_time: at }, "fresh", at.to_fhir()),
        (
            Notice::Reset { reason: "the journal is too short" },
            "reset",
            "the journal is too short".to_owned(),
        ),
        (Notice::ResetAll { reason: "forked" }, "reset-all", "forked".to_owned()),
    ];
    for (count, (notice, code, holds)) in notices.into_iter().enumerate() {
        test.feed.send(Item::Notice(notice));
        let frame = test.next().await;
        let data =
            frame.strip_prefix(&format!("id: id-{}\nevent: OperationOutcome\ndata: ", count + 1)).unwrap();
        let outcome: serde_json::Value = serde_json::from_str(data.trim_end()).unwrap();
        assert_eq!(outcome["resourceType"], "OperationOutcome");
        assert_eq!(outcome["id"], serde_json::Value::Null);
        assert_eq!(outcome["issue"][0]["details"]["coding"][0]["code"], code);
        assert!(data.contains(&holds), "{data}");
        assert_eq!(test.sample(&format!("fhir_tail_notices_sent_total{{code=\"{code}\"}}")), 1.0);
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_a_busy_stream_with_its_position() {
    let mut test = stream(15);
    test.next().await;
    test.feed.send(change("x", ResourceType::PATIENT, b"{}"));
    test.next().await;
    test.feed.send(change("y", ResourceType::PATIENT, b"{}"));
    test.stopping.cancel();
    let last = test.next().await;
    let (millis, frame) = retry(&last);
    assert!((1_000..=4_000).contains(&millis));
    assert!(frame.starts_with("id: id-1\nevent: OperationOutcome\ndata: "), "{frame}");
    assert!(frame.contains("\"shutdown\""), "{frame}");
    assert!(test.is_over().await);
    assert_eq!(test.sample("fhir_tail_streams_ended_total{reason=\"shutdown\"}"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn error_notice_omits_the_databases_message() {
    for (error, reason, code) in [
        (SourceError::Unavailable("secret-host is gone".to_owned()), "unavailable", "transient"),
        (SourceError::Refused("secret-host says no".to_owned()), "refused", "exception"),
    ] {
        let mut test = stream(15);
        test.next().await;
        test.feed.send(change("x", ResourceType::PATIENT, b"{}"));
        test.next().await;
        test.feed.fail(error);
        let last = test.next().await;
        let (_, frame) = retry(&last);
        assert!(frame.starts_with("id: id-2\nevent: OperationOutcome\ndata: "), "{frame}");
        assert!(frame.contains(&format!("\"code\":\"{code}\"")), "{frame}");
        assert!(!frame.contains("secret"), "{frame}");
        assert!(test.is_over().await);
        assert_eq!(test.sample(&format!("fhir_tail_streams_ended_total{{reason=\"{reason}\"}}")), 1.0);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_before_the_body_is_polled() {
    let mut test = stream(15);
    for id in ["a", "b", "c"] {
        test.feed.send(change(id, ResourceType::PATIENT, b"{}"));
    }
    assert_eq!(test.feed.taken(), 0);
    test.next().await;
    assert_eq!(test.feed.taken(), 0);
    test.next().await;
    assert_eq!(test.feed.taken(), 1);
}

#[tokio::test(start_paused = true)]
async fn sent_events_are_counted_and_drop_closes_the_stream() {
    let mut test = stream(15);
    let peer = "127.0.0.1:2".parse().unwrap();
    assert!(test.streams.open("system", peer).is_none());
    let mut bytes = test.next().await.len();
    test.feed.send(change("x", ResourceType::PATIENT, b"{}"));
    bytes += test.next().await.len();
    assert_eq!(test.sample("fhir_tail_streams_open"), 1.0);
    assert_eq!(test.sample("fhir_tail_events_sent_total{type=\"Patient\"}"), 1.0);
    assert_eq!(test.sample("fhir_tail_bytes_sent_total"), bytes as f64);

    test.body = Box::pin(futures_util::stream::empty());
    assert_eq!(test.sample("fhir_tail_streams_open"), 0.0);
    assert_eq!(test.sample("fhir_tail_streams_ended_total{reason=\"client\"}"), 1.0);
    assert!(test.streams.open("system", peer).is_some());
}

/// Whatever would be said within it would be taken for data.
#[tokio::test(start_paused = true)]
async fn nothing_is_sent_within_a_frame_in_pieces() {
    let piece = |text: &'static str, open: bool| {
        let counts = Arc::new([ResourceType::PATIENT].into_iter().filter(|_| !open).collect());
        Item::Frames(feed::Frames { bytes: text.into(), counts, open })
    };
    let mut test = stream(15);
    test.next().await;
    test.feed.send(piece("id: x\ndata: {", true));
    assert_eq!(test.next().await, "id: x\ndata: {");
    assert!(tokio::time::timeout(Duration::from_secs(60), test.next()).await.is_err(), "a heartbeat");
    test.feed.send(piece("}\n\n", false));
    assert_eq!(test.next().await, "}\n\n");
    assert_eq!(test.next().await, ": still here\n");
    assert_eq!(test.sample("fhir_tail_events_sent_total{type=\"Patient\"}"), 1.0);

    test.feed.send(piece("id: y\ndata: {", true));
    test.next().await;
    test.stopping.cancel();
    assert!(test.is_over().await, "it ends without a word");

    let mut test = stream(15);
    test.next().await;
    test.feed.send(piece("id: z\ndata: {", true));
    test.next().await;
    test.feed.fail(SourceError::Unavailable("x".into()));
    assert!(test.is_over().await, "it ends without a word");
}

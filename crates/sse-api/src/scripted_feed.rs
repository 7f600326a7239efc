//! For tests: a feed that says what the test tells it to.

use crate::feed_handle::{FeedHandle, FeedStream};
use feed::{Begin, Frames, Framing as _, GroupNow, Item, Lsn, Position, Pressure, SourceError, Status};
use fhir::{Filter, Instant, Patients, ResourceType};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::sync::mpsc;

/// A feed whose streams are given to the test as they begin.
#[derive(Clone)]
pub(crate) struct ScriptedFeed {
    begun: mpsc::UnboundedSender<Scripted>,
    pub(crate) status: Status,
}

/// A stream that began, in the hands of the test.
pub(crate) struct Scripted {
    pub(crate) filter: Filter,
    pub(crate) begin: Begin,
    items: mpsc::UnboundedSender<Result<Item, SourceError>>,
    taken: Arc<AtomicUsize>,
}

/// The other side of it.
pub(crate) struct ScriptedSubscriber {
    items: mpsc::UnboundedReceiver<Result<Item, SourceError>>,
    taken: Arc<AtomicUsize>,
}

/// The feed, and where its streams come out.
pub(crate) fn scripted() -> (ScriptedFeed, mpsc::UnboundedReceiver<Scripted>) {
    let (begun, streams) = mpsc::unbounded_channel();
    (ScriptedFeed { begun, status: status() }, streams)
}

/// A stream without a feed.
pub(crate) fn subscriber() -> (ScriptedSubscriber, Scripted) {
    let (items, receiver) = mpsc::unbounded_channel();
    let taken = Arc::new(AtomicUsize::new(0));
    let scripted = Scripted {
        filter: Filter::everything(),
        begin: Begin::Since(None),
        items,
        taken: Arc::clone(&taken),
    };
    (ScriptedSubscriber { items: receiver, taken }, scripted)
}

impl FeedHandle for ScriptedFeed {
    type FeedStream = ScriptedSubscriber;

    fn subscribe(&self, filter: Filter, begin: Begin) -> ScriptedSubscriber {
        let (subscriber, scripted) = subscriber();
        // A test that does not look at its streams has dropped the receiver.
        let _ = self.begun.send(Scripted { filter, begin, ..scripted });
        subscriber
    }

    /// Those whose id begins with a `p`; `away` and `old` are a database that is not there, or cannot tell.
    async fn stored(&self, patients: Patients) -> Result<Patients, SourceError> {
        if patients.contains("away") {
            return Err(SourceError::Unavailable("away".into()));
        }
        if patients.contains("old") {
            return Err(SourceError::Refused("old".into()));
        }
        Ok(Patients::from_ids(patients.iter().filter(|id| id.starts_with('p'))))
    }

    /// Those whose id begins with a `g` have the members p1 and p2.
    async fn group(&self, id: &str) -> Result<GroupNow, SourceError> {
        Ok(match id {
            "away" => return Err(SourceError::Unavailable("away".into())),
            "device" => GroupNow::Uninterpretable("its type is not 'person'".into()),
            _ if id.starts_with('g') => GroupNow::Members(Patients::from_ids(["p1", "p2"]).into()),
            _ => GroupNow::Missing,
        })
    }

    fn status(&self) -> Status {
        self.status
    }

    fn pressure(&self) -> Pressure {
        Pressure::default()
    }
}

impl FeedStream for ScriptedSubscriber {
    async fn next(&mut self) -> Result<Item, SourceError> {
        match self.items.recv().await {
            Some(item) => {
                self.taken.fetch_add(1, SeqCst);
                item
            }
            None => std::future::pending().await,
        }
    }

    /// Says how much was taken.
    fn id(&self) -> String {
        format!("id-{}", self.taken.load(SeqCst))
    }
}

impl Scripted {
    /// Sends an item; whether the stream still lives.
    pub(crate) fn send(&self, item: Item) -> bool {
        self.items.send(Ok(item)).is_ok()
    }

    /// Ends the stream with an error.
    pub(crate) fn fail(&self, error: SourceError) {
        self.items.send(Err(error)).unwrap();
    }

    /// Waits until the stream is dropped.
    pub(crate) async fn dropped(&self) {
        self.items.closed().await;
    }

    /// How many items were taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(SeqCst)
    }
}

/// A change as frames.
pub(crate) fn change(id: &str, event: ResourceType, data: &[u8]) -> Item {
    let mut bytes = Vec::new();
    crate::EventStream.frame(id, event, data, &mut bytes);
    Item::Frames(Frames { bytes: bytes.into(), counts: Arc::new([event].into_iter().collect()), open: false })
}

/// A feed in which nothing has happened yet.
pub(crate) fn status() -> Status {
    Status {
        head: Position::ZERO,
        received_lsn: Lsn::ZERO,
        durable_lsn: Lsn::ZERO,
        journal_bytes: 0,
        journal_ok: true,
        safe_time: Some(Instant::from_unix_micros(0)),
        visible_until: None,
        journal_begins: Instant::from_unix_micros(0),
        held_bytes: 0,
        replays_waiting: 0,
        journal_readers_waiting: 0,
        reads_reclaimed: 0,
        stalled_dropped: 0,
        stale: false,
        age: std::time::Duration::ZERO,
    }
}

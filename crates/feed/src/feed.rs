//! The feed itself: one publisher in, any number of subscribers out.

use crate::{Batch, Begin, Framing, Lsn, Mark, Position, Source, Subscription};
use fhir::{Filter, Instant};
use std::path::PathBuf;
use std::sync::Arc;

/// What the feed is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the journal lies: a directory of its own.
    pub directory: PathBuf,
    /// The journal keeps at most this many bytes ...
    pub retention_bytes: u64,
    /// ... and nothing older than this.
    pub retention_age: std::time::Duration,
}

/// The feed could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal could not be opened.
    #[error("the journal in {directory} cannot be opened")]
    Journal {
        /// Where it lies.
        directory: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The batch could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// What was decoded again is not what was published: the history has forked. The caller begins a new epoch.
    #[error("the transaction at {0} is not the one that was published: the database's history has forked")]
    Fork(Lsn),
    /// The journal was reopened after a failure: start the replication connection again from
    /// [`Publisher::resume_from`].
    #[error("the journal was reopened")]
    Reopened,
}

/// Where the feed is, for metrics and health.
#[derive(Clone, Copy, Debug, Default)]
pub struct Status {
    /// The last change that was published.
    pub head: Position,
    /// Everything before this place has been received and published.
    pub received_lsn: Lsn,
    /// Everything before this place is in the journal, on disk: what may be acknowledged.
    pub durable_lsn: Lsn,
    /// Bytes that the journal takes.
    pub journal_bytes: u64,
    /// Whether the journal takes changes (its disk may be full).
    pub journal_ok: bool,
    /// The newest mark.
    pub w: Option<Instant>,
    /// Before this instant no replay can begin: where the journal begins.
    pub origin: Option<Instant>,
    /// Bytes held for subscribers.
    pub held_bytes: u64,
}

/// The feed. Clones are the same feed.
#[derive(Clone)]
pub struct Feed(());

impl Feed {
    /// Opens the journal and what follows from it. Blocks on files.
    pub fn open(_options: Options, _framing: Arc<dyn Framing>) -> Result<(Self, Publisher), OpenError> {
        unimplemented!()
    }

    /// Tells where marks and pages come from; replays wait until it is known.
    pub fn set_source(&self, _source: Arc<dyn Source>) {
        unimplemented!()
    }

    /// Notes a mark that was taken (every second): for the ids of live events and for retention.
    pub fn mark(&self, _mark: Mark) {
        unimplemented!()
    }

    /// The newest W that is on disk: no later one may fall behind it. `None` in a new epoch.
    pub fn persisted_w(&self) -> Option<Instant> {
        unimplemented!()
    }

    /// A new subscriber.
    pub fn subscribe(&self, _filter: Filter, _begin: Begin) -> Subscription {
        unimplemented!()
    }

    /// Where the feed is.
    pub fn status(&self) -> Status {
        unimplemented!()
    }
}

/// The one that publishes. There is one for a feed.
pub struct Publisher(());

/// The database that the journal follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The cluster's system identifier.
    pub system: u64,
    /// Its timeline.
    pub timeline: u32,
    /// Object identifiers whose change means that the decoded stream is another: publication, tables.
    pub identity: String,
}

impl Publisher {
    /// The database that the journal follows; `None` when it is new.
    pub fn origin(&self) -> Option<Origin> {
        unimplemented!()
    }

    /// The last LSN that was acknowledged or may have been: the slot must stand at or before it.
    pub fn acknowledged(&self) -> Lsn {
        unimplemented!()
    }

    /// Begins a new epoch at a place in the log (where a new slot begins): what follows has nothing to
    /// do with what was published before, every subscriber is reset, and no replay begins until W has
    /// passed `since`. `fork`: versions that were published may no longer exist, so that resets are `reset-all`.
    pub async fn begin_epoch(
        &mut self,
        _origin: Origin,
        _start: Lsn,
        _since: Instant,
        _fork: bool,
    ) -> Result<(), PublishError> {
        unimplemented!()
    }

    /// Publishes a batch: to the hub at once, to the journal in order. Waits when the journal is behind.
    /// What lies at or before the head is dropped after its transaction was compared.
    pub async fn publish(&mut self, _batch: Batch) -> Result<(), PublishError> {
        unimplemented!()
    }

    /// What may be acknowledged: it moves after each fsync of the journal.
    pub fn durable(&self) -> tokio::sync::watch::Receiver<Lsn> {
        unimplemented!()
    }
}

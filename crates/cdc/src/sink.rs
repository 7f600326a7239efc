//! Where batches go: the feed, or what stands for it in a test.

use feed::{Batch, Feed, Lsn, Origin, PublishError, Publisher};
use std::future::Future;
use tokio::sync::watch;
use tokio::time::Instant;

/// Where batches go. [`FeedSink`] is the one that is used; its methods say what each means.
pub trait Sink: Send + Sync {
    /// See [`Publisher::origin`].
    fn origin(&self) -> Option<Origin>;
    /// See [`Publisher::tainted`].
    fn tainted(&self) -> bool;
    /// See [`Publisher::taint`].
    fn taint(&mut self) -> impl Future<Output = Result<(), PublishError>> + Send;
    /// See [`Publisher::durable_lsn`].
    fn durable_lsn(&self) -> Lsn;
    /// See [`Publisher::reached`].
    fn reached(&self) -> Lsn;
    /// See [`Publisher::durable`].
    fn durable(&self) -> watch::Receiver<Lsn>;
    /// See [`Feed::log_ended`]: to be called while this is busy.
    fn log_ends(&self) -> LogEnds;
    /// See [`Feed::set_leader`].
    fn set_leader(&mut self, leads: bool);
    /// See [`Publisher::resume`].
    fn resume(&mut self, from: Lsn);
    /// See [`Publisher::reopened`].
    fn reopened(&self) -> impl Future<Output = ()> + Send;
    /// See [`Publisher::writable`].
    fn writable(&self) -> impl Future<Output = ()> + Send;
    /// See [`Publisher::begin_epoch`].
    fn begin_epoch(&mut self, epoch: Epoch) -> impl Future<Output = Result<(), PublishError>> + Send;
    /// See [`Publisher::publish`]. Is never dropped half done but when the process ends.
    fn publish(&mut self, batch: Batch) -> impl Future<Output = Result<(), PublishError>> + Send;
}

/// Takes word of where the log ended at a moment.
pub type LogEnds = Box<dyn Fn(Instant, Lsn) + Send + Sync>;

/// A new epoch, see [`Publisher::begin_epoch`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Epoch {
    /// The database that it follows.
    pub origin: Origin,
    /// Where in its log.
    pub start: Lsn,
    /// The database's clock after the slot was made: no replay begins before it.
    pub since: fhir::Instant,
    /// Whether versions that were published may no longer exist.
    pub fork: bool,
}

/// The feed.
pub struct FeedSink {
    feed: Feed,
    publisher: Publisher,
}

impl FeedSink {
    /// Into this feed, through its one publisher.
    pub fn new(feed: Feed, publisher: Publisher) -> Self {
        Self { feed, publisher }
    }
}

impl Sink for FeedSink {
    fn origin(&self) -> Option<Origin> {
        self.publisher.origin()
    }

    fn tainted(&self) -> bool {
        self.publisher.tainted()
    }

    async fn taint(&mut self) -> Result<(), PublishError> {
        self.publisher.taint().await
    }

    fn durable_lsn(&self) -> Lsn {
        self.publisher.durable_lsn()
    }

    fn reached(&self) -> Lsn {
        self.publisher.reached()
    }

    fn durable(&self) -> watch::Receiver<Lsn> {
        self.publisher.durable()
    }

    fn log_ends(&self) -> LogEnds {
        let feed = self.feed.clone();
        Box::new(move |at, end| feed.log_ended(at, end))
    }

    fn set_leader(&mut self, leads: bool) {
        self.feed.set_leader(leads);
    }

    fn resume(&mut self, from: Lsn) {
        self.publisher.resume(from);
    }

    async fn reopened(&self) {
        self.publisher.reopened().await;
    }

    async fn writable(&self) {
        self.publisher.writable().await;
    }

    async fn begin_epoch(&mut self, epoch: Epoch) -> Result<(), PublishError> {
        self.publisher.begin_epoch(epoch.origin, epoch.start, epoch.since, epoch.fork).await
    }

    async fn publish(&mut self, batch: Batch) -> Result<(), PublishError> {
        self.publisher.publish(batch).await
    }
}

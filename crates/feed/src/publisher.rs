//! The publisher: the one way into the feed.

use crate::journal::{Publish, State, Stopped, Writer, ended, is_large};
use crate::shared::Shared;
use crate::{Batch, Lsn, Position, Transaction};
use fhir::Instant;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};

/// The batch could not be published.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PublishError {
    /// What was decoded again is not what was published. The caller begins a new epoch.
    #[error("the transaction at {0} is not the one that was published: the database's history has forked")]
    Fork(Lsn),
    /// The journal was opened again after a failure, and lacks what was published meanwhile: replication is to be
    /// started again from [`Publisher::durable_lsn`].
    #[error("the journal was opened again after a failure")]
    Reopened,
    /// The journal's thread has ended: nothing can be made durable any more.
    #[error("the journal's thread has ended")]
    Stopped,
}

/// The database that the journal follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The cluster's system identifier.
    pub system: u64,
    /// Its timeline.
    pub timeline: u32,
    /// What else must stay the same for positions to mean the same: the object identifiers of publication and tables.
    pub identity: String,
}

/// The one that publishes. There is one for a feed.
pub struct Publisher {
    shared: Arc<Shared>,
    writer: Writer,
    origin: Option<Origin>,
    /// The last change handed to the hub, and its transaction.
    head: Position,
    transaction: Option<Transaction>,
    /// The last change handed to the journal.
    queued: Position,
    /// The journal's generation that `queued` belongs to.
    generation: u64,
    /// Everything committed before it was published, in this epoch.
    passed: Lsn,
    /// What was published may not be the database's history any more.
    tainted: bool,
    /// Replication has begun again from before the head's transaction, which must come again.
    awaits_head: bool,
    durable_lsn: watch::Receiver<Lsn>,
}

impl Publisher {
    /// `known` is the state of a journal that follows a database already.
    pub(crate) fn new(
        shared: Arc<Shared>,
        (writer, durable_lsn): (Writer, watch::Receiver<Lsn>),
        known: Option<State>,
    ) -> Self {
        let on_disk = *shared.durable.borrow();
        Self {
            shared,
            writer,
            origin: known.as_ref().map(|state| state.origin.clone()),
            tainted: known.as_ref().is_some_and(|state| state.tainted),
            head: on_disk.head.position,
            passed: on_disk.lsn,
            transaction: known.and_then(|state| state.transaction),
            queued: on_disk.head.position,
            generation: on_disk.generation,
            awaits_head: false,
            durable_lsn,
        }
    }

    /// The database that the journal follows; `None` when it is new.
    pub fn origin(&self) -> Option<Origin> {
        self.origin.clone()
    }

    /// Whether what was published may not exist any more, because an operator said that the database was restored, or because
    /// of [`taint`](Self::taint). The next epoch has to begin as a fork.
    pub fn tainted(&self) -> bool {
        self.tainted
    }

    /// Notes on disk that what was published may not exist any more. It holds, over restarts too, until
    /// [`begin_epoch`](Self::begin_epoch). To be called before the last sign of it in the database is removed, such as the slot.
    pub async fn taint(&mut self) -> Result<(), PublishError> {
        if self.tainted || self.origin.is_none() {
            return Ok(());
        }
        let (done, written) = oneshot::channel();
        self.writer.send(Publish::Taint { done })?;
        if written.await.is_err() {
            // The journal failed in between.
            let mut durable = self.shared.durable.clone();
            durable.wait_for(|durable| !durable.failing).await.map_err(|_| PublishError::Stopped)?;
            return Err(PublishError::Reopened);
        }
        self.tainted = true;
        Ok(())
    }

    /// Everything committed before it is on disk. The slot must stand at or before it.
    pub fn durable_lsn(&self) -> Lsn {
        self.shared.durable.borrow().lsn
    }

    /// Replication begins again from here: if that is not beyond the last transaction that was published,
    /// it comes again, or the history is another.
    pub fn resume(&mut self, from: Lsn) {
        self.awaits_head = self.transaction.is_some_and(|last| from <= last.commit_lsn);
    }

    /// Ends when the journal was opened again after a failure; the next [`publish`](Self::publish) then says so.
    pub async fn reopened(&self) {
        let mut durable = self.shared.durable.clone();
        if durable.wait_for(|durable| durable.generation != self.generation).await.is_err() {
            // Its thread has ended: the next to publish is told.
            std::future::pending::<()>().await;
        }
    }

    /// The database's log up to here is what clients were told of: in changes, or in pages, or as a time after which they
    /// have everything. A database whose log lacks any of it has another history.
    pub fn reached(&self) -> Lsn {
        let on_disk = self.shared.durable.borrow();
        self.head.commit_lsn.max(self.passed).max(on_disk.lsn).max(on_disk.paged)
    }

    /// Ends when the journal can be written.
    pub async fn writable(&self) {
        let mut durable = self.shared.durable.clone();
        if durable.wait_for(|durable| !durable.failing).await.is_err() {
            // Its thread has ended: the next to publish is told.
            std::future::pending::<()>().await;
        }
    }

    /// Begins a new epoch at a place in the log (where a new slot begins): what follows has nothing to
    /// do with what was published before, every subscriber is reset, and no replay begins until the safe time has
    /// passed `since`. `fork`: versions that were published may no longer exist, so that resets are `reset-all`.
    pub async fn begin_epoch(
        &mut self,
        origin: Origin,
        start: Lsn,
        since: Instant,
        fork: bool,
    ) -> Result<(), PublishError> {
        let state = State::begin(origin.clone(), start, since);
        let (done, written) = oneshot::channel();
        let mut past = self.shared.past.lock().clone();
        if self.origin.is_some()
            && let Ok(Some(before)) = self.shared.journal.read(|journal| journal.load()).await
        {
            // What the hub has and the disk not yet was told all the same.
            let head = before.head.max(self.head);
            past = ended(&State { head, ..before }, &past, fork);
        }
        // Before subscribers can meet the new epoch: whether they were on a fork.
        self.shared.past.lock().clone_from(&past);
        self.writer.send(Publish::Begin { state: Box::new(state.clone()), past, done })?;
        if written.await.is_err() {
            // The journal failed in between. What counts is what it has when it is open again.
            let mut durable = self.shared.durable.clone();
            let open =
                durable.wait_for(|durable| !durable.failing).await.map_err(|_| PublishError::Stopped)?;
            if open.epoch != state.epoch {
                return Err(PublishError::Reopened);
            }
        }
        self.origin = Some(origin);
        self.tainted = false;
        self.passed = start;
        self.head = state.head;
        self.queued = state.head;
        self.transaction = None;
        self.awaits_head = false;
        self.generation = self.shared.durable.borrow().generation;
        Ok(())
    }

    /// Publishes a batch: to the hub at once, to the journal in order. Waits when the journal is behind.
    /// What lies at or before the head is dropped after its transaction was compared.
    pub async fn publish(&mut self, batch: Batch) -> Result<(), PublishError> {
        let on_disk = *self.shared.durable.borrow();
        if on_disk.generation != self.generation {
            self.generation = on_disk.generation;
            self.queued = on_disk.head.position;
            return Err(PublishError::Reopened);
        }
        self.compare(&batch)?;
        let queued = self.queued;
        let newest = batch.changes.last().map(|change| change.position);
        // Nearly always the same for both: only after a failure of the journal is it behind the hub.
        let hub_has = batch.changes.partition_point(|change| change.position <= self.head);
        let journal_has = batch.changes.partition_point(|change| change.position <= queued);
        if journal_has < hub_has {
            let again = part(&batch, journal_has, hub_has, None);
            self.queue(Arc::new(again), None).await?;
        }
        let fresh =
            Arc::new(if hub_has == 0 { batch } else { part(&batch, hub_has, usize::MAX, batch.passed) });
        let safe_time = self.shared.hub.publish(&fresh);
        if let Some(newest) = newest {
            self.head = self.head.max(newest);
        }
        Ok(self.queue(fresh, Some(safe_time)).await?)
    }

    /// While the journal fails nothing is queued: it will be fetched again.
    async fn queue(&mut self, batch: Arc<Batch>, safe_time: Option<Instant>) -> Result<(), Stopped> {
        if self.shared.durable.borrow().failing {
            return Ok(());
        }
        let place = self.writer.place(&batch).await;
        if let Some(last) = batch.changes.last() {
            self.queued = self.queued.max(last.position);
        }
        let generation = self.generation;
        let large = batch.changes.iter().any(is_large);
        self.writer.send(Publish::Batch { batch, safe_time, generation, place })?;
        if large {
            // Before more is read: two of them need not be in memory.
            self.writer.emptied().await;
        }
        Ok(())
    }

    /// What comes again must be what was published.
    fn compare(&mut self, batch: &Batch) -> Result<(), PublishError> {
        for transaction in &batch.transactions {
            let Some(last) = self.transaction else {
                self.transaction = Some(*transaction);
                continue;
            };
            if transaction.commit_lsn == last.commit_lsn {
                if *transaction != last {
                    return Err(PublishError::Fork(transaction.commit_lsn));
                }
                self.awaits_head = false;
            } else if transaction.commit_lsn > last.commit_lsn {
                if std::mem::take(&mut self.awaits_head) {
                    return Err(PublishError::Fork(last.commit_lsn));
                }
                if self.head.commit_lsn < transaction.commit_lsn && transaction.commit_lsn < self.passed {
                    // It was not there when everything before a later place had come.
                    return Err(PublishError::Fork(transaction.commit_lsn));
                }
                self.transaction = Some(*transaction);
            }
        }
        self.passed = self.passed.max(batch.passed.unwrap_or(self.passed));
        Ok(())
    }

    /// What may be acknowledged: advances after each fsync of the journal, with
    /// [`durable_lsn`](Self::durable_lsn). Closes when the journal's thread has ended.
    pub fn durable(&self) -> watch::Receiver<Lsn> {
        self.durable_lsn.clone()
    }
}

impl From<Stopped> for PublishError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// Some of a batch's changes.
fn part(batch: &Batch, from: usize, to: usize, passed: Option<Lsn>) -> Batch {
    let to = to.min(batch.changes.len());
    let changes = batch.changes.get(from..to).unwrap_or_default().to_vec();
    Batch { changes, transactions: batch.transactions.clone(), passed }
}

//! Our side: publisher, hub, the journal's queue and its disk, and what is acknowledged.

use super::log::{Lsn, Position, Script, transaction_of};
use crate::Bug;

/// What is on our disk: it outlives us.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Disk {
    /// Every row that was ever appended, as bits.
    pub rows: u16,
    /// The last of them.
    pub head: Position,
    /// Everything before it is there.
    pub lsn: Lsn,
    /// What retention has dropped: everything up to here.
    pub floor: Position,
}

/// Part of a batch, on its way to the journal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Queued {
    /// Rows, in rising order: from here ...
    pub first: Position,
    /// ... to here; 0: none.
    pub last: Position,
    /// Everything before this place was received.
    pub passed: Option<Lsn>,
}

/// A batch as it was received.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Batch {
    /// See [`Queued`].
    pub first: Position,
    /// See [`Queued`].
    pub last: Position,
    /// See [`Queued`].
    pub passed: Option<Lsn>,
}

/// Frames for the subscriber's channel: its rows lie between, and it speaks for everything up to `last`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Chunk {
    /// The first row of its batch.
    pub first: Position,
    /// The last row of its batch, wanted or not.
    pub last: Position,
}

/// What a publishing came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Published {
    /// It is with the hub, and here is what the channel gets.
    Done(Option<Chunk>),
    /// The journal was opened again: replication starts again.
    Reopened,
    /// The history seems to be another.
    Fork,
}

/// The process.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Service {
    /// The hub's head, which is the publisher's.
    pub head: Position,
    /// The last row handed to the journal.
    pub queued: Position,
    /// The transaction of the last row published.
    transaction: Option<u8>,
    /// It has to come again.
    awaits_head: bool,
    /// What waits for the disk.
    pub queue: Vec<Queued>,
    /// The journal cannot be written.
    pub failing: bool,
    /// It was opened again and the publisher does not know yet.
    pub reopened: bool,
    /// In the middle of a transaction.
    pub open: bool,
}

/// Batches that may wait for the disk before the publisher does.
pub const QUEUE: usize = 2;

impl Service {
    /// Starts from what is on disk.
    pub(crate) fn start(disk: &Disk, script: Script) -> Self {
        Self {
            head: disk.head,
            queued: disk.head,
            transaction: transaction_of(script, disk.head),
            awaits_head: false,
            queue: Vec::new(),
            failing: false,
            reopened: false,
            open: false,
        }
    }

    /// A new stream begins at a place.
    pub(crate) fn resume(&mut self, from: Lsn) {
        self.awaits_head = self.transaction.is_some_and(|last| from <= last);
        self.open = false;
    }

    /// To the hub at once, to the journal in order.
    pub(crate) fn publish(
        &mut self,
        batch: Batch,
        disk: &Disk,
        script: Script,
        bug: Option<Bug>,
    ) -> Published {
        if std::mem::take(&mut self.reopened) {
            self.queued = if bug == Some(Bug::JournalGoesOnFromHub) { self.head } else { disk.head };
            return Published::Reopened;
        }
        if batch.last != 0 {
            for transaction in
                [batch.first, batch.last].into_iter().filter_map(|row| transaction_of(script, row))
            {
                if self.transaction.is_some_and(|last| transaction > last)
                    && std::mem::take(&mut self.awaits_head)
                {
                    return Published::Fork;
                }
                if self.transaction == Some(transaction) {
                    self.awaits_head = false;
                }
                self.transaction = self.transaction.max(Some(transaction));
            }
        }
        // Only after a failure of the journal is it behind the hub.
        let again = (batch.first.max(self.queued + 1), batch.last.min(self.head));
        if again.0 <= again.1 {
            self.enqueue(Queued { first: again.0, last: again.1, passed: None });
        }
        let fresh = batch.first.max(self.head + 1);
        let rows = batch.last != 0 && fresh <= batch.last;
        let (first, last) = if rows { (fresh, batch.last) } else { (0, 0) };
        if rows {
            self.head = last;
        }
        self.enqueue(Queued { first, last, passed: batch.passed });
        Published::Done(rows.then_some(Chunk { first, last }))
    }

    fn enqueue(&mut self, queued: Queued) {
        if self.failing || (queued.last == 0 && queued.passed.is_none()) {
            return;
        }
        self.queued = self.queued.max(queued.last);
        self.queue.push(queued);
    }

    /// Writes what waits with one fsync.
    pub(crate) fn sync(&mut self, disk: &mut Disk) {
        for Queued { first, last, passed } in self.queue.drain(..) {
            for row in first.max(disk.head + 1)..=last {
                disk.rows |= 1 << row;
                disk.head = row;
            }
            disk.lsn = disk.lsn.max(passed.unwrap_or(0));
        }
    }

    /// The disk is full, or gone.
    pub(crate) fn fail(&mut self) {
        self.failing = true;
        self.queue.clear();
    }

    /// The journal is open again.
    pub(crate) fn recover(&mut self) {
        self.failing = false;
        self.reopened = true;
        self.queue.clear();
    }
}

//! The journal's thread: takes what was published, in its order, and makes it durable in groups.
//!
//! It has a thread of its own since an append waits for the disk, and the live must not. When the disk
//! fails it drops what is queued, opens the journal again as soon as that is possible, and counts a new
//! generation: the publisher then fetches from Postgres what the journal has not.

use super::{
    BlockBuilder, Floor, Journal, JournalError, Packed, PastRun, PastRuns, Retention, State, is_large,
};
use crate::budget::{Budget, Reservation};
use crate::hub::Hub;
use crate::{Anchor, Batch, Change, Lsn, Pressure, Watermark};
use fhir::Instant;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant as Clock;

/// Bytes that may wait; the publisher waits beyond that. A slow fsync holds up many small batches.
const QUEUE_BYTES: usize = 8 << 20;
/// What a batch takes besides its data.
const BATCH_BYTES: usize = 512;
const BLOCK_BYTES: usize = 64 << 10;
/// A group beyond this is written before more is taken.
const GROUP_BYTES: usize = 4 << 20;
/// While changes stream in, block after block, there is one fsync in this time.
const BUSY_SYNC: Duration = Duration::from_millis(10);
/// So many times in it is looked whether there is more.
const LOOKS: u32 = 10;
/// An LSN or a watermark alone is not worth more than one fsync in this time.
const IDLE_SYNC: Duration = Duration::from_secs(1);
const WATERMARK_SYNC: Duration = Duration::from_secs(10);
const PURGE_EVERY: Duration = Duration::from_secs(60);
const REOPEN_EVERY: Duration = Duration::from_secs(1);

/// What the publisher hands over.
pub(crate) enum Publish {
    /// A batch, published under the generation named.
    Batch {
        batch: Arc<Batch>,
        /// What the ids of its changes carry; `None`: they were published before, and what the journal's
        /// head carries is surely not too new.
        safe_time: Option<Instant>,
        generation: u64,
        /// Its place in the queue.
        place: Option<Reservation>,
    },
    /// A new epoch, after the runs that have ended.
    Begin { state: Box<State>, past: Vec<PastRun>, done: oneshot::Sender<()> },
    /// What was published may not be the database's history any more.
    Taint { done: oneshot::Sender<()> },
}

/// What is on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Durable {
    /// An epoch has begun: a database is followed.
    pub(crate) known: bool,
    /// The run: before that, no id may be given out that carries it.
    pub(crate) run_noted: bool,
    pub(crate) epoch: u64,
    pub(crate) run: u64,
    pub(crate) head: Anchor,
    /// The safe time of the newest watermark at or before the head.
    pub(crate) head_safe_time: Instant,
    /// Everything committed before it.
    pub(crate) lsn: Lsn,
    pub(crate) floor: Floor,
    /// The newest safe time.
    pub(crate) safe_time: Option<Instant>,
    /// The newest stamp of all entries, and no older than the floor's.
    pub(crate) newest: Instant,
    /// Bytes of entries kept.
    pub(crate) bytes: u64,
    /// Counts the times that the journal was opened again after a failure.
    pub(crate) generation: u64,
    /// It cannot be written at present.
    pub(crate) failing: bool,
    /// The greatest fence LSN of a watermark that pages were read by.
    pub(crate) paged: Lsn,
}

/// The publisher's end of the journal's thread.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::UnboundedSender<Publish>,
    places: Budget,
}

/// The journal's thread has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped;

impl Writer {
    /// Starts the thread. It ends when the last clone is dropped and all that was queued is written. `failed`: why the state's
    /// run could not be noted, which is done first.
    pub(crate) fn start(
        journal: Arc<dyn Journal>,
        (state, failed): (State, Option<JournalError>),
        retention: Retention,
        watermarks: watch::Receiver<Option<(u64, Watermark)>>,
        durable: watch::Sender<Durable>,
        hub: Arc<Hub>,
        (past, paged): (PastRuns, watch::Receiver<(u64, Lsn)>),
    ) -> std::io::Result<Self> {
        let (queue, published) = mpsc::unbounded_channel();
        let now = Clock::now();
        let thread = Thread {
            journal,
            passed: state.durable_lsn,
            state,
            retention,
            published,
            watermarks,
            durable,
            hub,
            past,
            paged,
            generation: 0,
            run_noted: failed.is_none(),
            synced: now,
            purged: now,
        };
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || runtime.block_on(thread.run(failed)))?;
        Ok(Self { queue, places: Budget::new(QUEUE_BYTES, Pressure::default()) })
    }

    /// A place in the queue for a batch; waits while the queue is full.
    pub(crate) async fn place(&self, batch: &Batch) -> Option<Reservation> {
        let data: usize = batch.changes.iter().map(|change| change.data.len()).sum();
        self.places.take(BATCH_BYTES + data).await
    }

    /// Waits until all that was queued is written, or dropped.
    pub(crate) async fn emptied(&self) {
        self.places.take(QUEUE_BYTES).await;
    }

    /// Queues.
    pub(crate) fn send(&self, publish: Publish) -> Result<(), Stopped> {
        self.queue.send(publish).map_err(|_| Stopped)
    }
}

impl Durable {
    pub(crate) fn of(state: &State, bytes: u64, generation: u64, (run_noted, failing): (bool, bool)) -> Self {
        Self {
            known: state.is_known(),
            run_noted,
            epoch: state.epoch,
            run: state.run,
            head: state.head_anchor(),
            head_safe_time: state.head_safe_time,
            lsn: state.durable_lsn,
            floor: state.floor,
            safe_time: state.watermark.map(|watermark| watermark.safe_time),
            newest: state.running_max.max(state.floor.stamp),
            bytes,
            generation,
            failing,
            paged: state.paged,
        }
    }
}

struct Thread {
    journal: Arc<dyn Journal>,
    /// As on disk.
    state: State,
    retention: Retention,
    published: mpsc::UnboundedReceiver<Publish>,
    /// The newest watermark, with the epoch that it belongs to.
    watermarks: watch::Receiver<Option<(u64, Watermark)>>,
    durable: watch::Sender<Durable>,
    /// Told of an epoch before `durable` is: who sees the new one there finds it here.
    hub: Arc<Hub>,
    /// The runs that have ended.
    past: PastRuns,
    /// The greatest fence LSN of a watermark that pages wait for, with the run that they are read in.
    paged: watch::Receiver<(u64, Lsn)>,
    /// Everything before it was received; what is on disk is in `state`.
    passed: Lsn,
    generation: u64,
    /// The disk has the state's run.
    run_noted: bool,
    synced: Clock,
    purged: Clock,
}

/// What is written with one fsync.
///
/// A block is packed when it is full and not all of them before the fsync: what a processor does in one go must not keep the
/// reader of the log from its own.
struct Group {
    state: State,
    /// The hash of the transaction of the state's head.
    head_transaction: u32,
    blocks: Vec<Packed>,
    builder: Option<BlockBuilder>,
    /// Of entries, as they came.
    bytes: usize,
    /// The places in the queue of what is large.
    places: Vec<Reservation>,
}

impl Thread {
    async fn run(mut self, failed: Option<JournalError>) {
        if let Some(error) = failed {
            self.recover(&error).await;
        }
        loop {
            let next = tokio::select! {
                biased;
                next = self.published.recv() => match next {
                    None => break,
                    next => next,
                },
                // Its sender lives as long as one who publishes.
                _ = self.paged.changed() => None,
                () = tokio::time::sleep(IDLE_SYNC) => None,
            };
            let written = self.step(next).await;
            let written = written.and_then(|()| self.purge());
            if let Err(error) = written {
                self.recover(&error).await;
            }
        }
    }

    async fn step(&mut self, next: Option<Publish>) -> Result<(), JournalError> {
        let mut group = Group::new(self.state.clone());
        group.state.durable_lsn = self.passed;
        let mut next = next;
        while let Some(publish) = next {
            match publish {
                Publish::Batch { batch, safe_time, generation, place } if generation == self.generation => {
                    group.add(&batch, safe_time);
                    // What is large is held until it is written.
                    group.places.extend(place.filter(|_| batch.changes.iter().any(is_large)));
                }
                Publish::Batch { .. } => {}
                Publish::Begin { state, past, done } => {
                    // What was queued before it belongs to an epoch that nobody can continue.
                    self.journal.begin(&state, &past)?;
                    self.state = *state;
                    self.passed = self.state.durable_lsn;
                    self.run_noted = true;
                    group = Group::new(self.state.clone());
                    self.hub.begin(&self.state);
                    self.announce(false);
                    // The publisher may have gone; the epoch stands all the same.
                    let _ = done.send(());
                }
                Publish::Taint { done } => {
                    let tainted = State { tainted: true, ..self.state.clone() };
                    let past = self.past.lock().clone();
                    self.journal.write_runs(&tainted, &past)?;
                    self.state = tainted;
                    group.state.tainted = true;
                    self.announce(false);
                    let _ = done.send(());
                }
            }
            if group.bytes >= GROUP_BYTES {
                break;
            }
            next = match self.published.try_recv() {
                Ok(next) => Some(next),
                // A little is worth an fsync at once, what streams in is worth one in a while.
                Err(_) if !group.blocks.is_empty() => self.gathered(),
                Err(_) => None,
            };
        }
        self.write(group)
    }

    /// What has come before the next fsync is due. It is looked for, not waited for: who publishes would have to wake this
    /// thread for each batch, and what is woken often keeps the reader of the log from its processor.
    fn gathered(&mut self) -> Option<Publish> {
        // The count ends it where a test's clock stands still.
        for _ in 0..LOOKS {
            if self.synced.elapsed() >= BUSY_SYNC {
                break;
            }
            // Tokio's timers are another thread's, which would have to wake this one. This thread has nothing else to do.
            #[allow(clippy::disallowed_methods)]
            std::thread::sleep(BUSY_SYNC / LOOKS);
            match self.published.try_recv() {
                Ok(next) => return Some(next),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {}
            }
        }
        None
    }

    fn write(&mut self, mut group: Group) -> Result<(), JournalError> {
        group.close();
        if let Some((epoch, watermark)) = *self.watermarks.borrow()
            && epoch == group.state.epoch
        {
            group.state.watermark = Some(watermark);
        }
        let (run, paged) = *self.paged.borrow_and_update();
        if run == group.state.run {
            group.state.paged = group.state.paged.max(paged);
        }
        let since_sync = self.synced.elapsed();
        let due = !group.blocks.is_empty()
            || group.state.paged != self.state.paged
            || (group.state.durable_lsn != self.state.durable_lsn && since_sync >= IDLE_SYNC)
            || (group.state.watermark != self.state.watermark && since_sync >= WATERMARK_SYNC);
        if !due {
            self.passed = group.state.durable_lsn;
            return Ok(());
        }
        self.journal.append(group.blocks, &group.state)?;
        self.state = group.state;
        self.passed = self.state.durable_lsn;
        self.synced = Clock::now();
        self.announce(false);
        Ok(())
    }

    fn announce(&self, failing: bool) {
        let noted = (self.run_noted, failing);
        self.durable.send_replace(Durable::of(&self.state, self.journal.bytes(), self.generation, noted));
    }

    fn purge(&mut self) -> Result<(), JournalError> {
        if self.purged.elapsed() < PURGE_EVERY {
            return Ok(());
        }
        self.purged = Clock::now();
        if self.journal.purge(self.retention, &mut self.state)? {
            tracing::info!(floor = ?self.state.floor.position, "dropped the oldest part of the journal");
            self.announce(false);
        }
        Ok(())
    }

    /// Opens the journal again, however long it takes; what is queued meanwhile is dropped.
    async fn recover(&mut self, error: &JournalError) {
        tracing::error!(
            error = error as &dyn std::error::Error,
            "the journal cannot be written: nothing is acknowledged until it can"
        );
        self.announce(true);
        loop {
            tokio::time::sleep(REOPEN_EVERY).await;
            while let Ok(publish) = self.published.try_recv() {
                drop(publish);
            }
            let reopened = self.journal.reopen().and_then(|()| self.journal.load());
            // Only a write shows that there is space again.
            let reopened = reopened.and_then(|state| {
                let mut state = state.unwrap_or_else(|| self.state.clone());
                if state.epoch == self.state.epoch && state.run != self.state.run {
                    // Our run could not be written when it began.
                    state.run = self.state.run;
                    self.journal.write_runs(&state, &self.past.lock())?;
                } else {
                    self.journal.append(Vec::new(), &state)?;
                }
                Ok(state)
            });
            match reopened {
                Ok(state) => {
                    tracing::info!(head = ?state.head, "the journal is open again");
                    self.state = state;
                    self.passed = self.state.durable_lsn;
                    self.run_noted = true;
                    self.generation += 1;
                    if self.state.epoch != self.hub.head().epoch {
                        // It failed after an epoch was written and before that was said.
                        self.hub.begin(&self.state);
                    }
                    self.announce(false);
                    return;
                }
                Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "not yet"),
            }
        }
    }
}

impl Group {
    fn new(state: State) -> Self {
        let head_transaction = state.head_anchor().transaction;
        Self { state, head_transaction, blocks: Vec::new(), builder: None, bytes: 0, places: Vec::new() }
    }

    fn add(&mut self, batch: &Batch, safe_time: Option<Instant>) {
        let mut transactions = batch.transactions.iter().peekable();
        let mut hash = 0;
        for (index, change) in batch.changes.iter().enumerate() {
            let commit_lsn = change.position.commit_lsn;
            while let Some(transaction) = transactions.next_if(|next| next.commit_lsn <= commit_lsn) {
                hash = transaction.hash32();
                if transaction.commit_lsn >= self.state.head.commit_lsn {
                    self.state.transaction = Some(*transaction);
                }
            }
            if change.position <= self.state.head {
                continue;
            }
            let safe_time = safe_time.unwrap_or(self.state.head_safe_time).max(self.state.head_safe_time);
            let commit_time =
                self.state.transaction.map_or(Instant::MIN, |transaction| transaction.commit_time);
            let large = is_large(change);
            if large {
                self.close();
            }
            let state = &self.state;
            let head = Anchor { position: state.head, transaction: self.head_transaction };
            let new = |room| BlockBuilder::new(head, state.running_max, state.offset, safe_time, room);
            if large {
                let room = BlockBuilder::length_of(change) - change.data.len();
                let block = new(room).large(change, hash, commit_time);
                self.add_block(block);
            } else {
                let builder = self.builder.get_or_insert_with(|| new(room(&batch.changes[index..])));
                builder.push(change, hash, commit_time);
            }
            (self.state.head, self.head_transaction) = (change.position, hash);
            self.state.head_safe_time = safe_time;
            self.state.running_max = self.state.running_max.max(change.stamp);
            if self.builder.as_ref().is_some_and(|builder| builder.len() >= BLOCK_BYTES) {
                self.close();
            }
        }
        if let Some(passed) = batch.passed {
            self.state.durable_lsn = self.state.durable_lsn.max(passed);
        }
    }

    fn add_block(&mut self, block: Packed) {
        self.bytes += block.header.length as usize;
        self.state.offset = block.header.offset;
        self.blocks.push(block);
    }

    /// Ends the block that is being built.
    fn close(&mut self) {
        if let Some(block) = self.builder.take().and_then(BlockBuilder::finish) {
            self.add_block(block);
            // Only here is there a pause in what is done in one go: the log's reader may wait for the processor.
            std::thread::yield_now();
        }
    }
}

/// Bytes of a block that these changes fill, or end up in.
fn room(changes: &[Change]) -> usize {
    let mut room = 0;
    for change in changes {
        room += BlockBuilder::length_of(change);
        if room >= BLOCK_BYTES {
            break;
        }
    }
    room
}

//! The journal's thread: takes what was published, in its order, and makes it durable in groups.
//!
//! It is a dedicated thread, because an append waits for the disk and live subscribers must not. When
//! the disk fails, the thread drops the queue, reopens the journal as soon as possible, and increments
//! the generation. The publisher then fetches from Postgres what the journal lacks.
//!
//! It does not know the hub. It reports through two watches ([`Durable`], and its LSN for the
//! acknowledgement) and through [`OnEpoch`].

use super::commit_group::CommitGroup;
use super::{Durable, JournalError, JournalWriter, PastRun, PastRuns, Retention, State, is_large};
use crate::delivery::budget::{Budget, Reservation};
use crate::{Batch, Lsn, Pressure, Watermark};
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

/// The publisher's end of the journal's thread.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::UnboundedSender<Publish>,
    places: Budget,
}

/// Called on the journal's thread with the state of a new epoch when the epoch is on disk, and before
/// [`Durable`] announces it: a subscriber that sees the epoch there finds it in the hub. Called once for
/// each epoch, also if the journal failed between writing and announcing it. Never called for a batch.
pub(crate) type OnEpoch = Box<dyn FnMut(&State) + Send>;

/// What the journal's thread starts with.
pub(crate) struct WriterSetup {
    pub(crate) journal: Arc<dyn JournalWriter>,
    /// As on disk, but for the run if `failed` is set.
    pub(crate) state: State,
    /// Why the state's run could not be written. The thread retries before it does anything else.
    pub(crate) failed: Option<JournalError>,
    pub(crate) retention: Retention,
    /// The newest watermark, with its epoch.
    pub(crate) watermarks: watch::Receiver<Option<(u64, Watermark)>>,
    /// The runs that have ended.
    pub(crate) past: PastRuns,
    /// The greatest fence LSN of a watermark that pages wait for, with the run in which they are read.
    pub(crate) paged: watch::Receiver<(u64, Lsn)>,
    pub(crate) on_epoch: OnEpoch,
}

/// The started thread: its queue, and what it announces.
pub(crate) struct Started {
    pub(crate) writer: Writer,
    pub(crate) durable: watch::Receiver<Durable>,
    /// `Durable::lsn` alone: what may be acknowledged. It never lags behind `durable`.
    pub(crate) durable_lsn: watch::Receiver<Lsn>,
}

/// The journal's thread has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped;

impl Writer {
    /// Starts the thread, within a tokio runtime, on which it runs its timers. It ends when the last
    /// clone is dropped and the queue is written; then the watches close.
    pub(crate) fn start(setup: WriterSetup) -> std::io::Result<Started> {
        let WriterSetup { journal, state, failed, retention, watermarks, past, paged, on_epoch } = setup;
        let (queue, published) = mpsc::unbounded_channel();
        let now = Clock::now();
        let noted = failed.is_none();
        let on_disk = Durable::of(&state, journal.bytes(), 0, (noted, !noted));
        let (announced, durable) = watch::channel(on_disk);
        let (announced_lsn, durable_lsn) = watch::channel(on_disk.lsn);
        let thread = Thread {
            journal,
            passed: state.durable_lsn,
            announced_epoch: state.epoch,
            state,
            retention,
            published,
            watermarks,
            durable: announced,
            durable_lsn: announced_lsn,
            on_epoch,
            past,
            paged,
            generation: 0,
            run_noted: noted,
            synced: now,
            purged: now,
        };
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || runtime.block_on(thread.run(failed)))?;
        let writer = Self { queue, places: Budget::new(QUEUE_BYTES, Pressure::default()) };
        Ok(Started { writer, durable, durable_lsn })
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

struct Thread {
    journal: Arc<dyn JournalWriter>,
    /// As on disk.
    state: State,
    retention: Retention,
    published: mpsc::UnboundedReceiver<Publish>,
    /// The newest watermark, with the epoch that it belongs to.
    watermarks: watch::Receiver<Option<(u64, Watermark)>>,
    durable: watch::Sender<Durable>,
    durable_lsn: watch::Sender<Lsn>,
    on_epoch: OnEpoch,
    /// The epoch of the last call of `on_epoch`.
    announced_epoch: u64,
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
        let mut group = CommitGroup::new(self.state.clone());
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
                    group = CommitGroup::new(self.state.clone());
                    self.announce_epoch();
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

    fn write(&mut self, mut group: CommitGroup) -> Result<(), JournalError> {
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

    fn announce_epoch(&mut self) {
        self.announced_epoch = self.state.epoch;
        (self.on_epoch)(&self.state);
    }

    fn announce(&self, failing: bool) {
        let noted = (self.run_noted, failing);
        let lsn = self.state.durable_lsn;
        // First: whoever sees the other one finds this one moved.
        self.durable_lsn.send_if_modified(|before| std::mem::replace(before, lsn) != lsn);
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
                    if self.state.epoch != self.announced_epoch {
                        // The journal failed after it wrote the epoch and before that was announced.
                        self.announce_epoch();
                    }
                    self.announce(false);
                    return;
                }
                Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "not yet"),
            }
        }
    }
}

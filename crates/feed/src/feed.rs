//! The feed itself: one publisher in, any number of subscribers out.

use crate::delivery::budget::Budget;
use crate::freshness::Freshness;
use crate::group::{GroupNow, GroupReads, MemberSets, SharedTransitions, keep_time};
use crate::hub::{Hub, keep_index};
use crate::journal::{
    JournalWriter, Reader, Retention, Segments, Started, State, Writer, WriterSetup, ended,
};
use crate::poll_on_wake;
use crate::publisher::Publisher;
use crate::replay::page_frames::BufferPool;
use crate::replay::page_permits::PagePermits;
use crate::replay::spill::Spills;
use crate::shared::Shared;
use crate::subscriber::Subscriber;
use crate::{Begin, EventId, Framing, Lsn, Position, Pressure, Source, SourceError, Subscription, Watermark};
use fhir::{BaseUrls, Compartment, Filter, Instant, Patients};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::watch;
use tokio::time::{Instant as Clock, MissedTickBehavior, interval};

/// How often it is judged whether the feed is stale.
const CHECK_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// What the feed is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the journal lies: a directory of its own.
    pub directory: PathBuf,
    /// The journal keeps at most this many bytes ...
    pub retention_bytes: u64,
    /// ... and nothing older than this.
    pub retention_age: std::time::Duration,
    /// Pages of the tables read at the same time, for all subscribers together.
    pub concurrent_pages: usize,
    /// Bytes held for all subscribers together.
    pub held_bytes: usize,
    /// Where the service stands: references that begin with one of these name resources here.
    pub base_urls: BaseUrls,
}

/// The feed could not be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "the journal in {directory} cannot be opened; if it is damaged, move it away: its clients are then reset"
)]
pub struct OpenError {
    directory: PathBuf,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl OpenError {
    pub(crate) fn new(directory: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { directory: directory.to_owned(), source: source.into() }
    }
}

/// Where the feed is, for metrics and health.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// The last change that was published.
    pub head: Position,
    /// Everything committed before this place has been received and published.
    pub received_lsn: Lsn,
    /// Everything committed before this place is in the journal, on disk: what may be acknowledged.
    pub durable_lsn: Lsn,
    /// Bytes of entries that the journal keeps.
    pub journal_bytes: u64,
    /// Whether the journal can be written.
    pub journal_ok: bool,
    /// The newest safe time.
    pub safe_time: Option<Instant>,
    /// While the clock does not step, all that is stamped at or before it is visible: later than the safe time if nothing has changed
    /// since.
    pub visible_until: Option<Instant>,
    /// Before the safe time has passed this instant no replay begins: where the journal begins.
    pub journal_begins: Instant,
    /// Bytes held for subscribers.
    pub held_bytes: u64,
    /// Replays that wait for room, for their turn at the tables, or for a journal that cannot be written.
    pub replays_waiting: usize,
    /// Readers of the journal that wait for room.
    pub journal_readers_waiting: usize,
    /// How often what was read for a subscriber that did not take it was dropped, since others waited.
    pub reads_reclaimed: u64,
    /// Subscribers that were dropped since they took nothing and others waited.
    pub stalled_dropped: u64,
    /// Clients are told that what they have is old.
    pub stale: bool,
    /// How long ago it was last known that the feed has all that was in the log.
    pub age: std::time::Duration,
}

/// The feed. Clones are the same feed.
#[derive(Clone)]
pub struct Feed {
    shared: Arc<Shared>,
}

/// Where watermarks stand before one is taken.
#[derive(Clone, Copy, Debug)]
pub struct SampleBase {
    /// The newest safe time that is known: no later one may fall behind it. `None` in a new epoch.
    pub floor: Option<Instant>,
    /// The epoch that it is taken in.
    pub epoch: u64,
    /// The last change that was published.
    pub head: Position,
    /// A safe time at or beyond it lets replays begin, and leaves nothing that is in the journal to the feed.
    pub reached: Instant,
}

impl Feed {
    /// Opens the journal and what follows from it. Blocks on files; called within a tokio runtime, on which the
    /// journal's thread runs its timers.
    pub fn open(options: Options, framing: Arc<dyn Framing>) -> Result<(Self, Publisher), OpenError> {
        let directory = options.directory.clone();
        Self::open_journal(options, framing).map_err(|source| OpenError::new(&directory, source))
    }

    fn open_journal(
        options: Options,
        framing: Arc<dyn Framing>,
    ) -> Result<(Self, Publisher), Box<dyn std::error::Error + Send + Sync>> {
        let journal = Arc::new(Segments::open(&options.directory)?);
        Self::on(journal, options, framing)
    }

    /// The feed on a journal that is open.
    fn on(
        journal: Arc<dyn JournalWriter>,
        options: Options,
        framing: Arc<dyn Framing>,
    ) -> Result<(Self, Publisher), Box<dyn std::error::Error + Send + Sync>> {
        // The state is written before an epoch begins too, when a watermark comes or the disk was full: it follows no database.
        let stored = journal.load()?.filter(|state| state.origin.system != 0);
        let known = stored.as_ref().map(|state| state.origin.clone());
        let mut past = journal.past()?;
        let mut state = stored.unwrap_or_else(State::unknown);
        let mut failed = None;
        if known.is_some() {
            past = ended(&state, &past, false);
            state.run = fastrand::u64(..);
            // If the disk is full the journal's thread does it when there is room.
            failed = journal.write_runs(&state, &past).err();
        }
        let pressure = Pressure::default();
        let budget = Budget::new(options.held_bytes / 2, pressure.clone());
        let page_budget = Budget::new(options.held_bytes / 2, pressure.clone());
        let hub = Arc::new(Hub::new(&state, framing.clone(), budget.clone()));
        let retention = Retention { bytes: options.retention_bytes, age: options.retention_age };
        let (watermarks, watermarks_noted) = watch::channel(None);
        let (paged, to_page) = watch::channel((state.run, state.paged));
        let past = Arc::new(Mutex::new(past));
        let Started { writer, durable, durable_lsn } = Writer::start(WriterSetup {
            journal: journal.clone(),
            state: state.clone(),
            failed,
            retention,
            watermarks: watermarks_noted,
            past: past.clone(),
            paged: to_page,
            on_epoch: {
                let hub = hub.clone();
                Box::new(move |state| hub.begin(state))
            },
        })?;
        let shared = Arc::new(Shared {
            hub,
            journal: Reader::new(journal),
            framing,
            base_urls: Arc::new(options.base_urls),
            member_sets: MemberSets::default(),
            group_reads: GroupReads::default(),
            shared_transitions: SharedTransitions::default(),
            budget,
            page_budget,
            durable,
            source: watch::Sender::new(None),
            pool: BufferPool::default(),
            page_permits: PagePermits::new(options.concurrent_pages),
            spills: Spills::new(options.directory, pressure.clone()),
            pressure,
            past,
            watermarks,
            paged,
            waiting_for_journal: AtomicUsize::new(0),
            freshness: Mutex::new(Freshness::new(Clock::now())),
            visible_until: Mutex::new(None),
            is_leader: watch::Sender::new(true),
        });
        tokio::spawn(keep_fresh(Arc::downgrade(&shared)));
        tokio::spawn(keep_index(Arc::downgrade(&shared.hub), shared.hub.indexing()));
        tokio::spawn(keep_time(Arc::downgrade(&shared)));
        let publisher = Publisher::new(shared.clone(), (writer, durable_lsn), known.map(|_| state));
        Ok((Self { shared }, publisher))
    }

    /// Tells where watermarks and pages come from; replays wait until it is known.
    pub fn set_source(&self, source: Arc<dyn Source>) {
        self.shared.source.send_replace(Some(source));
    }

    /// Sets whether this process follows the database. While another process does, every stream here
    /// ends, so that its client reconnects to the process that receives the changes.
    pub fn set_leader(&self, leads: bool) {
        self.shared.is_leader.send_if_modified(|before| std::mem::replace(before, leads) != leads);
    }

    /// Tells that the log did not end before this place, at this moment: what is behind it for long is stale.
    pub fn log_ended(&self, at: Clock, end: Lsn) {
        self.shared.freshness.lock().look(at, end);
    }

    /// To be asked before a watermark is taken, and given back with it.
    pub fn sample_base(&self) -> SampleBase {
        let (head, on_disk) = (self.shared.hub.head(), *self.shared.durable.borrow());
        let floor = head.watermark.map(|watermark| watermark.safe_time);
        let newest = if on_disk.known { on_disk.newest } else { Instant::MIN };
        let reached = floor.unwrap_or(Instant::MIN).max(newest);
        SampleBase { floor, epoch: head.epoch, head: head.last.position, reached }
    }

    /// Notes up to when all that is stamped is visible, as far as the clock does not step: how far behind replays are.
    pub fn visible_until(&self, epoch: u64, until: Instant) {
        *self.shared.visible_until.lock() = Some((epoch, until));
    }

    /// Notes a watermark that was taken (every second): for the ids of live events and for retention. One that was begun in
    /// an epoch which has ended since is of no more use: the clock that it was read from may have been wrong.
    pub fn note_watermark(&self, sample_base: SampleBase, watermark: Watermark) {
        if self.shared.hub.note_watermark(sample_base.epoch, watermark) {
            self.shared.watermarks.send_replace(Some((sample_base.epoch, watermark)));
        }
    }

    /// A new subscriber.
    pub fn subscribe(&self, filter: Filter, begin: Begin) -> Subscription {
        let id = match &begin {
            Begin::After { id: Some(id), .. } => id.clone(),
            Begin::After { id: None, .. } | Begin::Since(_) => EventId::beginning(),
        };
        let shared = self.shared.clone();
        let mut is_leader = self.shared.is_leader.subscribe();
        let begin = Box::new(begin);
        // While this process follows the database.
        macro_rules! while_leader {
            ($run:expr) => {
                tokio::select! {
                    biased;
                    _ = poll_on_wake(is_leader.wait_for(|leads| !leads)) => {
                        SourceError::Unavailable("another process follows the database now".into())
                    }
                    error = $run => error,
                }
            };
        }
        // Each kind of stream takes the room that it needs, and not also that of the other.
        if matches!(filter.compartment, Compartment::Group { .. }) {
            Subscription::new(id, |out| async move {
                let subscriber = Subscriber { shared, filter, out };
                while_leader!(subscriber.run_of_group(begin))
            })
        } else {
            Subscription::new(id, |out| async move {
                let subscriber = Subscriber { shared, filter, out };
                while_leader!(subscriber.run(begin))
            })
        }
    }

    /// Those of these patients who are stored. An error if the database is away, or cannot tell whose a resource was.
    pub async fn stored(&self, patients: Patients) -> Result<Patients, SourceError> {
        self.source_of_patients().await?.stored(patients).await
    }

    /// A Group as it is now. An error if the database is away, or cannot tell whose a resource was.
    pub async fn group(&self, id: &str) -> Result<GroupNow, SourceError> {
        Ok(self.shared.group_now(&self.source_of_patients().await?, id).await?.now)
    }

    async fn source_of_patients(&self) -> Result<Arc<dyn Source>, SourceError> {
        let Some(source) = self.shared.source.borrow().clone() else {
            return Err(SourceError::Unavailable("it is not connected yet".into()));
        };
        source.knows_patients().await?;
        Ok(source)
    }

    /// What tells a stream that others wait for the bytes that its client does not take.
    pub fn pressure(&self) -> Pressure {
        self.shared.pressure.clone()
    }

    /// Where the feed is.
    pub fn status(&self) -> Status {
        let head = self.shared.hub.head();
        let on_disk = *self.shared.durable.borrow();
        let visible = *self.shared.visible_until.lock();
        Status {
            head: head.last.position,
            received_lsn: head.received,
            durable_lsn: on_disk.lsn,
            journal_bytes: on_disk.bytes,
            journal_ok: !on_disk.failing,
            safe_time: head.watermark.map(|watermark| watermark.safe_time),
            visible_until: visible.filter(|(epoch, _)| *epoch == head.epoch).map(|(_, until)| until),
            journal_begins: on_disk.floor.stamp,
            held_bytes: self.shared.budget.held() + self.shared.page_budget.held(),
            replays_waiting: self.shared.page_budget.waiting()
                + self.shared.page_permits.waiting()
                + self.shared.spills.waiting()
                + self.shared.waiting_for_journal.load(Ordering::Relaxed),
            journal_readers_waiting: self.shared.budget.waiting(),
            reads_reclaimed: self.shared.budget.reclaimed() + self.shared.page_budget.reclaimed(),
            stalled_dropped: self.shared.pressure.dropped(),
            stale: head.stale,
            age: self.shared.freshness.lock().age(Clock::now()),
        }
    }
}

/// Looks every second whether the feed is stale, for as long as there is one: the one place where it is judged for all.
async fn keep_fresh(shared: Weak<Shared>) {
    let mut looks = interval(CHECK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        let received = shared.hub.head().received;
        let change = shared.freshness.lock().update(received, Clock::now());
        match change {
            Some(true) => {
                tracing::warn!(
                    "the feed is behind the database's log, or the database is away: clients are told that it is stale"
                );
                shared.hub.set_stale(true);
            }
            Some(false) => {
                tracing::info!("the feed is fresh again");
                shared.hub.set_stale(false);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;

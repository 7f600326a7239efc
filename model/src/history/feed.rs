//! The feed as a subscriber of this model finds it: what was decoded of the log, in its order, never lost and read from any
//! position. That it is so, whatever crashes, is what the delivery model shows.

use super::clock::{BEGINNING, Instant};
use super::database::{Database, Lsn, TRANSACTIONS};
use super::watermark::Watermark;
use crate::Bug;

/// Watermarks that wait for the feed to pass their fence LSN.
const PENDING: usize = 4;

/// The feed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Feed {
    /// Counts the times that the journal began anew.
    pub epoch: u8,
    /// Where the journal begins; none while a slot is being made.
    pub begins: Option<(Lsn, Instant)>,
    /// While a slot is being made: the transactions that it waits for, by their bits.
    pub waits_for: u8,
    /// Where the new slot begins, before the clock was read for it.
    pub slot: Option<Lsn>,
    /// Whether no commit from before the slot was made can be stamped later than the safe time has to pass. Known when a time is safe
    /// that was closed after it was made.
    pub settled: bool,
    /// Everything committed before it is in the journal.
    pub published: Lsn,
    /// What the id of each entry carries: the safe time of the newest watermark whose fence LSN lies at or before it.
    pub entry_safe_time: [Instant; TRANSACTIONS],
    /// The same for the next entry, as far as the watermarks have come.
    head_safe_time: Instant,
    pending: [Option<Watermark>; PENDING],
    /// The newest watermark that holds.
    pub watermark: Option<Watermark>,
    /// The safe time of the newest watermark whose fence LSN was published.
    pub passed_safe_time: Instant,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self {
            epoch: 0,
            begins: Some((0, BEGINNING)),
            waits_for: 0,
            slot: None,
            settled: true,
            published: 0,
            entry_safe_time: [BEGINNING; TRANSACTIONS],
            head_safe_time: BEGINNING,
            pending: [None; PENDING],
            watermark: None,
            passed_safe_time: BEGINNING,
        }
    }

    /// A watermark that holds.
    pub(crate) fn note(&mut self, watermark: Watermark, bug: Option<Bug>) {
        self.watermark = Some(watermark);
        if bug == Some(Bug::IdHasNewestSafeTime) {
            self.head_safe_time = watermark.safe_time;
        } else if let Some(free) = self.pending.iter_mut().find(|pending| pending.is_none()) {
            *free = Some(watermark);
        }
        self.pass();
    }

    /// The next commit that is on the database's disk.
    pub(crate) fn publish(&mut self) {
        let lsn = self.published;
        for pending in &mut self.pending {
            if let Some(watermark) = *pending
                && watermark.fence_lsn <= lsn
            {
                self.head_safe_time = self.head_safe_time.max(watermark.safe_time);
                *pending = None;
            }
        }
        self.pending.sort_unstable_by_key(|pending| {
            pending.map_or((Lsn::MAX, 0), |watermark| (watermark.fence_lsn, watermark.safe_time))
        });
        self.entry_safe_time[usize::from(lsn)] = self.head_safe_time;
        self.published += 1;
        self.pass();
    }

    fn pass(&mut self) {
        let passed = self
            .pending
            .iter()
            .flatten()
            .filter(|watermark| watermark.fence_lsn <= self.published)
            .map(|watermark| watermark.safe_time);
        self.passed_safe_time = passed.chain([self.passed_safe_time]).max().unwrap_or(BEGINNING);
    }

    /// The journal is lost, or the slot: another slot has to be made, which waits for who is writing.
    pub(crate) fn lose(&mut self, database: &Database) {
        let epoch = self.epoch + 1;
        *self = Self { epoch, begins: None, settled: false, waits_for: database.writers(), ..Self::new() };
    }

    /// Whether those have ended that the slot waits for.
    pub(crate) fn slot_is_ready(&self, database: &Database) -> bool {
        self.begins.is_none() && self.slot.is_none() && self.waits_for & database.writers() == 0
    }

    pub(crate) fn make_slot(&mut self, database: &Database) {
        self.slot = Some(database.insert);
        self.waits_for = 0;
    }

    /// After the slot was made the clock is read: no replay begins before the safe time has passed it.
    ///
    /// That is not all: a commit that lies before the slot may be invisible still, and stamped later than the clock, since
    /// that time had been closed. See [`settle`](Self::settle).
    pub(crate) fn begin(&mut self, slot: Lsn, since: Instant) {
        self.slot = None;
        self.begins = Some((slot, since));
        self.published = slot;
        self.head_safe_time = since;
    }

    /// All that was committed before the slot was made is visible. The safe time has to pass the newest stamp of it.
    pub(crate) fn settle(&mut self, newest: Option<Instant>) {
        self.settled = true;
        self.begins = self.begins.map(|(slot, since)| (slot, since.max(newest.unwrap_or(since))));
    }
}

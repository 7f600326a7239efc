//! The feed as a subscriber of this model finds it: what was decoded of the log, in its order, never lost and read from any
//! position. That it is so, whatever crashes, is what the delivery model shows.

use super::clock::{BEGINNING, Instant};
use super::database::{Database, Lsn, TRANSACTIONS};
use super::mark::Mark;
use crate::Bug;

/// Marks that wait for the feed to pass their L.
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
    /// Whether no commit from before the slot was made can be stamped later than W has to pass. Known when a time is safe
    /// that was closed after it was made.
    pub settled: bool,
    /// Everything committed before it is in the journal.
    pub published: Lsn,
    /// What the id of each entry carries: W of the newest mark whose L lies at or before it.
    pub entry_w: [Instant; TRANSACTIONS],
    /// The same for the next entry, as far as the marks have come.
    head_w: Instant,
    pending: [Option<Mark>; PENDING],
    /// The newest mark that holds.
    pub mark: Option<Mark>,
    /// W of the newest mark whose L was published.
    pub passed_w: Instant,
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
            entry_w: [BEGINNING; TRANSACTIONS],
            head_w: BEGINNING,
            pending: [None; PENDING],
            mark: None,
            passed_w: BEGINNING,
        }
    }

    /// A mark that holds.
    pub(crate) fn note(&mut self, mark: Mark, bug: Option<Bug>) {
        self.mark = Some(mark);
        if bug == Some(Bug::IdHasNewestW) {
            self.head_w = mark.w;
        } else if let Some(free) = self.pending.iter_mut().find(|pending| pending.is_none()) {
            *free = Some(mark);
        }
        self.pass();
    }

    /// The next commit that is on the database's disk.
    pub(crate) fn publish(&mut self) {
        let lsn = self.published;
        for pending in &mut self.pending {
            if let Some(mark) = *pending
                && mark.l <= lsn
            {
                self.head_w = self.head_w.max(mark.w);
                *pending = None;
            }
        }
        self.pending.sort_unstable_by_key(|pending| pending.map_or((Lsn::MAX, 0), |mark| (mark.l, mark.w)));
        self.entry_w[usize::from(lsn)] = self.head_w;
        self.published += 1;
        self.pass();
    }

    fn pass(&mut self) {
        let passed = self.pending.iter().flatten().filter(|mark| mark.l <= self.published).map(|mark| mark.w);
        self.passed_w = passed.chain([self.passed_w]).max().unwrap_or(BEGINNING);
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

    /// After the slot was made the clock is read: no replay begins before W has passed it.
    ///
    /// That is not all: a commit that lies before the slot may be invisible still, and stamped later than the clock, since
    /// that time had been closed. See [`settle`](Self::settle).
    pub(crate) fn begin(&mut self, slot: Lsn, since: Instant) {
        self.slot = None;
        self.begins = Some((slot, since));
        self.published = slot;
        self.head_w = since;
    }

    /// All that was committed before the slot was made is visible. W has to pass the newest stamp of it.
    pub(crate) fn settle(&mut self, newest: Option<Instant>) {
        self.settled = true;
        self.begins = self.begins.map(|(slot, since)| (slot, since.max(newest.unwrap_or(since))));
    }
}

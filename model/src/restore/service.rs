//! Our side: the runs that the journal knows, what is on its disk, and the process.

use super::{Database, Lsn, Transaction};

/// What the journal remembers of a run that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Run {
    /// Its number.
    pub run: u8,
    /// The epoch that it published in.
    pub epoch: u8,
    /// Everything before it was on disk when the run ended.
    pub end: Lsn,
    /// Watermarks of pages up to here were on disk when the run ended.
    pub paged: Lsn,
    /// What it published may not exist.
    pub forked: bool,
}

/// The journal on disk.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Disk {
    /// The epoch.
    pub epoch: u8,
    /// The run that writes it.
    pub run: u8,
    /// The runs before it.
    pub ended: Vec<Run>,
    /// What was published, from the beginning of the log on. Before the epoch's beginning only the numbers count.
    pub entries: Vec<Transaction>,
    /// The beginning of the epoch, or what retention has dropped: everything up to here.
    pub floor: Lsn,
    /// The greatest watermark of pages.
    pub paged: Lsn,
}

/// The process.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Service {
    /// What its ids carry.
    pub run: u8,
    /// What was published, a part of it perhaps not yet on disk.
    pub received: Vec<Transaction>,
    /// It follows the database.
    pub connected: bool,
}

impl Disk {
    pub(super) fn new(epoch: u8, run: u8) -> Self {
        Self { epoch, run, ended: Vec::new(), entries: Vec::new(), floor: 0, paged: 0 }
    }

    pub(super) fn lsn(&self) -> Lsn {
        lsn(&self.entries)
    }

    /// Notes the watermark of pages.
    pub(super) fn note(&mut self, watermark: Lsn) {
        self.paged = self.paged.max(watermark);
    }

    /// What is known of a run; the one that writes has not ended.
    pub(super) fn run(&self, run: u8) -> Option<Run> {
        let current = Run { run: self.run, epoch: self.epoch, end: Lsn::MAX, paged: Lsn::MAX, forked: false };
        self.ended.iter().copied().chain([current]).find(|known| known.run == run)
    }

    /// A process has started: the run before it ended with what is here.
    pub(super) fn begin_run(&mut self, run: u8) {
        self.end_run(self.lsn(), false);
        self.run = run;
    }

    /// A new epoch, which ends the run too, at `end`.
    pub(super) fn begin_epoch(&mut self, epoch: u8, run: u8, end: Lsn, start: Lsn, fork: bool) {
        self.end_run(end, fork);
        self.ended.iter_mut().for_each(|run| run.forked |= fork);
        (self.epoch, self.run, self.floor, self.paged) = (epoch, run, start, start);
    }

    fn end_run(&mut self, end: Lsn, forked: bool) {
        let paged = self.paged.max(self.lsn());
        self.ended.push(Run { run: self.run, epoch: self.epoch, end, paged, forked });
    }
}

impl Service {
    pub(super) fn start(disk: &Disk, run: u8) -> Self {
        Self { run, received: disk.entries.clone(), connected: false }
    }

    pub(super) fn lsn(&self) -> Lsn {
        lsn(&self.received)
    }

    /// The database stands before what was received or what pages were read up to, or the last transaction that was comes otherwise, or one comes that was
    /// not there when everything before a later place was received.
    pub(super) fn is_fork(&self, database: &Database, disk: &Disk) -> bool {
        let reached = self.received.len().max(usize::from(disk.paged));
        let published = self.published();
        // Only from where the slot stands anything comes again.
        let from = usize::from(database.slot);
        let last = published.checked_sub(1).filter(|last| *last >= from);
        let differs = last.is_some_and(|last| database.log.get(last) != self.received.get(last));
        let passed = database.log.iter().take(self.received.len()).skip(published.max(from));
        database.log.len() < reached || differs || passed.copied().any(|number| number != 0)
    }

    /// How many transactions lie before the end of the last that concerned somebody.
    fn published(&self) -> usize {
        self.received.iter().rposition(|number| *number != 0).map_or(0, |last| last + 1)
    }
}

pub(super) fn lsn(log: &[Transaction]) -> Lsn {
    // A log has a handful of transactions.
    u8::try_from(log.len()).unwrap_or(u8::MAX)
}

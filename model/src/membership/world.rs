//! The database, its log and the journal, as far as membership depends on them.

use super::{KEYS, RESOURCES};

/// Patients, a bit for each.
pub type Patients = u8;

/// A place in the log: how many of its entries lie before it.
pub type Position = usize;

/// A stamp, which is also the number of the version: each write has one of its own.
pub type Stamp = u8;

/// A row: a resource with its patients, or a Group with its members.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Row {
    /// When it was written.
    pub stamp: Stamp,
    /// To whom it belongs, or who its members are.
    pub patients: Patients,
}

/// A write, in a transaction that does nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Write {
    /// What is written: a resource below [`RESOURCES`], else a Group.
    pub key: usize,
    /// The new content; `None` deletes it.
    pub content: Option<Patients>,
}

/// How far a transaction is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Progress {
    /// It has not begun.
    Waiting,
    /// It has written at this stamp, over this content.
    Written(Stamp, Option<Patients>),
    /// Its commit is in the log, and others do not see it yet: a synchronous standby is away.
    Committed(Stamp),
    /// Others see it.
    Visible,
}

/// A change in the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// Its stamp.
    pub stamp: Stamp,
    /// What was written.
    pub key: usize,
    /// The content before.
    pub old: Option<Patients>,
    /// The content after.
    pub new: Option<Patients>,
}

impl Entry {
    /// Whether it is a change of a Group.
    pub const fn is_group(&self) -> bool {
        self.key >= RESOURCES
    }

    /// The patients of either content.
    pub fn touches(&self) -> Patients {
        self.old.unwrap_or(0) | self.new.unwrap_or(0)
    }
}

/// A safe time, and the end of the log after it was computed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Watermark {
    /// All that was stamped up to here has ended and is visible.
    pub safe_time: Stamp,
    /// The fence LSN.
    pub fence: Position,
}

impl Watermark {
    /// Whether an entry is the feed's, not the pages'.
    pub const fn leaves_to_feed(&self, position: Position, entry: &Entry) -> bool {
        entry.stamp > self.safe_time || position >= self.fence
    }
}

/// Everything but the subscriber.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    /// The clock: the newest stamp.
    pub clock: Stamp,
    /// What a statement sees.
    pub table: [Option<Row>; KEYS],
    /// How far each write is.
    pub writes: Vec<Progress>,
    /// The log, in the order of the commits.
    pub log: Vec<Entry>,
    /// How much of it the feed has.
    pub decoded: Position,
    /// How much of it the journal has dropped.
    pub floor: Position,
    /// The newest stamp that was dropped.
    pub floor_stamp: Stamp,
    /// The greatest safe time so far.
    safe_time: Stamp,
    /// The watermark from which a Group's row may be believed.
    pub sampled: Watermark,
}

impl World {
    pub(super) fn new(table: [Option<Patients>; KEYS], writes: usize) -> Self {
        Self {
            clock: 0,
            table: table.map(|content| content.map(|patients| Row { stamp: 0, patients })),
            writes: vec![Progress::Waiting; writes],
            log: Vec::new(),
            decoded: 0,
            floor: 0,
            floor_stamp: 0,
            safe_time: 0,
            sampled: Watermark { safe_time: 0, fence: 0 },
        }
    }

    /// Whether a transaction may write: whoever has the row locked has ended, for others too.
    pub(super) fn may_write(&self, number: usize, writes: &[Write]) -> bool {
        self.writes[number] == Progress::Waiting
            && self.writes.iter().zip(writes).all(|(progress, other)| {
                other.key != writes[number].key || matches!(progress, Progress::Waiting | Progress::Visible)
            })
    }

    pub(super) fn write(&mut self, number: usize, write: Write) {
        self.clock += 1;
        let before = self.table[write.key].map(|row| row.patients);
        self.writes[number] = Progress::Written(self.clock, before);
    }

    pub(super) fn commit(&mut self, number: usize, write: Write) {
        if let Progress::Written(stamp, old) = self.writes[number] {
            self.log.push(Entry { stamp, key: write.key, old, new: write.content });
            self.writes[number] = Progress::Committed(stamp);
        }
    }

    pub(super) fn appear(&mut self, number: usize, write: Write) {
        if let Progress::Committed(stamp) = self.writes[number] {
            self.table[write.key] = write.content.map(|patients| Row { stamp, patients });
            self.writes[number] = Progress::Visible;
        }
    }

    /// Drops the journal's entries before a place.
    pub(super) fn purge(&mut self, upto: Position) {
        let dropped = self.log[self.floor..upto].iter().map(|entry| entry.stamp).max();
        self.floor_stamp = self.floor_stamp.max(dropped.unwrap_or(0));
        self.floor = upto;
    }

    /// Takes a watermark.
    pub(super) fn watermark(&mut self) -> Watermark {
        let begun = self.writes.iter().filter_map(|progress| match progress {
            Progress::Written(stamp, _) | Progress::Committed(stamp) => Some(stamp - 1),
            Progress::Waiting | Progress::Visible => None,
        });
        self.safe_time = self.safe_time.max(begun.min().unwrap_or(self.clock));
        Watermark { safe_time: self.safe_time, fence: self.log.len() }
    }

    /// The safe time of the sampled watermark, once the feed has passed its fence.
    pub(super) const fn passed_safe_time(&self) -> Stamp {
        if self.decoded >= self.sampled.fence { self.sampled.safe_time } else { 0 }
    }

    /// Whether nothing is under way.
    pub(super) fn is_at_rest(&self) -> bool {
        self.decoded == self.log.len()
            && self.writes.iter().all(|progress| matches!(progress, Progress::Waiting | Progress::Visible))
    }
}

//! The durable journal: what was published, in its order, on our disk.
//!
//! A resumed or lagging subscriber reads it in place of the database. It is a trait because a journal on
//! several machines comes next; [`Segments`] is the one on the local disk. All of it blocks: call it from the
//! journal's own thread or from a blocking task.

mod block;
mod blocking_read;
mod bloom;
mod fields;
mod groups;
mod runs;
mod segments;
mod state;
mod writer;

pub(crate) use block::{Block, BlockBuilder, Entry, Header, Packed, is_large};
pub(crate) use blocking_read::{DAMAGED, RETRY_AFTER, UNREADABLE, blocking_read};
pub(crate) use bloom::Probes;
pub(crate) use groups::{GroupBefore, GroupChange};
pub(crate) use runs::{PastRun, PastRuns, ended};
pub(crate) use segments::Segments;
pub(crate) use state::{Floor, State};
pub(crate) use writer::{Durable, Publish, Stopped, Writer};

use crate::{Anchor, Position, Watermark};
use fhir::Instant;

/// Why the journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// The disk is full, or gone, or refuses.
    #[error("the journal's storage fails")]
    Storage(#[from] fjall::Error),
    /// What was read is not what was written.
    #[error("the journal is damaged: {0}")]
    Corrupt(&'static str),
}

/// How much the journal keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    /// At most this many bytes of blocks.
    pub(crate) bytes: u64,
    /// Nothing older than this, by both our clock and the database's.
    pub(crate) age: std::time::Duration,
}

/// Called with a block's header and with what reads the block; returns whether it wants the next.
pub(crate) type Visit<'a> =
    dyn FnMut(&Header, &dyn Fn() -> Result<Block, JournalError>) -> Result<bool, JournalError> + 'a;

/// Ordered, durable blocks of changes, and the state that goes with them.
pub(crate) trait Journal: Send + Sync + 'static {
    /// The state as last written; `None` in a new journal.
    fn load(&self) -> Result<Option<State>, JournalError>;

    /// The runs that have ended, newest first.
    fn past(&self) -> Result<Vec<PastRun>, JournalError>;

    /// Writes the state and the runs that have ended, both on disk on return: another run has begun, or all are tainted.
    fn write_runs(&self, state: &State, past: &[PastRun]) -> Result<(), JournalError>;

    /// Writes blocks and state as one, and returns when both are on disk.
    fn append(&self, blocks: Vec<Packed>, state: &State) -> Result<(), JournalError>;

    /// Begins a new epoch: drops every block and writes the state and the runs that have ended, which are on disk on return.
    fn begin(&self, state: &State, past: &[PastRun]) -> Result<(), JournalError>;

    /// The blocks with entries after a position, in order, one call of `visit` each until it returns
    /// `false`. Only the headers are read unless `visit` asks for more.
    fn blocks_after(&self, position: Position, visit: &mut Visit<'_>) -> Result<(), JournalError>;

    /// A part of the entry at a position, which is stored in parts; `None` if the entry is no longer kept.
    fn part(&self, position: Position, number: u32) -> Result<Option<Vec<u8>>, JournalError>;

    /// The newest change of a Group at or before a position that is kept.
    fn group_at(&self, id: &str, at: Position) -> Result<Option<GroupChange>, JournalError>;

    /// The oldest change of a Group after a position that is kept.
    fn group_after(&self, id: &str, after: Position) -> Result<Option<GroupChange>, JournalError>;

    /// The time of the newest tick at or before a position; `None` if there never was one.
    fn tick_at(&self, at: Position) -> Result<Option<Instant>, JournalError>;

    /// The place of the oldest tick after a position.
    fn tick_after(&self, after: Position) -> Result<Option<Position>, JournalError>;

    /// The anchor before the first block that holds an entry on the feed's side of a watermark; `None` if
    /// there is none.
    fn seek(&self, watermark: Watermark) -> Result<Option<Anchor>, JournalError>;

    /// Drops what retention does not keep, oldest first, but nothing stamped after the safe time unless the bytes
    /// demand it; the state's floor moves, on disk before anything is dropped. Whether anything was.
    fn purge(&self, retention: Retention, state: &mut State) -> Result<bool, JournalError>;

    /// Bytes of blocks kept.
    fn bytes(&self) -> u64;

    /// Opens it again after a failure.
    fn reopen(&self) -> Result<(), JournalError>;
}

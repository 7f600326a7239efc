//! The journal: the durable, ordered record of what was published.
//!
//! Subscribers that resume or lag read it in place of the database. [`JournalWriter`] and
//! [`JournalReader`] are its contract; [`Segments`], on the local disk, is the one implementation. A
//! journal on several machines will be another, so nothing outside of `segments` names its store.
//!
//! ```text
//! publisher -- queue --> Writer's thread -- JournalWriter --> store
//!                          | Durable, LSN (watches), OnEpoch
//!                          v
//! acknowledgement, subscribers -- Reader -- JournalReader --> store
//! ```
//!
//! # What a return value permits
//!
//! | returned | permits |
//! |---|---|
//! | [`JournalWriter::append`] `Ok` | acknowledging `State::durable_lsn` to Postgres, which may then drop its WAL |
//! | [`JournalWriter::begin`] `Ok` | serving the new epoch; no entry of an earlier one is read again |
//! | [`JournalWriter::write_runs`] `Ok` | giving out ids of `State::run`; dropping a slot, if the state is tainted |
//! | [`JournalWriter::purge`] `Ok(true)` | resetting readers that stand before `State::floor` |
//! | any write: `Err` | nothing: it may be on disk or not. Reopen, then believe only what `load` returns |
//! | a read: `Err` | see [`JournalError`]; never that an entry does not exist |
//!
//! # What survives
//!
//! | | crash, `kill -9` | restart | full disk | purge |
//! |---|---|---|---|---|
//! | blocks of an `append` that returned | yes | yes | yes | from the floor on |
//! | the queue of the writer's thread | no: Postgres sends it again | written first | dropped, then sent again | - |
//! | [`State`], the runs that have ended | as last written | yes | as last written | yes, with the new floor |
//! | the newest watermark | the last 10 s may be missing: a new one is taken each second | as in a crash | as last written | bounds what is dropped |
//! | watermarks that the feed has not passed (in the hub) | no: new ones are taken | no | yes | yes |
//! | the copy of the ended runs that judges ids (`PastRuns`) | read from the store at start | as in a crash | yes | yes |
//! | the end of pages (`State::paged`) | yes: no page is sent before it is written | yes | replays wait | yes |
//!
//! Watermarks and ended runs therefore have their truth in the store. The copies in the process are made
//! from it, or taken again, and none of them is needed to continue an id.

mod block;
mod bloom;
mod commit_group;
mod durable;
mod fields;
mod groups;
mod reader;
mod runs;
mod segments;
mod state;
mod writer;

pub(crate) use block::{Block, BlockBuilder, Entry, Header, Packed, is_large};
pub(crate) use bloom::Probes;
pub(crate) use durable::Durable;
pub(crate) use groups::{GroupBefore, GroupChange};
pub(crate) use reader::{DAMAGED, RETRY_AFTER, Reader, UNREADABLE};
pub(crate) use runs::{PastRun, PastRuns, ended};
pub(crate) use segments::Segments;
pub(crate) use state::{Floor, State};
pub(crate) use writer::{Publish, Started, Stopped, Writer, WriterSetup};

use crate::{Anchor, Position, Watermark};
use fhir::Instant;
use std::error::Error;

/// Why the journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// The store fails: the disk is full, gone, or refuses. A reader may retry after a pause. The writer
    /// must [reopen](JournalWriter::reopen) before its next write.
    #[error("the journal's storage fails")]
    Storage(#[source] Box<dyn Error + Send + Sync>),
    /// What was read is not what was written. A retry returns the same: the reader is reset.
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

/// Called with a block's header and a function that reads the block. Returns whether to continue with
/// the next block.
pub(crate) type Visit<'a> =
    dyn FnMut(&Header, &dyn Fn() -> Result<Block, JournalError>) -> Result<bool, JournalError> + 'a;

/// Reads blocks and what is derived from them. Any number of readers run beside the writer.
///
/// A read may block; async code calls it through [`Reader`]. Reads are not one snapshot: the writer may
/// append and purge between two of them, and within one. So a caller reads the head ([`Durable`])
/// *before* it searches, and the state ([`load`](Self::load)) *after*: the floor moves before anything is
/// dropped, so a search that ended above the floor has seen everything.
pub(crate) trait JournalReader: Send + Sync + 'static {
    /// The state as last written; `None` in a new journal.
    fn load(&self) -> Result<Option<State>, JournalError>;

    /// The blocks with entries after a position, in order, one call of `visit` each until it returns
    /// `false`. Only headers are read unless `visit` asks for more. A header whose preceding position
    /// lies beyond the last one passed shows that a purge dropped what was between.
    fn blocks_after(&self, position: Position, visit: &mut Visit<'_>) -> Result<(), JournalError>;

    /// A part of the entry at a position, which is stored in parts; `None` if it was purged.
    fn part(&self, position: Position, number: u32) -> Result<Option<Vec<u8>>, JournalError>;

    /// The newest change of a Group at or before a position; `None` if there is none above the floor.
    fn group_at(&self, id: &str, at: Position) -> Result<Option<GroupChange>, JournalError>;

    /// The oldest change of a Group after a position; `None` if there is none above the floor.
    fn group_after(&self, id: &str, after: Position) -> Result<Option<GroupChange>, JournalError>;

    /// The time of the newest tick at or before a position, whether purged or not; `None` if there never
    /// was one.
    fn tick_at(&self, at: Position) -> Result<Option<Instant>, JournalError>;

    /// The position of the oldest tick after a position.
    fn tick_after(&self, after: Position) -> Result<Option<Position>, JournalError>;

    /// The anchor before the first block with an entry on the feed's side of a watermark; `None` if no block
    /// has one.
    fn seek(&self, watermark: Watermark) -> Result<Option<Anchor>, JournalError>;
}

/// Writes the journal. One thread calls it, the writer's, one call after the other.
///
/// Each call blocks until what it names is durable: on disk here, stored by a majority elsewhere. It
/// writes all of it or nothing, also in a crash. After an error the store is not used again before
/// [`reopen`](Self::reopen) returns.
pub(crate) trait JournalWriter: JournalReader {
    /// The runs that have ended, newest first.
    fn past(&self) -> Result<Vec<PastRun>, JournalError>;

    /// Writes the state and the runs that have ended: another run has begun, or all are tainted.
    fn write_runs(&self, state: &State, past: &[PastRun]) -> Result<(), JournalError>;

    /// Writes blocks, which follow the last block, and the state as of the last of them.
    fn append(&self, blocks: Vec<Packed>, state: &State) -> Result<(), JournalError>;

    /// Begins a new epoch: writes the state and the runs that have ended, then drops every block. A crash
    /// in between leaves blocks of an earlier epoch, which the next opening drops.
    fn begin(&self, state: &State, past: &[PastRun]) -> Result<(), JournalError>;

    /// Drops what retention does not keep, oldest first, but nothing stamped after the safe time unless the byte
    /// limit demands it. The state's floor moves, durably, before anything is dropped. Returns whether
    /// anything was dropped.
    fn purge(&self, retention: Retention, state: &mut State) -> Result<bool, JournalError>;

    /// Bytes of blocks kept.
    fn bytes(&self) -> u64;

    /// Opens the store again after a failure. `Ok` shows only that it can be read: the caller loads the
    /// state, which may be older than what it wrote, and tries a write.
    fn reopen(&self) -> Result<(), JournalError>;
}

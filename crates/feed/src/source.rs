//! What the feed asks of the database: watermarks and pages. Implemented by `cdc`.
//!
//! A watermark splits history in two: what was stamped at or before the safe time is in the tables, what was stamped
//! after the safe time *or* committed at or beyond the fence LSN is in the feed. Each change is on exactly one side.

use crate::{Kind, Lsn};
use bytes::Bytes;
use fhir::{Instant, Patients, ResourceType, TypeSet};
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

/// A split of history into tables and feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watermark {
    /// A safe time: every transaction that stamped at or before it has ended and is visible.
    pub safe_time: Instant,
    /// Where the next record would begin, read after the safe time was; the log is on the database's disk up to there.
    pub fence_lsn: Lsn,
}

impl Watermark {
    /// Whether a change with this stamp, committed at this place, comes from the feed.
    pub fn leaves_to_feed(&self, stamp: Instant, commit_lsn: Lsn) -> bool {
        // A commit stands where its record begins: the first one after the fence LSN was read may stand right there.
        stamp > self.safe_time || commit_lsn >= self.fence_lsn
    }
}

/// A watermark as it was taken.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The watermark.
    pub watermark: Watermark,
    /// Our own clock when the sample was begun.
    pub taken: tokio::time::Instant,
    /// The newest stamp of a tombstone that was purged: deletions up to it can no longer be told.
    pub tombstones_purged: Option<Instant>,
}

/// Which rows are wanted by who does not ask for everybody's.
#[derive(Clone)]
pub struct Scope {
    /// Only rows that mention one of these patients have to be read, and the rows of these patients themselves; `None`: all.
    pub mentions: Option<Arc<Patients>>,
    /// Whether a row with this id, which belongs to these patients, is sent. A deleted one belongs to those to whom it belonged.
    pub wants: Arc<Wants>,
}

/// See [`Scope::wants`].
pub type Wants = dyn Fn(&str, &Patients) -> bool + Send + Sync;

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("mentions", &self.mentions).finish_non_exhaustive()
    }
}

/// Which page of a resource type's rows, in the order of (`last_updated`, `id`).
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// The resource type.
    pub resource_type: ResourceType,
    /// Rows, or tombstones of keys that no row has.
    pub kind: Kind,
    /// Whose rows; `None`: everybody's.
    pub scope: Option<Scope>,
    /// Only what was stamped after this ...
    pub since: Option<Instant>,
    /// ... and at or before this.
    pub until: Instant,
    /// Only what follows this row.
    pub after: Option<(Instant, Box<str>)>,
    /// How many rows will about fill a page of [`PageRequest::LARGEST`], as the page before tells, if there was one.
    pub expected: Option<usize>,
    /// About how many bytes are wanted, at most [`PageRequest::LARGEST`].
    pub bytes: usize,
}

impl PageRequest {
    /// Bytes of the largest page: it ends with the row that brings it to that, or to twice that.
    pub const LARGEST: usize = 1 << 20;
}

/// Where the rows of a page go as they are read.
pub trait PageRows: Send {
    /// Takes a row with this `last_updated` and id. `write` appends it in the form in which it is streamed, the resource or the
    /// Bundle that says it is gone: one line without CR or LF. What it appended is taken back if it says false.
    fn row(&mut self, stamp: Instant, id: &str, write: &mut dyn FnMut(&mut Vec<u8>) -> bool);

    /// Forgets the rows: the page will be read once more.
    fn clear(&mut self);
}

/// Resources of more bytes than this are never held whole for a subscriber: they are stored, and read piece by piece.
pub const LARGE_BYTES: usize = 1 << 20;

/// A row of a page that is too large to be read with others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LargeRow {
    /// Its `last_updated`.
    pub stamp: Instant,
    /// Its id.
    pub id: Box<str>,
    /// Its `version_id`, which no other row has, nor had.
    pub version: i64,
}

/// Writes a resource in the form in which it is streamed: one line without CR or LF. Blocks as its output does.
pub type WriteResource = Box<dyn FnOnce(&mut dyn io::Write) -> io::Result<()> + Send>;

/// A large row that was found.
pub struct Large {
    /// The patients to whom it belongs.
    pub patients: Patients,
    /// Writes it.
    pub write: WriteResource,
}

/// A page that was read.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The last row of the page, if it is too large to be among its rows: see [`Source::large`].
    pub large: Option<LargeRow>,
    /// The last row read, sent or not: where the next page goes on. `None`: there is nothing more.
    pub next: Option<(Instant, Box<str>)>,
    /// How many rows like these fill the largest page; `None` if what follows is not like them.
    pub expected: Option<usize>,
}

/// Why the database did not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SourceError {
    /// It is away, starting or stopping: retry.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// It refuses, and will until an operator fixes it.
    #[error("{0}")]
    Refused(String),
    /// What was asked for is not there any more: why, for the client.
    #[error("{0}")]
    Gone(String),
}

/// A future of a [`Source`].
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send + 'a>>;

/// The database, as a replay sees it.
pub trait Source: Send + Sync + 'static {
    /// Takes a watermark, begun after this was called.
    fn watermark(&self) -> Answer<'_, Sample>;

    /// Looks, after this was called, whether all holds on which it depends that what was read of the tables was all there
    /// was. Asked before a client is told that it has everything, or that it should drop what it has.
    fn confirm(&self) -> Answer<'_, ()>;

    /// What there may be to read: the types with rows, and those with tombstones, stamped after `since`. Asked
    /// after the watermark was taken, so that nothing on its side is missing; too many do no harm. `types` are those that
    /// are asked for: whoever asks for all asks for rows of types that nobody knows, too. With `mentions` only what mentions
    /// one of these patients, and their own rows.
    fn present(
        &self,
        since: Option<Instant>,
        types: TypeSet,
        mentions: Option<Arc<Patients>>,
    ) -> Answer<'_, Vec<(Kind, ResourceType)>>;

    /// About how many rows of these types there are, as the database's planner knows already: nothing is counted. A type of which
    /// it knows nothing is left out.
    fn estimates(&self, types: TypeSet) -> Answer<'_, Vec<(ResourceType, u64)>> {
        let _ = types;
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Whether requests for the resources of patients can be answered: the log has the old contents, and the tables the index
    /// by patients.
    fn knows_patients(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// A Group as it is now, in the form in which it is streamed; `None` if it is not there, or cannot be streamed.
    fn group<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Bytes>> {
        let _ = id;
        Box::pin(async { Ok(None) })
    }

    /// Whether so many patients are so large a part of all that it takes less to read everybody's rows than to look for theirs.
    fn are_most(&self, patients: usize) -> Answer<'_, bool> {
        let _ = patients;
        Box::pin(async { Ok(false) })
    }

    /// Writes a tick, which returns through the log. On return it has been committed.
    fn tick(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Those of these patients who are stored.
    fn stored(&self, patients: Patients) -> Answer<'_, Patients> {
        Box::pin(async { Ok(patients) })
    }

    /// The newest stamp of a tombstone that was purged, as of now.
    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>>;

    /// Reads a page in a statement of its own. The page is bounded in rows and in bytes, and no
    /// transaction waits for whoever reads it. `rows` count if it succeeds.
    fn page<'a>(&'a self, request: PageRequest, rows: &'a mut dyn PageRows) -> Answer<'a, Page>;

    /// Reads a large row; `None` if it is not there any more, so that the feed brings what came after it, or if it cannot
    /// be streamed. As for a page no transaction waits for whoever reads it.
    fn large(&self, resource_type: ResourceType, row: LargeRow) -> Answer<'_, Option<Large>> {
        let _ = (resource_type, row);
        Box::pin(async { Ok(None) })
    }

    /// Who keeps the safe time from moving on, in a sentence for people; `None` when nobody does.
    fn holding_back(&self) -> Option<String>;
}

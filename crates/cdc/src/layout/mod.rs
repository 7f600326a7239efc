//! Layouts: the tables that are streamed, and all that is known of them.
//!
//! The rest of this crate (session, watermark, slot, publication, `check`) follows any [`Layout`] and
//! names none of its tables.

mod arena;
mod bad_rows;
mod before_images;
pub mod native;

pub(crate) use bad_rows::Reason;
pub use bad_rows::{BadRow, BadRows, OnBadRow, RowTable};
pub use before_images::BeforeImages;

use crate::check::Finding;
use crate::pages::PageContext;
use crate::{Settings, TableName};
use bytes::Bytes;
use feed::{Answer, Change, Kind, Large, LargeRow, Page, PageRequest, PageRows, Position};
use fhir::{BaseUrls, Instant, Patients, ResourceType, TypeSet};
use pg::Encoding;
use pg::pgoutput::{Relation, Row};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use tokio_postgres::{Client, Error};

/// The answer to statements on a connection.
pub type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// A subject of `check`, and the findings, or why the database did not answer.
pub type Findings = (&'static str, Result<Vec<Finding>, Error>);

/// The findings of some subjects, in order.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Vec<Findings>> + Send + 'a>>;

/// The tables of a database that are streamed.
///
/// Positions belong to the log and are the same for every layout. What differs is which tables are
/// published ([`tables`](Self::tables)), how their rows become changes ([`RowDecoder`]), how a replay
/// reads them ([`Pages`]), and who stamps them ([`Stamps`]).
pub trait Layout: fmt::Debug + Send + Sync {
    /// Decodes the rows of the log.
    type Decoder: RowDecoder
    where
        Self: Sized;

    /// The published tables, in a fixed order: the epoch depends on them. A layout may publish tables
    /// whose rows are not changes themselves, such as tags of a resource.
    fn tables(&self) -> &[TableName];

    /// A decoder that has seen nothing. It reports rows that cannot be streamed, and before images that
    /// are missing, to `context`.
    fn decoder(&self, context: RowContext) -> Self::Decoder
    where
        Self: Sized;

    /// The reader of replays. A layout is free in how it finds the rows of a page: by an index of the
    /// tables, or by an index of its own with the texts by primary key.
    fn pages(&self, context: PageContext) -> Box<dyn Pages>;

    /// What the safe time needs of the tables.
    fn stamps(&self) -> &dyn Stamps;

    /// A text that differs when rows were rewritten such that what was published may not exist any
    /// more, without a change in the log. It is kept with the journal: a difference is a fork.
    ///
    /// Without a definition nothing rewrites rows.
    fn generation<'a>(&'a self, client: &'a Client) -> Asked<'a, String> {
        let _ = client;
        Box::pin(async { Ok(String::new()) })
    }

    /// The role that the service should log in as: `check` judges it if a superuser runs `check`.
    fn service_role(&self) -> &str;

    /// The facts on which a complete replay depends, passing and failing, for the role that asks. While
    /// one fails, no watermark is taken and no replay begins. The statements change nothing, and are
    /// cheap enough for once a minute.
    fn facts<'a>(&'a self, client: &'a Client, settings: &'a Settings) -> Asking<'a> {
        let _ = (client, settings);
        Box::pin(async { Vec::new() })
    }

    /// What streams of patients and Groups need and is lacking: only these streams are refused.
    fn lacking_for_patients<'a>(&'a self, client: &'a Client) -> Asked<'a, Vec<Finding>> {
        let _ = client;
        Box::pin(async { Ok(Vec::new()) })
    }

    /// What `check` prints of the layout: the facts, for the role of the service, and all else that an
    /// operator should fix.
    fn check<'a>(&'a self, client: &'a Client, settings: &'a Settings) -> Asking<'a> {
        self.facts(client, settings)
    }
}

/// What decoder and pages have in common.
#[derive(Clone, Debug, Default)]
pub struct RowContext {
    /// Decides about the rows that cannot be streamed.
    pub bad_rows: Arc<BadRows>,
    /// Notes that the log lacks the content that a change replaced.
    pub before_images: Arc<BeforeImages>,
    /// An absolute reference below one of these names a resource here.
    pub base_urls: BaseUrls,
}

/// The stamps of rows that writers stamp in their transactions.
///
/// The sampler closes a time, waits for the transactions that had an id by then, and so has a safe time:
/// that is exact if, and only if, the contract of [`close_time`](Self::close_time) holds. A layout whose
/// log reader assigns the stamps in the order of commits does not need this: its safe time is the stamp
/// of the last commit that is visible.
pub trait Stamps: Send + Sync {
    /// Closes a time and returns it: the database's clock, or a later closed time, or `reached` if the
    /// clock is a little behind it. Once it returns, no transaction stamps at or before that time,
    /// whatever its snapshot and whatever the clock does, also after a crash or a roll-back.
    fn close_time<'a>(&'a self, client: &'a Client, reached: Instant) -> Asked<'a, Instant>;

    /// The statement that lets a role close a time; the role's name follows `to`.
    fn grant_to_close(&self) -> &'static str;

    /// The newest stamp of all rows and tombstones that are visible, but for those that are so far ahead
    /// of the clock that a fact fails; `None` without any.
    fn newest<'a>(&'a self, client: &'a Client) -> Asked<'a, Option<Instant>>;

    /// The newest stamp of a tombstone that was purged: deletions up to it are not in the tables.
    fn tombstones_purged<'a>(&'a self, client: &'a Client) -> Asked<'a, Option<Instant>>;
}

/// The pages of replays. Each method is what the method of that name of [`feed::Source`] asks for.
///
/// A page that passed over a row, since a newer commit has replaced it, is returned when the log is on
/// the database's disk up to that commit ([`PagePool::until_on_disk`](crate::pages::PagePool::until_on_disk)).
pub trait Pages: Send + Sync {
    /// Rows of one type, in the order of stamp and id, each exactly once over the pages of a round.
    fn page<'a>(&'a self, request: PageRequest, rows: &'a mut dyn PageRows) -> Answer<'a, Page>;

    /// A row that a page named as large; `None` if it is not there any more, or cannot be streamed.
    fn large(&self, resource_type: ResourceType, row: LargeRow) -> Answer<'_, Option<Large>>;

    /// The types that have rows (and, with a lower bound, tombstones) stamped after it.
    fn present(
        &self,
        since: Option<Instant>,
        types: TypeSet,
        mentions: Option<Arc<Patients>>,
    ) -> Answer<'_, Vec<(Kind, ResourceType)>>;

    /// About how many rows of these types there are. Nothing depends on it.
    fn estimates(&self, types: TypeSet) -> Answer<'_, Vec<(ResourceType, u64)>>;

    /// A Group as it is streamed; `None` if it is not there, or cannot be streamed.
    fn group<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Bytes>>;

    /// Whether this many patients are such a large share that reading all rows costs less than looking up
    /// each patient's.
    fn are_most(&self, patients: usize) -> Answer<'_, bool>;

    /// Those of these patients that are stored.
    fn stored(&self, patients: Patients) -> Answer<'_, Patients>;

    /// Writes a tick into the log.
    fn tick(&self) -> Answer<'_, ()>;

    /// See [`Stamps::tombstones_purged`].
    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>>;
}

/// How rows of the published tables become changes.
pub trait RowDecoder: Send {
    /// Text is in this encoding from now on. UTF-8 before the first call.
    fn encoding(&mut self, encoding: Arc<Encoding>);

    /// A relation was announced (again): its columns by name. An error names table, column and remedy.
    fn relation(&mut self, relation: &Relation) -> Result<(), LayoutError>;

    /// A row message; appends zero or more changes to `out`, `position.part` counting up. A row that cannot
    /// be streamed is what [`BadRows`] make of it.
    fn row(&mut self, row: &Row<'_>, position: Position, out: &mut Vec<Change>) -> Result<(), LayoutError>;

    /// All rows of these tables are gone, without a message for each.
    fn truncated(&mut self, relation_ids: &[u32]) -> Result<(), LayoutError>;

    /// The transaction of the rows so far has ended. An error: it took away what its changes do not tell of.
    fn commit(&mut self) -> Result<(), LayoutError>;

    /// The transaction of the rows so far was cut off, and comes again from its start.
    fn restart(&mut self);
}

/// The published tables cannot be followed as they are.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A table has not the shape that it needs. Names table, column and remedy.
    #[error("{0}")]
    Table(String),
    /// A row that nothing may go past.
    #[error(transparent)]
    BadRow(#[from] BadRow),
    /// Rows are gone, and no change says so: subscribers have to begin anew.
    #[error("{0}")]
    Untold(&'static str),
}

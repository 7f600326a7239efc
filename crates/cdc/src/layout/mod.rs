//! Layouts: how rows of the published tables become changes.

mod arena;
mod bad_rows;
mod native;
mod untold;

pub(crate) use bad_rows::Reason;
pub use bad_rows::{BadRow, BadRows, OnBadRow};
pub use native::Native;
pub(crate) use native::{BeforeImages, COLUMNS, table_name};

use feed::{Change, Position};
use pg::Encoding;
use pg::pgoutput::{Relation, Row};
use std::sync::Arc;

/// How rows of the published tables become changes.
pub trait Layout: Send {
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

//! Layouts: how rows of the published tables become changes.

mod arena;
mod bad_rows;
mod native;

pub(crate) use bad_rows::Reason;
pub use bad_rows::{BadRow, BadRows, OnBadRow};
pub use native::Native;
pub(crate) use native::table_name;

use crate::pgoutput::{Relation, Row};
use feed::{Change, Position};

/// How rows of the published tables become changes.
pub trait Layout: Send {
    /// A relation was announced (again): its columns by name. An error names table, column and remedy.
    fn relation(&mut self, relation: &Relation) -> Result<(), LayoutError>;

    /// A row message; appends zero or more changes to `out`, `position.part` counting up. A row that cannot
    /// be streamed is what [`BadRows`] make of it.
    fn row(&mut self, row: &Row<'_>, position: Position, out: &mut Vec<Change>) -> Result<(), LayoutError>;
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
}

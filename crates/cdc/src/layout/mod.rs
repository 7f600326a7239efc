//! Layouts: how rows of the published tables become changes.

mod native;
mod skipped;

pub use native::Native;
pub(crate) use native::table_name;
pub use skipped::SkippedRows;

use crate::pgoutput::{Relation, Row};
use feed::{Change, Position};

/// How rows of the published tables become changes.
pub trait Layout: Send {
    /// A relation was announced (again): its columns by name. An error names table, column and remedy.
    fn relation(&mut self, relation: &Relation) -> Result<(), LayoutError>;

    /// A row message; appends zero or more changes to `out`, `position.part` counting up. A row that cannot
    /// be streamed is counted and skipped with a log line that names no content.
    fn row(&mut self, row: &Row<'_>, position: Position, out: &mut Vec<Change>) -> Result<(), LayoutError>;

    /// How many rows were skipped so far.
    fn skipped(&self) -> u64 {
        0
    }
}

/// The published tables cannot be followed as they are. Names table, column and remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LayoutError(pub String);

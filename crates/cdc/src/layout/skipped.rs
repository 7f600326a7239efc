//! Rows that cannot be streamed: counted, and told of without what they hold.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many rows could not be streamed. Shared by the log's layout and the pages.
#[derive(Debug, Default)]
pub struct SkippedRows(AtomicU64);

impl SkippedRows {
    /// So far, since the start.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one. Logs the first, the second, the fourth and so on, so that a table full of them does not
    /// fill the log. The version number leads an operator to the row, and nobody else.
    pub(crate) fn note(&self, table: &str, version: Option<i64>, reason: &dyn fmt::Display) {
        let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            tracing::warn!(table, version_id = version, %reason, skipped = count, "a row cannot be streamed");
        }
    }
}

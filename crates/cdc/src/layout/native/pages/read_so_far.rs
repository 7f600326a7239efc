//! What was read of a page so far, and how the page ends.

use super::row::{Found, unreadable};
use feed::{LargeRow, Page, PageRequest, SourceError};
use fhir::Instant;

/// What was read of a page.
#[derive(Default)]
pub(super) struct ReadSoFar {
    pub(super) rows: i64,
    /// What is streamed of them.
    pub(super) bytes: usize,
    /// The last of them, if there are any.
    pub(super) last: (Instant, String),
    /// That one, if it is large.
    large: Option<LargeRow>,
}

/// What follows a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing.
    Last,
    /// Perhaps more.
    More,
    /// A row that is not like those before.
    Unlike,
}

impl ReadSoFar {
    /// Ends with a large row.
    pub(super) fn large(&mut self, row: &Found<'_>) -> Result<(), SourceError> {
        let version = row.version_id.ok_or_else(|| unreadable("version_id"))?;
        self.rows += 1;
        let (stamp, id) = row.place();
        self.large = Some(LargeRow { stamp: row.stamp, id: (*id).into(), version });
        self.last = (stamp, id.into_owned());
        Ok(())
    }

    pub(super) fn finish(self, end: End) -> Page {
        let rows = usize::try_from(self.rows).unwrap_or(usize::MAX);
        let expected = rows.saturating_mul(PageRequest::LARGEST).checked_div(self.bytes);
        let expected = expected.filter(|_| end == End::More && self.large.is_none());
        let (stamp, id) = self.last;
        let next = (rows > 0 && end != End::Last).then(|| (stamp, id.into()));
        Page { next, expected, large: self.large }
    }
}

//! Rows that cannot be streamed: counted, told of without what they hold, and passed over or the end of it all.

use feed::Kind;
use pg::Encoding;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is done about a row that cannot be streamed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnBadRow {
    /// It is passed over, and everything else goes on.
    #[default]
    Skip,
    /// Nothing goes past it: the log is not followed beyond it, and a replay that meets it ends.
    Stop,
}

impl FromStr for OnBadRow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "skip" => Ok(Self::Skip),
            "stop" => Ok(Self::Stop),
            _ => Err(format!("'{text}' is nothing to do about a bad row: use skip or stop")),
        }
    }
}

impl fmt::Display for OnBadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Skip => "skip",
            Self::Stop => "stop",
        })
    }
}

/// Why a row cannot be streamed. Says what is wrong, never what it holds.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Reason {
    #[error("column {0} is null")]
    Null(&'static str),
    #[error("column {0} is missing from the row")]
    Missing(&'static str),
    #[error("column {0} is not in the log (a large value that was left alone): are the triggers enabled?")]
    Unchanged(&'static str),
    #[error("column {0} is in binary form")]
    Binary(&'static str),
    #[error("column {0} cannot be read")]
    Unreadable(&'static str),
    #[error("column {0} is not UTF-8")]
    NotUtf8(&'static str),
    #[error("column {0} has bytes that the database's encoding does not define")]
    Undefined(&'static str),
    #[error("resource_type is none of FHIR R4")]
    UnknownType,
    #[error(transparent)]
    Resource(#[from] fhir::BadResource),
}

impl Reason {
    /// A column is no text of this encoding.
    pub(crate) const fn no_text(encoding: &Encoding, column: &'static str) -> Self {
        if encoding.is_utf8() { Self::NotUtf8(column) } else { Self::Undefined(column) }
    }

    /// A column whose text is ASCII is none.
    pub(crate) fn no_key(encoding: &Encoding, column: &'static str) -> Self {
        match (encoding.is_utf8(), column) {
            (true, _) => Self::NotUtf8(column),
            (false, "resource_type") => Self::UnknownType,
            (false, "id") => fhir::BadResource::InvalidId.into(),
            (false, _) => Self::Unreadable(column),
        }
    }

    /// Whether no row with this key can be streamed, whatever else it has.
    fn lies_in_the_key(&self) -> bool {
        matches!(
            self,
            Self::UnknownType
                | Self::Resource(fhir::BadResource::InvalidId)
                | Self::NotUtf8("resource_type" | "id")
        )
    }
}

/// Where a row stands, in the words of SQL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowTable {
    /// The table.
    pub name: &'static str,
    /// The column by which an operator finds the row.
    pub version: &'static str,
}

/// A row that nothing may go past. The version number leads an operator to it, and nobody else.
#[derive(Debug, thiserror::Error)]
#[error(
    "a row of {}{} cannot be streamed: {reason}. Mend or delete it{}; if it was met in the log, where that version \
     stays, start once with --on-bad-row skip after that",
    .table.name,
    .version.map(|version| format!(" ({} {version})", .table.version)).unwrap_or_default(),
    .version.map(|version| {
        format!(" (delete from {} where {} = {version};)", .table.name, .table.version)
    }).unwrap_or_default()
)]
pub struct BadRow {
    table: RowTable,
    version: Option<i64>,
    reason: String,
}

/// The bad rows that were met, and what is done about them. Shared by the log's layout and the pages.
#[derive(Debug, Default)]
pub struct BadRows {
    policy: OnBadRow,
    met: AtomicU64,
}

impl BadRows {
    /// None yet.
    pub fn new(policy: OnBadRow) -> Self {
        Self { policy, met: AtomicU64::new(0) }
    }

    /// How many were met since the start. One that is met again, by a replay for instance, counts again.
    pub fn count(&self) -> u64 {
        self.met.load(Ordering::Relaxed)
    }

    /// Counts one; an error if nothing may go past it. Of those that are passed over the first, the second, the
    /// fourth and so on are logged, so that a table full of them does not fill the log.
    ///
    /// The deletion of what could not be streamed because of its key is always passed over: nobody has it. So
    /// deleting a bad row is a way to mend it.
    pub(crate) fn meet(
        &self,
        table: RowTable,
        kind: Kind,
        version: Option<i64>,
        reason: &Reason,
    ) -> Result<(), BadRow> {
        let count = self.met.fetch_add(1, Ordering::Relaxed) + 1;
        if self.policy == OnBadRow::Stop && !(kind == Kind::Deletion && reason.lies_in_the_key()) {
            return Err(BadRow { table, version, reason: reason.to_string() });
        }
        if count.is_power_of_two() {
            tracing::warn!(
                table = table.name, version_id = version, %reason, skipped = count, "a row cannot be streamed and is left out"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: RowTable = RowTable { name: "s.live", version: "number" };

    #[test]
    fn what_stops_says_where_why_and_what_to_do() {
        let skipping = BadRows::default();
        assert!(skipping.meet(TABLE, Kind::Upsert, Some(7), &Reason::UnknownType).is_ok());
        assert!(skipping.meet(TABLE, Kind::Upsert, None, &Reason::UnknownType).is_ok());
        assert_eq!(skipping.count(), 2);
        let stopping = BadRows::new(OnBadRow::Stop);
        let told =
            stopping.meet(TABLE, Kind::Upsert, Some(7), &Reason::Null("content")).unwrap_err().to_string();
        assert!(told.starts_with("a row of s.live (number 7) cannot be streamed: column content is null."));
        assert!(told.contains("--on-bad-row skip"), "{told}");
        assert!(told.contains("delete from s.live where number = 7;"), "{told}");
        assert_eq!(stopping.count(), 1);
    }

    #[test]
    fn a_deletion_of_what_nobody_can_have_stops_nothing() {
        let stopping = BadRows::new(OnBadRow::Stop);
        let of_the_key = [Reason::UnknownType, fhir::BadResource::InvalidId.into(), Reason::NotUtf8("id")];
        for reason in of_the_key {
            assert!(stopping.meet(TABLE, Kind::Deletion, Some(7), &reason).is_ok());
            assert!(stopping.meet(TABLE, Kind::Upsert, Some(7), &reason).is_err());
        }
        let told =
            stopping.meet(TABLE, Kind::Deletion, None, &Reason::Null("version_id")).unwrap_err().to_string();
        assert!(told.starts_with("a row of s.live cannot be streamed"), "{told}");
        assert_eq!(stopping.count(), 7);
    }

    #[test]
    fn a_policy_is_read_as_it_is_written() {
        for policy in [OnBadRow::Skip, OnBadRow::Stop] {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert!("halt".parse::<OnBadRow>().unwrap_err().contains("use skip or stop"));
    }
}

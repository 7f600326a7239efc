//! The database: one key, its row and its tombstone, the log, the slot; and the facts that a replay takes for granted.

use super::Lsn;

/// A transaction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transaction {
    /// Writes the row.
    Write,
    /// Deletes it, with a tombstone.
    Delete,
    /// Deletes it, and the triggers do not fire.
    DeleteUntold,
    /// Deletes it with a tombstone, writes it again, and deletes it once more when the triggers do not fire any more.
    DeleteTwice,
}

/// What keeps the row from being seen by a page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Hidden {
    /// Nothing.
    No,
    /// A policy, which may come and go between any two statements.
    ByPolicy,
    /// Something that no statement has an error of, such as a row in a table that is not looked at.
    Silently,
}

/// The database.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Database {
    /// Each transaction, in order. The stamp of what it writes is the place after it.
    pub log: Vec<Transaction>,
    /// Where the slot stands: everything before it was acknowledged. `None`: there is no slot.
    pub slot: Option<Lsn>,
    /// The triggers fire.
    pub fires: bool,
    /// Whether pages see the row.
    pub hidden: Hidden,
}

impl Transaction {
    /// Whether a deletion of its own is without a tombstone behind it, as the log shows it.
    pub(super) const fn is_untold(self) -> bool {
        matches!(self, Self::DeleteUntold | Self::DeleteTwice)
    }
}

impl Database {
    pub(super) fn end(&self) -> Lsn {
        place(self.log.len())
    }

    /// The version of the row, if there is one: its stamp.
    pub(super) fn row(&self) -> Option<Lsn> {
        let last = self.log.last()?;
        (*last == Transaction::Write).then(|| self.end())
    }

    /// The stamp of the newest tombstone.
    pub(super) fn tombstone(&self) -> Option<Lsn> {
        let left =
            |transaction: &Transaction| matches!(transaction, Transaction::Delete | Transaction::DeleteTwice);
        self.log.iter().rposition(left).map(|at| place(at + 1))
    }

    /// Whether all holds that a replay takes for granted.
    pub(super) fn facts_hold(&self) -> bool {
        self.fires && self.hidden == Hidden::No
    }
}

/// A log has a handful of transactions.
pub(super) fn place(at: usize) -> Lsn {
    u8::try_from(at).unwrap_or(Lsn::MAX)
}

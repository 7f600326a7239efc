//! The database: transactions that begin, get an id, stamp a row, commit, come to disk and become visible,
//! each a step of its own.
//!
//! A transaction writes one row. With several, each falls on its side of a split by its own stamp, so they add
//! nothing here; that a transaction arrives in pieces is what the delivery model is about. Transactions begin
//! in the order of their numbers: they are alike, so another order is the same history under other names.

use super::clock::Instant;

/// The most transactions that a scenario has.
pub const TRANSACTIONS: usize = 4;

/// A place in the log. The n-th commit's record begins at n and ends at n + 1.
pub type Lsn = u8;

/// What a transaction wrote. Its number is the version's name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Row {
    /// Which resource.
    pub key: u8,
    /// Whether it took it away.
    pub deleted: bool,
    /// Its `last_updated`.
    pub stamp: Instant,
}

/// A transaction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transaction {
    /// Not there yet.
    Idle,
    /// In a transaction that has only read so far.
    Begun {
        /// `xact_start`.
        start: Instant,
    },
    /// It has an id: `backend_xid` is set.
    Identified {
        /// `xact_start`.
        start: Instant,
    },
    /// Stamped and not written yet: an insert that waits behind its stamp, or a seeded mistake.
    Stamped {
        /// `xact_start`.
        start: Instant,
        /// What it is going to write.
        row: Row,
        /// Whether it has an id.
        identified: bool,
    },
    /// Stamped and written; the row is locked.
    Written {
        /// `xact_start`.
        start: Instant,
        /// What it wrote.
        row: Row,
    },
    /// Its commit is in the log. Others neither see it nor get at its locks: it may wait for a standby.
    Committed {
        /// `xact_start`.
        start: Instant,
        /// What it wrote.
        row: Row,
        /// Where its commit is.
        lsn: Lsn,
    },
    /// Over, and visible to others.
    Visible {
        /// What it wrote.
        row: Row,
        /// Where its commit is.
        lsn: Lsn,
    },
    /// Lost in a crash, or refused.
    Lost,
}

impl Transaction {
    /// `xact_start` of one that others see to have an id.
    pub fn writing_since(&self) -> Option<Instant> {
        match *self {
            Self::Identified { start }
            | Self::Stamped { start, identified: true, .. }
            | Self::Written { start, .. }
            | Self::Committed { start, .. } => Some(start),
            _ => None,
        }
    }

    /// Begun and not over.
    pub fn is_open(&self) -> bool {
        matches!(
            self,
            Self::Begun { .. }
                | Self::Identified { .. }
                | Self::Stamped { .. }
                | Self::Written { .. }
                | Self::Committed { .. }
        )
    }

    fn locked(&self) -> Option<u8> {
        match self {
            Self::Written { row, .. } | Self::Committed { row, .. } => Some(row.key),
            _ => None,
        }
    }

    /// Its row and its commit, once that is in the log.
    pub fn committed(&self) -> Option<(Row, Lsn)> {
        match *self {
            Self::Committed { row, lsn, .. } | Self::Visible { row, lsn } => Some((row, lsn)),
            _ => None,
        }
    }
}

/// The database.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Database {
    /// All transactions there will be.
    pub transactions: [Transaction; TRANSACTIONS],
    /// Where the next record will be: `pg_current_wal_insert_lsn`.
    pub insert: Lsn,
    /// What is on its disk: `pg_current_wal_flush_lsn`.
    pub flushed: Lsn,
}

impl Database {
    pub(crate) fn new() -> Self {
        Self { transactions: [Transaction::Idle; TRANSACTIONS], insert: 0, flushed: 0 }
    }

    /// Whether nobody holds the row of a key.
    pub(crate) fn free(&self, key: u8) -> bool {
        self.transactions.iter().all(|transaction| transaction.locked() != Some(key))
    }

    /// What others see of a key: which transaction's row.
    pub fn visible(&self, key: u8) -> Option<(usize, Row)> {
        self.rows()
            .filter(|(_, row, _)| row.key == key)
            .max_by_key(|(_, _, lsn)| *lsn)
            .map(|(n, row, _)| (n, row))
    }

    fn rows(&self) -> impl Iterator<Item = (usize, Row, Lsn)> + '_ {
        self.transactions.iter().enumerate().filter_map(|(number, transaction)| match *transaction {
            Transaction::Visible { row, lsn } => Some((number, row, lsn)),
            _ => None,
        })
    }

    /// The first row or tombstone of a page: after a cursor, up to W.
    pub fn next_row(
        &self,
        deleted: bool,
        since: Instant,
        until: Instant,
        after: Option<(Instant, u8)>,
        keys: u8,
    ) -> Option<(usize, Row)> {
        (0..keys)
            .filter_map(|key| self.visible(key))
            .filter(|(_, row)| row.deleted == deleted && row.stamp > since && row.stamp <= until)
            .filter(|(_, row)| after.is_none_or(|after| (row.stamp, row.key) > after))
            .min_by_key(|(_, row)| (row.stamp, row.key))
    }

    /// What was committed at a place in the log.
    pub fn at(&self, lsn: Lsn) -> Option<(usize, Row)> {
        self.transactions.iter().enumerate().find_map(|(number, transaction)| {
            let (row, at) = transaction.committed()?;
            (at == lsn).then_some((number, row))
        })
    }

    /// A power failure: what was not on disk never was, and its places in the log are used again.
    pub(crate) fn crash(&mut self) {
        for transaction in &mut self.transactions {
            *transaction = match *transaction {
                Transaction::Idle => Transaction::Idle,
                Transaction::Committed { row, lsn, .. } | Transaction::Visible { row, lsn }
                    if lsn < self.flushed =>
                {
                    Transaction::Visible { row, lsn }
                }
                _ => Transaction::Lost,
            };
        }
        self.insert = self.flushed;
    }
}

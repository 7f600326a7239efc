//! The database: transactions that begin, get an id, stamp a row, commit, come to disk and become visible,
//! each a step of its own.
//!
//! A transaction writes one row. With several, each falls on its side of a split by its own stamp, so they add
//! nothing here; that a transaction arrives in pieces is what the delivery model is about. Transactions begin
//! in the order of their numbers: they are alike, so another order is the same history under other names.

use super::clock::{BEGINNING, Instant};

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
    Begun,
    /// It has an id: `backend_xid` is set.
    Identified,
    /// Stamped and not written yet: an insert that waits behind its stamp, or a seeded mistake.
    Stamped {
        /// What it is going to write.
        row: Row,
        /// Whether it has an id.
        identified: bool,
    },
    /// Stamped and written; the row is locked.
    Written {
        /// What it wrote.
        row: Row,
    },
    /// Its commit is in the log. Others neither see it nor get at its locks: it may wait for a standby.
    Committed {
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
    /// Whether others see that it has an id.
    pub fn has_id(&self) -> bool {
        matches!(
            self,
            Self::Identified
                | Self::Stamped { identified: true, .. }
                | Self::Written { .. }
                | Self::Committed { .. }
        )
    }

    /// Begun and not over.
    pub fn is_open(&self) -> bool {
        matches!(
            self,
            Self::Begun
                | Self::Identified
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
            Self::Committed { row, lsn } | Self::Visible { row, lsn } => Some((row, lsn)),
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
    /// The closed time: every stamp that is taken is later. In a sequence, so that a writer sees it at once.
    pub closed: Instant,
}

impl Database {
    pub(crate) fn new() -> Self {
        Self { transactions: [Transaction::Idle; TRANSACTIONS], insert: 0, flushed: 0, closed: BEGINNING }
    }

    /// Closes a time: the clock's, or one that it has reached before, or must be passed. It is on disk with all before it.
    pub(crate) fn close(&mut self, now: Instant, reached: Instant) -> Instant {
        self.closed = self.closed.max(now).max(reached);
        self.flushed = self.insert;
        self.closed
    }

    /// Those that have an id, by their bits.
    pub(crate) fn writers(&self) -> u8 {
        let bits = self.transactions.iter().enumerate();
        bits.filter(|(_, transaction)| transaction.has_id()).fold(0, |bits, (n, _)| bits | 1 << n)
    }

    /// The newest stamp that others see.
    pub(crate) fn newest(&self) -> Option<Instant> {
        self.rows().map(|(_, row, _)| row.stamp).max()
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

    /// The first row or tombstone of a page: after a cursor, up to the safe time.
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

    /// Where a version was committed.
    pub fn place(&self, version: usize) -> Option<Lsn> {
        self.transactions[version].committed().map(|(_, lsn)| lsn)
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
                Transaction::Committed { row, lsn } | Transaction::Visible { row, lsn }
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

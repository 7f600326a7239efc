//! The client, and what is done for it.

use super::database::{Database, Hidden, Transaction};
use super::{Disk, Lsn};
use crate::Bug;

/// An event id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Id {
    /// The epoch that it was given out in.
    pub epoch: u8,
    /// Everything before it was heard. It is a safe time, too.
    pub position: Lsn,
}

/// What is done for the client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Server {
    /// It is not connected.
    Away,
    /// It cannot go on from its id, and is to be told so.
    Resetting {
        /// To drop what does not come again.
        all: bool,
    },
    /// It is to be sent a page of what was stamped after one place, and up to another.
    Paging {
        /// `None`: all.
        since: Option<Lsn>,
        /// The watermark.
        watermark: Lsn,
        /// The facts were looked at before the page (a seeded mistake).
        looked: bool,
    },
    /// It has the page, and is to be told that this was all.
    Paged {
        /// The watermark.
        watermark: Lsn,
        /// See [`Server::Paging`].
        looked: bool,
    },
    /// It follows.
    Following,
}

/// The client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Client {
    /// What is done for it.
    pub server: Server,
    /// The version that it has.
    pub has: Option<Lsn>,
    /// Its last id.
    pub id: Option<Id>,
    /// Told to drop what it has, while there was nothing to replace it with.
    pub in_vain: bool,
}

impl Client {
    pub(super) const fn new() -> Self {
        Self { server: Server::Away, has: None, id: None, in_vain: false }
    }

    /// Comes with its last id, or for the first time.
    pub(super) fn connect(&mut self, database: &Database, disk: &Disk, bug: Option<Bug>) {
        let Some(id) = self.id else {
            self.has = None;
            self.begin(None, database, bug);
            return;
        };
        self.server = if id.epoch == disk.epoch && id.position >= disk.floor {
            Server::Following
        } else {
            Server::Resetting { all: disk.has_forked(id.epoch) }
        };
    }

    /// A watermark is taken.
    fn begin(&mut self, since: Option<Lsn>, database: &Database, bug: Option<Bug>) {
        let looked = bug == Some(Bug::LookBeforePages) && database.facts_hold();
        self.server = Server::Paging { since, watermark: database.end(), looked };
    }

    /// The next thing, after which it may be disconnected.
    pub(super) fn step(&mut self, database: &Database, disk: &Disk, received: Lsn, bug: Option<Bug>) {
        match self.server {
            Server::Away => {}
            Server::Resetting { .. } if !database.facts_hold() && bug != Some(Bug::ResetWithoutLook) => {
                self.server = Server::Away;
            }
            Server::Resetting { all } => {
                self.in_vain |= !database.facts_hold();
                let since = self.id.map(|id| id.position).filter(|_| !all);
                self.has = self.has.filter(|_| !all);
                self.begin(since, database, bug);
            }
            Server::Paging { since, watermark, looked } => {
                self.page(since, watermark, database);
                self.server = Server::Paged { watermark, looked };
            }
            Server::Paged { watermark, looked } => {
                let skipped = looked || bug == Some(Bug::NoLookAfterPages);
                if database.facts_hold() || skipped {
                    self.follow(watermark, disk);
                } else {
                    self.server = Server::Away;
                }
            }
            Server::Following => {
                let passed = self.id.map_or(0, |id| id.position);
                for at in passed..received {
                    match database.log.get(usize::from(at)) {
                        Some(Transaction::Write) => self.has = Some(at + 1),
                        Some(Transaction::Delete) => self.has = None,
                        // What the log shows of these, where nobody minds that a deletion is untold (a seeded mistake).
                        Some(Transaction::DeleteTwice) => self.has = Some(at + 1),
                        Some(Transaction::DeleteUntold) | None => {}
                    }
                }
                self.follow(passed.max(received), disk);
            }
        }
    }

    /// Another round: what was stamped since the watermark of the one before.
    pub(super) fn round(&mut self, database: &Database, bug: Option<Bug>) {
        if let Server::Paged { watermark, .. } = self.server {
            self.begin(Some(watermark), database, bug);
        }
    }

    fn page(&mut self, since: Option<Lsn>, watermark: Lsn, database: &Database) {
        let shown = |stamp: &Lsn| *stamp <= watermark && since.is_none_or(|since| *stamp > since);
        let row = database.row().filter(|_| database.hidden == Hidden::No);
        match (row, database.tombstone()) {
            (Some(row), _) if shown(&row) => self.has = Some(row),
            (None, Some(tombstone)) if since.is_some() && shown(&tombstone) => self.has = None,
            _ => {}
        }
    }

    fn follow(&mut self, position: Lsn, disk: &Disk) {
        self.server = Server::Following;
        self.id = Some(Id { epoch: disk.epoch, position });
    }
}

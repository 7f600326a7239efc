//! What is published: changes, their positions, and the transactions they came in.

use crate::Lsn;
use bytes::Bytes;
use fhir::{Filter, Instant, Patients, ResourceType, Verdict, stable_hash};

/// The place of a change in the feed. Positions rise strictly in the order of publishing, and a change
/// that is decoded again gets the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position {
    /// Where the change's transaction was committed.
    pub commit_lsn: Lsn,
    /// Which of the row messages of its transaction it was, counted before any mapping, from 0.
    pub ordinal: u64,
    /// Which of the changes that this one message yielded in its layout, from 0.
    pub part: u16,
}

impl Position {
    /// Before every change.
    pub const ZERO: Self = Self { commit_lsn: Lsn::ZERO, ordinal: 0, part: 0 };

    /// The first that a change which commits at `lsn` may have.
    pub const fn first_at(lsn: Lsn) -> Self {
        Self { commit_lsn: lsn, ordinal: 0, part: 0 }
    }

    /// Before every change that commits at or after `lsn`. Nothing commits right before it: no record is that short.
    pub const fn before(lsn: Lsn) -> Self {
        Self::first_at(Lsn::new(lsn.get().saturating_sub(1)))
    }
}

/// A position, and the hash of the transaction that it is in: together they name a change in one history only. A history that
/// left this one before the position has another transaction there, or none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Anchor {
    pub(crate) position: Position,
    /// See [`Transaction::hash32`]; 0 at the beginning of an epoch, where there is none.
    pub(crate) transaction: u32,
}

/// Whether a change leaves a resource or takes one away.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// `data` is the resource.
    Upsert,
    /// `data` is a transaction Bundle with one DELETE entry.
    Deletion,
}

/// Whose a resource was before a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Before {
    /// There was none: it was created, or created again.
    Nothing,
    /// It belonged to these patients.
    Patients(Patients),
    /// The log does not say, or what it was cannot be read.
    Unknown,
}

/// One change of one resource, in the form in which it is streamed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Its place in the feed.
    pub position: Position,
    /// The row's `last_updated`.
    pub stamp: Instant,
    /// The type of the resource that changed, for a deletion too.
    pub resource_type: ResourceType,
    /// Whether `data` is the resource or the Bundle that says it is gone.
    pub kind: Kind,
    /// The patients to whom the resource belongs; none if it is gone.
    pub patients: Patients,
    /// To whom it belonged before.
    pub before: Before,
    /// What it was before, of a Group: its members can be told only by that.
    pub group_before: Option<Bytes>,
    /// No resource has changed: a tick, by which all agree what time it is at its place. Nobody is told of it.
    pub tick: Option<Instant>,
    /// One line of JSON without CR or LF, ready to be sent.
    pub data: Bytes,
}

impl Change {
    /// From its place on it is this time.
    pub fn tick(position: Position, time: Instant) -> Self {
        Self {
            position,
            // It is in no table, so it is on the feed's side of every watermark.
            stamp: Instant::MIN,
            resource_type: ResourceType::GROUP,
            kind: Kind::Upsert,
            patients: Patients::none(),
            before: Before::Nothing,
            group_before: None,
            tick: Some(time),
            data: Bytes::new(),
        }
    }

    /// The id of the resource that changed.
    pub(crate) fn id(&self) -> Option<&str> {
        match self.kind {
            Kind::Upsert => fhir::stored_id(&self.data),
            Kind::Deletion => fhir::deleted_id(&self.data),
        }
    }
}

/// What is to be told of a change to who asked for some patients' resources; `None`: that cannot be known.
pub(crate) fn decide(
    filter: &Filter,
    resource_type: ResourceType,
    kind: Kind,
    patients: &Patients,
    before: &Before,
) -> Option<Verdict> {
    let new = (kind == Kind::Upsert).then_some(patients);
    let old = match before {
        Before::Nothing => None,
        Before::Patients(patients) => Some(patients),
        Before::Unknown => {
            let told = filter.decide(resource_type, new, None);
            return if told == Verdict::Nothing && filter.matches(resource_type) { None } else { Some(told) };
        }
    };
    Some(filter.decide(resource_type, new, old))
}

/// What tells a transaction from another that was written at the same place in another history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// Where it was committed.
    pub commit_lsn: Lsn,
    /// Its number, as the log has it.
    pub xid: u32,
    /// When it was committed, by the database's clock.
    pub commit_time: Instant,
}

impl Transaction {
    /// The same whenever it is decoded. Another transaction that was committed at the same place, in another history, has
    /// another number or another time of commit.
    pub fn hash32(&self) -> u32 {
        let time = self.commit_time.unix_micros().to_be_bytes();
        stable_hash(self.xid.to_be_bytes().into_iter().chain(time))
    }
}

/// What is published at once: what the input held when it was read, in its order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The changes, in rising positions; of one transaction or of several, whole or in pieces.
    pub changes: Vec<Change>,
    /// The transactions that the changes belong to, in order; one that began in an earlier batch is
    /// named again.
    pub transactions: Vec<Transaction>,
    /// Everything that was committed before this place has been published with this batch or before.
    /// `None`: nothing new is known (the middle of a transaction).
    pub passed: Option<Lsn>,
}

impl Batch {
    /// The last change with the hash of its transaction.
    pub(crate) fn last_anchor(&self) -> Option<Anchor> {
        let position = self.changes.last()?.position;
        let mut newest = self.transactions.iter().rev();
        let transaction = newest.find(|transaction| transaction.commit_lsn <= position.commit_lsn);
        Some(Anchor { position, transaction: transaction.map_or(0, Transaction::hash32) })
    }

    /// The hash of the transaction of each change, worked out once for each transaction.
    pub(crate) fn transaction_hashes(&self) -> Vec<u32> {
        let mut transactions = self.transactions.iter().peekable();
        let mut hash = 0;
        let of = |change: &Change| {
            while let Some(next) = transactions.next_if(|next| next.commit_lsn <= change.position.commit_lsn)
            {
                hash = next.hash32();
            }
            hash
        };
        self.changes.iter().map(of).collect()
    }
}

impl Kind {
    /// The resource type of what `data` holds: the name of the event.
    pub const fn event(self, resource_type: ResourceType) -> ResourceType {
        match self {
            Self::Upsert => resource_type,
            Self::Deletion => ResourceType::BUNDLE,
        }
    }
}

//! The messages of `pgoutput`, the server's own output plugin, protocol version 1: decoded without copying.
//!
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>. A message borrows
//! from the bytes that it was read from. Input that is not a message is an error that names the kind of
//! message and the offset, never a panic.

mod decode;
pub mod encode;
mod reader;
mod tuple;

pub use decode::Message;
pub use reader::DecodeError;
pub use tuple::{Column, Columns, Tuple};

use crate::Lsn;
use crate::Timestamp;
use std::borrow::Cow;

/// A transaction begins: what is known of its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Begin {
    /// Where it was committed; the same as the [`Commit`]'s.
    pub commit_lsn: Lsn,
    /// When, by the server's clock.
    pub commit_time: Timestamp,
    /// Its number.
    pub xid: u32,
}

/// A transaction ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Unused by the server so far.
    pub flags: u8,
    /// Where its commit record begins.
    pub commit_lsn: Lsn,
    /// Where its commit record ends: everything before this place has been sent.
    pub end_lsn: Lsn,
    /// When, by the server's clock.
    pub commit_time: Timestamp,
}

/// The transaction came from another server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin<'a> {
    /// Where it was committed there.
    pub lsn: Lsn,
    /// The origin's name.
    pub name: Cow<'a, str>,
}

/// A data type that is not built in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Type<'a> {
    /// Its oid.
    pub id: u32,
    /// Its schema; empty for `pg_catalog`.
    pub namespace: Cow<'a, str>,
    /// Its name.
    pub name: Cow<'a, str>,
}

/// The shape of a table, sent before its first row and whenever it has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relation {
    /// Its oid.
    pub id: u32,
    /// Its schema; empty for `pg_catalog`.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What identifies its rows in an update or a delete.
    pub replica_identity: ReplicaIdentity,
    /// Its columns, in the order in which [`Tuple`]s have them.
    pub columns: Vec<RelationColumn>,
}

/// A column of a [`Relation`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelationColumn {
    /// Whether it is part of the replica identity.
    pub key: bool,
    /// Its name.
    pub name: String,
    /// The oid of its type.
    pub type_oid: u32,
    /// The type's modifier (`atttypmod`), -1 without.
    pub type_modifier: i32,
}

/// What identifies a table's rows: `pg_class.relreplident`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// Nothing: updates and deletes cannot be published.
    Nothing,
    /// The whole row.
    Full,
    /// A named index.
    Index,
}

/// A row was written or taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row<'a> {
    /// The table, announced before by a [`Relation`].
    pub relation_id: u32,
    /// What happened.
    pub op: Op,
    /// What the row was: for a delete, and for an update if its identity changed or is the whole row.
    pub old: Option<Tuple<'a>>,
    /// Whether `old` is all of the row (`REPLICA IDENTITY FULL`); else only the columns of the replica
    /// identity are filled.
    pub old_is_whole: bool,
    /// What the row is: for an insert and an update.
    pub new: Option<Tuple<'a>>,
}

/// What happened to a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// It is new.
    Insert,
    /// It was changed.
    Update,
    /// It is gone.
    Delete,
}

/// Tables were emptied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Truncate {
    /// Bit 0: `CASCADE`; bit 1: `RESTART IDENTITY`.
    pub flags: u8,
    /// The tables.
    pub relation_ids: Vec<u32>,
}

/// A message of `pg_logical_emit_message`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Emitted<'a> {
    /// Bit 0: part of a transaction.
    pub flags: u8,
    /// Where it was written.
    pub lsn: Lsn,
    /// Whose it is.
    pub prefix: Cow<'a, str>,
    /// What it says.
    pub content: &'a [u8],
}

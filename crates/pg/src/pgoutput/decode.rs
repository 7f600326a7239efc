//! Bytes to messages.

use super::reader::{DecodeError, Reader};
use super::{
    Begin, Commit, Emitted, Op, Origin, Relation, RelationColumn, ReplicaIdentity, Row, Truncate, Tuple, Type,
};

/// A message of pgoutput.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// `B`: a transaction begins.
    Begin(Begin),
    /// `C`: it ends.
    Commit(Commit),
    /// `O`: it came from elsewhere.
    Origin(Origin<'a>),
    /// `R`: the shape of a table.
    Relation(Relation),
    /// `Y`: a data type.
    Type(Type<'a>),
    /// `I`, `U`, `D`: a row.
    Row(Row<'a>),
    /// `T`: tables were emptied.
    Truncate(Truncate),
    /// `M`: a message of `pg_logical_emit_message`.
    Emitted(Emitted<'a>),
}

impl<'a> Message<'a> {
    /// Decodes one message, all of it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let at = reader.clone();
        let message = match reader.u8()? {
            b'B' => Self::Begin(begin(&mut reader)?),
            b'C' => Self::Commit(commit(&mut reader)?),
            b'O' => Self::Origin(origin(&mut reader)?),
            b'R' => Self::Relation(relation(&mut reader)?),
            b'Y' => Self::Type(data_type(&mut reader)?),
            b'I' => Self::Row(insert(&mut reader)?),
            b'U' => Self::Row(update(&mut reader)?),
            b'D' => Self::Row(delete(&mut reader)?),
            b'T' => Self::Truncate(truncate(&mut reader)?),
            b'M' => Self::Emitted(emitted(&mut reader)?),
            _ => return Err(at.error("the kind of message is not known")),
        };
        reader.end()?;
        Ok(message)
    }
}

fn begin(reader: &mut Reader<'_>) -> Result<Begin, DecodeError> {
    reader.is("Begin");
    Ok(Begin { commit_lsn: reader.lsn()?, commit_time: reader.timestamp()?, xid: reader.u32()? })
}

fn commit(reader: &mut Reader<'_>) -> Result<Commit, DecodeError> {
    reader.is("Commit");
    Ok(Commit {
        flags: reader.u8()?,
        commit_lsn: reader.lsn()?,
        end_lsn: reader.lsn()?,
        commit_time: reader.timestamp()?,
    })
}

fn origin<'a>(reader: &mut Reader<'a>) -> Result<Origin<'a>, DecodeError> {
    reader.is("Origin");
    Ok(Origin { lsn: reader.lsn()?, name: reader.string()? })
}

fn data_type<'a>(reader: &mut Reader<'a>) -> Result<Type<'a>, DecodeError> {
    reader.is("Type");
    Ok(Type { id: reader.u32()?, namespace: reader.string()?, name: reader.string()? })
}

fn relation(reader: &mut Reader<'_>) -> Result<Relation, DecodeError> {
    reader.is("Relation");
    let id = reader.u32()?;
    let namespace = reader.string()?.into_owned();
    let name = reader.string()?.into_owned();
    let at = reader.clone();
    let replica_identity = match reader.u8()? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        _ => return Err(at.error("the replica identity is of no known kind")),
    };
    let count = reader.u16()?;
    // A column takes ten bytes at least, so what the count claims is not trusted with memory.
    let mut columns = Vec::with_capacity(usize::from(count).min(reader.rest().len() / 10));
    for _ in 0..count {
        let at = reader.clone();
        let key = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(at.error("the flags of a column are not known")),
        };
        let name = reader.string()?.into_owned();
        columns.push(RelationColumn { key, name, type_oid: reader.u32()?, type_modifier: reader.i32()? });
    }
    Ok(Relation { id, namespace, name, replica_identity, columns })
}

fn insert<'a>(reader: &mut Reader<'a>) -> Result<Row<'a>, DecodeError> {
    reader.is("Insert");
    let relation_id = reader.u32()?;
    let new = Some(new_tuple(reader)?);
    Ok(Row { relation_id, op: Op::Insert, old: None, old_is_whole: false, new })
}

fn update<'a>(reader: &mut Reader<'a>) -> Result<Row<'a>, DecodeError> {
    reader.is("Update");
    let relation_id = reader.u32()?;
    let (old, old_is_whole) = match reader.rest().first() {
        Some(b'N') => (None, false),
        _ => old_tuple(reader)?,
    };
    let new = Some(new_tuple(reader)?);
    Ok(Row { relation_id, op: Op::Update, old, old_is_whole, new })
}

fn delete<'a>(reader: &mut Reader<'a>) -> Result<Row<'a>, DecodeError> {
    reader.is("Delete");
    let relation_id = reader.u32()?;
    let (old, old_is_whole) = old_tuple(reader)?;
    Ok(Row { relation_id, op: Op::Delete, old, old_is_whole, new: None })
}

fn new_tuple<'a>(reader: &mut Reader<'a>) -> Result<Tuple<'a>, DecodeError> {
    let at = reader.clone();
    match reader.u8()? {
        b'N' => Tuple::read(reader),
        _ => Err(at.error("a new row is expected")),
    }
}

/// The old row, and whether it is all of it.
fn old_tuple<'a>(reader: &mut Reader<'a>) -> Result<(Option<Tuple<'a>>, bool), DecodeError> {
    let at = reader.clone();
    match reader.u8()? {
        b'K' => Ok((Some(Tuple::read(reader)?), false)),
        b'O' => Ok((Some(Tuple::read(reader)?), true)),
        _ => Err(at.error("an old row or its key is expected")),
    }
}

fn truncate(reader: &mut Reader<'_>) -> Result<Truncate, DecodeError> {
    reader.is("Truncate");
    let count = reader.length()?;
    let flags = reader.u8()?;
    if count != reader.rest().len() / 4 {
        return Err(reader.error("the number of tables is not that of the oids that follow"));
    }
    let relation_ids = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
    Ok(Truncate { flags, relation_ids })
}

fn emitted<'a>(reader: &mut Reader<'a>) -> Result<Emitted<'a>, DecodeError> {
    reader.is("Message");
    let flags = reader.u8()?;
    let lsn = reader.lsn()?;
    let prefix = reader.string()?;
    let length = reader.length()?;
    Ok(Emitted { flags, lsn, prefix, content: reader.take(length)? })
}

#[cfg(test)]
mod tests;

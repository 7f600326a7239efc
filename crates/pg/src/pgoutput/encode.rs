//! Messages to bytes, as the server writes them: for tests and fuzzers, so that what is decoded can be compared byte by byte.

use super::{Column, Message, ReplicaIdentity, Row, Tuple};

/// What was decoded had no more than these can hold.
fn count16(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn count32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

fn timestamp(at: crate::Timestamp, out: &mut Vec<u8>) {
    out.extend_from_slice(&at.0.to_be_bytes());
}

fn lsn(at: crate::Lsn, out: &mut Vec<u8>) {
    out.extend_from_slice(&at.get().to_be_bytes());
}

/// Whether a name of the message was not UTF-8 in the bytes that it was decoded from.
pub fn has_replaced(message: &Message<'_>) -> bool {
    let replaced = |name: &str| name.contains(char::REPLACEMENT_CHARACTER);
    match message {
        Message::Origin(origin) => replaced(&origin.name),
        Message::Type(data_type) => replaced(&data_type.namespace) || replaced(&data_type.name),
        Message::Emitted(emitted) => replaced(&emitted.prefix),
        Message::Relation(relation) => {
            let mut names = relation.columns.iter().map(|column| column.name.as_str());
            replaced(&relation.namespace) || replaced(&relation.name) || names.any(replaced)
        }
        Message::Begin(_) | Message::Commit(_) | Message::Row(_) | Message::Truncate(_) => false,
    }
}

/// A tuple in bytes.
pub fn tuple(columns: &[Column<'_>]) -> Vec<u8> {
    let mut out = count16(columns.len()).to_be_bytes().to_vec();
    for column in columns {
        let (kind, value) = match column {
            Column::Null => (b'n', None),
            Column::UnchangedToast => (b'u', None),
            Column::Text(value) => (b't', Some(value)),
            Column::Binary(value) => (b'b', Some(value)),
        };
        out.push(kind);
        if let Some(value) = value {
            out.extend_from_slice(&count32(value.len()).to_be_bytes());
            out.extend_from_slice(value);
        }
    }
    out
}

fn put_tuple(kind: u8, value: &Tuple<'_>, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&tuple(&value.columns().collect::<Vec<_>>()));
}

/// The bytes of an insert.
pub fn insert(relation_id: u32, columns: &[Column<'_>]) -> Vec<u8> {
    [b"I".as_slice(), &relation_id.to_be_bytes(), b"N", &tuple(columns)].concat()
}

/// The bytes of a message.
pub fn encode(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match message {
        Message::Begin(begin) => {
            out.push(b'B');
            lsn(begin.commit_lsn, &mut out);
            timestamp(begin.commit_time, &mut out);
            out.extend_from_slice(&begin.xid.to_be_bytes());
        }
        Message::Commit(commit) => {
            out.extend_from_slice(&[b'C', commit.flags]);
            lsn(commit.commit_lsn, &mut out);
            lsn(commit.end_lsn, &mut out);
            timestamp(commit.commit_time, &mut out);
        }
        Message::Origin(origin) => {
            out.push(b'O');
            lsn(origin.lsn, &mut out);
            string(&origin.name, &mut out);
        }
        Message::Relation(relation) => {
            out.push(b'R');
            out.extend_from_slice(&relation.id.to_be_bytes());
            string(&relation.namespace, &mut out);
            string(&relation.name, &mut out);
            out.push(match relation.replica_identity {
                ReplicaIdentity::Default => b'd',
                ReplicaIdentity::Nothing => b'n',
                ReplicaIdentity::Full => b'f',
                ReplicaIdentity::Index => b'i',
            });
            out.extend_from_slice(&count16(relation.columns.len()).to_be_bytes());
            for column in &relation.columns {
                out.push(u8::from(column.key));
                string(&column.name, &mut out);
                out.extend_from_slice(&column.type_oid.to_be_bytes());
                out.extend_from_slice(&column.type_modifier.to_be_bytes());
            }
        }
        Message::Type(data_type) => {
            out.push(b'Y');
            out.extend_from_slice(&data_type.id.to_be_bytes());
            string(&data_type.namespace, &mut out);
            string(&data_type.name, &mut out);
        }
        Message::Row(row) => encode_row(row, &mut out),
        Message::Truncate(truncate) => {
            out.push(b'T');
            out.extend_from_slice(&count32(truncate.relation_ids.len()).to_be_bytes());
            out.push(truncate.flags);
            for id in &truncate.relation_ids {
                out.extend_from_slice(&id.to_be_bytes());
            }
        }
        Message::Emitted(emitted) => {
            out.extend_from_slice(&[b'M', emitted.flags]);
            lsn(emitted.lsn, &mut out);
            string(&emitted.prefix, &mut out);
            out.extend_from_slice(&count32(emitted.content.len()).to_be_bytes());
            out.extend_from_slice(emitted.content);
        }
    }
    out
}

fn encode_row(row: &Row<'_>, out: &mut Vec<u8>) {
    out.push(match row.op {
        super::Op::Insert => b'I',
        super::Op::Update => b'U',
        super::Op::Delete => b'D',
    });
    out.extend_from_slice(&row.relation_id.to_be_bytes());
    if let Some(old) = &row.old {
        put_tuple(if row.old_is_whole { b'O' } else { b'K' }, old, out);
    }
    if let Some(new) = &row.new {
        put_tuple(b'N', new, out);
    }
}

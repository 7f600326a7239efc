//! Blocks: some 64 KiB of entries under a header that lets a reader skip them, or find its place, without
//! reading them.
//!
//! All numbers are big-endian. The header is stored under a key of its own, beside the entries.

use super::JournalError;
use crate::{Anchor, Change, Kind, LARGE_BYTES, Lsn, Position};
use bytes::Bytes;
use fhir::{Instant, RESOURCE_TYPES, ResourceType, TypeSet};
use lz4_flex::block::{compress, decompress};

/// Length of a position as a key: sorts as positions do.
pub(super) const POSITION_LEN: usize = 18;
const HEADER_LEN: usize = 2 * (POSITION_LEN + 4) + 4 * 8 + 4 + WORDS * 8;
const ENTRY_LEN: usize = POSITION_LEN + 4 + 8 + 1 + 1 + 4;
const WORDS: usize = RESOURCE_TYPES.div_ceil(64);

/// What is known of a block without its entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    /// The position before its first entry: a reader may go on here only if it stands there or beyond.
    pub(crate) preceding: Position,
    /// The hash of the transaction there.
    pub(crate) preceding_transaction: u32,
    /// Its last entry.
    pub(crate) last: Position,
    /// The hash of the transaction there.
    pub(crate) last_transaction: u32,
    /// The newest stamp of this block and all before it.
    pub(crate) running_max: Instant,
    /// W of the newest mark whose L lies at or before its first entry: what its ids carry.
    pub(crate) w: Instant,
    /// When its last transaction was committed, by the database's clock.
    pub(crate) commit_time: Instant,
    /// Bytes of entries in this block and all before it in its epoch.
    pub(crate) offset: u64,
    /// Bytes of entries in this block. Not more than one change beyond the 64 KiB that end a block: below 2 GiB.
    pub(crate) length: u32,
    /// The types of the resources in it.
    pub(crate) types: TypeSet,
}

/// The entries of a block, encoded.
pub(crate) struct Block(Vec<u8>);

/// A block as it is stored: its entries compressed.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    pub(crate) header: Header,
    pub(crate) entries: Vec<u8>,
    /// The data of its only entry, if that is stored in parts.
    pub(crate) large: Option<Bytes>,
}

/// An entry, borrowed from its block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) position: Position,
    /// The hash of its transaction.
    pub(crate) transaction: u32,
    pub(crate) stamp: Instant,
    pub(crate) resource_type: ResourceType,
    pub(crate) kind: Kind,
    /// Empty if it is stored in parts.
    pub(crate) data: &'a [u8],
    /// How long the data is that is stored in parts, if it is.
    pub(crate) in_parts: Option<u64>,
}

/// The data of a large change is stored in parts of this many bytes, compressed each by itself, beside its block.
pub(crate) const PART_BYTES: usize = 64 << 10;

const UPSERT: u8 = 0;
const DELETION: u8 = 1;
/// An upsert whose data is stored in parts. It stands alone in its block, which is that entry without its data.
const LARGE_UPSERT: u8 = 2;

/// Whether a change is stored in parts. What we make ourselves is small.
pub(crate) fn is_large(change: &Change) -> bool {
    change.kind == Kind::Upsert && change.data.len() > LARGE_BYTES
}

/// A part as it is stored.
pub(super) fn pack_part(part: &[u8]) -> Vec<u8> {
    compress(part)
}

/// A part from its stored form.
pub(super) fn unpack_part(stored: &[u8]) -> Result<Vec<u8>, JournalError> {
    decompress(stored, PART_BYTES)
        .map_err(|_| JournalError::Corrupt("a part of a large entry cannot be decompressed"))
}

pub(super) fn write_position(position: Position, out: &mut Vec<u8>) {
    out.extend_from_slice(&position.commit_lsn.get().to_be_bytes());
    out.extend_from_slice(&position.ordinal.to_be_bytes());
    out.extend_from_slice(&position.part.to_be_bytes());
}

/// Reads fixed-size fields off the front of a slice.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], JournalError> {
        let (head, rest) =
            self.0.split_first_chunk().ok_or(JournalError::Corrupt("a block ends too early"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], JournalError> {
        let (head, rest) =
            self.0.split_at_checked(len).ok_or(JournalError::Corrupt("an entry is longer than its block"))?;
        self.0 = rest;
        Ok(head)
    }

    fn u32(&mut self) -> Result<u32, JournalError> {
        self.take().map(u32::from_be_bytes)
    }

    fn position(&mut self) -> Result<Position, JournalError> {
        Ok(Position {
            commit_lsn: Lsn::new(u64::from_be_bytes(self.take()?)),
            ordinal: u64::from_be_bytes(self.take()?),
            part: u16::from_be_bytes(self.take()?),
        })
    }

    fn instant(&mut self) -> Result<Instant, JournalError> {
        Ok(Instant::from_unix_micros(i64::from_be_bytes(self.take()?)))
    }
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        write_position(self.preceding, &mut out);
        out.extend_from_slice(&self.preceding_transaction.to_be_bytes());
        write_position(self.last, &mut out);
        out.extend_from_slice(&self.last_transaction.to_be_bytes());
        for instant in [self.running_max, self.w, self.commit_time] {
            out.extend_from_slice(&instant.unix_micros().to_be_bytes());
        }
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
        for word in self.types.words() {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, JournalError> {
        let mut fields = Fields(bytes);
        let (preceding, preceding_transaction) = (fields.position()?, fields.u32()?);
        let (last, last_transaction) = (fields.position()?, fields.u32()?);
        let (running_max, w, commit_time) = (fields.instant()?, fields.instant()?, fields.instant()?);
        let offset = u64::from_be_bytes(fields.take()?);
        let length = fields.u32()?;
        let mut types = TypeSet::default();
        for word in 0..WORDS {
            let bits = u64::from_be_bytes(fields.take()?);
            (0..64)
                .filter(|bit| bits >> bit & 1 == 1)
                .filter_map(|bit| ResourceType::from_index(word * 64 + bit))
                .for_each(|resource_type| types.insert(resource_type));
        }
        Ok(Self {
            preceding,
            preceding_transaction,
            last,
            last_transaction,
            running_max,
            w,
            commit_time,
            offset,
            length,
            types,
        })
    }
}

impl Block {
    /// From its stored form.
    pub(super) fn unpack(header: &Header, entries: &[u8]) -> Result<Self, JournalError> {
        // Only of an entry in parts is there so little.
        if header.length as usize > LARGE_BYTES
            && let Ok(entry) = decompress(entries, ENTRY_LEN)
            && entry.len() == ENTRY_LEN
        {
            return Ok(Self(entry));
        }
        let entries = decompress(entries, header.length as usize)
            .map_err(|_| JournalError::Corrupt("the entries of a block cannot be decompressed"))?;
        Ok(Self(entries))
    }

    /// The entries in their order; the first error ends them.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Result<Entry<'_>, JournalError>> {
        let mut fields = Fields(&self.0);
        std::iter::from_fn(move || {
            (!fields.0.is_empty()).then(|| {
                let entry = Self::entry(&mut fields);
                if entry.is_err() {
                    fields.0 = &[];
                }
                entry
            })
        })
    }

    fn entry<'a>(fields: &mut Fields<'a>) -> Result<Entry<'a>, JournalError> {
        let (position, transaction) = (fields.position()?, fields.u32()?);
        let stamp = fields.instant()?;
        let [index] = fields.take()?;
        let resource_type = ResourceType::from_index(index.into())
            .ok_or(JournalError::Corrupt("an entry's resource type is unknown"))?;
        let [kind] = fields.take()?;
        let len = u32::from_be_bytes(fields.take()?);
        let in_parts = (kind == LARGE_UPSERT).then_some(u64::from(len));
        let kind = match kind {
            UPSERT | LARGE_UPSERT => Kind::Upsert,
            DELETION => Kind::Deletion,
            _ => return Err(JournalError::Corrupt("an entry's kind is unknown")),
        };
        let data = if in_parts.is_some() { &[] } else { fields.slice(len as usize)? };
        Ok(Entry { position, transaction, stamp, resource_type, kind, data, in_parts })
    }
}

/// Collects changes into a block.
pub(crate) struct BlockBuilder {
    header: Header,
    entries: Vec<u8>,
}

impl BlockBuilder {
    /// A block that follows a position, the newest stamp and the bytes of entries before it; with room for so many
    /// bytes of entries, since a block that has to grow is copied once more.
    pub(crate) fn new(preceding: Anchor, running_max: Instant, offset: u64, w: Instant, room: usize) -> Self {
        let header = Header {
            preceding: preceding.position,
            preceding_transaction: preceding.transaction,
            last: preceding.position,
            last_transaction: preceding.transaction,
            running_max,
            w,
            commit_time: Instant::MIN,
            offset,
            length: 0,
            types: TypeSet::default(),
        };
        Self { header, entries: Vec::with_capacity(room) }
    }

    /// Adds a change, which lies after all that were added, with the hash of its transaction.
    pub(crate) fn push(&mut self, change: &Change, transaction: u32, commit_time: Instant) {
        self.entries.reserve(Self::length_of(change));
        self.head(
            change,
            transaction,
            commit_time,
            match change.kind {
                Kind::Upsert => UPSERT,
                Kind::Deletion => DELETION,
            },
        );
        self.entries.extend_from_slice(&change.data);
    }

    /// All of an entry but its data.
    fn head(&mut self, change: &Change, transaction: u32, commit_time: Instant, kind: u8) {
        debug_assert!(change.position > self.header.last);
        self.header.last = change.position;
        self.header.last_transaction = transaction;
        self.header.running_max = self.header.running_max.max(change.stamp);
        self.header.commit_time = commit_time;
        self.header.types.insert(change.resource_type);
        write_position(change.position, &mut self.entries);
        self.entries.extend_from_slice(&transaction.to_be_bytes());
        self.entries.extend_from_slice(&change.stamp.unix_micros().to_be_bytes());
        // RESOURCE_TYPES is below 256.
        #[allow(clippy::cast_possible_truncation)]
        self.entries.push(change.resource_type.index() as u8);
        self.entries.push(kind);
        // Postgres' values are below 1 GiB.
        #[allow(clippy::cast_possible_truncation)]
        self.entries.extend_from_slice(&(change.data.len() as u32).to_be_bytes());
    }

    /// The block of a large change alone, which nothing was added to.
    pub(crate) fn large(mut self, change: &Change, transaction: u32, commit_time: Instant) -> Packed {
        self.head(change, transaction, commit_time, LARGE_UPSERT);
        let length = Self::length_of(change);
        self.header.offset += length as u64;
        // See the field.
        #[allow(clippy::cast_possible_truncation)]
        let in_header = length as u32;
        self.header.length = in_header;
        Packed { header: self.header, entries: compress(&self.entries), large: Some(change.data.clone()) }
    }

    /// Bytes that a change takes.
    pub(crate) fn length_of(change: &Change) -> usize {
        ENTRY_LEN + change.data.len()
    }

    /// Bytes of entries so far.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The block, packed; `None` if nothing was added.
    pub(crate) fn finish(mut self) -> Option<Packed> {
        self.header.offset += self.entries.len() as u64;
        // See the field.
        #[allow(clippy::cast_possible_truncation)]
        let length = self.entries.len() as u32;
        self.header.length = length;
        (!self.entries.is_empty()).then(|| Packed {
            header: self.header,
            entries: compress(&self.entries),
            large: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Before;
    use fhir::Patients;
    use proptest::prelude::*;

    fn change(ordinal: u64, part: u16, stamp: i64, index: usize, deletion: bool, data: Vec<u8>) -> Change {
        Change {
            position: Position { commit_lsn: Lsn::new(7), ordinal, part },
            stamp: Instant::from_unix_micros(stamp),
            resource_type: ResourceType::from_index(index).unwrap(),
            kind: if deletion { Kind::Deletion } else { Kind::Upsert },
            patients: Patients::none(),
            before: Before::Nothing,
            data: data.into(),
        }
    }

    proptest! {
        #[test]
        fn a_block_gives_back_what_was_put_in(
            rows in prop::collection::vec((any::<i64>(), 0..RESOURCE_TYPES, any::<bool>(), prop::collection::vec(any::<u8>(), 0..64)), 1..20),
            w in any::<i64>(),
        ) {
            let mut builder = BlockBuilder::new(Anchor::default(), Instant::MIN, 0, Instant::from_unix_micros(w), 0);
            let changes: Vec<_> = (1..).zip(rows).map(|(n, (stamp, index, deletion, data))| change(n, 3, stamp, index, deletion, data)).collect();
            for (change, transaction) in changes.iter().zip(7..) {
                builder.push(change, transaction, Instant::from_unix_micros(w));
            }
            let packed = builder.finish().unwrap();
            let block = Block::unpack(&packed.header, &packed.entries).unwrap();
            prop_assert_eq!(&Header::decode(&packed.header.encode()).unwrap(), &packed.header);
            prop_assert_eq!(packed.header.last, changes.last().unwrap().position);
            prop_assert_eq!(packed.header.running_max, changes.iter().map(|c| c.stamp).max().unwrap());
            let entries: Vec<_> = block.entries().map(Result::unwrap).collect();
            prop_assert_eq!(entries.len(), changes.len());
            for ((entry, change), transaction) in entries.iter().zip(&changes).zip(7..) {
                prop_assert_eq!(entry.transaction, transaction);
                prop_assert_eq!(entry.position, change.position);
                prop_assert_eq!(entry.stamp, change.stamp);
                prop_assert_eq!(entry.kind, change.kind);
                prop_assert_eq!(entry.resource_type, change.resource_type);
                prop_assert_eq!(entry.data, &change.data[..]);
                prop_assert!(packed.header.types.contains(change.resource_type));
            }
        }

        #[test]
        fn damaged_bytes_are_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Header::decode(&bytes);
            let header = BlockBuilder::new(Anchor::default(), Instant::MIN, 0, Instant::MIN, 0).header;
            if let Ok(block) = Block::unpack(&Header { length: 300, ..header }, &bytes) {
                let _ = block.entries().take(100).count();
            }
            let block = Block(bytes);
            prop_assert!(block.entries().take(100).count() < 100);
        }

        #[test]
        fn keys_sort_as_positions_do(a in any::<(u64, u64, u16)>(), b in any::<(u64, u64, u16)>()) {
            let key = |(lsn, ordinal, part)| {
                let position = Position { commit_lsn: Lsn::new(lsn), ordinal, part };
                let mut out = Vec::new();
                write_position(position, &mut out);
                (position, out)
            };
            let ((a, a_key), (b, b_key)) = (key(a), key(b));
            prop_assert_eq!(a.cmp(&b), a_key.cmp(&b_key));
        }
    }
}

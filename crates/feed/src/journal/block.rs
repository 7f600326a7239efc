//! Blocks: some 64 KiB of entries under a header that lets a reader skip them, or find its place, without
//! reading them.
//!
//! All numbers are big-endian. The header is stored under a key of its own, beside the entries.

use super::JournalError;
use super::bloom::{BLOOM_LEN, Bloom};
use super::fields::{Fields, write_position};
use super::groups::PackedGroup;
use crate::{Anchor, Before, Change, Kind, LARGE_BYTES, Position};
use bytes::Bytes;
use fhir::{Instant, Patients, RESOURCE_TYPES, ResourceType, TypeSet};
use lz4_flex::block::{compress, decompress};

/// Length of a position as a key: sorts as positions do.
pub(super) const POSITION_LEN: usize = 18;
const HEADER_LEN: usize = 2 * (POSITION_LEN + 4) + 4 * 8 + 2 * 4 + WORDS * 8 + BLOOM_LEN;
const ENTRY_LEN: usize = POSITION_LEN + 4 + 8 + 1 + 1 + 1 + 4 + 4 + 4;
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
    /// The safe time of the newest watermark whose fence LSN lies at or before its first entry: what its ids carry.
    pub(crate) safe_time: Instant,
    /// When its last transaction was committed, by the database's clock.
    pub(crate) commit_time: Instant,
    /// Bytes of entries in this block and all before it in its epoch.
    pub(crate) offset: u64,
    /// Bytes of entries in this block. Not more than one change beyond the 64 KiB that end a block: below 2 GiB.
    pub(crate) length: u32,
    /// How long its entries are before they are compressed: less than `length` if the data of its entry is stored in parts.
    pub(crate) unpacked: u32,
    /// The types of the resources in it.
    pub(crate) types: TypeSet,
    /// Their patients.
    pub(crate) patients: Bloom,
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
    /// The changes of Groups in it, which are found by their ids as well.
    pub(crate) groups: Vec<PackedGroup>,
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
    /// A tick, and no change of a resource.
    pub(crate) is_tick: bool,
    patients: &'a [u8],
    before: Option<&'a [u8]>,
    before_known: bool,
    /// The resource or the Bundle, or the id of what is stored in parts.
    pub(crate) data: &'a [u8],
    /// How long the data is that is stored in parts, if it is.
    pub(crate) in_parts: Option<u64>,
}

impl Entry<'_> {
    /// To whom the resource belongs; nobody if it is gone.
    pub(crate) fn patients(&self) -> Result<Patients, JournalError> {
        read_patients(self.patients)
    }

    /// To whom it belonged before.
    pub(crate) fn before(&self) -> Result<Before, JournalError> {
        match self.before {
            Some(patients) => read_patients(patients).map(Before::Patients),
            None if self.before_known => Ok(Before::Nothing),
            None => Ok(Before::Unknown),
        }
    }

    /// The id of the resource that changed.
    pub(crate) fn id(&self) -> Option<&str> {
        match (self.in_parts, self.kind) {
            (Some(_), _) => std::str::from_utf8(self.data).ok(),
            (None, Kind::Upsert) => fhir::stored_id(self.data),
            (None, Kind::Deletion) => fhir::deleted_id(self.data),
        }
    }
}

fn read_patients(bytes: &[u8]) -> Result<Patients, JournalError> {
    Patients::from_bytes(bytes).map_err(|_| JournalError::Corrupt("the patients of an entry cannot be read"))
}

/// The data of a large change is stored in parts of this many bytes, compressed each by itself, beside its block.
pub(crate) const PART_BYTES: usize = 64 << 10;

const UPSERT: u8 = 0;
const DELETION: u8 = 1;
/// An upsert whose data is stored in parts. It stands alone in its block, which is that entry without its data.
const LARGE_UPSERT: u8 = 2;

/// A tick. Its data is the time, in microseconds.
const TICK: u8 = 3;

const BEFORE_NOTHING: u8 = 0;
const BEFORE_PATIENTS: u8 = 1;
const BEFORE_UNKNOWN: u8 = 2;

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

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        write_position(self.preceding, &mut out);
        out.extend_from_slice(&self.preceding_transaction.to_be_bytes());
        write_position(self.last, &mut out);
        out.extend_from_slice(&self.last_transaction.to_be_bytes());
        for instant in [self.running_max, self.safe_time, self.commit_time] {
            out.extend_from_slice(&instant.unix_micros().to_be_bytes());
        }
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
        out.extend_from_slice(&self.unpacked.to_be_bytes());
        for word in self.types.words().iter().chain(self.patients.words()) {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, JournalError> {
        let mut fields = Fields(bytes);
        let (preceding, preceding_transaction) = (fields.position()?, fields.u32()?);
        let (last, last_transaction) = (fields.position()?, fields.u32()?);
        let (running_max, safe_time, commit_time) = (fields.instant()?, fields.instant()?, fields.instant()?);
        let offset = u64::from_be_bytes(fields.take()?);
        let (length, unpacked) = (fields.u32()?, fields.u32()?);
        let mut types = TypeSet::default();
        for word in 0..WORDS {
            let bits = u64::from_be_bytes(fields.take()?);
            (0..64)
                .filter(|bit| bits >> bit & 1 == 1)
                .filter_map(|bit| ResourceType::from_index(word * 64 + bit))
                .for_each(|resource_type| types.insert(resource_type));
        }
        let mut patients = [0; BLOOM_LEN / 8];
        for word in &mut patients {
            *word = u64::from_be_bytes(fields.take()?);
        }
        Ok(Self {
            preceding,
            preceding_transaction,
            last,
            last_transaction,
            running_max,
            safe_time,
            commit_time,
            offset,
            length,
            unpacked,
            types,
            patients: Bloom::of_words(patients),
        })
    }
}

impl Block {
    /// From its stored form.
    pub(super) fn unpack(header: &Header, entries: &[u8]) -> Result<Self, JournalError> {
        let entries = decompress(entries, header.unpacked as usize)
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
        let [before] = fields.take()?;
        let (len, patients, old) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let in_parts = (kind == LARGE_UPSERT).then_some(u64::from(len));
        let is_tick = kind == TICK;
        let kind = match kind {
            UPSERT | LARGE_UPSERT | TICK => Kind::Upsert,
            DELETION => Kind::Deletion,
            _ => return Err(JournalError::Corrupt("an entry's kind is unknown")),
        };
        let patients = fields.slice(patients as usize)?;
        let old = fields.slice(old as usize)?;
        let (before, before_known) = match before {
            BEFORE_NOTHING => (None, true),
            BEFORE_PATIENTS => (Some(old), true),
            BEFORE_UNKNOWN => (None, false),
            _ => return Err(JournalError::Corrupt("what was before an entry is unknown")),
        };
        let data = if in_parts.is_some() {
            let [length] = fields.take()?;
            fields.slice(length.into())?
        } else {
            fields.slice(len as usize)?
        };
        Ok(Entry {
            position,
            transaction,
            stamp,
            resource_type,
            kind,
            is_tick,
            patients,
            before,
            before_known,
            data,
            in_parts,
        })
    }
}

/// Collects changes into a block.
pub(crate) struct BlockBuilder {
    header: Header,
    entries: Vec<u8>,
    groups: Vec<PackedGroup>,
}

impl BlockBuilder {
    /// A block that follows a position, the newest stamp and the bytes of entries before it; with room for so many
    /// bytes of entries, since a block that has to grow is copied once more.
    pub(crate) fn new(
        preceding: Anchor,
        running_max: Instant,
        offset: u64,
        safe_time: Instant,
        room: usize,
    ) -> Self {
        let header = Header {
            preceding: preceding.position,
            preceding_transaction: preceding.transaction,
            last: preceding.position,
            last_transaction: preceding.transaction,
            running_max,
            safe_time,
            commit_time: Instant::MIN,
            offset,
            length: 0,
            unpacked: 0,
            types: TypeSet::default(),
            patients: Bloom::default(),
        };
        Self { header, entries: Vec::with_capacity(room), groups: Vec::new() }
    }

    /// Adds a change, which lies after all that were added, with the hash of its transaction.
    pub(crate) fn push(&mut self, change: &Change, transaction: u32, commit_time: Instant) {
        self.entries.reserve(Self::length_of(change));
        self.head(
            change,
            transaction,
            commit_time,
            match (change.tick, change.kind) {
                (Some(_), _) => TICK,
                (None, Kind::Upsert) => UPSERT,
                (None, Kind::Deletion) => DELETION,
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
        self.header.patients.add(&change.patients, &change.before);
        self.groups.extend(PackedGroup::of(change));
        write_position(change.position, &mut self.entries);
        self.entries.extend_from_slice(&transaction.to_be_bytes());
        self.entries.extend_from_slice(&change.stamp.unix_micros().to_be_bytes());
        // RESOURCE_TYPES is below 256.
        #[allow(clippy::cast_possible_truncation)]
        self.entries.push(change.resource_type.index() as u8);
        self.entries.push(kind);
        let (tag, old) = match &change.before {
            Before::Nothing => (BEFORE_NOTHING, &[][..]),
            Before::Patients(patients) => (BEFORE_PATIENTS, patients.as_bytes()),
            Before::Unknown => (BEFORE_UNKNOWN, &[][..]),
        };
        self.entries.push(tag);
        let new = change.patients.as_bytes();
        for length in [change.data.len(), new.len(), old.len()] {
            // Postgres' values are below 1 GiB, and who is named in them takes less than they do.
            #[allow(clippy::cast_possible_truncation)]
            self.entries.extend_from_slice(&(length as u32).to_be_bytes());
        }
        self.entries.extend_from_slice(new);
        self.entries.extend_from_slice(old);
    }

    /// The block of a large change alone, which nothing was added to.
    pub(crate) fn large(mut self, change: &Change, transaction: u32, commit_time: Instant) -> Packed {
        self.head(change, transaction, commit_time, LARGE_UPSERT);
        // A resource that can be streamed has an id, of 64 bytes at most.
        let id = fhir::stored_id(&change.data).unwrap_or_default();
        self.entries.extend(u8::try_from(id.len()));
        self.entries.extend_from_slice(id.as_bytes());
        let length = Self::length_of(change);
        self.header.offset += length as u64;
        // See the field.
        #[allow(clippy::cast_possible_truncation)]
        let in_header = length as u32;
        self.header.length = in_header;
        self.header.unpacked = self.unpacked();
        Packed {
            header: self.header,
            entries: compress(&self.entries),
            large: Some(change.data.clone()),
            groups: self.groups,
        }
    }

    /// Bytes that a change takes.
    pub(crate) fn length_of(change: &Change) -> usize {
        let old = match &change.before {
            Before::Patients(patients) => patients.as_bytes().len(),
            Before::Nothing | Before::Unknown => 0,
        };
        ENTRY_LEN + change.data.len() + change.patients.as_bytes().len() + old
    }

    fn unpacked(&self) -> u32 {
        // As the field `length`.
        #[allow(clippy::cast_possible_truncation)]
        let unpacked = self.entries.len() as u32;
        unpacked
    }

    /// Bytes of entries so far.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The block, packed; `None` if nothing was added.
    pub(crate) fn finish(mut self) -> Option<Packed> {
        self.header.offset += self.entries.len() as u64;
        self.header.length = self.unpacked();
        self.header.unpacked = self.header.length;
        (!self.entries.is_empty()).then(|| Packed {
            header: self.header,
            entries: compress(&self.entries),
            large: None,
            groups: self.groups,
        })
    }
}

#[cfg(test)]
mod tests;

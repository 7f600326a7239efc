//! What Groups were and are, by id and position: who was a member at a place of the feed is found without reading the blocks.

use super::JournalError;
use super::fields::{Fields, write_position};
use crate::{Before, Change, Kind, Position};
use bytes::Bytes;
use fhir::{Instant, ResourceType};
use lz4_flex::block::{compress_prepend_size, decompress_size_prepended};

/// Begins the keys of changes of Groups: `g`, the length of the id and the id, the position.
pub(super) const GROUP: u8 = b'g';

/// A change of a Group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct GroupChange {
    pub(crate) position: Position,
    /// What it is after it; `None` if it is gone.
    pub(crate) after: Option<Bytes>,
    /// What it was before it.
    pub(crate) before: GroupBefore,
}

/// What a Group was before a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum GroupBefore {
    /// There was none.
    Nothing,
    /// This.
    Content(Bytes),
    /// The log did not say.
    Unknown,
}

/// Begins the keys of ticks: `t`, the position. The value is the time.
pub(super) const TICK: u8 = b't';

/// The key of a tick at a position.
pub(super) fn tick_key(position: Position) -> Vec<u8> {
    let mut key = vec![TICK];
    write_position(position, &mut key);
    key
}

/// The place of a tick from its key.
pub(super) fn tick_position(key: &[u8]) -> Result<Position, JournalError> {
    Fields(key.get(1..).unwrap_or_default()).position()
}

/// The time of a tick from its stored form.
pub(super) fn tick_time(value: &[u8]) -> Result<Instant, JournalError> {
    let micros = value.try_into().map_err(|_| JournalError::Corrupt("a tick cannot be read"))?;
    Ok(Instant::from_unix_micros(i64::from_be_bytes(micros)))
}

/// A change of a Group, or a tick, as it is stored: its key and its value.
#[derive(Clone, Debug)]
pub(crate) struct PackedGroup {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

const AFTER: u8 = 1;
const BEFORE_CONTENT: u8 = 2;
const BEFORE_UNKNOWN: u8 = 4;

/// What the keys of a Group's changes begin with.
pub(super) fn prefix(id: &str) -> Vec<u8> {
    let mut key = vec![GROUP];
    // An id has at most 64 bytes; what is longer is none, and no key.
    key.push(u8::try_from(id.len()).unwrap_or(u8::MAX));
    key.extend_from_slice(id.as_bytes());
    key
}

/// The key of a Group's change at a position.
pub(super) fn key(id: &str, position: Position) -> Vec<u8> {
    let mut key = prefix(id);
    write_position(position, &mut key);
    key
}

impl PackedGroup {
    /// Of a change; `None` if it is no Group's, and no tick.
    pub(super) fn of(change: &Change) -> Option<Self> {
        if let Some(time) = change.tick {
            let value = time.unix_micros().to_be_bytes().to_vec();
            return Some(Self { key: tick_key(change.position), value });
        }
        if change.resource_type != ResourceType::GROUP {
            return None;
        }
        let id = change.id()?;
        let after = (change.kind == Kind::Upsert).then_some(&change.data);
        let before = match (&change.before, &change.group_before) {
            (_, Some(content)) => GroupBefore::Content(content.clone()),
            (Before::Nothing, None) => GroupBefore::Nothing,
            (Before::Patients(_) | Before::Unknown, None) => GroupBefore::Unknown,
        };
        Some(Self { key: key(id, change.position), value: encode(after, &before) })
    }
}

fn encode(after: Option<&Bytes>, before: &GroupBefore) -> Vec<u8> {
    let (tag, old) = match before {
        GroupBefore::Nothing => (0, &[][..]),
        GroupBefore::Content(content) => (BEFORE_CONTENT, &content[..]),
        GroupBefore::Unknown => (BEFORE_UNKNOWN, &[][..]),
    };
    let new = after.map(|content| &content[..]).unwrap_or_default();
    let mut out = vec![tag | if after.is_some() { AFTER } else { 0 }];
    // Postgres' values are below 1 GiB.
    #[allow(clippy::cast_possible_truncation)]
    out.extend_from_slice(&(new.len() as u32).to_be_bytes());
    out.extend_from_slice(new);
    out.extend_from_slice(old);
    compress_prepend_size(&out)
}

/// A change from its stored form.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<GroupChange, JournalError> {
    const DAMAGED: JournalError = JournalError::Corrupt("a Group's change cannot be read");
    let [GROUP, length, rest @ ..] = key else { return Err(DAMAGED) };
    let (_, position) = rest.split_at_checked(usize::from(*length)).ok_or(DAMAGED)?;
    let position = Fields(position).position()?;
    let value = Bytes::from(decompress_size_prepended(value).map_err(|_| DAMAGED)?);
    let mut fields = Fields(&value);
    let [tag] = fields.take()?;
    let length = fields.u32()? as usize;
    let start = value.len() - fields.0.len();
    fields.slice(length)?;
    let before = match tag & !AFTER {
        0 => GroupBefore::Nothing,
        BEFORE_CONTENT => GroupBefore::Content(value.slice(start + length..)),
        BEFORE_UNKNOWN => GroupBefore::Unknown,
        _ => return Err(DAMAGED),
    };
    let after = (tag & AFTER != 0).then(|| value.slice(start..start + length));
    Ok(GroupChange { position, after, before })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lsn;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_change_gives_back_what_was_put_in(
            id in "[a-z]{1,64}", ordinal in any::<u64>(), after in any::<Option<Vec<u8>>>(), old in any::<Option<Vec<u8>>>(), known in any::<bool>(),
        ) {
            let position = Position { commit_lsn: Lsn::new(7), ordinal, part: 3 };
            let after = after.map(Bytes::from);
            let before = match old {
                Some(old) => GroupBefore::Content(old.into()),
                None if known => GroupBefore::Nothing,
                None => GroupBefore::Unknown,
            };
            let read = decode(&key(&id, position), &encode(after.as_ref(), &before)).unwrap();
            prop_assert_eq!(read, GroupChange { position, after, before });
        }

        #[test]
        fn damaged_bytes_are_an_error_and_no_panic(key in prop::collection::vec(any::<u8>(), 0..40), value in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut value = value;
            // What stands in front is how much room is made.
            value.splice(..0, [200, 0, 0, 0]);
            let _ = decode(&key, &value);
        }
    }
}

//! Event ids: all that is needed to go on from an event, in the id of that event.
//!
//! Opaque to clients: base64url without padding, under 64 bytes when live (72 of some patients) and under 256 in a replay. A hash
//! at the end recognises what was damaged; it keeps nobody from making ids up, so nothing is trusted
//! that they say. The timeline is no part of it: each timeline has epochs of its own.
//!
//! What an id names it names in one history only: a position comes with the hash of its transaction, and all of it with the
//! run that gave it out ([`PastRun`](crate::journal::PastRun)).

use crate::{Anchor, Kind, Lsn, Position, Watermark};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fhir::{Instant, ResourceType, stable_hash, stable_hash_after};
use std::fmt;
use std::str::FromStr;

/// An event id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventId(pub(crate) Place);

/// Where a client stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// At the beginning of its request.
    Beginning,
    /// It was told `reset-all`, and nothing since: all of it follows. Else a client that is always cut off there would be told so
    /// for ever.
    Anew {
        /// Of the request's filter.
        filter: u32,
    },
    /// In the feed, past a position.
    Live {
        run: u64,
        /// See [`fhir::Filter::scope_hash32`].
        scope: Option<u32>,
        anchor: Anchor,
        /// Of the newest watermark whose fence LSN is at or before the position: from where a reset goes on.
        safe_time: Instant,
    },
    /// In the feed, the pages done, while the feed may not have passed the watermark's fence LSN yet.
    Cutover {
        run: u64,
        scope: Option<u32>,
        anchor: Anchor,
        watermark: Watermark,
        /// From where a reset goes on; the watermark's own may be the request's `_since`, which lies ahead.
        safe_time: Instant,
    },
    /// In the pages.
    Replay(Replaying),
    /// In the feed, while the members of a Group change or have changed.
    Changing { run: u64, scope: u32, anchor: Anchor, change: Box<MembersChange>, safe_time: Instant },
    /// In what was written lately of patients who joined a Group.
    Recent { pages: Box<Replaying>, at: Position },
    /// Of a release whose ids did not name the transaction: not to be continued.
    Old {
        epoch: u64,
        /// From where a reset goes on; for an id within the pages their lower bound.
        since: Option<Instant>,
    },
}

/// A place within the pages of a round.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Replaying {
    pub(crate) run: u64,
    /// The round's lower bound.
    pub(crate) since: Option<Instant>,
    /// The round's watermark: its upper bound, and where the feed takes over.
    pub(crate) watermark: Watermark,
    /// Of the request's filter: another filter's pages are others.
    pub(crate) filter: u32,
    /// Of a Group's members.
    pub(crate) group: Option<Box<GroupPages>>,
    /// The last row sent.
    pub(crate) cursor: Cursor,
}

impl Replaying {
    /// Before all rows of a Group's members.
    pub(crate) fn beginning(run: u64, watermark: Watermark, filter: u32, group: GroupPages) -> Self {
        let resource_type = ResourceType::PATIENT;
        let cursor = Cursor { kind: Kind::Upsert, resource_type, stamp: Instant::MIN, id: "".into() };
        Self { run, since: None, watermark, filter, group: Some(Box::new(group)), cursor }
    }
}

/// A change of members that is not over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MembersChange {
    /// Before the first change after which they differ from those whose resources the client has.
    pub(crate) from: Anchor,
    /// Where they changed for the client, and up to where what left meanwhile is told.
    pub(crate) fading: Option<(Anchor, Lsn)>,
}

/// Pages of those who join and leave a Group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GroupPages {
    /// Before the first change after which the members differ from those whose resources the client has; none at the beginning.
    pub(crate) from: Option<Anchor>,
    /// Where they change.
    pub(crate) to: Anchor,
    /// What leaves, not what comes.
    pub(crate) leaving: bool,
    /// Which of the batches of patients.
    pub(crate) batch: u32,
}

/// A row among the pages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cursor {
    pub(crate) kind: Kind,
    pub(crate) resource_type: ResourceType,
    pub(crate) stamp: Instant,
    pub(crate) id: Box<str>,
}

/// The text is not an id that this service gave out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not an event id of this service")]
pub struct InvalidEventId;

// The first half of a tag is the version of the form.
const BEGINNING: u8 = 0x10;
const ANEW: u8 = 0x20;
const LIVE: u8 = 0x21;
const CUTOVER: u8 = 0x22;
const REPLAY: u8 = 0x23;
const OLD: u8 = 0x24;
const LIVE_IN_SCOPE: u8 = 0x25;
const CUTOVER_IN_SCOPE: u8 = 0x26;
const MOVING: u8 = 0x27;
const FADING: u8 = 0x28;
const RECENT: u8 = 0x29;
const REPLAY_OF_GROUP: u8 = 0x2a;
const REPLAY_OF_NEW_GROUP: u8 = 0x2b;
const LIVE_BEFORE: u8 = 0x11;
const SPLIT_BEFORE: u8 = 0x12;
const REPLAY_BEFORE: u8 = 0x13;
/// Longer than any id: nothing longer is decoded.
const MAX_TEXT: usize = 256;
const HASH_LEN: usize = 4;

impl EventId {
    /// The id that means "from this request's beginning".
    pub const fn beginning() -> Self {
        Self(Place::Beginning)
    }

    pub(crate) const fn live(run: u64, scope: Option<u32>, anchor: Anchor, safe_time: Instant) -> Self {
        Self(Place::Live { run, scope, anchor, safe_time })
    }

    /// The run that gave it out.
    pub(crate) const fn run(&self) -> Option<u64> {
        match &self.0 {
            Place::Beginning | Place::Anew { .. } => None,
            Place::Live { run, .. } | Place::Cutover { run, .. } => Some(*run),
            Place::Replay(place) => Some(place.run),
            Place::Changing { run, .. } => Some(*run),
            Place::Recent { pages, .. } => Some(pages.run),
            // An epoch was one run then.
            Place::Old { epoch, .. } => Some(*epoch),
        }
    }

    /// Appends the text form.
    pub(crate) fn write(&self, out: &mut String) {
        let mut bytes = Vec::with_capacity(48);
        match &self.0 {
            Place::Beginning => bytes.push(BEGINNING),
            Place::Anew { filter } => {
                bytes.push(ANEW);
                bytes.extend_from_slice(&filter.to_be_bytes());
            }
            Place::Live { run, scope, anchor, safe_time } => {
                bytes.push(if scope.is_some() { LIVE_IN_SCOPE } else { LIVE });
                put_u64(*run, &mut bytes);
                put_scope(*scope, &mut bytes);
                put_anchor(*anchor, &mut bytes);
                put_instant(*safe_time, &mut bytes);
            }
            Place::Cutover { run, scope, anchor, watermark, safe_time } => {
                bytes.push(if scope.is_some() { CUTOVER_IN_SCOPE } else { CUTOVER });
                put_u64(*run, &mut bytes);
                put_scope(*scope, &mut bytes);
                put_anchor(*anchor, &mut bytes);
                put_watermark(*watermark, &mut bytes);
                put_instant(*safe_time, &mut bytes);
            }
            Place::Replay(replay) => {
                put_stage(replay, &mut bytes);
                put_row(replay.cursor.stamp, &replay.cursor.id, &mut bytes);
            }
            Place::Changing { run, scope, anchor, change, safe_time } => {
                let MembersChange { from, fading } = &**change;
                bytes.push(if fading.is_some() { FADING } else { MOVING });
                put_u64(*run, &mut bytes);
                put_scope(Some(*scope), &mut bytes);
                put_anchor(*anchor, &mut bytes);
                put_anchor(*from, &mut bytes);
                if let Some((to, until)) = fading {
                    put_anchor(*to, &mut bytes);
                    put_u64(until.get(), &mut bytes);
                }
                put_instant(*safe_time, &mut bytes);
            }
            Place::Recent { pages, at } => {
                bytes.push(RECENT);
                put_position(*at, &mut bytes);
                put_stage(pages, &mut bytes);
                put_row(pages.cursor.stamp, &pages.cursor.id, &mut bytes);
            }
            Place::Old { epoch, since } => {
                bytes.push(OLD);
                put_u64(*epoch, &mut bytes);
                put_instant(since.unwrap_or(Instant::MIN), &mut bytes);
            }
        }
        bytes.extend_from_slice(&stable_hash(bytes.iter().copied()).to_be_bytes());
        URL_SAFE_NO_PAD.encode_string(&bytes, out);
    }
}

/// The ids of rows of one stage of a round, of which only the end is made anew for each: in their text, where they have
/// most in common, too.
pub(crate) struct RowIds {
    text: String,
    /// So much of the text, and of the bytes that are not in it yet, is the same for all rows.
    common: (usize, usize),
    bytes: Vec<u8>,
    /// Of all that is the same.
    hash: u32,
}

impl RowIds {
    /// The ids of rows like this one.
    pub(crate) fn new(row: &Replaying) -> Self {
        let mut bytes = Vec::with_capacity(128);
        put_stage(row, &mut bytes);
        let hash = stable_hash(bytes.iter().copied());
        // Four characters are three bytes.
        let rest = bytes.split_off(bytes.len() / 3 * 3);
        let text = URL_SAFE_NO_PAD.encode(&bytes);
        Self { common: (text.len(), rest.len()), text, bytes: rest, hash }
    }

    /// The text form of a row's id.
    pub(crate) fn text(&mut self, stamp: Instant, id: &str) -> &str {
        let (text, bytes) = self.common;
        self.text.truncate(text);
        self.bytes.truncate(bytes);
        put_row(stamp, id, &mut self.bytes);
        let hash = stable_hash_after(self.hash, self.bytes[bytes..].iter().copied());
        self.bytes.extend_from_slice(&hash.to_be_bytes());
        URL_SAFE_NO_PAD.encode_string(&self.bytes, &mut self.text);
        &self.text
    }
}

/// What the rows of a stage have in common.
fn put_stage(row: &Replaying, out: &mut Vec<u8>) {
    out.push(match &row.group {
        None => REPLAY,
        Some(group) if group.from.is_some() => REPLAY_OF_GROUP,
        Some(_) => REPLAY_OF_NEW_GROUP,
    });
    if let Some(GroupPages { from, to, leaving, batch }) = row.group.as_deref().copied() {
        from.into_iter().chain([to]).for_each(|anchor| put_anchor(anchor, out));
        put_varint(u64::from(batch) << 1 | u64::from(leaving), out);
    }
    put_u64(row.run, out);
    put_instant(row.since.unwrap_or(Instant::MIN), out);
    put_watermark(row.watermark, out);
    out.extend_from_slice(&row.filter.to_be_bytes());
    // There are fewer than 256 types.
    #[allow(clippy::cast_possible_truncation)]
    out.push(row.cursor.resource_type.index() as u8);
    out.push(u8::from(row.cursor.kind == Kind::Deletion));
}

fn put_row(stamp: Instant, id: &str, out: &mut Vec<u8>) {
    put_instant(stamp, out);
    out.extend_from_slice(id.as_bytes());
}

fn put_u64(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn put_scope(scope: Option<u32>, out: &mut Vec<u8>) {
    out.extend(scope.iter().flat_map(|scope| scope.to_be_bytes()));
}

fn put_instant(instant: Instant, out: &mut Vec<u8>) {
    out.extend_from_slice(&instant.unix_micros().to_be_bytes());
}

fn put_watermark(watermark: Watermark, out: &mut Vec<u8>) {
    put_instant(watermark.safe_time, out);
    put_u64(watermark.fence_lsn.get(), out);
}

fn put_anchor(anchor: Anchor, out: &mut Vec<u8>) {
    put_position(anchor.position, out);
    out.extend_from_slice(&anchor.transaction.to_be_bytes());
}

/// The ordinal takes as many bytes as it needs: it is small nearly always, and the id is sent with every event.
fn put_position(position: Position, out: &mut Vec<u8>) {
    put_u64(position.commit_lsn.get(), out);
    put_varint(position.ordinal, out);
    put_varint(position.part.into(), out);
}

fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

/// Takes fields off the front; `None` when they end too early.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn instant(&mut self) -> Option<Instant> {
        self.take().map(i64::from_be_bytes).map(Instant::from_unix_micros)
    }

    fn watermark(&mut self) -> Option<Watermark> {
        Some(Watermark { safe_time: self.instant()?, fence_lsn: Lsn::new(self.u64()?) })
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn position(&mut self) -> Option<Position> {
        Some(Position {
            commit_lsn: Lsn::new(self.u64()?),
            ordinal: self.varint()?,
            part: u16::try_from(self.varint()?).ok()?,
        })
    }

    fn anchor(&mut self) -> Option<Anchor> {
        Some(Anchor { position: self.position()?, transaction: self.take().map(u32::from_be_bytes)? })
    }

    /// The hash of a scope, if there is one.
    fn scope(&mut self, there: bool) -> Option<Option<u32>> {
        if there { self.take().map(u32::from_be_bytes).map(Some) } else { Some(None) }
    }

    /// A lower bound, if there is one.
    fn since(&mut self) -> Option<Option<Instant>> {
        self.instant().map(|since| Some(since).filter(|since| *since != Instant::MIN))
    }

    fn change(&mut self, fading: bool) -> Option<MembersChange> {
        let from = self.anchor()?;
        let fading = if fading { Some((self.anchor()?, Lsn::new(self.u64()?))) } else { None };
        Some(MembersChange { from, fading })
    }

    /// Of a Group's members; `joined`: there was nobody before.
    fn group(&mut self, joined: bool) -> Option<GroupPages> {
        let from = if joined { None } else { Some(self.anchor()?) };
        let to = self.anchor()?;
        let number = self.varint()?;
        Some(GroupPages { from, to, leaving: number & 1 == 1, batch: u32::try_from(number >> 1).ok()? })
    }

    fn replay(&mut self, tag: u8) -> Option<Replaying> {
        let group = match tag {
            REPLAY | REPLAY_BEFORE => None,
            REPLAY_OF_GROUP | REPLAY_OF_NEW_GROUP => Some(Box::new(self.group(tag == REPLAY_OF_NEW_GROUP)?)),
            _ => return None,
        };
        let run = self.u64()?;
        let since = self.since()?;
        let watermark = self.watermark()?;
        let filter = self.take().map(u32::from_be_bytes)?;
        let [index] = self.take()?;
        let resource_type = ResourceType::from_index(index.into())?;
        let kind = match self.take()? {
            [0] => Kind::Upsert,
            [1] => Kind::Deletion,
            _ => return None,
        };
        let stamp = self.instant()?;
        let id = std::str::from_utf8(std::mem::take(&mut self.0)).ok()?.into();
        Some(Replaying {
            run,
            since,
            watermark,
            filter,
            group,
            cursor: Cursor { kind, resource_type, stamp, id },
        })
    }

    fn place(&mut self) -> Option<Place> {
        let [tag] = self.take()?;
        let place = match tag {
            BEGINNING => Place::Beginning,
            ANEW => Place::Anew { filter: self.take().map(u32::from_be_bytes)? },
            LIVE | LIVE_IN_SCOPE => Place::Live {
                run: self.u64()?,
                scope: self.scope(tag == LIVE_IN_SCOPE)?,
                anchor: self.anchor()?,
                safe_time: self.instant()?,
            },
            CUTOVER | CUTOVER_IN_SCOPE => Place::Cutover {
                run: self.u64()?,
                scope: self.scope(tag == CUTOVER_IN_SCOPE)?,
                anchor: self.anchor()?,
                watermark: self.watermark()?,
                safe_time: self.instant()?,
            },
            REPLAY | REPLAY_OF_GROUP | REPLAY_OF_NEW_GROUP => Place::Replay(self.replay(tag)?),
            MOVING | FADING => Place::Changing {
                run: self.u64()?,
                scope: self.take().map(u32::from_be_bytes)?,
                anchor: self.anchor()?,
                change: Box::new(self.change(tag == FADING)?),
                safe_time: self.instant()?,
            },
            RECENT => {
                let at = self.position()?;
                let [tag] = self.take()?;
                Place::Recent { pages: Box::new(self.replay(tag)?), at }
            }
            OLD => Place::Old { epoch: self.u64()?, since: self.since()? },
            LIVE_BEFORE => {
                let (epoch, _) = (self.u64()?, self.position()?);
                Place::Old { epoch, since: self.since()? }
            }
            SPLIT_BEFORE => {
                let (epoch, _, _) = (self.u64()?, self.position()?, self.watermark()?);
                Place::Old { epoch, since: self.since()? }
            }
            REPLAY_BEFORE => {
                let Replaying { run: epoch, since, .. } = self.replay(tag)?;
                Place::Old { epoch, since }
            }
            _ => return None,
        };
        self.0.is_empty().then_some(place)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        f.write_str(&text)
    }
}

impl FromStr for EventId {
    type Err = InvalidEventId;

    fn from_str(text: &str) -> Result<Self, InvalidEventId> {
        if text.len() > MAX_TEXT {
            return Err(InvalidEventId);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidEventId)?;
        let (bytes, check) = bytes.split_last_chunk::<HASH_LEN>().ok_or(InvalidEventId)?;
        if stable_hash(bytes.iter().copied()).to_be_bytes() != *check {
            return Err(InvalidEventId);
        }
        Fields(bytes).place().map(Self).ok_or(InvalidEventId)
    }
}

#[cfg(test)]
mod tests;

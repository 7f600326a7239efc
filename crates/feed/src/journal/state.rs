//! What the journal knows besides its blocks: written with every group, in the same fsync.

use super::PastRun;
use crate::{Anchor, Lsn, Origin, Position, Transaction, Watermark};
use fhir::Instant;
use serde::{Deserialize, Serialize};

/// What was dropped by retention: a position below it cannot be continued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Floor {
    /// The last position dropped, or the beginning of the epoch.
    pub(crate) position: Position,
    /// The newest stamp dropped, or the moment when the epoch began: a replay needs a safe time at or beyond it.
    pub(crate) stamp: Instant,
}

/// The journal's state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct State {
    /// Drawn when the epoch begins.
    pub(crate) epoch: u64,
    /// Drawn when the journal is opened, and when an epoch begins: what ids carry.
    pub(crate) run: u64,
    /// What was published may not be the database's history any more: an operator has said so, or a fork was seen. Nothing
    /// is served before a new epoch has begun.
    pub(crate) tainted: bool,
    /// The database that is followed.
    pub(crate) origin: Origin,
    /// The last entry, or the beginning of the epoch.
    pub(crate) head: Position,
    /// The transaction of the last entry.
    pub(crate) transaction: Option<Transaction>,
    /// Everything committed before it is in the blocks.
    pub(crate) durable_lsn: Lsn,
    /// Bytes of entries written in this epoch.
    pub(crate) offset: u64,
    /// The newest stamp of all entries so far.
    pub(crate) running_max: Instant,
    /// What is no longer kept.
    pub(crate) floor: Floor,
    /// The newest watermark.
    pub(crate) watermark: Option<Watermark>,
    /// The safe time of the newest watermark whose fence LSN lies at or before the head.
    pub(crate) head_safe_time: Instant,
    /// The greatest fence LSN of a watermark that pages were read by.
    pub(crate) paged: Lsn,
    /// The newest tick of what is no longer kept.
    pub(crate) tick: Option<Instant>,
}

/// The form of the blocks that go with the state.
const BLOCKS: u8 = 4;
/// The form before that, without patients, and the one before, without hashes of transactions. Their blocks are dropped.
const WITHOUT_PATIENTS: u8 = 3;
const WITHOUT_TRANSACTIONS: u8 = 2;

impl State {
    /// Before any database is known: nothing can be published or continued in it.
    pub(crate) fn unknown() -> Self {
        let origin = Origin { system: 0, timeline: 0, identity: String::new() };
        let mut state = Self::begin(origin, Lsn::ZERO, Instant::MIN);
        // No replay begins before an epoch does.
        state.floor.stamp = Instant::from_unix_micros(i64::MAX);
        state
    }

    /// Whether an epoch has begun whose ids can be judged.
    pub(crate) fn is_known(&self) -> bool {
        self.origin.system != 0 && !self.tainted
    }

    /// The last entry with its transaction.
    pub(crate) fn head_anchor(&self) -> Anchor {
        let transaction = self.transaction.filter(|last| last.commit_lsn == self.head.commit_lsn);
        Anchor { position: self.head, transaction: transaction.map_or(0, |last| last.hash32()) }
    }

    /// A new epoch, beginning at a place in the log.
    pub(crate) fn begin(origin: Origin, start: Lsn, since: Instant) -> Self {
        let position = Position::before(start);
        Self {
            epoch: fastrand::u64(..),
            run: fastrand::u64(..),
            tainted: false,
            origin,
            head: position,
            transaction: None,
            durable_lsn: start,
            offset: 0,
            running_max: Instant::MIN,
            floor: Floor { position, stamp: since },
            watermark: None,
            // No replay begins before the safe time has passed it: whoever follows got what was stamped before.
            head_safe_time: since,
            paged: start,
            tick: None,
        }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Record {
            blocks: BLOCKS,
            epoch: self.epoch,
            run: self.run,
            restored: self.tainted,
            past: Vec::new(),
            system: self.origin.system,
            timeline: self.origin.timeline,
            identity: self.origin.identity.clone(),
            head: pack(self.head),
            transaction: self.transaction.map(|t| (t.commit_lsn.get(), t.xid, t.commit_time.unix_micros())),
            durable_lsn: self.durable_lsn.get(),
            offset: self.offset,
            running_max: self.running_max.unix_micros(),
            floor: (pack(self.floor.position), self.floor.stamp.unix_micros()),
            watermark: self
                .watermark
                .map(|watermark| (watermark.safe_time.unix_micros(), watermark.fence_lsn.get())),
            head_safe_time: self.head_safe_time.unix_micros(),
            paged: self.paged.get(),
            tick: self.tick.map(|tick| tick.unix_micros()),
        })
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let record: Record = serde_json::from_slice(bytes)?;
        if record.blocks != BLOCKS {
            return Err(serde::de::Error::custom("the blocks are of another form"));
        }
        Ok(Self::of(record))
    }

    /// The state of a journal in a form before this one, as it is without its blocks; and the runs that its ids are of, where
    /// these name their epoch and not a run. `None` if it is of another form.
    pub(super) fn decode_before(bytes: &[u8]) -> Option<(Self, Option<Vec<PastRun>>)> {
        let record: Record = serde_json::from_slice(bytes).ok()?;
        let (form, past) = (record.blocks, record.past.clone());
        let mut state = match form {
            WITHOUT_PATIENTS => Self::of(record),
            WITHOUT_TRANSACTIONS => Self { run: record.epoch, ..Self::of(record) },
            _ => return None,
        };
        state.floor = Floor { position: state.head, stamp: state.running_max.max(state.floor.stamp) };
        let older = past.iter().map(|past| PastRun {
            run: past.epoch,
            epoch: past.epoch,
            end: Position::ZERO,
            lsn: Lsn::ZERO,
            forked: past.forked,
        });
        let named = (form == WITHOUT_TRANSACTIONS).then(|| older.collect());
        Some((state, named))
    }

    fn of(record: Record) -> Self {
        Self {
            epoch: record.epoch,
            run: record.run,
            tainted: record.restored,
            origin: Origin { system: record.system, timeline: record.timeline, identity: record.identity },
            head: unpack(record.head),
            transaction: record.transaction.map(|(lsn, xid, time)| Transaction {
                commit_lsn: Lsn::new(lsn),
                xid,
                commit_time: Instant::from_unix_micros(time),
            }),
            durable_lsn: Lsn::new(record.durable_lsn),
            offset: record.offset,
            running_max: Instant::from_unix_micros(record.running_max),
            floor: Floor {
                position: unpack(record.floor.0),
                stamp: Instant::from_unix_micros(record.floor.1),
            },
            watermark: record.watermark.map(|(safe_time, fence_lsn)| Watermark {
                safe_time: Instant::from_unix_micros(safe_time),
                fence_lsn: Lsn::new(fence_lsn),
            }),
            head_safe_time: Instant::from_unix_micros(record.head_safe_time),
            paged: Lsn::new(record.paged),
            tick: record.tick.map(Instant::from_unix_micros),
        }
    }
}

/// The stored form: plain numbers under names, so that a later release can add one.
#[derive(Serialize, Deserialize)]
struct Record {
    blocks: u8,
    epoch: u64,
    #[serde(default)]
    run: u64,
    #[serde(default)]
    restored: bool,
    /// Only in the form before this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    past: Vec<PastEpoch>,
    system: u64,
    timeline: u32,
    identity: String,
    head: (u64, u64, u16),
    transaction: Option<(u64, u32, i64)>,
    durable_lsn: u64,
    offset: u64,
    running_max: i64,
    floor: ((u64, u64, u16), i64),
    #[serde(rename = "mark")]
    watermark: Option<(i64, u64)>,
    #[serde(rename = "head_w")]
    head_safe_time: i64,
    #[serde(default)]
    paged: u64,
    #[serde(default)]
    tick: Option<i64>,
}

/// An epoch that has ended, in the form before this one.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct PastEpoch {
    epoch: u64,
    forked: bool,
}

pub(super) fn pack(position: Position) -> (u64, u64, u16) {
    (position.commit_lsn.get(), position.ordinal, position.part)
}

pub(super) fn unpack((lsn, ordinal, part): (u64, u64, u16)) -> Position {
    Position { commit_lsn: Lsn::new(lsn), ordinal, part }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(system: u64) -> Origin {
        Origin { system, timeline: 1, identity: "16384".into() }
    }

    #[test]
    fn the_record_gives_back_the_state() {
        let mut state = State::begin(origin(7), Lsn::new(100), Instant::from_unix_micros(5));
        state.transaction =
            Some(Transaction { commit_lsn: Lsn::new(1), xid: 2, commit_time: Instant::from_unix_micros(3) });
        state.watermark = Some(Watermark { safe_time: Instant::from_unix_micros(-1), fence_lsn: Lsn::MAX });
        state.tick = Some(Instant::from_unix_micros(4));
        assert_eq!(State::decode(&state.encode().unwrap()).unwrap(), state);
        assert!(State::decode(b"{}").is_err());
        let written = String::from_utf8(state.encode().unwrap()).unwrap();
        let other = written.replacen(&format!("\"blocks\":{BLOCKS}"), "\"blocks\":0", 1);
        assert!(State::decode(other.as_bytes()).is_err());
    }

    /// What is left of it is what retention leaves when it drops all blocks.
    #[test]
    fn a_journal_of_the_form_before_is_read_without_its_blocks() {
        let mut state = State::begin(origin(7), Lsn::new(100), Instant::from_unix_micros(5));
        state.head = Position { commit_lsn: Lsn::new(200), ordinal: 3, part: 0 };
        state.running_max = Instant::from_unix_micros(9);
        let written = String::from_utf8(state.encode().unwrap()).unwrap();
        assert!(State::decode_before(written.as_bytes()).is_none());
        let before = written.replacen(&format!("\"blocks\":{BLOCKS}"), "\"blocks\":2", 1).replacen(
            &format!("\"run\":{},\"restored\":false", state.run),
            r#""past":[{"epoch":4,"forked":true}]"#,
            1,
        );
        let (read, past) = State::decode_before(before.as_bytes()).unwrap();
        assert_eq!((read.run, read.epoch, read.head), (state.epoch, state.epoch, state.head));
        assert_eq!(read.floor, Floor { position: state.head, stamp: state.running_max });
        assert!(matches!(past.unwrap()[..], [PastRun { run: 4, epoch: 4, forked: true, .. }]));
        let before = written.replacen(&format!("\"blocks\":{BLOCKS}"), "\"blocks\":3", 1);
        let (read, past) = State::decode_before(before.as_bytes()).unwrap();
        assert_eq!((read.run, read.epoch, read.head), (state.run, state.epoch, state.head));
        assert_eq!(read.floor, Floor { position: state.head, stamp: state.running_max });
        assert!(past.is_none());
        assert!(State::decode_before(b"{}").is_none());
    }
}

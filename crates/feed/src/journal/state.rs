//! What the journal knows besides its blocks: written with every group, in the same fsync.

use crate::{Lsn, Mark, Origin, Position, Transaction};
use fhir::Instant;
use serde::{Deserialize, Serialize};

/// What was dropped by retention: a position below it cannot be continued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Floor {
    /// The last position dropped, or the beginning of the epoch.
    pub(crate) position: Position,
    /// The newest stamp dropped, or the moment when the epoch began: a replay needs a W at or beyond it.
    pub(crate) stamp: Instant,
}

/// An epoch that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct PastEpoch {
    pub(crate) epoch: u64,
    /// Versions that were published in it may not exist any more.
    pub(crate) forked: bool,
}

/// The journal's state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct State {
    /// Drawn when the epoch begins.
    pub(crate) epoch: u64,
    /// The epochs before it, newest first, as far as they are remembered.
    pub(crate) past: Vec<PastEpoch>,
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
    /// The newest mark.
    pub(crate) mark: Option<Mark>,
    /// W of the newest mark whose L lies at or before the head.
    pub(crate) head_w: Instant,
}

/// How many ended epochs are remembered. What is forgotten is as if it had forked.
const PAST: usize = 64;

/// The form of the blocks that go with the state.
const BLOCKS: u8 = 2;

impl State {
    /// Before any database is known: nothing can be published or continued in it.
    pub(crate) fn unknown() -> Self {
        let origin = Origin { system: 0, timeline: 0, identity: String::new() };
        let mut state = Self::begin(None, origin, Lsn::ZERO, Instant::MIN, false);
        // No replay begins before an epoch does.
        state.floor.stamp = Instant::from_unix_micros(i64::MAX);
        state
    }

    /// Whether an epoch has begun.
    pub(crate) fn is_known(&self) -> bool {
        self.origin.system != 0
    }

    /// A new epoch after `before`, beginning at a place in the log.
    pub(crate) fn begin(
        before: Option<&Self>,
        origin: Origin,
        start: Lsn,
        since: Instant,
        fork: bool,
    ) -> Self {
        let past = before
            .map(|state| {
                let ended = PastEpoch { epoch: state.epoch, forked: fork };
                let older = state.past.iter().map(|past| PastEpoch { forked: past.forked || fork, ..*past });
                std::iter::once(ended).chain(older).take(PAST).collect()
            })
            .unwrap_or_default();
        let position = Position::before(start);
        Self {
            epoch: fastrand::u64(..),
            past,
            origin,
            head: position,
            transaction: None,
            durable_lsn: start,
            offset: 0,
            running_max: Instant::MIN,
            floor: Floor { position, stamp: since },
            mark: None,
            // No replay begins before W has passed it: whoever follows got what was stamped before.
            head_w: since,
        }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Record {
            blocks: BLOCKS,
            epoch: self.epoch,
            past: self.past.clone(),
            system: self.origin.system,
            timeline: self.origin.timeline,
            identity: self.origin.identity.clone(),
            head: pack(self.head),
            transaction: self.transaction.map(|t| (t.commit_lsn.get(), t.xid, t.commit_time.unix_micros())),
            durable_lsn: self.durable_lsn.get(),
            offset: self.offset,
            running_max: self.running_max.unix_micros(),
            floor: (pack(self.floor.position), self.floor.stamp.unix_micros()),
            mark: self.mark.map(|mark| (mark.w.unix_micros(), mark.l.get())),
            head_w: self.head_w.unix_micros(),
        })
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let record: Record = serde_json::from_slice(bytes)?;
        if record.blocks != BLOCKS {
            return Err(serde::de::Error::custom("the blocks are of another form"));
        }
        Ok(Self {
            epoch: record.epoch,
            past: record.past,
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
            mark: record.mark.map(|(w, l)| Mark { w: Instant::from_unix_micros(w), l: Lsn::new(l) }),
            head_w: Instant::from_unix_micros(record.head_w),
        })
    }
}

/// The stored form: plain numbers under names, so that a later release can add one.
#[derive(Serialize, Deserialize)]
struct Record {
    blocks: u8,
    epoch: u64,
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
    mark: Option<(i64, u64)>,
    head_w: i64,
}

fn pack(position: Position) -> (u64, u64, u16) {
    (position.commit_lsn.get(), position.ordinal, position.part)
}

fn unpack((lsn, ordinal, part): (u64, u64, u16)) -> Position {
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
        let mut state = State::begin(None, origin(7), Lsn::new(100), Instant::from_unix_micros(5), false);
        state.transaction =
            Some(Transaction { commit_lsn: Lsn::new(1), xid: 2, commit_time: Instant::from_unix_micros(3) });
        state.mark = Some(Mark { w: Instant::from_unix_micros(-1), l: Lsn::MAX });
        assert_eq!(State::decode(&state.encode().unwrap()).unwrap(), state);
        assert!(State::decode(b"{}").is_err());
        let written = String::from_utf8(state.encode().unwrap()).unwrap();
        let other = written.replacen(&format!("\"blocks\":{BLOCKS}"), "\"blocks\":0", 1);
        assert!(State::decode(other.as_bytes()).is_err());
    }

    #[test]
    fn a_fork_taints_every_epoch_before_it() {
        let since = Instant::MIN;
        let first = State::begin(None, origin(7), Lsn::new(1), since, false);
        let second = State::begin(Some(&first), origin(7), Lsn::new(1), since, false);
        assert_eq!(second.past, [PastEpoch { epoch: first.epoch, forked: false }]);
        let third = State::begin(Some(&second), origin(7), Lsn::new(1), since, true);
        assert!(third.past.iter().all(|past| past.forked) && third.past.len() == 2);
    }
}

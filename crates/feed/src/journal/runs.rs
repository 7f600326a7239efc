//! Runs: what one process published in one epoch. Ids carry the run that gave them out.
//!
//! A run is drawn at random whenever the journal is opened. So an id of a run that the journal does not know was given out by
//! a process that this journal never met: by one that followed another copy of it. And an id of a run that it knows is of
//! this history as far as the journal had come when that run ended.

use super::State;
use super::state::{pack, unpack};
use crate::{Lsn, Position, Watermark};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How many ended runs are remembered. What is forgotten is as if it had never been here.
const REMEMBERED: usize = 1024;

/// A run that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(from = "Record", into = "Record")]
pub(crate) struct PastRun {
    pub(crate) run: u64,
    /// The epoch that it published in.
    pub(crate) epoch: u64,
    /// The last entry when it ended: of what its ids name, this history has what lies up to here.
    pub(crate) end: Position,
    /// The same of places in the log, for ids that carry a watermark.
    pub(crate) lsn: Lsn,
    /// Versions that were published in it may not exist any more.
    pub(crate) forked: bool,
}

/// The runs that have ended, newest first: with the journal's thread and with those who judge ids.
pub(crate) type PastRuns = Arc<Mutex<Vec<PastRun>>>;

impl PastRun {
    /// Whether nothing that an id of this run says can be of another history.
    pub(crate) fn proves(&self, position: Position, watermark: Option<Watermark>) -> bool {
        position <= self.end && watermark.is_none_or(|watermark| watermark.fence_lsn <= self.lsn)
    }
}

/// The runs that have ended, newest first, when the run that a state is of has ended, too. `fork`: what was published in all of
/// them may not exist any more.
pub(crate) fn ended(state: &State, before: &[PastRun], fork: bool) -> Vec<PastRun> {
    // A watermark holds when the database's log is on disk up to its fence LSN, and pages are sent when that is written here.
    let lsn = state.durable_lsn.max(state.paged);
    let ended = PastRun { run: state.run, epoch: state.epoch, end: state.head, lsn, forked: fork };
    let older = before
        .iter()
        .filter(|past| past.run != state.run)
        .map(|past| PastRun { forked: past.forked || fork, ..*past });
    std::iter::once(ended).chain(older).take(REMEMBERED).collect()
}

/// The stored form.
#[derive(Serialize, Deserialize)]
struct Record {
    run: u64,
    epoch: u64,
    end: (u64, u64, u16),
    lsn: u64,
    forked: bool,
}

impl From<Record> for PastRun {
    fn from(Record { run, epoch, end, lsn, forked }: Record) -> Self {
        Self { run, epoch, end: unpack(end), lsn: Lsn::new(lsn), forked }
    }
}

impl From<PastRun> for Record {
    fn from(PastRun { run, epoch, end, lsn, forked }: PastRun) -> Self {
        Self { run, epoch, end: pack(end), lsn: lsn.get(), forked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;
    use fhir::Instant;

    fn state(lsn: u64) -> State {
        let origin = Origin { system: 7, timeline: 1, identity: String::new() };
        State::begin(origin, Lsn::new(lsn), Instant::MIN)
    }

    #[test]
    fn a_run_proves_what_was_on_disk_when_it_ended() {
        let mut state = state(100);
        state.head = Position::first_at(Lsn::new(120));
        let [run] = ended(&state, &[], false)[..] else { panic!("one has ended") };
        let watermark =
            |fence_lsn| Some(Watermark { safe_time: Instant::MIN, fence_lsn: Lsn::new(fence_lsn) });
        assert!(run.proves(state.head, None) && !run.proves(Position::first_at(Lsn::new(121)), None));
        // Nothing was received from beyond the beginning.
        assert!(run.proves(state.head, watermark(100)) && !run.proves(state.head, watermark(101)));
        state.paged = Lsn::new(150);
        let [run] = ended(&state, &[], false)[..] else { panic!("one has ended") };
        assert!(run.proves(state.head, watermark(150)) && !run.proves(state.head, watermark(151)));
    }

    #[test]
    fn a_fork_taints_every_run_before_it() {
        let (first, second) = (state(1), state(1));
        let one = ended(&first, &[], false);
        assert!(matches!(one[..], [PastRun { run, forked: false, .. }] if run == first.run));
        let two = ended(&second, &one, true);
        assert!(two.len() == 2 && two.iter().all(|past| past.forked));
        // Ended once more: after a failure it is said again.
        assert_eq!(ended(&second, &two, true), two);
        let many = (0..2 * REMEMBERED).fold(two, |before, _| ended(&state(1), &before, false));
        assert_eq!(many.len(), REMEMBERED);
    }

    #[test]
    fn the_record_gives_back_the_run() {
        let runs = ended(&state(u64::MAX), &[], true);
        let text = serde_json::to_vec(&runs).unwrap();
        assert_eq!(serde_json::from_slice::<Vec<PastRun>>(&text).unwrap(), runs);
    }
}

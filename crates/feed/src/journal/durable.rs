//! What the journal's thread has made durable.

use super::{Floor, State};
use crate::{Anchor, Lsn};
use fhir::Instant;

/// What is on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Durable {
    /// An epoch has begun: a database is followed.
    pub(crate) known: bool,
    /// The run: before that, no id may be given out that carries it.
    pub(crate) run_noted: bool,
    pub(crate) epoch: u64,
    pub(crate) run: u64,
    pub(crate) head: Anchor,
    /// The safe time of the newest watermark at or before the head.
    pub(crate) head_safe_time: Instant,
    /// Everything committed before it.
    pub(crate) lsn: Lsn,
    pub(crate) floor: Floor,
    /// The newest safe time.
    pub(crate) safe_time: Option<Instant>,
    /// The newest stamp of all entries, and no older than the floor's.
    pub(crate) newest: Instant,
    /// Bytes of entries kept.
    pub(crate) bytes: u64,
    /// Counts the times that the journal was opened again after a failure.
    pub(crate) generation: u64,
    /// It cannot be written at present.
    pub(crate) failing: bool,
    /// The greatest fence LSN of a watermark that pages were read by.
    pub(crate) paged: Lsn,
}

impl Durable {
    pub(crate) fn of(state: &State, bytes: u64, generation: u64, (run_noted, failing): (bool, bool)) -> Self {
        Self {
            known: state.is_known(),
            run_noted,
            epoch: state.epoch,
            run: state.run,
            head: state.head_anchor(),
            head_safe_time: state.head_safe_time,
            lsn: state.durable_lsn,
            floor: state.floor,
            safe_time: state.watermark.map(|watermark| watermark.safe_time),
            newest: state.running_max.max(state.floor.stamp),
            bytes,
            generation,
            failing,
            paged: state.paged,
        }
    }
}

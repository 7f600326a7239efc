//! Where the feed is.

use crate::journal::State;
use crate::{Anchor, Lsn, Mark};
use fhir::Instant;

/// Where the feed is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) epoch: u64,
    /// What its ids carry.
    pub(crate) run: u64,
    /// The last change published.
    pub(crate) last: Anchor,
    /// What its id carries.
    pub(crate) w: Instant,
    /// Everything committed before it was published.
    pub(crate) received: Lsn,
    /// The newest mark whose L lies at or before `received`.
    pub(crate) passed_mark: Option<Mark>,
    /// The newest mark.
    pub(crate) mark: Option<Mark>,
    /// The feed lacks what has long been in the log.
    pub(crate) stale: bool,
}

impl Head {
    pub(super) fn of(state: &State) -> Self {
        Self {
            epoch: state.epoch,
            run: state.run,
            last: state.head_anchor(),
            w: state.head_w,
            received: state.durable_lsn,
            passed_mark: None,
            mark: state.mark,
            stale: false,
        }
    }

    pub(super) fn pass(&mut self, mark: &Mark) {
        if mark.l <= self.received {
            self.passed_mark = Some(*mark);
        }
    }
}

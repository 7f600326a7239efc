//! Where the feed is.

use crate::journal::State;
use crate::{Anchor, Lsn, Watermark};
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
    pub(crate) safe_time: Instant,
    /// Everything committed before it was published.
    pub(crate) received: Lsn,
    /// The newest watermark whose fence LSN lies at or before `received`.
    pub(crate) passed_watermark: Option<Watermark>,
    /// The newest watermark.
    pub(crate) watermark: Option<Watermark>,
    /// The feed lacks what has long been in the log.
    pub(crate) stale: bool,
}

impl Head {
    pub(super) fn of(state: &State) -> Self {
        Self {
            epoch: state.epoch,
            run: state.run,
            last: state.head_anchor(),
            safe_time: state.head_safe_time,
            received: state.durable_lsn,
            passed_watermark: None,
            watermark: state.watermark,
            stale: false,
        }
    }

    pub(super) fn pass(&mut self, watermark: &Watermark) {
        if watermark.fence_lsn <= self.received {
            self.passed_watermark = Some(*watermark);
        }
    }
}

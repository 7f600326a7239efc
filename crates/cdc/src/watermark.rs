//! Watermarks: the safe time and the fence LSN that split history into tables and feed.
//!
//! One task samples them every second on a connection of its own, and at once when a replay asks. The steps
//! of a sample, in this order, each a statement of its own outside any transaction:
//!
//! 1. a time is closed (`fhir.close_time`): from then on no stamp is taken at or before it, whatever the clock does;
//! 2. which transactions have an id; then which are prepared. When those have ended that had one after a time was
//!    closed, all that is stamped at or before it is visible: it is a safe time;
//! 3. the end of the log. The watermark holds once the log is on disk up to there.
//!
//! To close a time writes to the database's log. So it is done when a replay asks, and with a tick only if changes have
//! been published since, or half a minute has passed. The safe time never falls, in the journal and in the database.

mod closings;
mod sample;
mod sampler;

pub(crate) use closings::{Open, Xid};
pub(crate) use sample::{Holder, SampleError, holder};
pub(crate) use sampler::Watermarks;

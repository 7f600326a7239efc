//! Marks: the safe time W and the place in the log L that split history into table and feed.
//!
//! One task samples them every second on a connection of its own, and at once when a replay asks. The steps
//! of a sample, in this order, each a statement of its own outside any transaction:
//!
//! 1. the clock;
//! 2. who is in a transaction that has written, and since when; then which transactions are prepared. What
//!    stamped at or before `least(clock, oldest beginning) - 100 ms` has ended and is visible;
//! 3. the end of the log. The mark holds once the log is on disk up to there.
//!
//! W never falls: a time that was safe stays safe, even if a transaction that had only read since before
//! then begins to write.

mod sample;
mod sampler;

pub(crate) use sample::{Holder, SampleError, holder};
pub(crate) use sampler::Marks;

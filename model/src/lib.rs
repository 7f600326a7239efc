//! The algorithms behind "nothing is lost and nothing comes twice", as models that a checker tries in every order of
//! their steps.
//!
//! The proofs that tests can give end with the orders that happen to be met. Here each step of a writer, of a watermark, of the
//! journal, of a subscriber is a step by itself, and [stateright](https://docs.rs/stateright) visits every state that any order
//! of them leads to. A violated property comes with the shortest way there.
//!
//! There are five models, since one of everything would not end:
//!
//! - [`history`]: a database, its clock, watermarks and pages, and a subscriber that replays, follows, is cut off and comes back. The
//!   feed that it follows is the flushed log itself.
//! - [`delivery`]: everything between that log and the client: walsender, publisher, hub, journal, acknowledgement, and
//!   a subscriber that follows. What the rows are, and how they came to be, is left out.
//! - [`membership`]: a stream of one Group whose members change: who joins is paged into the stream, who leaves is taken
//!   back. Its watermarks and its feed are what the other two prove of them.
//! - [`facts`]: what a replay takes for granted, such as triggers that fire, fails for a while; and deletions are left without
//!   a tombstone.
//! - [`restore`]: database and journal that are replaced by copies, and a client with an id of what was lost.
//!
//! **Why the first two together say it of the whole.** The history model asks of the feed that it be a list: every flushed
//! commit once, in the order of the log, readable from any position, whatever crashes. The delivery model shows just that of the
//! real one: what a client heard up to its id is all that it wants up to there, once and in order ([`delivery::properties`]), with
//! kills, restarts, lost connections, failing disks and retention between. The delivery model in turn asks of the log that
//! only what is flushed is in it and that it does not change; that is how the history model's database writes it, and it crashes
//! there. The two share nothing else: ids carry a position and, from the watermarks, the safe time of the history model; the delivery
//! model does not look at W, and the history model's positions move only by reading. In both of them the log does not change; the
//! restore model is about the log that does.
//!
//! **That a run shows something.** Each scenario names the situations that it is about, and fails if one is never met; and each
//! [`Bug`] is a step done wrongly, which the same checker has to find.

mod bug;
mod check;
mod coverage;
pub mod delivery;
pub mod facts;
pub mod history;
pub mod membership;
pub mod restore;

pub use bug::Bug;
pub use check::{Outcome, check, find};
pub use coverage::Coverage;

//! The feed of changes: published once, followed by any number of subscribers, from any position,
//! without a gap and without a duplicate.
//!
//! Read [`Feed`] first, then the folders in the order of a change: [`Publisher`] → `hub` and `journal` →
//! `subscriber` → `delivery`. `routing` decides which changes a request concerns, `replay` reads the
//! tables, `group` follows the members of a Group. The crate knows neither Postgres (it asks a
//! [`Source`] for watermarks and pages) nor HTTP (a [`Framing`] makes the bytes).

mod change;
mod delivery;
mod feed;
mod freshness;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod group;
mod hub;
mod id;
mod idle_timer;
mod journal;
mod poll_on_wake;
mod publisher;
mod rate;
mod replay;
mod restored;
mod routing;
mod shared;
mod source;
mod subscriber;

pub(crate) use change::Anchor;
pub use change::{Batch, Before, Change, Kind, Position, Transaction};
pub use delivery::framing::Framing;
pub use delivery::pressure::Pressure;
pub use delivery::subscription::{Begin, EventCounts, Frames, Item, Notice, Subscription};
pub use feed::{Feed, OpenError, Options, SampleBase, Status};
pub use group::GroupNow;
pub use id::{EventId, InvalidEventId};
pub use idle_timer::idle_timer;
pub use pg::{InvalidLsn, Lsn};
pub use poll_on_wake::poll_on_wake;
pub use publisher::{Origin, PublishError, Publisher};
pub use rate::Rate;
pub use restored::{Noted, note_restored};
pub use source::{
    Answer, LARGE_BYTES, Large, LargeRow, Page, PageRequest, PageRows, Sample, Scope, Source, SourceError,
    Wants, Watermark, WriteResource,
};

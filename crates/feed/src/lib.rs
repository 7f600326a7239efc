//! The feed of changes: what is published once is followed by anyone, from any position, exactly.
//!
//! It owns positions and event ids, the durable journal, the live hub, and the cutover from a replay of the
//! tables to the journal to the hub. It knows neither Postgres (it asks a [`Source`] for watermarks and
//! pages) nor HTTP (a [`Framing`] makes the bytes). Read [`Feed`] first.

mod budget;
mod change;
mod change_filter;
mod count_guard;
mod feed;
mod follow;
mod frame_queue;
mod framing;
mod freshness;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod group;
mod hub;
mod id;
mod idle_timer;
mod journal;
mod large;
mod page_frames;
mod patient_index;
mod poll_on_wake;
mod pressure;
mod publisher;
mod rate;
mod read;
mod read_size;
mod replay;
mod restored;
mod routes;
mod source;
mod spill;
mod subscriber;
mod subscription;
mod type_pages;

pub(crate) use change::Anchor;
pub use change::{Batch, Before, Change, Kind, Position, Transaction};
pub use feed::{Feed, OpenError, Options, SampleBase, Status};
pub use framing::Framing;
pub use group::GroupNow;
pub use id::{EventId, InvalidEventId};
pub use idle_timer::idle_timer;
pub use pg::{InvalidLsn, Lsn};
pub use poll_on_wake::poll_on_wake;
pub use pressure::Pressure;
pub use publisher::{Origin, PublishError, Publisher};
pub use rate::Rate;
pub use restored::{Noted, note_restored};
pub use source::{
    Answer, LARGE_BYTES, Large, LargeRow, Page, PageRequest, PageRows, Sample, Scope, Source, SourceError,
    Wants, Watermark, WriteResource,
};
pub use subscription::{Begin, EventCounts, Frames, Item, Notice, Subscription};

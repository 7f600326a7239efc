//! Postgres into the feed.
//!
//! It owns the connection by which the database's changes come in, and the pages and watermarks that a
//! replay is made of; it refuses to know anything of HTTP or of who listens. Read [`run`] first.

mod batch;
pub mod check;
mod facts;
mod follow;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod identity;
pub mod layout;
mod lossy;
pub mod pages;
mod publication;
mod settings;
mod sink;
mod slot;
mod status;
mod tables;
mod tick;
mod timestamptz;
mod wal_flush;
mod wal_rate;
mod watermark;

pub use follow::{RunError, run, run_into};
pub use publication::TableName;
pub use settings::Settings;
pub use sink::{Epoch, FeedSink, LogEnds, Sink};
pub use slot::{InvalidSlotName, SlotName};
pub use status::SourceStatus;
pub use tables::Tables;

/// An error with its causes, in one line.
fn describe_error(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

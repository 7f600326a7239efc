//! Postgres into the feed.
//!
//! It owns the connection by which the database's changes come in, and the pages and marks that a
//! replay is made of; it refuses to know anything of HTTP or of who listens. Read [`Database`] first, then
//! [`run`].

mod batch;
pub mod database;
mod follow;
pub mod layout;
pub mod pgoutput;
mod publication;
mod replication;
mod retry;
mod sink;
mod slot;
mod status;

pub use database::{ConnectError, Database, InvalidDatabaseUrl};
pub use follow::{RunError, Settings, run, run_into};
pub use publication::TableName;
pub use retry::Retry;
pub use sink::{Epoch, FeedSink, Sink};
pub use slot::{InvalidSlotName, SlotName};
pub use status::SourceStatus;

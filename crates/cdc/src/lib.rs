//! Postgres into the feed.
//!
//! It owns the connection by which the database's changes come in, and the pages and marks that a
//! replay is made of; it refuses to know anything of HTTP or of who listens. Read [`Database`] first.

pub mod database;
pub mod layout;
pub mod pgoutput;
mod retry;

pub use database::{ConnectError, Database, InvalidDatabaseUrl};
pub use retry::Retry;

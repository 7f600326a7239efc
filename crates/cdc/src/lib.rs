//! Postgres into the feed.
//!
//! It owns the connection by which the database's changes come in, and the pages and marks that a
//! replay is made of; it refuses to know anything of HTTP or of who listens. Read [`Database`] first.

mod database;

pub use database::{ConnectError, Database, InvalidDatabaseUrl};

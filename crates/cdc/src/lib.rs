//! Postgres into the feed.
//!
//! It owns the connection by which the database's changes come in, and the pages and marks that a
//! replay is made of; it refuses to know anything of HTTP or of who listens. Read [`Database`] first.

pub mod database;
pub mod layout;
mod marks;
mod migrate;
mod pages;
pub mod pgoutput;
mod retry;
mod tables;
mod timestamptz;

pub use database::{ConnectError, Database, InvalidDatabaseUrl};
pub use migrate::{Applied, MigrateError, migrate, migrated_version, newest_version};
pub use retry::Retry;
pub use tables::Tables;

//! Postgres as a client sees it: connections and what they ask for, the replication protocol, and the messages of
//! `pgoutput`. It knows nothing of FHIR.
//!
//! Read [`Database`] first, then [`replication`].

pub mod database;
mod encoding;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod lsn;
pub mod pgoutput;
pub mod replication;
mod retry;
mod timestamp;

pub use database::{ConnectError, Database, InvalidDatabaseUrl, Session};
pub use encoding::{Encoding, SQL_ASCII, UTF8};
pub use lsn::{InvalidLsn, Lsn};
pub use retry::{Backoff, Retry};
pub use timestamp::Timestamp;

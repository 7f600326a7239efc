//! Postgres as a client sees it: connections and what they ask for, the replication protocol, and the messages of
//! `pgoutput`. It knows nothing of FHIR.
//!
//! Read [`Database`] first, then [`replication`].
//!
//! ```
//! use pg::{Database, Lsn, Session};
//!
//! // The second argument looks up variables of the environment: `PGHOST`, `PGPASSWORD` and others.
//! let database = Database::parse_with("postgres://ann@localhost/clinic", &|_| None)?;
//! assert_eq!(database.dbname(), "clinic");
//!
//! /// Where the log ends on the server's disk.
//! async fn flush_lsn(database: &Database) -> Result<Lsn, Box<dyn std::error::Error>> {
//!     let client = database.connect(Session::Check).await?;
//!     let row = client.query_one("select pg_current_wal_flush_lsn()::text", &[]).await?;
//!     Ok(row.try_get::<_, &str>(0)?.parse()?)
//! }
//!
//! assert_eq!("0/A8FE88".parse::<Lsn>()?.get(), 0xA8_FE88);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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

//! The replication connection: our own client, on `postgres-protocol` and a codec.
//!
//! `tokio-postgres` has no CopyBoth. [`connect`] opens the socket, encrypts it and logs in; a [`Connection`] takes
//! commands; [`Connection::start`] turns it into a [`Stream`] of the log, with a task of its own that
//! tells the server what is safe (`feedback.rs`).

mod codec;
mod connection;
mod error;
mod feedback;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod login;
mod startup;
mod stream;
#[cfg(test)]
mod tests;

pub use connection::{Connection, Start, System, Timeline, quoted};
pub use error::Error;
pub use startup::{Channel, connect};
pub use stream::{Event, Stream};

/// What we call ourselves to the server.
pub const APPLICATION_NAME: &str = "fhir-tail";

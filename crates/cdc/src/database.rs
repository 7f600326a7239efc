//! The database: its URL, and ordinary connections to it.

/// Where the database is and how to get in. Its `Debug` and `Display` never show the password.
#[derive(Clone)]
pub struct Database(());

/// The URL cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidDatabaseUrl(String);

/// No connection could be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {database}")]
pub struct ConnectError {
    database: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Database {
    /// Reads a URL or a keyword/value string as libpq does, with `sslmode` (disable, prefer, require, verify-ca,
    /// verify-full) and `sslrootcert`.
    pub fn parse(_url: &str) -> Result<Self, InvalidDatabaseUrl> {
        unimplemented!()
    }

    /// An ordinary connection; its task runs until the client is dropped.
    pub async fn connect(&self, _application_name: &str) -> Result<tokio_postgres::Client, ConnectError> {
        unimplemented!()
    }
}

//! Connection poolers: recognised, and named as what they are.
//!
//! A pooler hands a connection's statements to sessions of its own, and so loses what a session states and
//! prepares. Most do not let the log through either. Each of its symptoms is an error that says nothing to
//! an operator (`unsupported startup parameter: replication`, `prepared statement "s0" already exists`).

use tokio_postgres::error::DbError;

/// What the operator is told.
pub(crate) const ADVICE: &str =
    "this URL leads to a connection pooler: name the database server itself, with its own host and port";

/// Whether a server's error is one that only poolers give: at a login, or of a statement that was prepared.
pub(crate) fn says(sql_state: &str, message: &str) -> bool {
    match sql_state {
        // Protocol violation: pgbouncer has no other code.
        "08P01" => {
            message.contains("unsupported startup parameter") || message.to_lowercase().contains("pgbouncer")
        }
        // Names of ours are used once in a session: it is not the session that we think it is.
        "42P05" | "26000" => true,
        // Amazon's.
        "0A000" => message.contains("RDS Proxy"),
        _ => false,
    }
}

/// [`says`] of an error of an ordinary connection.
pub(crate) fn is_of(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error: &DbError| says(error.code().code(), error.message()))
}

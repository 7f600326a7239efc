//! What can go wrong on the replication connection, and whether to try again.

use crate::Retry;
use crate::database::{ConnectError, pooler, tls};
use crate::pgoutput::DecodeError;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;
use std::fmt;
use std::io;

/// The replication connection failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It was open, and reading or writing failed.
    #[error("the replication connection was lost")]
    Io(#[source] io::Error),
    /// It could not be encrypted.
    #[error("the TLS handshake with {server} failed")]
    Tls {
        /// Where the server is.
        server: String,
        /// What the handshake says.
        #[source]
        source: io::Error,
    },
    /// The server does not encrypt, and it must.
    #[error("{server} offers no TLS, and sslmode asks for it")]
    NoTls {
        /// Where the server is.
        server: String,
    },
    /// The server did not answer in time.
    #[error("no replication connection within {0:?}")]
    Timeout(std::time::Duration),
    /// The server ended it.
    #[error("the server closed the replication connection")]
    Closed,
    /// The server answered with an error.
    #[error("the server refused: {0}")]
    Server(ServerError),
    /// What answers is a connection pooler, which cannot replicate.
    #[error("{}", pooler::ADVICE)]
    Pooler,
    /// The server asks for what was not given, or is not known here.
    #[error("cannot log in: {0}")]
    Login(&'static str),
    /// What came is not of the protocol.
    #[error("the server said what it should not: {0}")]
    Protocol(&'static str),
    /// A message of the output plugin is not one.
    #[error("the stream of changes cannot be read")]
    Decode(#[from] DecodeError),
    /// The server asked for the end of the stream.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// An ErrorResponse. Its detail is left out: it may quote data.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServerError {
    pub(crate) sql_state: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl ServerError {
    pub(super) fn read(mut fields: ErrorFields<'_>) -> Self {
        let mut error = Self::default();
        // What is malformed ends the list; what was read until then is worth having.
        while let Ok(Some(field)) = fields.next() {
            let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'C' => error.sql_state = value,
                b'M' => error.message = value,
                b'H' => error.hint = Some(value),
                _ => {}
            }
        }
        error
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of data that cannot be sent the message may quote some.
        if self.sql_state.starts_with("22") {
            return write!(f, "it cannot send a value (SQLSTATE {})", self.sql_state);
        }
        write!(f, "{} (SQLSTATE {})", self.message, self.sql_state)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

impl Error {
    /// The server's own code, if it was the server that refused.
    pub fn sql_state(&self) -> Option<&str> {
        match self {
            Self::Server(error) => Some(&error.sql_state),
            Self::Connect(error) => error.sql_state(),
            _ => None,
        }
    }

    /// Whether and when to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Connect(error) => error.retry(),
            Self::Io(_) | Self::Timeout(_) | Self::Closed | Self::ShuttingDown => Retry::Backoff,
            Self::Tls { source, .. } => tls::retry(source),
            Self::Server(error) => Retry::of_sql_state(&error.sql_state),
            Self::NoTls { .. } | Self::Login(_) | Self::Pooler => Retry::Operator,
            // Another connection may well get over what garbled this one; a server that always says the
            // same is for somebody to look at.
            Self::Protocol(_) | Self::Decode(_) => Retry::Operator,
        }
    }
}

impl From<ServerError> for Error {
    fn from(error: ServerError) -> Self {
        if pooler::says(&error.sql_state, &error.message) { Self::Pooler } else { Self::Server(error) }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            // From the codec: what came is no message.
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData if error.get_ref().is_some() => {
                if error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>()) {
                    Self::Io(error)
                } else {
                    Self::Protocol("a message that cannot be read")
                }
            }
            _ => Self::Io(error),
        }
    }
}

//! Why a subscriber ends.

use crate::content::NotUnderstood;
use crate::sse::TooLarge;
use std::io;

/// Why a subscriber ended. Its text names the thing and the remedy; the cause, if there is one, is its
/// [`source`](std::error::Error::source). No text holds a password or the content of a resource.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL or what is asked for cannot be used.
    #[error("{0}")]
    InvalidTarget(String),
    /// The service refused the request, and would refuse it again.
    #[error("{0}")]
    Refused(String),
    /// An event is not one that fhir-tail sends.
    #[error("the stream cannot be understood: {0}")]
    Stream(NotUnderstood),
    /// An event is larger than any resource.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The state file belongs to another URL or another line format.
    #[error("{message}")]
    Mismatch {
        /// What does not match.
        mismatch: Mismatch,
        /// Both values, and what to do.
        message: String,
    },
    /// Files cannot be used as they are, or the work was stopped before its end.
    #[error("{0}")]
    Failed(String),
    /// Something below failed.
    #[error("{message}")]
    Caused {
        /// What was attempted.
        message: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

// Not as its source: the text has it already.
impl From<NotUnderstood> for Error {
    fn from(why: NotUnderstood) -> Self {
        Self::Stream(why)
    }
}

/// In what a state file differs from what was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mismatch {
    /// The URL, with its parameters.
    Url,
    /// How lines are written.
    LineFormat,
}

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what was attempted when something failed.
pub(crate) trait Context<T> {
    fn context(self, attempted: &str) -> Result<T>;
    fn with_context(self, attempted: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T> for Result<T, E> {
    fn context(self, attempted: &str) -> Result<T> {
        self.with_context(|| attempted.to_owned())
    }

    fn with_context(self, attempted: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Caused { message: attempted(), source: error.into() })
    }
}

/// Ends a function with [`Error::Failed`].
macro_rules! bail {
    ($($message:tt)*) => { return Err($crate::Error::Failed(format!($($message)*))) };
}
pub(crate) use bail;

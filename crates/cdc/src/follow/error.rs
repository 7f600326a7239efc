//! Why a session ended, and whether to begin another.

use crate::SlotName;
use crate::batch::BatchError;
use crate::layout::{BadRow, LayoutError};
use crate::publication::PublicationError;
use feed::PublishError;
use pg::Retry;
use pg::database::{ConnectError, retry_of};
use pg::replication;

/// The database cannot be followed into this journal, now or later.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The journal belongs to another cluster.
    #[error(
        "the journal follows the database cluster {journal}, and this one is {database}: \
         give it another data directory, or remove the journal (subscribers are then reset)"
    )]
    OtherSystem {
        /// The system identifier that the journal has.
        journal: u64,
        /// The system identifier of this database.
        database: u64,
    },
    /// Nothing can be made durable any more.
    #[error("the journal's thread has ended: see the log for why, and start the service again")]
    JournalStopped,
    /// A row that nothing may go past.
    #[error(transparent)]
    BadRow(#[from] BadRow),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Replication(#[from] replication::Error),
    #[error("a question to the database failed")]
    Database(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Publication(#[from] PublicationError),
    #[error(
        "the replication slot {slot} belongs to {owner}: choose another name for ours, or drop that one with \
         select pg_drop_replication_slot('{slot}')"
    )]
    SlotOfAnother { slot: SlotName, owner: String },
    #[error(transparent)]
    Batch(BatchError),
    #[error(transparent)]
    Publish(PublishError),
    #[error("{0}: all subscribers are reset")]
    Untold(&'static str),
    #[error("no epoch begins until somebody mends this: {0}")]
    FactsFail(String),
    #[error("the database is shutting down")]
    ShuttingDown,
    #[error("the connection that watches the slot ended")]
    WatchEnded,
    #[error("{0}")]
    IdentityChanged(&'static str),
    #[error(
        "another process reads from the replication slot {slot} (the server's process {pid}): we wait until it ends, and \
         serve nobody until then; give each service a slot of its own unless one is to stand in for the other"
    )]
    HeldByAnother { slot: SlotName, pid: i32 },
    #[error("the server has not noticed yet that our connection of before is gone")]
    HeldByOurLast,
    #[error(
        "the database keeps {held} bytes of log for us, more than the {limit} that it may: the slot is given up, \
         and subscribers will be reset"
    )]
    TooMuchHeld { held: u64, limit: u64 },
}

impl From<BatchError> for SessionError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Layout(LayoutError::BadRow(row)) => Self::Run(row.into()),
            BatchError::Layout(LayoutError::Untold(what)) => Self::Untold(what),
            error => Self::Batch(error),
        }
    }
}

impl SessionError {
    /// Whether and when to begin another session.
    pub(super) fn retry(&self) -> Retry {
        match self {
            Self::Run(_) => Retry::Never,
            Self::Connect(error) => error.retry(),
            Self::Replication(error) => error.retry(),
            Self::Database(error) | Self::Publication(PublicationError::Database(error)) => retry_of(error),
            Self::Publication(
                PublicationError::NoTable(_)
                | PublicationError::Missing { .. }
                | PublicationError::Lacks { .. }
                | PublicationError::Subscribed(_),
            )
            | Self::SlotOfAnother { .. }
            | Self::FactsFail(_)
            | Self::Batch(_) => Retry::Operator,
            Self::Publish(_)
            | Self::Untold(_)
            | Self::HeldByAnother { .. }
            | Self::ShuttingDown
            | Self::WatchEnded
            | Self::HeldByOurLast
            | Self::IdentityChanged(_)
            | Self::TooMuchHeld { .. } => Retry::Backoff,
        }
    }

    fn sql_state(&self) -> Option<&str> {
        match self {
            Self::Connect(error) => error.sql_state(),
            Self::Replication(error) => error.sql_state(),
            Self::Database(error) | Self::Publication(PublicationError::Database(error)) => {
                error.code().map(tokio_postgres::error::SqlState::code)
            }
            _ => None,
        }
    }

    /// What somebody can do about it, where the server's own words do not say.
    fn remedy(&self) -> Option<&'static str> {
        match self.sql_state()? {
            "28P01" => Some("check user and password in the database URL"),
            "28000" => Some("allow this role in pg_hba.conf (a line for the database is enough)"),
            "3D000" => Some("check the database's name in the database URL"),
            "42501" => Some("grant the role what it lacks: 'alter role … replication', 'grant … to …'"),
            "53400" => Some("raise max_replication_slots, or drop a slot that nobody uses"),
            "53300" => Some("raise max_connections or max_wal_senders"),
            "55000" => Some("set wal_level = logical and restart the server"),
            _ => None,
        }
    }
}

/// An error with its causes and what to do, in one line.
pub(super) fn chain(error: &SessionError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let cause_text = cause.to_string().replace('\n', "; ");
        // Transparent errors repeat what they wrap.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    if let Some(remedy) = error.remedy() {
        text.push_str(" (");
        text.push_str(remedy);
        text.push(')');
    }
    text
}

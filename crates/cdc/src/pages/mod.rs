//! The connections by which layouts read the pages of replays.
//!
//! A page is a statement of its own, read to its end at once: no snapshot and no transaction outlives it, however slow
//! the client is that it goes to. A few connections serve everyone.

mod pool;

pub use pool::{Connection, Purpose, failure};

use crate::layout::RowContext;
use crate::tick;
use crate::wal_flush::WalFlush;
use feed::{Lsn, SourceError};
use pool::Pool;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::{Client, Error};

/// How long one page may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a layout's pages are made with.
#[derive(Clone, Debug)]
pub struct PageContext {
    pub(crate) database: pg::Database,
    pub(crate) wal_flush: WalFlush,
    /// What they have in common with the decoder.
    pub rows: RowContext,
}

/// What a layout prepares on each connection, when it is made.
pub trait Prepared: Send + Sync + Sized {
    /// Prepares what every page of this purpose needs.
    fn prepare(client: &Client, purpose: Purpose) -> impl Future<Output = Result<Self, Error>> + Send;
}

/// A few connections, each with what was [`Prepared`] on it.
pub struct PagePool<S> {
    pool: Pool<S>,
    wal_flush: WalFlush,
}

impl<S: Prepared> PagePool<S> {
    /// No connection is made before one is needed.
    pub fn new(context: &PageContext) -> Self {
        Self { pool: Pool::new(context.database.clone()), wal_flush: context.wal_flush.clone() }
    }

    /// Does what `work` does on one of the connections. That may have died while nobody used it: then once
    /// more, on a new one.
    pub async fn attempt<T, F>(
        &self,
        purpose: Purpose,
        work: impl Fn(Arc<Connection<S>>) -> F,
    ) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        let bounded = async |connection| {
            timeout(PATIENCE, work(connection)).await.unwrap_or_else(|_| {
                let told = format!("the tables were not read within {} s", PATIENCE.as_secs());
                Err(SourceError::Unavailable(told))
            })
        };
        let pooled = self.pool.get(purpose).await?;
        let failure = match bounded(pooled.connection()).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        let was_used_before = pooled.discard();
        if !was_used_before || matches!(failure, SourceError::Refused(_)) {
            return Err(failure);
        }
        let pooled = self.pool.get_new(purpose).await?;
        let answer = bounded(pooled.connection()).await;
        if answer.is_err() {
            pooled.discard();
        }
        answer
    }

    /// Waits until the log is on the database's disk up to this end, if it gives one. A page passes over a row that a commit
    /// has replaced or deleted, since its newer state will come from the feed. Were that commit lost, the old row would be
    /// there again, and no page would read it any more.
    pub async fn until_on_disk(&self, client: &Client, end: Option<Lsn>) -> Result<(), SourceError> {
        let failed = |error: tokio_postgres::Error| failure(&error);
        let Some(end) = end else { return Ok(()) };
        self.wal_flush.wait(client, end).await.map_err(failed)
    }

    /// Does what `work` does on a connection of its own, which is closed after it.
    pub async fn once<T, F>(
        &self,
        what: &str,
        work: impl FnOnce(Arc<Connection<S>>) -> F,
    ) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        let pooled = self.pool.get_new(Purpose::ByType).await?;
        let done = timeout(PATIENCE, work(pooled.connection())).await;
        pooled.close();
        done.unwrap_or_else(|_| {
            Err(SourceError::Unavailable(format!("{what} within {} s", PATIENCE.as_secs())))
        })
    }

    /// Writes a tick into the log. All other connections only read.
    pub async fn tick(&self) -> Result<(), SourceError> {
        let written = self.once("no tick could be written to the log", |connection| async move {
            connection.client.batch_execute(&tick::statement()).await.map_err(|error| failure(&error))
        });
        written.await
    }
}

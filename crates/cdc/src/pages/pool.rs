//! A few connections for pages, made when they are first needed.

use crate::{Database, Retry};
use feed::SourceError;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::Client;

/// How many pages are read at once.
const CONNECTIONS: usize = 4;

/// Plans may only follow the index of the page's order: a plan that sorts a large table, made on stale
/// statistics, would cost every page the whole table.
const SETTINGS: &str = "
    set default_transaction_read_only = on;
    set statement_timeout = '60s';
    set enable_seqscan = off;
    set enable_bitmapscan = off;
    set enable_sort = off;
    set enable_hashjoin = off;
    set enable_mergejoin = off;
    set jit = off;
    set max_parallel_workers_per_gather = 0;
    set datestyle = 'ISO';
    set client_encoding = 'UTF8'";

/// The connections.
pub(super) struct Pool {
    database: Database,
    idle: Arc<Mutex<Vec<Arc<Client>>>>,
    permits: Arc<Semaphore>,
}

/// A connection for as long as it is held; it goes back even if the page was given up in the middle: what is
/// left of that is read and dropped before the next statement's answer.
pub(super) struct Pooled {
    client: Arc<Client>,
    idle: Arc<Mutex<Vec<Arc<Client>>>>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(database: Database) -> Self {
        Self { database, idle: Arc::default(), permits: Arc::new(Semaphore::new(CONNECTIONS)) }
    }

    /// A connection, when one is free.
    pub(super) async fn get(&self) -> Result<Pooled, SourceError> {
        let stopped = |_| SourceError::Unavailable("the service is stopping".into());
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(stopped)?;
        let client = match self.idle_client() {
            Some(client) => client,
            None => Arc::new(self.connect().await?),
        };
        Ok(Pooled { client, idle: Arc::clone(&self.idle), _permit: permit })
    }

    fn idle_client(&self) -> Option<Arc<Client>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|client| !client.is_closed());
        idle.pop()
    }

    async fn connect(&self) -> Result<Client, SourceError> {
        let client = self.database.connect("fhir-tail pages").await.map_err(|error| {
            let text = crate::describe_error(&error);
            match error.retry() {
                Retry::Backoff => SourceError::Unavailable(text),
                Retry::Operator | Retry::Never => SourceError::Refused(text),
            }
        })?;
        client.batch_execute(SETTINGS).await.map_err(|error| failure(&error))?;
        Ok(client)
    }
}

/// What a failed statement means to a replay.
pub(super) fn failure(error: &tokio_postgres::Error) -> SourceError {
    // A server's own text can quote values; its code cannot.
    match error.code() {
        Some(code) => match Retry::of_sql_state(code.code()) {
            Retry::Backoff => {
                SourceError::Unavailable(format!("a page could not be read (SQLSTATE {})", code.code()))
            }
            Retry::Operator | Retry::Never => SourceError::Refused(format!(
                "a page could not be read (SQLSTATE {}): run fhir-tail check",
                code.code()
            )),
        },
        None => SourceError::Unavailable("the connection was lost while a page was read".into()),
    }
}

impl std::ops::Deref for Pooled {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if !self.client.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&self.client));
        }
    }
}

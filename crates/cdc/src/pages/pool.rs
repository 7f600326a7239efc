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

/// A connection for as long as it is held. It goes back even if the page was given up in the middle: what is
/// left of that is read and dropped before the next statement's answer.
pub(super) struct Pooled {
    client: Arc<Client>,
    idle: Arc<Mutex<Vec<Arc<Client>>>>,
    used_before: bool,
    good: bool,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(database: Database) -> Self {
        Self { database, idle: Arc::default(), permits: Arc::new(Semaphore::new(CONNECTIONS)) }
    }

    /// A connection, when one is free.
    pub(super) async fn get(&self) -> Result<Pooled, SourceError> {
        let permit = self.permit().await?;
        match self.idle_client() {
            Some(client) => Ok(self.pooled(client, true, permit)),
            None => Ok(self.pooled(Arc::new(self.connect().await?), false, permit)),
        }
    }

    /// A connection that is new, when one may be made.
    pub(super) async fn get_new(&self) -> Result<Pooled, SourceError> {
        let permit = self.permit().await?;
        Ok(self.pooled(Arc::new(self.connect().await?), false, permit))
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, SourceError> {
        let stopped = |_| SourceError::Unavailable("the service is stopping".into());
        Arc::clone(&self.permits).acquire_owned().await.map_err(stopped)
    }

    fn pooled(&self, client: Arc<Client>, used_before: bool, permit: OwnedSemaphorePermit) -> Pooled {
        Pooled { client, idle: Arc::clone(&self.idle), used_before, good: true, _permit: permit }
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

impl Pooled {
    pub(super) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    /// Closes the connection, after a failure on it; whether it had served a page before. What killed it may have
    /// killed the idle ones as well, which only shows when they are used: they are closed too.
    pub(super) fn discard(mut self) -> bool {
        self.good = false;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.used_before
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if self.good && !self.client.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&self.client));
        }
    }
}

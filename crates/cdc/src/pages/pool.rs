//! A few connections for pages, made when they are first needed.

use super::Prepared;
use feed::SourceError;
use pg::{Database, Encoding, Retry, Session};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// How many pages are read at once.
const CONNECTIONS: usize = 4;

/// The connections.
pub(super) struct Pool<S> {
    database: Database,
    /// That of the last connection.
    encoding: Mutex<Arc<Encoding>>,
    idle: Arc<Mutex<Vec<Arc<Connection<S>>>>>,
    permits: Arc<Semaphore>,
}

/// What a connection reads: the settings of its session decide how the server finds the rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Rows in the order of a page.
    ByType,
    /// Rows of some patients.
    ByPatient,
}

/// A connection, and what is prepared on it.
pub struct Connection<S> {
    /// The session.
    pub client: Client,
    /// That of the texts of rows.
    pub encoding: Arc<Encoding>,
    /// What the layout has prepared.
    pub statements: S,
    purpose: Purpose,
}

/// A connection for as long as it is held. It goes back even if the page was given up in the middle: what is
/// left of that is read and dropped before the next statement's answer.
pub(super) struct Pooled<S> {
    connection: Arc<Connection<S>>,
    idle: Arc<Mutex<Vec<Arc<Connection<S>>>>>,
    used_before: bool,
    good: bool,
    _permit: OwnedSemaphorePermit,
}

impl<S: Prepared> Pool<S> {
    pub(super) fn new(database: Database) -> Self {
        Self {
            database,
            encoding: Mutex::default(),
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    /// A connection, when one is free.
    pub(super) async fn get(&self, purpose: Purpose) -> Result<Pooled<S>, SourceError> {
        let permit = self.permit().await?;
        match self.idle_connection(purpose) {
            Some(connection) => Ok(self.pooled(connection, true, permit)),
            None => Ok(self.pooled(Arc::new(self.connect(purpose).await?), false, permit)),
        }
    }

    /// A connection that is new, when one may be made.
    pub(super) async fn get_new(&self, purpose: Purpose) -> Result<Pooled<S>, SourceError> {
        let permit = self.permit().await?;
        Ok(self.pooled(Arc::new(self.connect(purpose).await?), false, permit))
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, SourceError> {
        let stopped = |_| SourceError::Unavailable("the service is stopping".into());
        Arc::clone(&self.permits).acquire_owned().await.map_err(stopped)
    }

    fn pooled(
        &self,
        connection: Arc<Connection<S>>,
        used_before: bool,
        permit: OwnedSemaphorePermit,
    ) -> Pooled<S> {
        Pooled { connection, idle: Arc::clone(&self.idle), used_before, good: true, _permit: permit }
    }

    fn idle_connection(&self, purpose: Purpose) -> Option<Arc<Connection<S>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| !connection.client.is_closed());
        if let Some(found) = idle.iter().rposition(|connection| connection.purpose == purpose) {
            return Some(idle.remove(found));
        }
        // One more is made: those for the other purpose give way, so that no more are open than may be used at once.
        let others = idle.len().saturating_sub(self.permits.available_permits());
        idle.drain(..others);
        None
    }

    async fn connect(&self, purpose: Purpose) -> Result<Connection<S>, SourceError> {
        let session = match purpose {
            Purpose::ByType => Session::Pages,
            Purpose::ByPatient => Session::PatientPages,
        };
        let client = self.database.connect(session).await.map_err(|error| {
            let text = crate::describe_error(&error);
            match error.retry() {
                Retry::Backoff => SourceError::Unavailable(text),
                Retry::Operator | Retry::Never => SourceError::Refused(text),
            }
        })?;
        let failed = |error: tokio_postgres::Error| failure(&error);
        let last = Arc::clone(&self.encoding.lock().unwrap_or_else(PoisonError::into_inner));
        let prepared = tokio::try_join!(S::prepare(&client, purpose), Encoding::of(&client, &last));
        let (statements, encoding) = prepared.map_err(failed)?;
        *self.encoding.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&encoding);
        Ok(Connection { client, encoding, statements, purpose })
    }
}

/// What a failed statement means to a replay. Says nothing of what rows hold.
pub fn failure(error: &tokio_postgres::Error) -> SourceError {
    // A server's own text can quote values; its code cannot.
    match error.code() {
        // "cached plan must not change result type": on another connection the statement is prepared anew.
        Some(&SqlState::FEATURE_NOT_SUPPORTED) => {
            SourceError::Unavailable("the shape of the tables has changed".into())
        }
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

impl<S> Pooled<S> {
    pub(super) fn connection(&self) -> Arc<Connection<S>> {
        Arc::clone(&self.connection)
    }

    /// Closes the connection.
    pub(super) fn close(mut self) {
        self.good = false;
    }

    /// Closes the connection, after a failure on it; whether it had served a page before. What killed it may have
    /// killed the idle ones as well, which only shows when they are used: they are closed too.
    pub(super) fn discard(mut self) -> bool {
        self.good = false;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.used_before
    }
}

impl<S> Drop for Pooled<S> {
    fn drop(&mut self) {
        if self.good && !self.connection.client.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&self.connection));
        }
    }
}

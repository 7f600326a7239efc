//! Reading the journal from async code: the one way for subscribers.

use super::{JournalError, JournalReader};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const UNREADABLE: &str = "the journal cannot be read";
pub(crate) const DAMAGED: &str = "the journal is damaged";
/// The pause after a failed read.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Reads for subscribers. Clones read the same journal.
///
/// An implementation of [`JournalReader`] may block, on files or on a network. Each read therefore runs
/// on a blocking thread, and the subscriber awaits it here.
#[derive(Clone)]
pub(crate) struct Reader(Arc<dyn JournalReader>);

impl Reader {
    pub(crate) fn new(journal: Arc<dyn JournalReader>) -> Self {
        Self(journal)
    }

    /// Runs `read` on a blocking thread. See [`JournalError`] for what an error permits. A panic in `read`
    /// counts as damage. If the caller is dropped, `read` still runs to its end, without effect.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn JournalReader) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let journal = self.0.clone();
        match tokio::task::spawn_blocking(move || read(&*journal)).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => Err(JournalError::Corrupt("a read panicked")),
            // The runtime shuts down, and this task with it.
            Err(_) => std::future::pending().await,
        }
    }

    /// As [`read`](Self::read), where an error is the reason for the subscriber's reset. It is returned
    /// after a pause, so that the journal may have recovered when the subscriber reads again.
    pub(crate) async fn read_or_reset<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn JournalReader) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, &'static str> {
        match self.read(read).await {
            Ok(found) => Ok(found),
            Err(JournalError::Corrupt(what)) => {
                tracing::error!(what, "the journal is damaged: its readers are reset");
                tokio::time::sleep(RETRY_AFTER).await;
                Err(DAMAGED)
            }
            Err(error @ JournalError::Storage(_)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the journal cannot be read");
                tokio::time::sleep(RETRY_AFTER).await;
                Err(UNREADABLE)
            }
        }
    }
}

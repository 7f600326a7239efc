//! Reads the journal for one subscriber, off the async threads.

use super::{Journal, JournalError};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const UNREADABLE: &str = "the journal cannot be read";
pub(crate) const DAMAGED: &str = "the journal is damaged";
/// The pause after a failed read.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Runs `read` on a blocking thread. An error is the reason for the subscriber's reset. It is returned
/// after a pause, so that the journal may have recovered when the subscriber reads again.
pub(crate) async fn blocking_read<T: Send + 'static>(
    journal: &Arc<dyn Journal>,
    read: impl FnOnce(&dyn Journal) -> Result<T, JournalError> + Send + 'static,
) -> Result<T, &'static str> {
    let journal = journal.clone();
    match tokio::task::spawn_blocking(move || read(&*journal)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the journal cannot be read");
            tokio::time::sleep(RETRY_AFTER).await;
            Err(UNREADABLE)
        }
        Err(error) if error.is_panic() => Err(DAMAGED),
        // The runtime shuts down, and this task with it.
        Err(_) => std::future::pending().await,
    }
}

//! A look into the journal, which blocks on files, for one subscriber.

use crate::follow::RETRY_AFTER;
use crate::journal::{Journal, JournalError};
use std::sync::Arc;

pub(crate) const UNREADABLE: &str = "the journal cannot be read";
const DAMAGED: &str = "the journal is damaged";

/// Looks into it. An error is a reason for the subscriber to begin anew, after a pause: when it does, the journal may have recovered.
pub(crate) async fn look<T: Send + 'static>(
    journal: &Arc<dyn Journal>,
    look: impl FnOnce(&dyn Journal) -> Result<T, JournalError> + Send + 'static,
) -> Result<T, &'static str> {
    let journal = journal.clone();
    match tokio::task::spawn_blocking(move || look(&*journal)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the journal cannot be read");
            tokio::time::sleep(RETRY_AFTER).await;
            Err(UNREADABLE)
        }
        Err(error) if error.is_panic() => Err(DAMAGED),
        // The runtime ends, and this with it.
        Err(_) => std::future::pending().await,
    }
}

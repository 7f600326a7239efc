//! What a stream is told whose client takes nothing while others wait for the memory that it holds.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use tokio::sync::Notify;

/// Whether those who hold bytes that their clients do not take should give them up, by dropping the client: it
/// reconnects with its last id. Clones are the same.
#[derive(Clone, Default)]
pub struct Pressure(Arc<Inner>);

#[derive(Default)]
struct Inner {
    asked: Notify,
    /// Bytes that are still missing.
    missing: AtomicUsize,
    dropped: AtomicU64,
}

impl Pressure {
    /// Ends when bytes are asked for the next time.
    pub fn asked(&self) -> impl Future<Output = ()> + Send + 'static {
        let inner = Arc::clone(&self.0);
        async move { inner.asked.notified().await }
    }

    /// Whether these bytes are still missing: then their holder gives them up. Those who ask first are those who hold
    /// theirs for longest.
    pub fn gives_up(&self, bytes: usize) -> bool {
        let missing = self
            .0
            .missing
            .fetch_update(Relaxed, Relaxed, |missing| (missing > 0).then(|| missing.saturating_sub(bytes)));
        if missing.is_ok() {
            self.0.dropped.fetch_add(1, Relaxed);
        }
        missing.is_ok()
    }

    /// Asks for so many bytes, from now on and no more for what was asked for before.
    pub(crate) fn ask_for(&self, bytes: usize) {
        self.0.missing.store(bytes, Relaxed);
        self.0.asked.notify_waiters();
    }

    /// How many clients were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }
}

//! Limits how many pages of the tables are read at the same time.

use crate::delivery::count_guard::CountGuard;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Permits to read a page. One is held while a page is read, not while it is sent.
pub(crate) struct PagePermits {
    free: Semaphore,
    waiting: AtomicUsize,
}

impl PagePermits {
    /// At most so many pages are read at the same time, and at least one.
    pub(crate) fn new(permits: usize) -> Self {
        Self { free: Semaphore::new(permits.max(1)), waiting: AtomicUsize::new(0) }
    }

    /// Waits for a permit.
    pub(crate) async fn take(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(permit) = self.free.try_acquire() {
            return Some(permit);
        }
        let _waiting = CountGuard::new(&self.waiting);
        // The semaphore is never closed.
        self.free.acquire().await.ok()
    }

    /// How many pages wait for a permit.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }
}

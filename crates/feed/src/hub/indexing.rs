//! Large sets of patients on their way into the index, and out of it, a few patients at a time: nobody who publishes or joins waits
//! for a hundred thousand of them.

use super::{Hub, Inner};
use crate::routing::routes::{AT_ONCE, Work};
use parking_lot::MutexGuard;
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

impl Hub {
    /// What wakes who keeps the index.
    pub(crate) fn indexing(&self) -> Arc<Notify> {
        self.indexing.clone()
    }

    pub(super) fn index_soon(&self, inner: &MutexGuard<'_, Inner>) {
        if inner.routes.has_work() {
            self.indexing.notify_one();
        }
    }

    fn proceed(&self, work: &Work, hashes: &[u64]) -> bool {
        self.inner.lock().routes.proceed(work, hashes)
    }
}

/// Keeps the index for as long as there is a hub.
pub(crate) async fn keep_index(hub: Weak<Hub>, wake: Arc<Notify>) {
    loop {
        wake.notified().await;
        while let Some(work) = hub.upgrade().and_then(|hub| hub.inner.lock().routes.next_work()) {
            let mut ids = work.patients.iter();
            loop {
                let hashes: Vec<u64> = ids.by_ref().take(AT_ONCE).map(|id| work.hash(id)).collect();
                if !hub.upgrade().is_some_and(|hub| hub.proceed(&work, &hashes)) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        if hub.strong_count() == 0 {
            return;
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.indexing.notify_one();
    }
}

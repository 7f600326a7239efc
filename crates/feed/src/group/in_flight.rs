//! Work that many ask for at the same time is done once for all of them.

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use tokio_util::task::AbortOnDropHandle;

/// The answers that are being worked for, by what is asked.
pub(super) struct InFlight<K, T: Clone>(Mutex<HashMap<K, WeakShared<BoxFuture<'static, T>>>>);

impl<K, T: Clone> Default for InFlight<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, T: Clone + Send + 'static> InFlight<K, T> {
    /// The answer that is being worked for, or that of `work`, which begins now. It runs in a task, because the first
    /// to ask may be a client that reads nothing for hours, and is aborted when nobody waits for it. `lost` is the
    /// answer if it panics.
    pub(super) fn join<F>(&self, key: &K, lost: T, work: impl FnOnce() -> F) -> Shared<BoxFuture<'static, T>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut answers = self.0.lock();
        if let Some(answer) = answers.get(key).and_then(WeakShared::upgrade) {
            return answer;
        }
        answers.retain(|_, answer| answer.upgrade().is_some());
        let task = AbortOnDropHandle::new(tokio::spawn(work()));
        let answer = async move { task.await.unwrap_or(lost) }.boxed().shared();
        answers.extend(answer.downgrade().map(|answer| (key.clone(), answer)));
        answer
    }

    /// Has the next to ask begin other work.
    pub(super) fn close(&self, key: &K) {
        self.0.lock().remove(key);
    }
}

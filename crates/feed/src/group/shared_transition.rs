//! One run of a change of members for all subscribers at the same position: the feed up to the change,
//! the transition, and what follows until the stream is settled again (rule 22).
//!
//! A task reads and frames it once, as one subscriber would, and the subscribers pass its items on. No
//! subscriber waits for another: the task keeps just ahead of the fastest, and its items are kept for the
//! others, up to a limit. Beyond the limit, or when the memory is needed elsewhere, a subscriber
//! continues alone from the last id that it got, as a client does that reconnects with it.

use super::members::MOMENT;
use super::stop::End;
use super::stream::GroupStream;
use crate::delivery::budget::Reclaim;
use crate::delivery::subscription::{Generated, Generator};
use crate::shared::Shared;
use crate::subscriber::{FeedCursor, Subscriber};
use crate::{Anchor, EventId, Item};
use fhir::{Filter, Instant};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use tokio::sync::watch;
use tokio::time::{Instant as Clock, sleep};
use tokio_util::task::AbortOnDropHandle;

/// Bytes of frames that are kept for slower subscribers.
const MOST: usize = 8 << 20;
/// Items that the task may be ahead of the fastest subscriber.
const AHEAD: usize = 4;

/// The shared transitions that run, or ended a moment ago.
#[derive(Default)]
pub(crate) struct SharedTransitions(Mutex<HashMap<Start, Weak<SharedTransition>>>);

/// Subscribers with the same start get the same items.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Start {
    filter: Filter,
    run: u64,
    /// The last entry before the members change.
    from: Anchor,
}

/// One shared transition.
pub(super) struct SharedTransition {
    log: Arc<TransitionLog>,
    /// Whether it is kept for late subscribers.
    kept: AtomicBool,
    /// Aborted when the last subscriber leaves.
    _task: AbortOnDropHandle<()>,
}

/// The items so far.
struct TransitionLog {
    log: Mutex<LogState>,
    /// Limit of its bytes.
    most: usize,
    /// Wakes the subscribers that wait for more, ...
    more: watch::Sender<()>,
    /// ... and the task, when more is wanted.
    wanted: watch::Sender<usize>,
}

#[derive(Default)]
struct LogState {
    items: Vec<(Item, Option<EventId>)>,
    bytes: usize,
    /// How many items were dropped: all that there were then.
    dropped: usize,
    end: Option<End>,
    touched: Option<Clock>,
}

impl SharedTransitions {
    /// The shared transition that starts there: a new one, or one that runs or ended a moment ago.
    pub(super) fn join(
        &self,
        shared: &Arc<Shared>,
        filter: &Filter,
        from: &FeedCursor,
    ) -> Arc<SharedTransition> {
        let FeedCursor { run, last, safe_time, .. } = *from;
        let start = Start { filter: filter.clone(), run, from: last };
        let mut shared_transitions = self.0.lock();
        if let Some(transition) = shared_transitions.get(&start).and_then(Weak::upgrade) {
            return transition;
        }
        let transition = Arc::new(SharedTransition::begin(shared, filter.clone(), (run, last, safe_time)));
        shared_transitions.retain(|_, transition| transition.strong_count() > 0);
        shared_transitions.insert(start, Arc::downgrade(&transition));
        transition
    }
}

impl SharedTransition {
    fn begin(shared: &Arc<Shared>, filter: Filter, from: (u64, Anchor, Instant)) -> Self {
        let log = Arc::new(TransitionLog {
            log: Mutex::default(),
            most: MOST.min(shared.page_budget.bytes() / 4),
            more: watch::Sender::new(()),
            wanted: watch::Sender::new(0),
        });
        for budget in [&shared.budget, &shared.page_budget] {
            let reclaim: Arc<dyn Reclaim> = log.clone();
            budget.may_reclaim(Arc::downgrade(&reclaim));
        }
        let work = {
            let shared = shared.clone();
            Generator::new(|out| async move {
                let subscriber = Subscriber { shared, filter, out };
                match GroupStream::of(&subscriber) {
                    Some(mut stream) => stream.run_shared(from).await,
                    None => End::Unshared,
                }
            })
        };
        let task = AbortOnDropHandle::new(tokio::spawn(run(work, log.clone())));
        Self { log, kept: AtomicBool::new(false), _task: task }
    }

    /// The item with this number, or the end. Can be dropped at any await point.
    pub(super) async fn next(self: &Arc<Self>, n: usize) -> Generated<End> {
        let mut more = self.log.more.subscribe();
        loop {
            match self.log.get(n) {
                Some(Generated::End(end)) => {
                    self.keep();
                    return Generated::End(end);
                }
                Some(item) => return item,
                // The senders live as long as `self`.
                None => drop(more.changed().await),
            }
        }
    }

    /// Keeps it for a moment, for late subscribers.
    fn keep(self: &Arc<Self>) {
        if !self.kept.swap(true, Relaxed) {
            let transition = self.clone();
            tokio::spawn(async move {
                sleep(MOMENT).await;
                drop(transition);
            });
        }
    }
}

/// Ends the log also if the task panics: its subscribers would wait for ever otherwise.
struct EndOnDrop(Arc<TransitionLog>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(End::Unshared);
    }
}

async fn run(mut work: Generator<End>, log: Arc<TransitionLog>) {
    let _guard = EndOnDrop(log.clone());
    let mut wanted = log.wanted.subscribe();
    let mut given = 0;
    let end = loop {
        // The sender is in `told`.
        let _ = wanted.wait_for(|wanted| *wanted + AHEAD > given).await;
        match work.next().await {
            Generated::End(end) => break end,
            Generated::Item(item, id) => {
                if !log.add(item, id) {
                    break End::Unshared;
                }
                given += 1;
            }
        }
    };
    // Frees what the task holds before the subscribers continue.
    drop(work);
    log.end(end);
}

impl TransitionLog {
    fn get(&self, n: usize) -> Option<Generated<End>> {
        let mut log = self.log.lock();
        log.touched = Some(Clock::now());
        if n < log.dropped {
            return Some(Generated::End(End::Unshared));
        }
        let found =
            log.items.get(n - log.dropped).map(|(item, id)| Generated::Item(item.clone(), id.clone()));
        let found = found.or_else(|| log.end.clone().map(Generated::End));
        drop(log);
        self.wanted.send_if_modified(|wanted| {
            let more = *wanted < n;
            *wanted = n.max(*wanted);
            more
        });
        found
    }

    /// Adds an item; false if it cannot be kept for others.
    fn add(&self, item: Item, id: Option<EventId>) -> bool {
        let bytes = match &item {
            // A large resource is never held whole.
            Item::Frames(frames) if frames.open => return false,
            Item::Frames(frames) => frames.bytes.len(),
            Item::Notice(_) | Item::Waiting(_) => 0,
        };
        let mut log = self.log.lock();
        let bytes = log.bytes + bytes + size_of::<(Item, Option<EventId>)>();
        if log.dropped > 0 || bytes > self.most {
            return false;
        }
        log.bytes = bytes;
        log.touched = Some(Clock::now());
        log.items.push((item, id));
        drop(log);
        self.more.send_replace(());
        true
    }

    fn end(&self, end: End) {
        self.log.lock().end.get_or_insert(end);
        self.more.send_replace(());
    }
}

impl Reclaim for TransitionLog {
    fn untouched_since(&self) -> Option<(Clock, usize)> {
        let log = self.log.lock();
        log.touched.filter(|_| !log.items.is_empty()).map(|touched| (touched, log.bytes))
    }

    fn reclaim(&self) -> usize {
        let mut log = self.log.lock();
        let bytes = std::mem::take(&mut log.bytes);
        let items = std::mem::take(&mut log.items);
        log.dropped += items.len();
        log.end.get_or_insert(End::Unshared);
        drop(log);
        drop(items);
        self.more.send_replace(());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn panic_of_the_task_lets_no_subscriber_wait() {
        let log = Arc::new(TransitionLog {
            log: Mutex::default(),
            most: MOST,
            more: watch::Sender::new(()),
            wanted: watch::Sender::new(0),
        });
        let mut more = log.more.subscribe();
        assert!(log.get(0).is_none());
        let work = Generator::new(|_| async { panic!("seeded") });
        let task = tokio::spawn(run(work, log.clone()));
        let woken = tokio::time::timeout(Duration::from_secs(60), more.changed()).await;
        woken.expect("the subscriber is woken").unwrap();
        assert!(matches!(log.get(0), Some(Generated::End(End::Unshared))));
        assert!(task.await.unwrap_err().is_panic());
    }
}

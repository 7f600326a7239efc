//! One course of a change of members, for all subscribers who stand where it begins: the feed up to where the members change, what
//! that means, and what follows until all of it was told (rule 22).
//!
//! A task reads and frames it once, as if it were one of them; they pass on what it got. Nobody waits for anybody: the task keeps
//! just ahead of the fastest, and what it got is kept, up to a limit, for the others. Beyond the limit, or if the memory is
//! needed elsewhere, each goes on alone from the last id that he got, as if he had come back with it.

use super::members::MOMENT;
use super::stream::{GroupStream, Stop};
use crate::budget::Reclaim;
use crate::feed::Shared;
use crate::subscriber::{FeedCursor, Subscriber};
use crate::subscription::{Generated, Generator};
use crate::{Anchor, EventId, Item};
use fhir::{Filter, Instant};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use tokio::sync::watch;
use tokio::time::{Instant as Clock, sleep};
use tokio_util::task::AbortOnDropHandle;

/// Frames of more bytes than this are not kept for others.
const MOST: usize = 8 << 20;
/// So many items it is ahead of the fastest.
const AHEAD: usize = 4;

/// The courses that are on their way, or were a moment ago.
#[derive(Default)]
pub(crate) struct Courses(Mutex<HashMap<Start, Weak<Course>>>);

/// Where it begins, and for whom: what is told from there on is the same for all.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Start {
    filter: Filter,
    run: u64,
    /// The last entry before the members change.
    from: Anchor,
}

/// A course.
pub(super) struct Course {
    told: Arc<Told>,
    /// Whether it is kept for those who come late.
    kept: AtomicBool,
    /// When nobody is left it ends.
    _task: AbortOnDropHandle<()>,
}

/// How it ends.
#[derive(Clone)]
pub(super) enum End {
    /// The members are known and all was told that this means.
    Settled { run: u64, last: Anchor, safe_time: Instant },
    /// It stops, for all in the same way.
    Stopped(Stop),
    /// What follows is not shared.
    Alone,
}

/// What was told so far.
struct Told {
    log: Mutex<Log>,
    /// Bytes that it may come to.
    most: usize,
    /// Wakes who waits for more, ...
    more: watch::Sender<()>,
    /// ... and the task, when more is wanted.
    wanted: watch::Sender<usize>,
}

#[derive(Default)]
struct Log {
    items: Vec<(Item, Option<EventId>)>,
    bytes: usize,
    /// So many items were dropped, which is all there were then.
    dropped: usize,
    end: Option<End>,
    touched: Option<Clock>,
}

impl Courses {
    /// The course that begins there, or began a moment ago.
    pub(super) fn enter(&self, shared: &Arc<Shared>, filter: &Filter, from: &FeedCursor) -> Arc<Course> {
        let FeedCursor { run, last, safe_time, .. } = *from;
        let start = Start { filter: filter.clone(), run, from: last };
        let mut courses = self.0.lock();
        if let Some(course) = courses.get(&start).and_then(Weak::upgrade) {
            return course;
        }
        let course = Arc::new(Course::begin(shared, filter.clone(), (run, last, safe_time)));
        courses.retain(|_, course| course.strong_count() > 0);
        courses.insert(start, Arc::downgrade(&course));
        course
    }
}

impl Course {
    fn begin(shared: &Arc<Shared>, filter: Filter, from: (u64, Anchor, Instant)) -> Self {
        let told = Arc::new(Told {
            log: Mutex::default(),
            most: MOST.min(shared.page_budget.bytes() / 4),
            more: watch::Sender::new(()),
            wanted: watch::Sender::new(0),
        });
        for budget in [&shared.budget, &shared.page_budget] {
            let reclaim: Arc<dyn Reclaim> = told.clone();
            budget.may_reclaim(Arc::downgrade(&reclaim));
        }
        let work = {
            let shared = shared.clone();
            Generator::new(|out| async move {
                let subscriber = Subscriber { shared, filter, out };
                match GroupStream::of(&subscriber) {
                    Some(mut stream) => stream.course(from).await,
                    None => End::Alone,
                }
            })
        };
        let task = AbortOnDropHandle::new(tokio::spawn(run(work, told.clone())));
        Self { told, kept: AtomicBool::new(false), _task: task }
    }

    /// What was told as the n-th, or how it ended.
    pub(super) async fn next(self: &Arc<Self>, n: usize) -> Generated<End> {
        let mut more = self.told.more.subscribe();
        loop {
            match self.told.get(n) {
                Some(Generated::End(end)) => {
                    self.keep();
                    return Generated::End(end);
                }
                Some(item) => return item,
                // The task lives as long as this.
                None => drop(more.changed().await),
            }
        }
    }

    /// Keeps it for a moment, for those who come a little later.
    fn keep(self: &Arc<Self>) {
        if !self.kept.swap(true, Relaxed) {
            let course = self.clone();
            tokio::spawn(async move {
                sleep(MOMENT).await;
                drop(course);
            });
        }
    }
}

/// Without this, those who pass on what it told would wait for ever if the task panicked.
struct EndAnyway(Arc<Told>);

impl Drop for EndAnyway {
    fn drop(&mut self) {
        self.0.end(End::Alone);
    }
}

async fn run(mut work: Generator<End>, told: Arc<Told>) {
    let _guard = EndAnyway(told.clone());
    let mut wanted = told.wanted.subscribe();
    let mut given = 0;
    let end = loop {
        // The sender is in `told`.
        let _ = wanted.wait_for(|wanted| *wanted + AHEAD > given).await;
        match work.next().await {
            Generated::End(end) => break end,
            Generated::Item(item, id) => {
                if !told.add(item, id) {
                    break End::Alone;
                }
                given += 1;
            }
        }
    };
    // What it holds is free before others go on.
    drop(work);
    told.end(end);
}

impl Told {
    fn get(&self, n: usize) -> Option<Generated<End>> {
        let mut log = self.log.lock();
        log.touched = Some(Clock::now());
        if n < log.dropped {
            return Some(Generated::End(End::Alone));
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

    /// Takes in an item; false if it cannot be kept for others.
    fn add(&self, item: Item, id: Option<EventId>) -> bool {
        let bytes = match &item {
            // Of what is large nobody keeps the whole.
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

impl Reclaim for Told {
    fn untouched_since(&self) -> Option<(Clock, usize)> {
        let log = self.log.lock();
        log.touched.filter(|_| !log.items.is_empty()).map(|touched| (touched, log.bytes))
    }

    fn reclaim(&self) -> usize {
        let mut log = self.log.lock();
        let bytes = std::mem::take(&mut log.bytes);
        let items = std::mem::take(&mut log.items);
        log.dropped += items.len();
        log.end.get_or_insert(End::Alone);
        drop(log);
        drop(items);
        self.more.send_replace(());
        bytes
    }
}

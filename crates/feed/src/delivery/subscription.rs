//! One subscriber: replay, journal and hub, one after the other, as one stream.

use crate::{EventId, SourceError};
use bytes::Bytes;
use fhir::{Instant, ResourceType};
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

/// Where a subscriber begins.
#[derive(Clone, Debug)]
pub enum Begin {
    /// At the state of the tables: all of it, or what was stamped after an instant (then with deletions).
    Since(Option<Instant>),
    /// After an event that it got. If that cannot be, at a reset, which goes back to `since` where the id
    /// itself does not say from where.
    After {
        /// The id it came with; `None` if it was unreadable, which is a reset.
        id: Option<EventId>,
        /// The request's own `_since`.
        since: Option<Instant>,
    },
}

/// What a subscriber is told besides changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// All that there was at the beginning has been sent; from here on changes come as they are committed.
    Live {
        /// The instant to use as the next `_since`.
        transaction_time: Instant,
    },
    /// Nothing was sent for a while, and the head or the time has moved.
    Position {
        /// As of `Live`, as it is now.
        transaction_time: Instant,
    },
    /// The current state follows, or the rest of it.
    Estimated {
        /// About how many resources of each type it is, as a whole.
        totals: Vec<(ResourceType, u64)>,
    },
    /// What was sent is old: the database is away, or the feed is behind its log.
    Stale {
        /// As of `Live`: what is younger may be missing.
        transaction_time: Instant,
    },
    /// After `Stale`: the feed has caught up with the database.
    Fresh {
        /// As of `Live`, as it is now.
        transaction_time: Instant,
    },
    /// The id cannot be continued: what follows is the newest state of all that changed after an instant.
    Reset {
        /// Why, in a sentence for people.
        reason: &'static str,
    },
    /// The members of the request's Group have changed, and what that means was sent.
    Members {
        /// So many came.
        joined: usize,
        /// So many left.
        left: usize,
    },
    /// As `Reset`, and what has not come again by `live` is to be dropped.
    ResetAll {
        /// Why, in a sentence for people.
        reason: &'static str,
    },
}

/// How many events of each name, in no order.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct EventCounts(Vec<(ResourceType, u64)>);

impl EventCounts {
    /// Adds one event.
    pub(crate) fn count(&mut self, event: ResourceType) {
        match self.0.iter_mut().find(|(name, _)| *name == event) {
            Some((_, count)) => *count += 1,
            None => self.0.push((event, 1)),
        }
    }

    /// So many events of one name.
    pub(crate) fn of(event: ResourceType, count: u64) -> Self {
        Self(vec![(event, count)])
    }

    /// The names and how many of each.
    pub fn iter(&self) -> impl Iterator<Item = (ResourceType, u64)> + '_ {
        self.0.iter().copied()
    }

    /// How many events in all.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}

impl FromIterator<ResourceType> for EventCounts {
    fn from_iter<I: IntoIterator<Item = ResourceType>>(events: I) -> Self {
        let mut counts = Self::default();
        events.into_iter().for_each(|event| counts.count(event));
        counts
    }
}

/// Frames of several changes, shared among subscribers where they can be.
#[derive(Clone, Debug)]
pub struct Frames {
    /// The frames as they are sent.
    pub bytes: Bytes,
    /// The events that end in them.
    pub counts: Arc<EventCounts>,
    /// The last frame goes on in the item that comes next: nothing else may be sent before that.
    pub open: bool,
}

/// What a subscriber gets next.
#[derive(Clone, Debug)]
pub enum Item {
    /// Changes.
    Frames(Frames),
    /// Something to be told.
    Notice(Notice),
    /// What the subscriber waits for, in a sentence for people: for logs, not for the client.
    Waiting(String),
}

/// One item on its way, with the id of everything up to it; without one it moves nothing.
type Slot = Arc<Mutex<Option<(Item, Option<EventId>)>>>;

/// Work that hands items over, one after the other; it only runs while the next is waited for.
pub(crate) struct Generator<T> {
    work: Pin<Box<dyn Future<Output = T> + Send>>,
    slot: Slot,
}

/// What work gives.
pub(crate) enum Generated<T> {
    /// An item, with the id of everything up to it; without one it moves nothing.
    Item(Item, Option<EventId>),
    /// What it ends with.
    End(T),
}

/// The other end: takes one item at a time.
pub(crate) struct ItemSender(Slot);

impl<T> Generator<T> {
    pub(crate) fn new<F>(work: impl FnOnce(ItemSender) -> F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        let slot = Slot::default();
        Self { work: Box::pin(work(ItemSender(slot.clone()))), slot }
    }

    /// What comes next. Can be dropped at any await point and called again, until it has ended.
    pub(crate) async fn next(&mut self) -> Generated<T> {
        std::future::poll_fn(|context| {
            if let Poll::Ready(end) = self.work.as_mut().poll(context) {
                return Poll::Ready(Generated::End(end));
            }
            self.slot.lock().take().map_or(Poll::Pending, |(item, id)| Poll::Ready(Generated::Item(item, id)))
        })
        .await
    }

    /// What it ends with: nobody hears the items.
    pub(crate) async fn end(mut self) -> T {
        loop {
            if let Generated::End(end) = self.next().await {
                return end;
            }
        }
    }
}

/// The stream of one subscriber. Dropping it costs nobody anything.
pub struct Subscription {
    items: Generator<SourceError>,
    id: EventId,
}

impl Subscription {
    pub(crate) fn new<F>(id: EventId, work: impl FnOnce(ItemSender) -> F) -> Self
    where
        F: Future<Output = SourceError> + Send + 'static,
    {
        Self { items: Generator::new(work), id }
    }

    /// What comes next; `Err` ends the stream. Can be dropped at any await point and called again.
    pub async fn next(&mut self) -> Result<Item, SourceError> {
        match self.items.next().await {
            Generated::Item(item, id) => {
                // A waiting subscriber has passed nothing.
                if let Some(id) = id {
                    self.id = id;
                }
                Ok(item)
            }
            Generated::End(error) => Err(error),
        }
    }

    /// The id of everything that [`next`](Self::next) has returned so far: of the starting position
    /// before the first, then of the position passed.
    pub fn id(&self) -> EventId {
        self.id.clone()
    }
}

impl ItemSender {
    /// Hands an item over, with the id of everything up to it, and waits until another is wanted: nothing
    /// is prepared, and nothing taken that others could use, for a client that does not read.
    pub(crate) fn send(&self, item: Item, id: EventId) -> impl Future<Output = ()> {
        self.put(item, Some(id))
    }

    /// Says what the subscriber waits for.
    pub(crate) async fn report_waiting(&self, what: String) {
        self.put(Item::Waiting(what), None).await;
    }

    /// Puts an item there at once: the future, which every subscriber has room for, holds none.
    pub(crate) fn put(&self, item: Item, id: Option<EventId>) -> impl Future<Output = ()> {
        *self.0.lock() = Some((item, id));
        // Polled again when it was taken: both ends belong to the same task.
        std::future::poll_fn(|_| if self.0.lock().is_some() { Poll::Pending } else { Poll::Ready(()) })
    }
}

//! The live hub: who listens to what, and the head of the feed.
//!
//! Subscribers with an equal filter share a channel. A published batch is matched once for each channel that
//! its types concern, framed once into one run of bytes, and handed to all who listen there. One lock
//! covers the head and the channels, taken once for a batch and once for a join: that is what makes a
//! joining point exact.

mod head;
mod indexing;
mod joined;

pub(crate) use head::Head;
pub(crate) use indexing::keep_index;
pub(crate) use joined::{Joined, Next};

use crate::delivery::budget::{Budget, Reservation};
use crate::delivery::subscription::EventCounts;
use crate::journal::{State, is_large};
use crate::routing::change_filter::ChangeFilter;
use crate::routing::routes::Routes;
use crate::{Anchor, Batch, Change, EventId, Framing, Kind, LARGE_BYTES, Position, Watermark};
use bytes::Bytes;
use fhir::{Filter, Instant, ResourceType, Verdict, write_out_of_scope};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use tokio::sync::{Notify, broadcast};

/// Batches that a subscriber may be behind before it goes to the journal.
const CAPACITY: usize = 128;
/// What a frame takes besides its data, about.
const FRAME_BYTES: usize = 128;
/// Watermarks that wait for the feed to pass their fence LSN. A walsender that is further behind gets older ones, which is safe.
const PENDING_WATERMARKS: usize = 4096;

/// The hub.
pub(crate) struct Hub {
    inner: Mutex<Inner>,
    framing: Arc<dyn Framing>,
    budget: Budget,
    /// There is a large set to be put into the index, or taken out of it.
    indexing: Arc<Notify>,
}

/// What goes through a channel.
#[derive(Clone)]
pub(crate) enum ChannelMessage {
    Chunk(Arc<Chunk>),
    /// There was no room for a chunk: the journal has it.
    Skipped,
    /// The feed has become stale, or fresh, at this head: all before it went through the channel before this.
    Freshness(Arc<Head>),
}

/// Frames of the changes of one batch that concern one filter.
pub(crate) struct Chunk {
    /// The last change of the batch, whether it concerned the filter or not.
    pub(crate) last: Anchor,
    /// What the ids of the batch carry.
    pub(crate) safe_time: Instant,
    /// Taken away by the hub, oldest first, when the budget is needed elsewhere: the journal has them.
    frames: Mutex<Option<Bytes>>,
    /// Of each frame: its position, the name of its event, and where it ends.
    pub(crate) ends: Box<[(Position, ResourceType, usize)]>,
    /// The events of all of them, counted once for all subscribers.
    pub(crate) counts: Arc<EventCounts>,
}

struct Inner {
    head: Head,
    pending: VecDeque<Watermark>,
    channels: HashMap<Key, usize>,
    /// By number; a number is used again when its channel is gone.
    slots: Vec<Option<Channel>>,
    free: Vec<usize>,
    routes: Routes,
    /// Where each Group changed last, since the service started.
    groups: HashMap<Box<str>, Position>,
    /// The last tick, since the service started.
    ticked: Position,
    /// Channels that the batch in hand concerns.
    touched: Vec<usize>,
    /// What was sent and may not have been taken yet, oldest first.
    sent: VecDeque<Weak<Chunk>>,
    /// When it is this long, what was taken is swept out.
    sweep_at: usize,
}

const SWEEP_AT: usize = 1024;

/// What those who share a channel have in common: the request, and who is a member of its Group.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    filter: Filter,
    /// Where the set of members lies in memory, which is shared: it lives as long as the channel.
    members: usize,
}

impl Key {
    fn of(change_filter: &ChangeFilter) -> Self {
        let members = match change_filter {
            ChangeFilter::Request(_) => 0,
            ChangeFilter::Members(members) => Arc::as_ptr(&members.send).addr(),
        };
        Self { filter: change_filter.filter().clone(), members }
    }
}

struct Channel {
    key: Key,
    change_filter: ChangeFilter,
    /// What ids say of the filter.
    scope: Option<u32>,
    sender: broadcast::Sender<ChannelMessage>,
    /// The changes of the batch in hand that concern it, by their number, and whether they make a resource leave that still
    /// exists.
    changes: Vec<(usize, bool)>,
}

/// Bundles that tell of resources which leave a scope, by the number of the change in its batch.
#[derive(Default)]
struct Removals(HashMap<usize, Vec<u8>>);

impl Removals {
    /// Makes the one of a change, unless it is there. It fails of a resource without an id, which cannot be streamed.
    fn make(&mut self, index: usize, change: &Change) -> bool {
        if self.0.contains_key(&index) {
            return true;
        }
        let mut removal = Vec::new();
        let made = fhir::stored_id(&change.data).is_some_and(|id| {
            write_out_of_scope(change.resource_type, id, change.stamp, &mut removal).is_ok()
        });
        if made {
            self.0.insert(index, removal);
        }
        made
    }
}

impl Hub {
    pub(crate) fn new(state: &State, framing: Arc<dyn Framing>, budget: Budget) -> Self {
        let inner = Inner {
            head: Head::of(state),
            pending: VecDeque::new(),
            channels: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            routes: Routes::new(),
            groups: HashMap::new(),
            ticked: Position::ZERO,
            touched: Vec::new(),
            sent: VecDeque::new(),
            sweep_at: SWEEP_AT,
        };
        Self { inner: Mutex::new(inner), framing, budget, indexing: Arc::default() }
    }

    pub(crate) fn head(&self) -> Head {
        self.inner.lock().head
    }

    /// Notes a watermark: it counts for ids once the feed is beyond its fence LSN. Whether it is one of this epoch.
    pub(crate) fn note_watermark(&self, epoch: u64, watermark: Watermark) -> bool {
        let mut inner = self.inner.lock();
        if inner.head.epoch != epoch {
            return false;
        }
        inner.head.watermark = Some(watermark);
        if inner.pending.len() == PENDING_WATERMARKS {
            // Every other one will do.
            let mut keep = false;
            inner.pending.retain(|_| {
                keep = !keep;
                keep
            });
        }
        inner.pending.push_back(watermark);
        inner.head.pass(&watermark);
        true
    }

    /// Resets the hub: every listener finds its channel closed.
    pub(crate) fn begin(&self, state: &State) {
        let mut inner = self.inner.lock();
        inner.head = Head { stale: inner.head.stale, ..Head::of(state) };
        inner.pending.clear();
        inner.channels.clear();
        inner.slots.clear();
        inner.free.clear();
        inner.routes.clear();
        inner.groups.clear();
        inner.ticked = Position::ZERO;
    }

    /// Publishes a batch, whose changes all lie beyond the head, and returns what its ids carry.
    pub(crate) fn publish(&self, batch: &Batch) -> Instant {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        if let Some((first, last)) = batch.changes.first().zip(batch.last_anchor()) {
            while let Some(watermark) = inner.pending.front().copied()
                && watermark.fence_lsn <= first.position.commit_lsn
            {
                inner.head.safe_time = inner.head.safe_time.max(watermark.safe_time);
                inner.pending.pop_front();
            }
            let removals = inner.match_channels(batch);
            self.send(inner, batch, &removals, last);
            inner.head.last = last;
        }
        if let Some(passed) = batch.passed {
            inner.head.received = inner.head.received.max(passed);
            for index in 0..inner.pending.len() {
                let watermark = inner.pending[index];
                if watermark.fence_lsn > inner.head.received {
                    break;
                }
                inner.head.pass(&watermark);
            }
        }
        inner.head.safe_time
    }

    /// Frames and sends, one channel after the other: what is held at once is one channel's.
    fn send(&self, inner: &mut Inner, batch: &Batch, removals: &Removals, last: Anchor) {
        if inner.touched.is_empty() {
            return;
        }
        let Head { run, safe_time, .. } = inner.head;
        let transactions = batch.transaction_hashes();
        let mut ids = vec![String::new(); batch.changes.len()];
        let mut id_in_scope = String::new();
        for number in std::mem::take(&mut inner.touched) {
            let Some(channel) = &mut inner.slots[number] else { continue };
            let wanted = std::mem::take(&mut channel.changes);
            let (sender, scope) = (channel.sender.clone(), channel.scope);
            let length = |(change, leaves): &(usize, bool)| {
                let data = if *leaves { 0 } else { batch.changes[*change].data.len() };
                data + FRAME_BYTES
            };
            let size: usize = wanted.iter().map(length).sum();
            // What is large is read from the journal, piece by piece.
            let is_large = |(change, leaves): &(usize, bool)| !leaves && is_large(&batch.changes[*change]);
            let large = size > LARGE_BYTES && wanted.iter().any(is_large);
            let Some(held) = (if large { None } else { self.room(inner, size) }) else {
                // Without a listener left, which is about to close the channel, there is nobody to miss it.
                let _ = sender.send(ChannelMessage::Skipped);
                continue;
            };
            let mut frames = Vec::with_capacity(size);
            let mut ends = Vec::with_capacity(wanted.len());
            for (index, leaves) in wanted {
                let change = &batch.changes[index];
                let anchor = Anchor { position: change.position, transaction: transactions[index] };
                // Of all who ask for everybody's resources it is the same.
                let id = match scope {
                    None => &mut ids[index],
                    Some(_) => {
                        id_in_scope.clear();
                        &mut id_in_scope
                    }
                };
                if id.is_empty() {
                    EventId::live(run, scope, anchor, safe_time).write(id);
                }
                let (event, data) = match removals.0.get(&index) {
                    Some(removal) if leaves => (ResourceType::BUNDLE, &removal[..]),
                    _ => (change.kind.event(change.resource_type), &change.data[..]),
                };
                self.framing.frame(id, event, data, &mut frames);
                ends.push((change.position, event, frames.len()));
            }
            let frames = Mutex::new(Some(Reservation::attach(Some(held), frames)));
            let counts = Arc::new(ends.iter().map(|(_, event, _)| *event).collect());
            let chunk = Arc::new(Chunk { last, safe_time, frames, ends: ends.into_boxed_slice(), counts });
            inner.remember(&chunk);
            let _ = sender.send(ChannelMessage::Chunk(chunk));
        }
    }

    /// Room for a chunk; if there is none, what was sent and not taken makes room, oldest first. Who is so
    /// far behind goes on in the journal.
    fn room(&self, inner: &mut Inner, size: usize) -> Option<Reservation> {
        loop {
            if let Some(held) = self.budget.try_take(size) {
                return Some(held);
            }
            if let Some(chunk) = inner.sent.pop_front()?.upgrade() {
                chunk.frames.lock().take();
            }
        }
    }

    /// Tells all who listen that the feed has become stale, or fresh again; who joins later finds it in the head.
    pub(crate) fn set_stale(&self, stale: bool) {
        let mut inner = self.inner.lock();
        inner.head.stale = stale;
        let head = Arc::new(inner.head);
        for channel in inner.slots.iter().flatten() {
            // No listener is left.
            let _ = channel.sender.send(ChannelMessage::Freshness(Arc::clone(&head)));
        }
    }

    /// Enters the channel of a filter, or of a filter and of members who are known as of a position: the head, if one of their
    /// Groups has changed since.
    pub(crate) fn join(
        self: &Arc<Self>,
        change_filter: &ChangeFilter,
        as_of: Position,
    ) -> Result<Joined, Head> {
        let key = Key::of(change_filter);
        let mut inner = self.inner.lock();
        if let ChangeFilter::Members(members) = change_filter {
            let changed = |id: &str| inner.groups.get(id).is_some_and(|last| *last > as_of);
            let ticked = members.has_periods && inner.ticked > as_of;
            if ticked || members.groups.iter().any(|id| changed(id)) {
                return Err(inner.head);
            }
        }
        let number = match inner.channels.get(&key) {
            Some(number) => *number,
            None => inner.open(&key, change_filter),
        };
        self.index_soon(&inner);
        let receiver = inner.slots[number].as_ref().map(|channel| channel.sender.subscribe());
        Ok(Joined { receiver, head: inner.head, key, hub: self.clone() })
    }

    fn leave(&self, key: &Key) {
        let mut inner = self.inner.lock();
        let Some(number) = inner.channels.get(key).copied() else { return };
        let deserted =
            inner.slots[number].as_ref().is_some_and(|channel| channel.sender.receiver_count() == 0);
        if deserted {
            inner.close(number);
            self.index_soon(&inner);
        }
    }
}

impl Inner {
    fn open(&mut self, key: &Key, change_filter: &ChangeFilter) -> usize {
        let channel = Channel {
            key: key.clone(),
            change_filter: change_filter.clone(),
            scope: change_filter.filter().scope_hash32(),
            sender: broadcast::Sender::new(CAPACITY),
            changes: Vec::new(),
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number] = Some(channel);
                number
            }
            None => {
                self.slots.push(Some(channel));
                self.slots.len() - 1
            }
        };
        self.channels.insert(key.clone(), number);
        self.routes.add(number, change_filter);
        number
    }

    /// Its remaining listeners continue in the journal.
    fn close(&mut self, number: usize) {
        if let Some(channel) = self.slots[number].take() {
            self.channels.remove(&channel.key);
            self.routes.remove(number, &channel.change_filter);
            self.free.push(number);
        }
    }

    /// Which channels a batch concerns, and with which changes; and what tells of those that make a resource leave a scope.
    fn match_channels(&mut self, batch: &Batch) -> Removals {
        let Self { routes, slots, touched, groups, ticked, .. } = self;
        let (mut removals, mut blind) = (Removals::default(), Vec::new());
        for (index, change) in batch.changes.iter().enumerate() {
            if change.tick.is_some() {
                *ticked = change.position;
                blind.extend(routes.with_periods());
                continue;
            }
            if change.resource_type == ResourceType::GROUP
                && let Some(id) = change.id()
            {
                groups.insert(id.into(), change.position);
                // Who follows its members finds the change in the journal, and who they are then.
                blind.extend(routes.of_group(id));
            }
            routes.each(change, |number| {
                let Some(channel) = &mut slots[number] else { return };
                let leaves = match channel.scope {
                    None => false,
                    // It is concerned for several patients.
                    Some(_) if channel.changes.last().is_some_and(|(last, _)| *last == index) => return,
                    Some(_) => match channel.change_filter.change(change) {
                        Some(Verdict::Nothing) => return,
                        Some(Verdict::Send) => false,
                        Some(Verdict::Remove) if change.kind == Kind::Deletion => false,
                        Some(Verdict::Remove) if removals.make(index, change) => true,
                        Some(Verdict::Remove) | None => return blind.push(number),
                    },
                };
                if channel.changes.is_empty() {
                    touched.push(number);
                }
                channel.changes.push((index, leaves));
            });
        }
        for number in blind {
            self.close(number);
        }
        removals
    }

    fn remember(&mut self, chunk: &Arc<Chunk>) {
        if self.sent.len() >= self.sweep_at {
            self.sent.retain(|sent| sent.strong_count() > 0);
            self.sweep_at = SWEEP_AT.max(2 * self.sent.len());
        }
        self.sent.push_back(Arc::downgrade(chunk));
    }
}

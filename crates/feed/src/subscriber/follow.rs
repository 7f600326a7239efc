//! Following: the one way to read the feed, for the slow, the resumed and the live alike.
//!
//! The journal up to what is on disk, then the channel of the filter; whoever lags there goes back to the
//! journal. Before it joins, a subscriber enters the channel and reads the head under one lock: that is
//! the joining point, up to which it reads the journal, and beyond which the channel has everything.

use crate::delivery::frame_queue::FrameQueue;
use crate::delivery::large_frame::LargeFrame;
use crate::delivery::read_size::ReadSize;
use crate::delivery::subscription::ItemSender;
use crate::group::{AsOf, NoMembers};
use crate::hub::{Chunk, Head, Joined, Next};
use crate::idle_timer;
use crate::journal::{DAMAGED, Durable, JournalError, RETRY_AFTER};
use crate::routing::change_filter::ChangeFilter;
use crate::shared::Shared;
use crate::subscriber::read::{Ids, JournalRead, LargeEntry, Passed, Phase, READ_BYTES, read};
use crate::{Anchor, EventId, Frames, Item, Lsn, Notice, Position, SourceError};
use bytes::Bytes;
use fhir::{Compartment, Instant};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant as Clock, sleep_until};

/// After this long without an event a subscriber is told how far it is.
const POSITION_EVERY: Duration = Duration::from_secs(60);
pub(crate) const OTHER_HISTORY: &str =
    "the database's history is another than the one that the event id is of: it was restored from a copy";
const AHEAD: &str = "the change that the event id names has to come again from the database";
/// Who waits outside of the channels looks this often whether the feed has become stale.
const LOOK: Duration = Duration::from_secs(1);

/// Why a subscriber cannot resume from where it stands; `since` is from where its reset goes on.
pub(crate) struct Lost {
    pub(crate) since: Instant,
    pub(crate) run: u64,
    /// Of the last thing it got.
    pub(crate) id: EventId,
    /// Nothing shows that what it has is of this history.
    pub(crate) forked: bool,
    pub(crate) reason: &'static str,
    /// A frame has begun that will not end: nothing more can be told.
    pub(crate) in_frame: bool,
}

/// Why following has ended.
pub(crate) enum Ended {
    /// The subscriber cannot resume from where it stands.
    Lost(Box<Lost>),
    /// With the next entry the members of its Group change.
    Moves,
    /// Its Group is gone: why, for the client.
    Gone(String),
    /// The database does not answer.
    Source(SourceError),
}

impl From<Lost> for Ended {
    fn from(lost: Lost) -> Self {
        Self::Lost(Box::new(lost))
    }
}

/// One subscriber's place in the feed.
pub(crate) struct Follow<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) change_filter: ChangeFilter,
    pub(crate) out: &'a ItemSender,
    pub(crate) run: u64,
    /// What ids say besides the position.
    pub(crate) ids: Ids,
    /// Everything up to here was passed.
    pub(crate) last: Anchor,
    /// Whether that is known to be of this history.
    pub(crate) trust: Trust,
    /// What a live id of the position carries.
    pub(crate) safe_time: Instant,
    /// Whether `live` was said.
    pub(crate) live: bool,
    /// The position of the last id that was sent.
    told: Position,
    /// What was stamped at or before it has been sent; at least the safe time.
    complete: Instant,
    /// The `complete` that was told last.
    told_complete: Instant,
    /// Whether `stale` was said last, not `fresh`.
    pub(crate) told_stale: bool,
    /// When the next `position` is due.
    quiet: Clock,
}

/// What is known of the place that a subscriber came with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trust {
    /// The feed has passed it, and it was the same.
    Verified,
    /// It is compared when the feed passes it.
    Compared {
        /// The run that gave the id out.
        run: u64,
        /// Whether what is known of that run shows already that it is of this history.
        proven: bool,
    },
}

impl<'a> Follow<'a> {
    pub(crate) fn new(
        shared: &'a Arc<Shared>,
        change_filter: ChangeFilter,
        out: &'a ItemSender,
        run: u64,
        (last, trust): (Anchor, Trust),
        safe_time: Instant,
    ) -> Self {
        let quiet = Clock::now() + POSITION_EVERY;
        Self {
            shared,
            ids: Ids { scope: change_filter.filter().scope_hash32(), phase: Phase::Plain },
            change_filter,
            out,
            run,
            last,
            trust,
            safe_time,
            live: false,
            told: last.position,
            complete: safe_time,
            told_complete: safe_time,
            told_stale: false,
            quiet,
        }
    }

    /// Runs until the subscriber is lost, or the members of its Group change.
    pub(crate) async fn run(&mut self) -> Ended {
        loop {
            if let Err(ended) = self.follow_once().await {
                return ended;
            }
        }
    }

    /// Follows until everything committed before a place in the log was passed.
    pub(crate) async fn until(&mut self, fence_lsn: Lsn) -> Result<(), Ended> {
        Box::pin(self.journal_to(Some(fence_lsn))).await
    }

    async fn follow_once(&mut self) -> Result<(), Ended> {
        Box::pin(self.journal_to(None)).await?;
        let shared = self.shared;
        let mut joined = match shared.hub.join(&self.change_filter, self.last.position) {
            Ok(joined) => joined,
            // A Group has changed since: that is on its way to the journal.
            Err(head) => {
                self.same_run(head.run)?;
                return Box::pin(self.journal_up_to(head)).await;
            }
        };
        self.same_run(joined.head.run)?;
        Box::pin(self.journal_up_to(joined.head)).await?;
        if !std::mem::replace(&mut self.live, true) {
            self.is_at(&joined.head);
            // Said before, for a client that reads no further than `live`, ...
            self.tell_freshness(joined.head.stale).await;
            let transaction_time = self.complete();
            self.notice(Notice::Live { transaction_time }).await;
            // ... and again: `live` as the last word would look as if all were well.
            self.told_stale = false;
        }
        self.tell_freshness(joined.head.stale).await;
        self.channel(&mut joined).await;
        Ok(())
    }

    /// Reads what is on disk, without a place in a channel, and waits for more up to a place in the log, while there is a cutover, or
    /// while the place that the subscriber came with has not been passed: the change there, which its client has, was lost in a crash of ours, and
    /// comes again; or it was never in this history.
    async fn journal_to(&mut self, fence_lsn: Option<Lsn>) -> Result<(), Ended> {
        let mut durable = self.shared.durable.clone();
        loop {
            let on_disk = *durable.borrow_and_update();
            self.same_run(on_disk.run)?;
            self.journal(on_disk.head).await?;
            self.compare_with_head(&on_disk)?;
            if self
                .ids
                .cutover()
                .is_some_and(|watermark| passed(&on_disk, self.last.position, watermark.fence_lsn))
            {
                self.ids.phase = Phase::Plain;
            }
            let there = fence_lsn.is_none_or(|fence_lsn| passed(&on_disk, self.last.position, fence_lsn));
            if there && self.ids.cutover().is_none() && self.trust == Trust::Verified {
                return Ok(());
            }
            if self.trust != Trust::Verified {
                self.out.report_waiting(AHEAD.into()).await;
            }
            tokio::select! {
                changed = durable.changed() => if changed.is_err() { std::future::pending().await },
                () = sleep_until(self.quiet.min(Clock::now() + LOOK)) => {
                    self.tell_freshness(self.shared.hub.head().stale).await;
                    if Clock::now() >= self.quiet {
                        self.tell_position().await;
                    }
                }
            }
        }
    }

    /// Compares the place that the subscriber came with, where nothing that follows it was read.
    fn compare_with_head(&mut self, on_disk: &Durable) -> Result<(), Ended> {
        if self.trust == Trust::Verified {
            return Ok(());
        }
        if self.last == on_disk.head {
            self.trust = Trust::Verified;
        } else if on_disk.head.position >= self.last.position || on_disk.lsn > self.last.position.commit_lsn {
            return Err(self.other_history().into());
        }
        Ok(())
    }

    /// Waits until the joining point is on disk, and reads up to it.
    async fn journal_up_to(&mut self, head: Head) -> Result<(), Ended> {
        let mut durable = self.shared.durable.clone();
        let there =
            |durable: &Durable| durable.run != head.run || durable.head.position >= head.last.position;
        let on_disk = durable.wait_for(there).await.ok().map(|durable| *durable);
        let Some(on_disk) = on_disk else { return std::future::pending().await };
        self.same_run(on_disk.run)?;
        self.journal(head.last).await
    }

    /// Reads the journal up to a position that is on disk.
    async fn journal(&mut self, until: Anchor) -> Result<(), Ended> {
        let mut read_size = ReadSize::new(READ_BYTES);
        while self.last.position < until.position {
            self.tell_freshness(self.shared.hub.head().stale).await;
            let held = self.shared.budget.take(read_size.bytes()).await;
            let wanted = JournalRead {
                run: self.run,
                from: self.last,
                verified: self.trust == Trust::Verified,
                until,
                change_filter: self.change_filter.clone(),
                ids: self.ids,
                safe_time: self.safe_time,
                bytes: read_size.bytes(),
            };
            let framing = self.shared.framing.clone();
            let read = self.shared.journal.read(move |journal| read(journal, &*framing, &wanted)).await;
            let mut read = match read {
                Ok(read) => read,
                Err(JournalError::Corrupt(what)) => {
                    tracing::error!(what, "the journal is damaged: its readers are reset");
                    return Err(self.lost(DAMAGED).into());
                }
                Err(error @ JournalError::Storage(_)) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the journal cannot be read: retrying"
                    );
                    drop(held);
                    tokio::time::sleep(RETRY_AFTER).await;
                    continue;
                }
            };
            self.same_run(self.shared.durable.borrow().run)?;
            if read.other_history {
                return Err(self.other_history().into());
            }
            let stopped = read.large.is_some() || read.unknown || read.group_change.is_some();
            let ended = read.last.position == self.last.position && !stopped;
            if !ended {
                self.trust = Trust::Verified;
            }
            let begun = Clock::now();
            if !self.deliver(read.frame_queue(&self.shared.budget, held)).await {
                read_size.reclaimed();
                continue;
            }
            read_size.record(begun.elapsed(), self.shared.budget.waiting() > 0);
            self.last = read.last;
            self.safe_time = self.safe_time.max(read.safe_time.unwrap_or(self.safe_time));
            if let Some(large) = read.large {
                self.large(large).await?;
                continue;
            }
            if read.unknown {
                return Err(self.lost("the log does not have what a resource was before a change").into());
            }
            if let Some(change) = read.group_change {
                self.handle_group_change(change).await?;
                continue;
            }
            if read.gap {
                return Err(self.lost("what follows that event is no longer kept").into());
            }
            if ended {
                // Between the position and the end there are no entries left.
                self.last = until;
            }
        }
        Ok(())
    }

    /// Looks at a change of a Group, the next entry, before it is passed.
    async fn handle_group_change(&mut self, change: Position) -> Result<(), Ended> {
        let ChangeFilter::Members(change_filter) = &mut self.change_filter else { return Ok(()) };
        let Compartment::Group { id, only } = &change_filter.filter.compartment else { return Ok(()) };
        let as_of = AsOf { shared: self.shared, out: self.out, id, only: only.as_ref() };
        let members = match as_of.members(change).await {
            Ok(members) => members,
            Err(NoMembers::Gone(why)) => return Err(Ended::Gone(why)),
            Err(NoMembers::NotKept(why)) => return Err(self.lost(why).into()),
            Err(NoMembers::Source(error)) => return Err(Ended::Source(error)),
        };
        match self.ids.phase {
            Phase::Plain | Phase::Cutover(_) if members.patients != change_filter.send => {
                return Err(Ended::Moves);
            }
            Phase::Plain | Phase::Cutover(_) => {
                change_filter.groups = members.groups;
                change_filter.has_periods = members.next.is_some();
            }
            Phase::Moving { .. } | Phase::Fading { .. } => {
                change_filter.send = change_filter.send.and(&members.patients);
                // What a client of a `_since` has may be of somebody who was a member since then, for a while.
                change_filter.had = change_filter.had.or(&members.patients);
                change_filter.groups =
                    Arc::new(change_filter.groups.union(&members.groups).cloned().collect());
                change_filter.has_periods |= members.next.is_some();
            }
        }
        change_filter.handled = change;
        Ok(())
    }

    /// Sends a large entry, part by part.
    async fn large(&mut self, large: LargeEntry) -> Result<(), Ended> {
        let LargeEntry { anchor, event, length, safe_time } = large;
        let passed = self.id();
        let frame = LargeFrame { shared: self.shared, out: self.out, budget: &self.shared.budget };
        frame.begin(&self.ids.at(self.run, anchor, safe_time), event, &passed).await;
        if let Err(error) = frame.parts(anchor.position, length, &passed).await {
            tracing::warn!(%error, "a large change cannot be read from the journal: its stream ends");
            return Err(Lost { in_frame: true, ..self.lost("what was being sent cannot be read") }.into());
        }
        self.last = anchor;
        self.safe_time = self.safe_time.max(safe_time);
        self.quiet = Clock::now() + POSITION_EVERY;
        self.told = anchor.position;
        frame.end(self.id(), event).await;
        Ok(())
    }

    /// Sends the pieces; whether none was taken back.
    async fn deliver(&mut self, queue: FrameQueue<Passed>) -> bool {
        while let Some(buffer) = queue.take() {
            let Passed { framed, last, safe_time } = buffer.place;
            self.last = last;
            self.safe_time = self.safe_time.max(safe_time);
            self.frames(buffer.frames, framed).await;
        }
        !queue.reclaimed()
    }

    /// The channel, until it reports that the subscriber lagged or is closed.
    async fn channel(&mut self, joined: &mut Joined) {
        let mut alarm = pin!(sleep_until(self.quiet));
        loop {
            tokio::select! {
                biased;
                next = joined.next() => match next {
                    Some(Next::Chunk(chunk, frames)) => self.chunk(&chunk, &frames).await,
                    Some(Next::Freshness(head)) => {
                        self.is_at(&head);
                        self.tell_freshness(head.stale).await;
                    }
                    None => return,
                },
                () = idle_timer(alarm.as_mut(), self.quiet) => {
                    if let Some(head) = joined.idle_head() {
                        self.is_at(&head);
                    }
                    self.tell_position().await;
                }
            }
        }
    }

    async fn chunk(&mut self, chunk: &Chunk, frames: &Bytes) {
        if chunk.last.position <= self.last.position {
            return;
        }
        // A client that saw what our crash lost is ahead of the feed that comes again.
        let first = chunk.ends.partition_point(|(position, _, _)| *position <= self.last.position);
        let start =
            first.checked_sub(1).and_then(|before| chunk.ends.get(before)).map_or(0, |(_, _, end)| *end);
        self.last = chunk.last;
        self.safe_time = self.safe_time.max(chunk.safe_time);
        if first < chunk.ends.len() {
            let counts = if first == 0 {
                Arc::clone(&chunk.counts)
            } else {
                Arc::new(chunk.ends.iter().skip(first).map(|(_, event, _)| *event).collect())
            };
            let framed = chunk.ends.last().map_or(self.last.position, |(position, _, _)| *position);
            self.frames(Frames { bytes: frames.slice(start..), counts, open: false }, framed).await;
        }
    }

    /// All that was published up to this head has been passed.
    fn is_at(&mut self, head: &Head) {
        if head.last.position > self.last.position {
            self.last = head.last;
            self.safe_time = self.safe_time.max(head.safe_time);
        }
        // The fence LSN of that watermark was received: who stamped at or before its safe time committed before that, and was published.
        self.complete =
            self.complete.max(head.passed_watermark.map_or(self.safe_time, |watermark| watermark.safe_time));
    }

    /// The instant after which a `_since` misses nothing that was not sent.
    fn complete(&mut self) -> Instant {
        self.complete = self.complete.max(self.safe_time);
        self.complete
    }

    /// Tells the position, or the time, if it has moved since it was told.
    async fn tell_position(&mut self) {
        self.quiet = Clock::now() + POSITION_EVERY;
        let transaction_time = self.complete();
        if self.last.position > self.told || transaction_time > self.told_complete {
            self.notice(Notice::Position { transaction_time }).await;
        }
    }

    /// Tells whether what is sent is old, if that has changed since it was told.
    async fn tell_freshness(&mut self, stale: bool) {
        if stale == self.told_stale {
            return;
        }
        self.told_stale = stale;
        let transaction_time = self.complete();
        let notice =
            if stale { Notice::Stale { transaction_time } } else { Notice::Fresh { transaction_time } };
        self.notice(notice).await;
    }

    fn frames(&mut self, frames: Frames, framed: Position) -> impl Future<Output = ()> {
        self.quiet = Clock::now() + POSITION_EVERY;
        self.told = framed;
        self.out.send(Item::Frames(frames), self.id())
    }

    fn notice(&mut self, notice: Notice) -> impl Future<Output = ()> {
        self.told = self.last.position;
        self.told_complete = self.complete;
        self.out.send(Item::Notice(notice), self.id())
    }

    pub(crate) fn id(&self) -> EventId {
        let run = match self.trust {
            Trust::Verified => self.run,
            Trust::Compared { run, .. } => run,
        };
        self.ids.at(run, self.last, self.safe_time)
    }

    fn same_run(&self, run: u64) -> Result<(), Ended> {
        if run == self.run {
            Ok(())
        } else {
            Err(self.lost("the database's history or the journal is another").into())
        }
    }

    fn other_history(&self) -> Lost {
        Lost { forked: true, ..self.lost(OTHER_HISTORY) }
    }

    pub(crate) fn lost(&self, reason: &'static str) -> Lost {
        let forked = matches!(self.trust, Trust::Compared { proven: false, .. });
        Lost { since: self.safe_time, run: self.run, id: self.id(), reason, forked, in_frame: false }
    }
}

/// Whether everything committed before the fence LSN lies before the position.
fn passed(on_disk: &Durable, position: Position, fence_lsn: Lsn) -> bool {
    position.commit_lsn >= fence_lsn || (on_disk.lsn >= fence_lsn && position >= on_disk.head.position)
}

//! One subscriber of a Group: its members' resources, then their changes, and what a change of members means.

use super::as_of::{AsOf, Span};
use super::members::{Members, NoMembers};
use super::stop::{End, Stop};
use super::transition::{Change, Transition};
use crate::delivery::subscription::Generated;
use crate::id::{GroupPages, MembersChange, Place, Replaying};
use crate::journal::Durable;
use crate::replay::{Replay, persist};
use crate::routing::change_filter::{ChangeFilter, MemberFilter};
use crate::subscriber::follow::{Ended, Follow, Trust};
use crate::subscriber::read::{Ids, Phase};
use crate::subscriber::{FeedCursor, Subscriber};
use crate::{Anchor, Begin, EventId, Item, Lsn, Notice, Position, SourceError, Watermark};
use fhir::{Compartment, Instant, Patients, ResourceType};

const NOT_KNOWN: &str = "it is no longer known who was a member at the request's _since";
const CAME_BACK: &str = "the Group was deleted, or could not be followed, and is there again";

/// What a subscriber does next.
enum Step {
    /// Sends all that belongs to the members, from the beginning of the request or of a reset.
    Begin { since: Option<Instant>, id: EventId },
    /// Sends what the change of members means.
    Transition(Box<Change>),
    /// Follows the feed.
    Follow(FeedCursor, Phase),
    /// Follows the feed from where the members change, with all who stand there.
    JoinShared(FeedCursor),
    /// Is told that it cannot go on, and begins again.
    Reset { id: EventId, reason: &'static str },
}

/// A stream of a Group.
pub(crate) struct GroupStream<'a> {
    pub(super) subscriber: &'a Subscriber,
    pub(super) id: &'a str,
    only: Option<&'a Patients>,
    /// Whether `live` was said.
    live: bool,
    /// Whether `stale` was said last, not `fresh`.
    told_stale: bool,
}

impl<'a> GroupStream<'a> {
    /// The stream of a request for a Group; `None` if it is for something else.
    pub(crate) fn of(subscriber: &'a Subscriber) -> Option<Self> {
        match &subscriber.filter.compartment {
            Compartment::Group { id, only } => {
                Some(Self { subscriber, id, only: only.as_ref(), live: false, told_stale: false })
            }
            Compartment::Any | Compartment::AnyPatient | Compartment::Patients(_) => None,
        }
    }

    /// Runs until the Group is gone, or the database refuses for good.
    pub(crate) async fn run(&mut self, begin: Box<Begin>) -> SourceError {
        let mut step = Box::pin(self.enter(begin)).await;
        loop {
            step = match step {
                Ok(next) => self.step(next).await,
                Err(Stop::End(error)) => return error,
                Err(Stop::Reset(id, reason)) => self.step(Step::Reset { id: *id, reason }).await,
                Err(Stop::Gone(id, why)) => Box::pin(self.gone(id, why)).await,
            };
        }
    }

    async fn step(&mut self, step: Step) -> Result<Step, Stop> {
        match step {
            Step::Begin { since, id } => Box::pin(self.begin(since, id)).await,
            Step::Transition(change) => Box::pin(self.transition(*change)).await,
            // Who follows keeps this future, perhaps for days.
            Step::Follow(from, phase) => self.follow(from, phase).await,
            Step::JoinShared(from) => Box::pin(self.follow_shared(from)).await,
            Step::Reset { id, reason } => {
                self.subscriber.tell_reset(None, id, reason, true).await?;
                self.live = false;
                Ok(Step::Begin { since: None, id: self.anew() })
            }
        }
    }

    /// From where the members change until that has been told, for all who stand there.
    pub(super) async fn run_shared(&mut self, (run, last, safe_time): (u64, Anchor, Instant)) -> End {
        let from = FeedCursor::reached(run, last, safe_time);
        let mut step = Ok(Step::Follow(from, Phase::Moving { from: last }));
        loop {
            step = match step {
                Ok(Step::Follow(FeedCursor { run, last, safe_time, .. }, Phase::Plain)) => {
                    return End::Settled { run, last, safe_time };
                }
                Ok(next @ (Step::Follow(..) | Step::Transition(_))) => self.step(next).await,
                Ok(Step::Begin { .. } | Step::JoinShared(_) | Step::Reset { .. }) => return End::Unshared,
                Err(stop) => return End::Stopped(stop),
            };
        }
    }

    /// Passes on what is told of a change of members to all who stand there.
    async fn follow_shared(&mut self, from: FeedCursor) -> Result<Step, Stop> {
        let Subscriber { shared, filter, out } = self.subscriber;
        let transition = shared.shared_transitions.join(shared, filter, &from);
        let mut passed = None;
        for n in 0.. {
            let given = transition.next(n).await;
            if shared.durable.borrow().run != from.run {
                break;
            }
            match given {
                Generated::Item(Item::Notice(Notice::Stale { .. }), _) if self.told_stale => {}
                Generated::Item(Item::Notice(Notice::Fresh { .. }), _) if !self.told_stale => {}
                Generated::Item(item, id) => {
                    match &item {
                        Item::Notice(Notice::Stale { .. }) => self.told_stale = true,
                        Item::Notice(Notice::Fresh { .. }) => self.told_stale = false,
                        Item::Notice(_) | Item::Frames(_) | Item::Waiting(_) => {}
                    }
                    passed = id.clone().or(passed);
                    out.put(item, id).await;
                }
                Generated::End(End::Settled { run, last, safe_time }) => {
                    return Ok(Step::Follow(FeedCursor::reached(run, last, safe_time), Phase::Plain));
                }
                Generated::End(End::Stopped(stop)) => return Err(stop),
                Generated::End(End::Unshared) => break,
            }
        }
        match passed {
            None => {
                let phase = Phase::Moving { from: from.last };
                Ok(Step::Follow(from, phase))
            }
            // What the id says is all that is to be known.
            Some(id) => self.enter(Begin::After { id: Some(id), since: None }.into()).await,
        }
    }

    pub(super) fn as_of(&self) -> AsOf<'_> {
        AsOf { shared: &self.subscriber.shared, out: &self.subscriber.out, id: self.id, only: self.only }
    }

    /// What it means that the members cannot be told.
    pub(super) fn unknown(why: NoMembers, id: &EventId) -> Stop {
        match why {
            NoMembers::Gone(why) => Stop::Gone(id.clone().into(), why),
            NoMembers::NotKept(why) => Stop::Reset(id.clone().into(), why),
            NoMembers::Source(error) => Stop::End(error),
        }
    }

    /// Ends, unless the Group has come back since: who comes to that place again would be told of the end again, for ever.
    async fn gone(&self, id: Box<EventId>, why: String) -> Result<Step, Stop> {
        let head = self.subscriber.shared.durable.borrow().head;
        match self.as_of().members(head.position).await {
            Ok(_) => Err(Stop::Reset(id, CAME_BACK)),
            Err(NoMembers::Gone(_)) => Err(Stop::End(SourceError::Gone(why))),
            Err(other) => Err(Self::unknown(other, &id)),
        }
    }

    async fn members(&self, at: Anchor, id: &EventId) -> Result<Members, Stop> {
        self.as_of().members(at.position).await.map_err(|why| Self::unknown(why, id))
    }

    async fn span(&self, from: Anchor, to: Anchor, id: &EventId) -> Result<Span, Stop> {
        let span = self.as_of().span(from.position, to.position).await;
        span.map_err(|why| Self::unknown(why, id))
    }

    /// What an id is still good for.
    async fn enter(&self, begin: Box<Begin>) -> Result<Step, Stop> {
        let subscriber = self.subscriber;
        subscriber.ids_known().await;
        let (id, since) = match *begin {
            Begin::Since(since) => return Ok(Step::Begin { since, id: EventId::beginning() }),
            Begin::After { id: Some(id), since } => (id, since),
            Begin::After { id: None, .. } => {
                return Err(Stop::Reset(
                    EventId::beginning().into(),
                    "the event id is not one of this service",
                ));
            }
        };
        let admitted = |standing: Result<FeedCursor, &'static str>| {
            standing.map_err(|why| Stop::Reset(id.clone().into(), why))
        };
        match id.0.clone() {
            Place::Beginning => Ok(Step::Begin { since, id }),
            Place::Anew { .. } if id == self.anew() => Ok(Step::Begin { since: None, id }),
            Place::Live { run, scope, anchor, safe_time } if scope == self.scope() => {
                let standing = admitted(subscriber.standing(run, (anchor, safe_time)).await?)?;
                Ok(Step::Follow(standing, Phase::Plain))
            }
            Place::Changing { run, scope, anchor, change, safe_time } if Some(scope) == self.scope() => {
                let standing = admitted(subscriber.standing(run, (anchor, safe_time)).await?)?;
                let MembersChange { from, fading } = *change;
                let phase = match fading {
                    None => Phase::Moving { from },
                    Some((to, until)) => Phase::Fading { from, to, until },
                };
                Ok(Step::Follow(standing, phase))
            }
            Place::Cutover { run, scope, anchor, watermark, safe_time } if scope == self.scope() => {
                let standing = admitted(subscriber.standing(run, (anchor, safe_time)).await?)?;
                Ok(Step::Follow(standing, Phase::Cutover(watermark)))
            }
            Place::Replay(pages) => Ok(Step::Transition(self.resumed(pages, None, id).await?.into())),
            Place::Recent { pages, at } => {
                Ok(Step::Transition(self.resumed(*pages, Some(at), id).await?.into()))
            }
            Place::Anew { .. }
            | Place::Live { .. }
            | Place::Cutover { .. }
            | Place::Changing { .. }
            | Place::Old { .. } => Err(Stop::Reset(
                id.into(),
                "the event id belongs to another request, or to an earlier release",
            )),
        }
    }

    fn replay(&self) -> Replay<'_> {
        let Subscriber { shared, filter, out } = self.subscriber;
        Replay { shared, filter, out }
    }

    /// The id of a client that was told `reset-all`, and nothing since.
    fn anew(&self) -> EventId {
        EventId(Place::Anew { filter: self.subscriber.filter.hash32() })
    }

    fn scope(&self) -> Option<u32> {
        self.subscriber.filter.scope_hash32()
    }

    /// A transition that was cut off.
    async fn resumed(&self, pages: Replaying, at: Option<Position>, id: EventId) -> Result<Change, Stop> {
        let subscriber = self.subscriber;
        let group =
            pages.group.as_deref().filter(|_| self.scope() == Some(pages.filter) && pages.since.is_none());
        let Some(&GroupPages { to, .. }) = group else {
            return Err(Stop::Reset(id.into(), "the event id belongs to another request"));
        };
        let on_disk = *subscriber.shared.durable.borrow();
        if let Some(stale) = subscriber.stale_pages(&on_disk, &pages) {
            return Err(Stop::Reset(id.into(), stale.reason()));
        }
        match subscriber.standing(pages.run, (to, pages.watermark.safe_time)).await? {
            Ok(FeedCursor { run, trust, .. }) => {
                let pages = Replaying { run, ..pages };
                Ok(Change { pages, resumed: true, recent_after: at, trust, id })
            }
            Err(reason) => Err(Stop::Reset(id.into(), reason)),
        }
    }

    /// Rule 8: everybody joins, at a place that the feed has passed after a watermark was taken.
    async fn begin(&self, since: Option<Instant>, id: EventId) -> Result<Step, Stop> {
        let subscriber = self.subscriber;
        let source = subscriber.shared.source(&subscriber.out).await;
        persist(&subscriber.out, || source.knows_patients()).await?;
        // So that the time is known of which its members are. It is one more record in the log, for each stream that begins.
        if subscriber.shared.group_now(&source, self.id).await?.has_periods {
            persist(&subscriber.out, || source.tick()).await?;
        }
        let (run, sample) = self.replay().first_watermark(&*source).await?;
        let watermark = sample.watermark;
        if !subscriber.shared.record_pages(&subscriber.out, run, watermark.fence_lsn).await {
            return Ok(Step::Begin { since, id });
        }
        if let Some(since) = since {
            return match self.known(since, run, watermark).await? {
                Some(known) => Ok(Step::Follow(
                    known,
                    Phase::Cutover(Watermark { safe_time: since, fence_lsn: watermark.fence_lsn }),
                )),
                None => Err(Stop::Reset(id.into(), NOT_KNOWN)),
            };
        }
        let Some(to) = self.head_at(run, watermark.fence_lsn).await else {
            return Ok(Step::Begin { since, id });
        };
        let group = GroupPages { from: None, to, leaving: false, batch: 0 };
        let pages = Replaying::beginning(run, watermark, subscriber.filter.hash32(), group);
        Ok(Step::Transition(
            Change { pages, resumed: false, recent_after: None, trust: Trust::Verified, id }.into(),
        ))
    }

    /// Rule 23: a place before all that was stamped after an instant, if it can be told who was a member there.
    async fn known(
        &self,
        since: Instant,
        run: u64,
        watermark: Watermark,
    ) -> Result<Option<FeedCursor>, Stop> {
        let shared = &self.subscriber.shared;
        // The head first: what is appended while the journal is searched lies beyond it.
        let Durable { head, run: current, .. } = *shared.durable.borrow();
        // The state after the search: it says what is dropped before it is.
        let searched = shared.journal.read_or_reset(move |journal| {
            Ok((journal.seek(Watermark { safe_time: since, fence_lsn: Lsn::MAX })?, journal.load()?))
        });
        let last = match searched.await {
            Ok((found, Some(state)))
                if state.run == current && current == run && state.floor.stamp <= since =>
            {
                found.unwrap_or(head)
            }
            _ => return Ok(None),
        };
        match self.as_of().members(last.position).await {
            // The time as of that place may be an earlier one than that instant, at which others were members.
            Ok(members) if members.next.is_some_and(|next| next <= since) => Ok(None),
            Ok(_) => Ok(Some(FeedCursor::reached(run, last, since.min(watermark.safe_time)))),
            // There was no such Group, or that is not known: whoever is a member now may have come since.
            Err(NoMembers::Gone(_) | NoMembers::NotKept(_)) => Ok(None),
            Err(NoMembers::Source(error)) => Err(Stop::End(error)),
        }
    }

    /// The head when the feed has passed a place in the log; `None` if another run has begun.
    async fn head_at(&self, run: u64, fence_lsn: Lsn) -> Option<Anchor> {
        let mut durable = self.subscriber.shared.durable.clone();
        let there = durable.wait_for(|durable| durable.run != run || durable.lsn >= fence_lsn).await;
        match there.map(|durable| *durable) {
            Ok(durable) if durable.run == run => Some(durable.head),
            Ok(_) => None,
            // The journal's thread has ended, and the process with it.
            Err(_) => std::future::pending().await,
        }
    }

    /// Part E of the rules.
    async fn transition(&mut self, mut change: Change) -> Result<Step, Stop> {
        let subscriber = self.subscriber;
        let Some(GroupPages { from, to, .. }) = change.pages.group.as_deref().copied() else {
            return Err(Stop::Reset(change.id.into(), "the event id belongs to another request"));
        };
        let id = change.id.clone();
        let (old, Span { throughout: stay, ever }) = match from {
            None => Default::default(),
            Some(from) => (self.members(from, &id).await?.patients, self.span(from, to, &id).await?),
        };
        let new = self.members(to, &id).await?;
        let join = new.patients.without(&stay);
        // Not who has only come: what a client may have of them comes again, and what has changed of it was taken back meanwhile.
        let leave = ever.without(&stay).without(&new.patients.without(&old));
        // Rather than millions of removals. Who left and came back is not among the removed, but among
        // those who remain. Most transitions need only the first comparison.
        if from.is_some() && leave.len() > stay.len() {
            let removed = leave.without(&new.patients).len();
            if removed > stay.len() + (leave.len() - removed) {
                return Err(Stop::Reset(id.into(), "most members of the Group have left"));
            }
        }
        let (run, watermark, trust) = (change.pages.run, change.pages.watermark, change.trust);
        let (joined, left) = (join.len(), old.without(&stay).len());
        let fades = leave.len() > 0;
        if from.is_none() && !change.resumed && subscriber.filter.matches(ResourceType::GROUP) {
            change.id = self.send_group(&change.pages, to, id.clone()).await?;
        }
        let transition = Transition { subscriber, change, stay, join, leave };
        if let Err(reason) = transition.run().await? {
            return Err(Stop::Reset(id.into(), reason));
        }
        let standing = FeedCursor { run, last: to, trust, safe_time: watermark.safe_time, cutover: None };
        let mut phase = Phase::Plain;
        if let Some(from) = from {
            if fades {
                // After the lists were read: a change beyond `to` may have replaced what should have been in them.
                let until = subscriber.shared.sample(&subscriber.out).await?.watermark.fence_lsn;
                phase = Phase::Fading { from, to, until };
            }
            let id = Ids { scope: self.scope(), phase }.at(run, to, watermark.safe_time);
            subscriber.out.send(Item::Notice(Notice::Members { joined, left }), id).await;
        }
        Ok(Step::Follow(standing, phase))
    }

    /// Follows the feed until the members change, or what left has been told.
    async fn follow(&mut self, from: FeedCursor, phase: Phase) -> Result<Step, Stop> {
        let (mut follow, until) = Box::pin(self.follower(from, phase)).await?;
        let ended = match until {
            None => follow.run().await,
            Some(watermark) => match follow.until(watermark.fence_lsn).await {
                Ok(()) => {
                    self.told_stale = follow.told_stale;
                    return Box::pin(self.passed(follow, watermark)).await;
                }
                Err(ended) => ended,
            },
        };
        (self.live, self.told_stale) = (follow.live, follow.told_stale);
        match ended {
            Ended::Lost(lost) if lost.in_frame => {
                Err(Stop::End(SourceError::Unavailable(lost.reason.into())))
            }
            Ended::Lost(lost) => Err(Stop::Reset(lost.id.into(), lost.reason)),
            Ended::Moves => {
                let Follow { run, last, safe_time, .. } = follow;
                Ok(Step::JoinShared(FeedCursor::reached(run, last, safe_time)))
            }
            Ended::Gone(why) => Err(Stop::Gone(follow.id().into(), why)),
            Ended::Source(error) => Err(Stop::End(error)),
        }
    }

    /// Who follows from there, and up to which watermark's fence LSN.
    async fn follower(
        &self,
        from: FeedCursor,
        phase: Phase,
    ) -> Result<(Follow<'a>, Option<Watermark>), Stop> {
        let subscriber = self.subscriber;
        let FeedCursor { run, last, trust, safe_time, .. } = from;
        let id = Ids { scope: self.scope(), phase }.at(run, last, safe_time);
        let now = self.members(last, &id).await?;
        let mut change_filter = MemberFilter::settled(&subscriber.filter, &now, last.position);
        let until = match phase {
            Phase::Plain | Phase::Cutover(_) => None,
            Phase::Moving { from } => {
                let Span { throughout, ever } = self.span(from, last, &id).await?;
                (change_filter.send, change_filter.had) = (throughout, ever);
                // After the change, so that all that was stamped before it is on the tables' side.
                let source = subscriber.shared.source(&subscriber.out).await;
                let (_, sample) = self.replay().first_watermark(&*source).await?;
                // If the run has ended, whoever follows up to there finds out.
                subscriber.shared.record_pages(&subscriber.out, run, sample.watermark.fence_lsn).await;
                Some(sample.watermark)
            }
            Phase::Fading { from, to, until } => {
                let Span { throughout, ever } = self.span(to, last, &id).await?;
                (change_filter.send, change_filter.had) =
                    (throughout, ever.or(&self.span(from, to, &id).await?.ever));
                Some(Watermark { safe_time, fence_lsn: until })
            }
        };
        let change_filter = ChangeFilter::Members(change_filter);
        let mut follow =
            Follow::new(&subscriber.shared, change_filter, &subscriber.out, run, (last, trust), safe_time);
        follow.ids.phase = phase;
        (follow.live, follow.told_stale) = (self.live, self.told_stale);
        Ok((follow, until))
    }

    /// What follows when a place was passed while members changed.
    async fn passed(&self, follow: Follow<'a>, watermark: Watermark) -> Result<Step, Stop> {
        let subscriber = self.subscriber;
        let Follow { run, last, safe_time, ids, .. } = follow;
        let standing = FeedCursor::reached(run, last, safe_time);
        let id = ids.at(run, last, safe_time);
        match ids.phase {
            Phase::Moving { from } => {
                let group = GroupPages { from: Some(from), to: last, leaving: true, batch: 0 };
                let pages = Replaying::beginning(run, watermark, subscriber.filter.hash32(), group);
                Ok(Step::Transition(
                    Change { pages, resumed: false, recent_after: None, trust: Trust::Verified, id }.into(),
                ))
            }
            Phase::Fading { to, .. } => {
                let then = self.members(to, &id).await?.patients;
                let now = self.members(last, &id).await?.patients;
                let same = now == then && self.span(to, last, &id).await?.throughout == then;
                Ok(Step::Follow(standing, if same { Phase::Plain } else { Phase::Moving { from: to } }))
            }
            Phase::Plain | Phase::Cutover(_) => Ok(Step::Follow(standing, Phase::Plain)),
        }
    }
}

//! What a subscriber goes through: where its id lets it begin, replay, follow, and reset when it is lost.

pub(crate) mod follow;
pub(crate) mod read;

use crate::delivery::subscription::ItemSender;
use crate::group::GroupStream;
use crate::id::{Place, Replaying};
use crate::journal::{Durable, PastRun};
use crate::replay::{Cutover, Paged, Replay, persist};
use crate::routing::change_filter::ChangeFilter;
use crate::shared::{Shared, UNWRITABLE};
use crate::subscriber::follow::{Ended, Follow, Lost, OTHER_HISTORY, Trust};
use crate::subscriber::read::Phase;
use crate::{Anchor, Begin, EventId, Item, Notice, Position, SourceError, Watermark};
use fhir::{Filter, Instant};
use std::sync::Arc;

/// One subscriber at work.
pub(crate) struct Subscriber {
    pub(crate) shared: Arc<Shared>,
    pub(crate) filter: Filter,
    pub(crate) out: ItemSender,
}

/// A place in the feed, of the run that publishes.
pub(crate) struct FeedCursor {
    pub(crate) run: u64,
    pub(crate) last: Anchor,
    pub(crate) trust: Trust,
    pub(crate) safe_time: Instant,
    pub(crate) cutover: Option<Watermark>,
}

impl FeedCursor {
    /// Where a follower of this run has come to: a place that the journal has, or had.
    pub(crate) const fn reached(run: u64, last: Anchor, safe_time: Instant) -> Self {
        Self { run, last, trust: Trust::Verified, safe_time, cutover: None }
    }
}

/// What a subscriber does next.
pub(crate) enum Step {
    /// Reads the tables from the beginning of a round. After a reset, which was told in this run, `since` is not
    /// what the client asked for.
    Replay { since: Option<Instant>, id: EventId, reset: Option<u64> },
    /// Reads the rest of a round.
    Resume(Replaying),
    /// Follows the feed.
    Follow(FeedCursor),
    /// Is told that it cannot go on, and reads the tables.
    Reset { since: Option<Instant>, id: EventId, reason: &'static str, all: bool },
}

impl Subscriber {
    /// Runs until the database refuses for good.
    ///
    /// Who follows keeps this future, perhaps for days. So what comes before has an allocation of its own, which ends
    /// with it.
    pub(crate) async fn run(&self, begin: Box<Begin>) -> SourceError {
        let mut entered = Box::pin(self.enter(begin)).await;
        loop {
            let from = match entered {
                Ok(from) => from,
                Err(error) => return error,
            };
            let lost = match self.follow(from).await {
                Ended::Lost(lost) => *lost,
                Ended::Source(error) => return error,
                // Members change only where there are some.
                Ended::Moves => return SourceError::Unavailable("members changed of no Group".into()),
                Ended::Gone(why) => return SourceError::Gone(why),
            };
            if lost.in_frame {
                return SourceError::Unavailable(lost.reason.into());
            }
            entered = Box::pin(self.stand(self.reset(lost))).await;
        }
    }

    /// The same for a request at Group level.
    pub(crate) async fn run_of_group(&self, begin: Box<Begin>) -> SourceError {
        match GroupStream::of(self) {
            Some(mut stream) => stream.run(begin).await,
            None => Box::pin(self.run(begin)).await,
        }
    }

    /// From a request to a place in the feed.
    async fn enter(&self, begin: Box<Begin>) -> Result<FeedCursor, SourceError> {
        self.ids_known().await;
        let step = match *begin {
            Begin::Since(since) => Step::Replay { since, id: EventId::beginning(), reset: None },
            Begin::After { id, since } => self.admit(id, since).await?,
        };
        self.stand(step).await
    }

    /// Takes steps until there is a place in the feed.
    async fn stand(&self, mut step: Step) -> Result<FeedCursor, SourceError> {
        loop {
            step = match step {
                Step::Follow(from) => return Ok(from),
                Step::Reset { since, id, reason, all } => self.tell_reset(since, id, reason, all).await?,
                Step::Replay { since, id, reset } => {
                    self.paged(self.replay().run(since, &id, reset).await?).await
                }
                Step::Resume(place) => self.paged(self.replay().resume(place).await?).await,
            };
        }
    }

    /// Follows the feed from there until it cannot continue.
    async fn follow(&self, from: FeedCursor) -> Ended {
        let FeedCursor { run, last, trust, safe_time, cutover } = from;
        let change_filter = ChangeFilter::Request(self.filter.clone());
        let mut follow = Follow::new(&self.shared, change_filter, &self.out, run, (last, trust), safe_time);
        follow.ids.phase = cutover.map_or(Phase::Plain, Phase::Cutover);
        follow.run().await
    }

    /// Waits while a new epoch is known to the hub and not yet as being on disk.
    async fn one_epoch(&self) {
        let mut durable = self.shared.durable.clone();
        if durable.wait_for(|durable| durable.epoch == self.shared.hub.head().epoch).await.is_err() {
            // The journal's thread has ended, and the process with it.
            std::future::pending::<()>().await;
        }
    }

    /// Before a database is followed no id can be judged, and before the journal has our run none can be given out.
    pub(crate) async fn ids_known(&self) {
        self.wait_for("the replication slot is not there yet", |durable| durable.known).await;
        self.wait_for(UNWRITABLE, |durable| durable.run_noted).await;
    }

    /// Waits, and says for what, until it is so.
    async fn wait_for(&self, what: &str, is: fn(&Durable) -> bool) {
        let mut durable = self.shared.durable.clone();
        if is(&durable.borrow()) {
            return;
        }
        self.out.report_waiting(what.into()).await;
        if durable.wait_for(is).await.is_err() {
            // The journal's thread has ended, and the process with it.
            std::future::pending::<()>().await;
        }
    }

    fn replay(&self) -> Replay<'_> {
        Replay { shared: &self.shared, filter: &self.filter, out: &self.out }
    }

    pub(crate) async fn tell_reset(
        &self,
        since: Option<Instant>,
        id: EventId,
        reason: &'static str,
        all: bool,
    ) -> Result<Step, SourceError> {
        // Nobody is told to drop what he has before there is something to replace it with.
        self.shared.confirm(&self.out).await?;
        if self.filter.is_scoped() {
            let source = self.shared.source(&self.out).await;
            persist(&self.out, || source.knows_patients()).await?;
        }
        self.one_epoch().await;
        let run = self.shared.durable.borrow().run;
        // Without a time to go back to nobody can be told what was deleted meanwhile. And while it waited there
        // may have been a fork. And what has left a scope meanwhile is nowhere to be read.
        let all = all
            || since.is_none()
            || self.filter.is_scoped()
            || id.run().is_some_and(|of| self.shared.forked(of));
        let notice = if all { Notice::ResetAll { reason } } else { Notice::Reset { reason } };
        let id = if all { EventId(Place::Anew { filter: self.filter.hash32() }) } else { id };
        self.out.send(Item::Notice(notice), id.clone()).await;
        Ok(Step::Replay { since: if all { None } else { since }, id, reset: Some(run) })
    }

    async fn paged(&self, paged: Paged) -> Step {
        match paged {
            Paged::Done(cutover) => self.cutover(cutover).await,
            Paged::Impossible(id, reason) => Step::Reset { since: None, id, reason, all: true },
        }
    }

    /// Where the feed goes on after the pages: before the first entry on its side of the watermark.
    async fn cutover(&self, cutover: Cutover) -> Step {
        let Cutover { run, cutover: watermark, safe_time } = cutover;
        // The head first: what is appended while the journal is searched lies beyond it.
        let Durable { head, epoch, run: current, .. } = *self.shared.durable.borrow();
        // The state after the search: it says what is dropped before it is.
        let searched =
            self.shared.journal.read_or_reset(move |journal| Ok((journal.seek(watermark)?, journal.load()?)));
        let scope = self.filter.scope_hash32();
        let id = EventId(Place::Cutover { run, scope, anchor: head, watermark, safe_time });
        let reset = |reason| Step::Reset { since: Some(safe_time), id, reason, all: self.shared.forked(run) };
        match searched.await {
            Ok((found, Some(state)))
                if (state.epoch, current) == (epoch, run)
                    && state.floor.stamp <= watermark.safe_time
                    && state.floor.position.commit_lsn < watermark.fence_lsn =>
            {
                // Found in the journal: verified.
                let (last, trust) = (found.unwrap_or(head), Trust::Verified);
                Step::Follow(FeedCursor { run, last, trust, safe_time, cutover: Some(watermark) })
            }
            Ok(_) => reset("what follows the pages is no longer kept"),
            Err(reason) => reset(reason),
        }
    }

    fn reset(&self, lost: Lost) -> Step {
        let Lost { since, run, reason, id, forked, .. } = lost;
        Step::Reset { since: Some(since), id, reason, all: forked || self.shared.forked(run) }
    }

    /// What an id is still good for.
    async fn admit(&self, id: Option<EventId>, since: Option<Instant>) -> Result<Step, SourceError> {
        let on_disk = *self.shared.durable.borrow();
        let Some(id) = id else {
            let (id, reason) = (EventId::beginning(), "the event id is not one of this service");
            return Ok(Step::Reset { since, id, reason, all: false });
        };
        Ok(match id.0.clone() {
            Place::Beginning => Step::Replay { since, id, reset: None },
            Place::Anew { filter } if filter == self.filter.hash32() => {
                Step::Replay { since: None, id, reset: None }
            }
            Place::Anew { .. } | Place::Changing { .. } | Place::Recent { .. } => {
                Stale::Foreign(OTHER_FILTER).step(None, since, id)
            }
            Place::Live { scope, .. } | Place::Cutover { scope, .. }
                if scope != self.filter.scope_hash32() =>
            {
                Stale::Foreign(OTHER_FILTER).step(None, since, id)
            }
            Place::Live { run, anchor, safe_time, .. } => {
                self.go_on(&on_disk, run, (anchor, None, safe_time), since, id).await?
            }
            Place::Cutover { run, anchor, watermark, safe_time, .. } => {
                self.go_on(&on_disk, run, (anchor, Some(watermark), safe_time), since, id).await?
            }
            Place::Replay(place) => {
                let stale = if place.filter != self.filter.hash32() || place.group.is_some() {
                    Some(Stale::Foreign(OTHER_FILTER))
                } else {
                    self.stale_pages(&on_disk, &place)
                };
                match stale {
                    None => Step::Resume(Replaying { run: on_disk.run, ..place }),
                    Some(stale) => stale.step(place.since, since, id),
                }
            }
            Place::Old { epoch, since: from_id } => {
                let stale = match self.origin_of(&on_disk, epoch) {
                    Err(stale) => stale,
                    Ok(_) => Stale::Old("the event id is of an earlier release"),
                };
                stale.step(from_id, since, id)
            }
        })
    }

    async fn go_on(
        &self,
        on_disk: &Durable,
        run: u64,
        (last, cutover, safe_time): (Anchor, Option<Watermark>, Instant),
        since: Option<Instant>,
        id: EventId,
    ) -> Result<Step, SourceError> {
        Ok(match self.trust(on_disk, run, last, cutover).await? {
            Ok(trust) => Step::Follow(FeedCursor { run: on_disk.run, last, trust, safe_time, cutover }),
            Err(stale) => stale.step(Some(safe_time), since, id),
        })
    }

    /// The place of a position in the feed that was passed, or why it cannot be continued.
    pub(crate) async fn standing(
        &self,
        run: u64,
        (last, safe_time): (Anchor, Instant),
    ) -> Result<Result<FeedCursor, &'static str>, SourceError> {
        let on_disk = *self.shared.durable.borrow();
        let trust = self.trust(&on_disk, run, last, None).await?;
        let standing = |trust| FeedCursor { run: on_disk.run, last, trust, safe_time, cutover: None };
        Ok(trust.map(standing).map_err(|stale| stale.reason()))
    }

    /// What is known of a position in the feed, or why it cannot be continued.
    async fn trust(
        &self,
        on_disk: &Durable,
        run: u64,
        last: Anchor,
        cutover: Option<Watermark>,
    ) -> Result<Result<Trust, Stale>, SourceError> {
        let origin = match self.origin_of(on_disk, run) {
            Ok(origin) => origin,
            Err(stale) => return Ok(Err(stale)),
        };
        let proven = origin.ended.is_none_or(|ended| ended.proves(last.position, None));
        let trust = Trust::Compared { run, proven };
        // Rows of the pages up to the watermark are not compared with anything.
        let pages_unproven =
            origin.ended.is_some_and(|ended| cutover.is_some() && !ended.proves(Position::ZERO, cutover));
        if pages_unproven {
            return Ok(Err(Stale::Forked(UNPROVEN)));
        }
        let old = |reason| if proven { Stale::Old(reason) } else { Stale::Forked(UNPROVEN) };
        if !origin.same_epoch {
            return Ok(Err(old("the journal was begun anew")));
        }
        if last.position < on_disk.floor.position {
            return Ok(Err(old("what follows that event is no longer kept")));
        }
        if last.position <= self.shared.hub.head().last.position {
            return Ok(Ok(trust));
        }
        // A client saw what our crash lost: Postgres sends it again, unless the database never wrote it.
        let sample = self.shared.sample(&self.out).await?;
        let written = last.position.commit_lsn < sample.watermark.fence_lsn;
        Ok(if written { Ok(trust) } else { Err(Stale::Forked("the event id is ahead of the database")) })
    }

    /// Why a round cannot be resumed; `None` if it can.
    pub(crate) fn stale_pages(&self, on_disk: &Durable, place: &Replaying) -> Option<Stale> {
        let origin = match self.origin_of(on_disk, place.run) {
            Ok(origin) => origin,
            Err(stale) => return Some(stale),
        };
        if origin.ended.is_some_and(|ended| !ended.proves(Position::ZERO, Some(place.watermark))) {
            Some(Stale::Forked(UNPROVEN))
        } else if !origin.same_epoch {
            Some(Stale::Old("the journal was begun anew"))
        } else if on_disk.floor.stamp > place.watermark.safe_time {
            Some(Stale::Old("what follows the pages is no longer kept"))
        } else {
            None
        }
    }

    /// What the journal knows of the run that gave an id out. Only what it remembers says that there was no fork since: an id of a
    /// run that it does not know may be of a history that was lost when the database was restored, however old its position
    /// looks.
    fn origin_of(&self, on_disk: &Durable, run: u64) -> Result<Origin, Stale> {
        let ended = self.shared.ended(run);
        if !self.shared.forked(run) {
            let same_epoch = ended.is_none_or(|ended| ended.epoch == on_disk.epoch);
            Ok(Origin { ended: ended.filter(|_| run != on_disk.run), same_epoch })
        } else if ended.is_some() {
            Err(Stale::Forked(OTHER_HISTORY))
        } else {
            Err(Stale::Forked(
                "the journal knows nothing of the event id's history: it was begun anew, or the id is of another",
            ))
        }
    }
}

const OTHER_FILTER: &str = "the event id belongs to a request with another filter";
const UNPROVEN: &str = "nothing shows that the event id is of this history of the database";

/// The run that an id is of.
struct Origin {
    /// When it has ended.
    ended: Option<PastRun>,
    /// Its positions can be compared with those of now.
    same_epoch: bool,
}

/// Why an id cannot be continued.
pub(crate) enum Stale {
    /// The id says from where a reset goes on.
    Old(&'static str),
    /// What the id says means nothing here.
    Foreign(&'static str),
    /// What the client has may not exist.
    Forked(&'static str),
}

impl Stale {
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Old(reason) | Self::Foreign(reason) | Self::Forked(reason) => reason,
        }
    }

    fn step(self, from_id: Option<Instant>, from_request: Option<Instant>, id: EventId) -> Step {
        match self {
            Self::Old(reason) => Step::Reset { since: from_id, id, reason, all: false },
            Self::Foreign(reason) => Step::Reset { since: from_request, id, reason, all: false },
            Self::Forked(reason) => Step::Reset { since: None, id, reason, all: true },
        }
    }
}

//! Replay: pages of the tables up to a mark, in rounds, then over to the feed.
//!
//! No state of its own: no snapshot, no transaction, nothing in the database that waits for the client.

use crate::budget::Held;
use crate::feed::Shared;
use crate::id::{Cursor, Place, Replaying};
use crate::subscription::{Out, Tally};
use crate::{
    Answer, EventId, Frames, Item, Kind, Mark, Notice, Page, PageRequest, Sample, Source, SourceError,
};
use bytes::BytesMut;
use fhir::{Filter, Instant, ResourceType};
use std::sync::Arc;
use std::time::Duration;

/// A later round is worth its queries when W has moved on by more than this.
const ROUND_WORTH: Duration = Duration::from_secs(5);
/// The database's clock may fall behind ours by this much within a round before it counts as a step back.
const CLOCK_MARGIN: Duration = Duration::from_millis(100);
/// How often W is looked at while a replay waits for it to pass the beginning of the journal.
const WAIT_FOR_W: Duration = Duration::from_millis(200);
const RETRY: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5);
/// Taken from the budget before a page is asked for, given back as far as it is smaller.
const PAGE_BYTES: usize = 2 << 20;

/// One replay for one subscriber.
pub(crate) struct Replay<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) filter: &'a Filter,
    pub(crate) out: &'a Out,
}

/// Where the feed takes over.
pub(crate) struct HandOver {
    /// The epoch that the pages were read in.
    pub(crate) epoch: u64,
    /// What lies on the tables' side of it was sent.
    pub(crate) split: Mark,
    /// W of the last mark: the next `_since`.
    pub(crate) transaction_time: Instant,
}

impl Replay<'_> {
    /// From the request's beginning, or a reset's.
    pub(crate) async fn run(&self, since: Option<Instant>, id: &EventId) -> Result<HandOver, SourceError> {
        let source = self.shared.source(self.out, id).await;
        let mut sample = self.first_mark(&*source, id).await?;
        let epoch = self.shared.durable.borrow().epoch;
        let mut since = since;
        if let (Some(after), Some(purged)) = (since, sample.tombstones_purged)
            && after < purged
        {
            let reason = "deletions after that instant were purged from the database";
            self.out.send(Item::Notice(Notice::ResetAll { reason }), id.clone()).await;
            since = None;
        }
        let mark = sample.mark;
        if let Some(since) = since
            && since >= mark.w
        {
            let split = Mark { w: since, l: mark.l };
            return Ok(HandOver { epoch, split, transaction_time: mark.w });
        }
        let mut round = Round { epoch, since, mark };
        self.pages(&*source, round, None).await?;
        while sample.taken.elapsed() > ROUND_WORTH {
            let next = self.mark(&*source, id).await?;
            if clock_fell_behind(&sample, &next) || !worth_a_round(&sample, &next) {
                break;
            }
            round = Round { epoch, since: Some(round.mark.w), mark: next.mark };
            self.pages(&*source, round, None).await?;
            sample = next;
        }
        Ok(round.hand_over())
    }

    /// From a place within a round: the same pages up to the same mark, then the feed.
    pub(crate) async fn resume(&self, place: Replaying) -> Result<HandOver, SourceError> {
        let id = EventId(Place::Replay(place.clone()));
        let source = self.shared.source(self.out, &id).await;
        let round = Round { epoch: place.epoch, since: place.since, mark: place.mark };
        self.pages(&*source, round, Some(place.cursor)).await?;
        Ok(round.hand_over())
    }

    /// The first mark whose W has passed the beginning of the journal: what was stamped before it and
    /// committed before the slot was there is in the tables for sure.
    async fn first_mark(&self, source: &dyn Source, id: &EventId) -> Result<Sample, SourceError> {
        let mut told = None;
        loop {
            let sample = self.mark(source, id).await?;
            let begins = self.shared.durable.borrow().floor.stamp;
            if sample.mark.w >= begins {
                return Ok(sample);
            }
            let waiting = source.holding_back().unwrap_or_else(|| "open transactions of the database".into());
            if told.as_ref() != Some(&waiting) {
                self.out.send(Item::Waiting(waiting.clone()), id.clone()).await;
                told = Some(waiting);
            }
            tokio::time::sleep(WAIT_FOR_W).await;
        }
    }

    async fn mark(&self, source: &dyn Source, id: &EventId) -> Result<Sample, SourceError> {
        persist(self.out, id, || source.mark()).await
    }

    /// All pages of a round, from a cursor on.
    async fn pages(
        &self,
        source: &dyn Source,
        round: Round,
        cursor: Option<Cursor>,
    ) -> Result<(), SourceError> {
        let mut cursor = cursor;
        let id = match &cursor {
            Some(cursor) => self.replay_id(round, cursor.clone()),
            None => EventId::beginning(),
        };
        let present = persist(self.out, &id, || source.present(round.since)).await?;
        for (kind, resource_type) in round.stages(self.filter) {
            let mut after = None;
            match &cursor {
                Some(at) if (at.kind, at.resource_type) == (kind, resource_type) => {
                    // An id from before the stage's first row has no stamp.
                    after = cursor.take().filter(|at| at.stamp != Instant::MIN).map(|at| (at.stamp, at.id));
                }
                // A stage that was done before the cut.
                Some(_) => continue,
                None => {}
            }
            if !present.contains(&(kind, resource_type)) {
                continue;
            }
            loop {
                // First a turn, then room: who waits for a turn must not hold what others could use.
                let turn = self.shared.pages.acquire().await;
                let mut held = self.shared.budget.take(PAGE_BYTES).await;
                let request = PageRequest {
                    resource_type,
                    kind,
                    since: round.since,
                    until: round.mark.w,
                    after: after.clone(),
                };
                let id = self.round_id(round, kind, resource_type, after.as_ref());
                let page = persist(self.out, &id, || source.page(request.clone())).await?;
                drop(turn);
                after = page.next.clone();
                if !page.rows.is_empty() {
                    let (item, id) = self.frame(round, kind, resource_type, page, &mut held);
                    self.out.send(item, id).await;
                }
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn frame(
        &self,
        round: Round,
        kind: Kind,
        resource_type: ResourceType,
        page: Page,
        held: &mut Option<Held>,
    ) -> (Item, EventId) {
        let size: usize = page.rows.iter().map(|row| row.data.len() + 256).sum();
        let mut frames = BytesMut::with_capacity(size);
        let mut tally = Tally::default();
        let (mut id, mut text) = (EventId::beginning(), String::new());
        let event = kind.event(resource_type);
        for row in page.rows {
            let cursor = Cursor { kind, resource_type, stamp: row.stamp, id: row.id };
            id = self.replay_id(round, cursor);
            text.clear();
            id.write(&mut text);
            self.shared.framing.frame(&text, event, &row.data, &mut frames);
            tally.count(event);
        }
        let held = held.take().map(|held| {
            let mut held = Some(held);
            self.shared.budget.shrink(&mut held, frames.len());
            held
        });
        let bytes = Held::attach(held.flatten(), frames.freeze());
        (Item::Frames(Frames { bytes, tally }), id)
    }

    fn replay_id(&self, round: Round, cursor: Cursor) -> EventId {
        EventId(Place::Replay(Replaying {
            epoch: round.epoch,
            since: round.since,
            mark: round.mark,
            filter: self.filter.hash32(),
            cursor,
        }))
    }

    /// The id of a stage before its first row was sent.
    fn round_id(
        &self,
        round: Round,
        kind: Kind,
        resource_type: ResourceType,
        after: Option<&(Instant, Box<str>)>,
    ) -> EventId {
        let (stamp, id) = after.cloned().unwrap_or((Instant::MIN, "".into()));
        self.replay_id(round, Cursor { kind, resource_type, stamp, id })
    }
}

impl Shared {
    /// The database, as soon as it is known.
    async fn source(&self, out: &Out, id: &EventId) -> Arc<dyn Source> {
        let mut source = self.source.subscribe();
        if source.borrow().is_none() {
            out.send(Item::Waiting("the database is not connected yet".into()), id.clone()).await;
        }
        let known = source.wait_for(Option::is_some).await.ok().and_then(|source| source.clone());
        match known {
            Some(source) => source,
            // The sender lives as long as `self`, so that waiting ends with a source.
            None => std::future::pending().await,
        }
    }

    /// A mark taken now.
    pub(crate) async fn sample(&self, out: &Out, id: &EventId) -> Result<Sample, SourceError> {
        let source = self.source(out, id).await;
        persist(out, id, || source.mark()).await
    }
}

/// Asks again, with growing pauses, while the database is away.
async fn persist<'s, T>(
    out: &Out,
    id: &EventId,
    mut ask: impl FnMut() -> Answer<'s, T>,
) -> Result<T, SourceError> {
    let mut pause = *RETRY.start();
    loop {
        match ask().await {
            Err(SourceError::Unavailable(why)) => {
                out.send(Item::Waiting(format!("the database is not available: {why}")), id.clone()).await;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(*RETRY.end());
            }
            answer => return answer,
        }
    }
}

/// One pass over the tables.
#[derive(Clone, Copy)]
struct Round {
    epoch: u64,
    since: Option<Instant>,
    mark: Mark,
}

impl Round {
    fn hand_over(self) -> HandOver {
        HandOver { epoch: self.epoch, split: self.mark, transaction_time: self.mark.w }
    }

    /// What is read, in order: the rows of the types that others refer to first, then the deletions, the
    /// other way round. Without a lower bound there is nobody who could have what was deleted.
    fn stages(self, filter: &Filter) -> impl Iterator<Item = (Kind, ResourceType)> {
        let mut types: Vec<_> = filter.types.iter().collect();
        types.sort_by_key(|resource_type| {
            let name = resource_type.as_str();
            REFERRED_TO.iter().position(|first| *first == name).unwrap_or(REFERRED_TO.len())
        });
        let deletions: Vec<_> = match self.since {
            Some(_) => types.iter().rev().map(|resource_type| (Kind::Deletion, *resource_type)).collect(),
            None => Vec::new(),
        };
        types.into_iter().map(|resource_type| (Kind::Upsert, resource_type)).chain(deletions)
    }
}

/// The types that most others refer to.
const REFERRED_TO: [&str; 12] = [
    "Organization",
    "Location",
    "Practitioner",
    "PractitionerRole",
    "HealthcareService",
    "Endpoint",
    "Medication",
    "Device",
    "Measure",
    "Patient",
    "Group",
    "Encounter",
];

fn clock_fell_behind(earlier: &Sample, later: &Sample) -> bool {
    let ours = later.taken.duration_since(earlier.taken);
    let theirs = later.clock.unix_micros().saturating_sub(earlier.clock.unix_micros());
    let theirs = Duration::from_micros(u64::try_from(theirs).unwrap_or(0));
    theirs + CLOCK_MARGIN < ours
}

fn worth_a_round(earlier: &Sample, later: &Sample) -> bool {
    let moved = later.mark.w.unix_micros().saturating_sub(earlier.mark.w.unix_micros());
    u64::try_from(moved).is_ok_and(|micros| Duration::from_micros(micros) > ROUND_WORTH)
}

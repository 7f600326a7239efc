//! Replay: pages of the tables up to a watermark, in rounds, then over to the feed.
//!
//! No state of its own: no snapshot, no transaction, nothing in the database that waits for the client.

pub(crate) mod page_frames;
pub(crate) mod page_permits;
pub(crate) mod spill;
pub(crate) mod type_pages;

use crate::delivery::read_size::ReadSize;
use crate::delivery::subscription::ItemSender;
use crate::id::{Cursor, Place, Replaying};
use crate::journal::PastRun;
use crate::replay::type_pages::TypePages;
use crate::shared::Shared;
use crate::{EventId, Item, Kind, Notice, PageRequest, Sample, Scope, Source, SourceError, Watermark};
use fhir::{Compartment, Filter, Instant, ResourceType};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// A later round is worth its queries when the safe time has moved on by more than this.
const ROUND_WORTH: Duration = Duration::from_secs(5);
/// How often the safe time is looked at while a replay waits for it to pass the beginning of the journal.
const WAIT_FOR_W: Duration = Duration::from_millis(200);
const RETRY: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5);
pub(crate) const PURGED: &str = "deletions that the client has not heard of were purged from the database";
const FORKED: &str = "the database's history is another than the one that the client has seen";
const STEPPED_BACK: &str = "the database's stamps have gone back behind what the client has";

/// One replay for one subscriber.
pub(crate) struct Replay<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) filter: &'a Filter,
    pub(crate) out: &'a ItemSender,
}

/// Where the feed takes over.
pub(crate) struct Cutover {
    /// The run that the pages were read in.
    pub(crate) run: u64,
    /// What lies on the tables' side of it was sent.
    pub(crate) cutover: Watermark,
    /// The safe time of the last watermark: all stamped at or before it was sent, or not asked for. The next `_since`.
    pub(crate) safe_time: Instant,
}

/// How the pages end.
pub(crate) enum Paged {
    Done(Cutover),
    /// They cannot tell all that changed since then, and why: only everything would do.
    Impossible(EventId, &'static str),
}

impl Replay<'_> {
    /// From the request's beginning, or a reset's.
    pub(crate) async fn run(
        &self,
        since: Option<Instant>,
        id: &EventId,
        reset: Option<u64>,
    ) -> Result<Paged, SourceError> {
        let source = self.shared.source(self.out).await;
        if self.filter.is_scoped() {
            persist(self.out, || source.knows_patients()).await?;
        }
        let (run, mut sample) = loop {
            let (run, sample) = self.first_watermark(&*source).await?;
            if self.shared.record_pages(self.out, run, sample.watermark.fence_lsn).await {
                break (run, sample);
            }
        };
        let (safe_time, fence_lsn) = (sample.watermark.safe_time, sample.watermark.fence_lsn);
        // Told before the history became another, while this waited for its watermark.
        if since.is_some() && reset.is_some_and(|told| told != run && self.shared.forked(told)) {
            return Ok(Paged::Impossible(id.clone(), FORKED));
        }
        if let (Some(since), Some(purged)) = (since, sample.tombstones_purged)
            && since < purged
        {
            return Ok(Paged::Impossible(id.clone(), PURGED));
        }
        if let Some(since) = since
            && since >= safe_time
        {
            // A client may ask for what is to come. But what an id says was safe has been, unless the database has
            // forgotten which time was closed: then what has changed since may be stamped before it.
            if reset.is_some() && since > safe_time {
                return Ok(Paged::Impossible(id.clone(), STEPPED_BACK));
            }
            return self
                .done(
                    &*source,
                    Cutover { run, cutover: Watermark { safe_time: since, fence_lsn }, safe_time },
                )
                .await;
        }
        let filter = self.filter.hash32();
        let mut round = Round { run, filter, since, watermark: sample.watermark };
        let mut passed = id.clone();
        loop {
            passed = self.pages(&source, round, None, passed).await?;
            if self.purged_meanwhile(&*source, round).await? {
                return Ok(Paged::Impossible(passed, PURGED));
            }
            // What left a scope since this round's watermark is not among the rows of the next: the feed tells of it.
            if self.filter.is_scoped() || sample.taken.elapsed() <= ROUND_WORTH {
                return self.done(&*source, round.cutover()).await;
            }
            let next = persist(self.out, || source.watermark()).await?;
            if !worth_a_round(&sample, &next) {
                return self.done(&*source, round.cutover()).await;
            }
            if !self.shared.record_pages(self.out, run, next.watermark.fence_lsn).await {
                // What follows is of another run: told by who takes over.
                return self.done(&*source, round.cutover()).await;
            }
            round = Round { since: Some(round.watermark.safe_time), watermark: next.watermark, ..round };
            sample = next;
        }
    }

    /// From a place within a round: the same pages up to the same watermark, then the feed.
    pub(crate) async fn resume(&self, place: Replaying) -> Result<Paged, SourceError> {
        let id = EventId(Place::Replay(place.clone()));
        let source = self.shared.source(self.out).await;
        let round =
            Round { run: place.run, filter: place.filter, since: place.since, watermark: place.watermark };
        let passed = self.pages(&source, round, Some(place.cursor), id).await?;
        if self.purged_meanwhile(&*source, round).await? {
            return Ok(Paged::Impossible(passed, PURGED));
        }
        self.done(&*source, round.cutover()).await
    }

    /// The pages are all there: if they were whole.
    async fn done(&self, source: &dyn Source, cutover: Cutover) -> Result<Paged, SourceError> {
        persist(self.out, || source.confirm()).await?;
        Ok(Paged::Done(cutover))
    }

    /// Whether deletions that the round's pages had to tell of may have been purged before they were read.
    async fn purged_meanwhile(&self, source: &dyn Source, round: Round) -> Result<bool, SourceError> {
        let Some(since) = round.since else { return Ok(false) };
        let purged = persist(self.out, || source.tombstones_purged()).await?;
        Ok(purged.is_some_and(|purged| since < purged))
    }

    /// The first watermark whose safe time has passed the beginning of the journal: what was stamped before it and
    /// committed before the slot was there is in the tables for sure. And the run that it was taken in.
    pub(crate) async fn first_watermark(&self, source: &dyn Source) -> Result<(u64, Sample), SourceError> {
        let mut told = None;
        loop {
            let run = self.shared.durable.borrow().run;
            let sample = persist(self.out, || source.watermark()).await?;
            let on_disk = *self.shared.durable.borrow();
            if on_disk.run != run {
                continue;
            }
            if sample.watermark.safe_time >= on_disk.floor.stamp {
                return Ok((run, sample));
            }
            let waiting = source.holding_back().unwrap_or_else(|| "open transactions of the database".into());
            if told.as_ref() != Some(&waiting) {
                self.out.report_waiting(waiting.clone()).await;
                told = Some(waiting);
            }
            tokio::time::sleep(WAIT_FOR_W).await;
        }
    }

    /// Which rows are sent; `None`: all of the types.
    fn scope(&self) -> Option<Scope> {
        let compartment = self.filter.compartment.clone();
        let mentions = match &compartment {
            Compartment::Any => return None,
            // A Group's members are read in batches, elsewhere.
            Compartment::AnyPatient | Compartment::Group { .. } => None,
            Compartment::Patients(patients) => Some(Arc::new(patients.clone())),
        };
        Some(Scope { mentions, wants: Arc::new(move |_, patients| compartment.contains(patients)) })
    }

    /// All pages of a round, from a cursor on; the id of the last row sent, or the one given.
    async fn pages(
        &self,
        source: &Arc<dyn Source>,
        round: Round,
        cursor: Option<Cursor>,
        id: EventId,
    ) -> Result<EventId, SourceError> {
        let (mut cursor, mut passed) = (cursor, id);
        let mut read_size = ReadSize::new(PageRequest::LARGEST);
        let scope = self.scope();
        let mentions = scope.as_ref().and_then(|scope| scope.mentions.clone());
        let present =
            persist(self.out, || source.present(round.since, self.filter.types, mentions.clone())).await?;
        self.tell_estimates(&**source, round, &passed).await;
        for (kind, resource_type) in round.stages(self.filter) {
            let mut after = None;
            match &cursor {
                Some(at) if (at.kind, at.resource_type) == (kind, resource_type) => {
                    after = cursor.take().map(|at| (at.stamp, at.id));
                }
                // A stage that was done before the cut.
                Some(_) => continue,
                None => {}
            }
            if !present.contains(&(kind, resource_type)) {
                continue;
            }
            let request = PageRequest {
                resource_type,
                kind,
                scope: scope.clone(),
                since: round.since,
                until: round.watermark.safe_time,
                after,
                expected: None,
                bytes: read_size.bytes(),
            };
            let pages =
                TypePages { shared: self.shared, out: self.out, source, row: round.beginning(&request) };
            passed = pages.run(request, &mut read_size, passed).await?;
        }
        Ok(passed)
    }
}

impl Replay<'_> {
    /// Says about how much there is, before the first page. What changed since an instant, or belongs to some patients, nobody
    /// has an estimate of. Without one the replay is as good.
    async fn tell_estimates(&self, source: &dyn Source, round: Round, id: &EventId) {
        if round.since.is_some() || self.filter.is_scoped() {
            return;
        }
        match source.estimates(self.filter.types).await {
            Ok(totals) if totals.is_empty() => {}
            Ok(totals) => self.out.send(Item::Notice(Notice::Estimated { totals }), id.clone()).await,
            Err(error) => tracing::debug!(%error, "no estimates"),
        }
    }
}

impl Shared {
    /// Whether versions that were published in a run may no longer exist: there was a fork since, or the journal does not know
    /// the run, so that nothing says that there was none.
    pub(crate) fn forked(&self, run: u64) -> bool {
        // The hub has a new run before the disk does; when one ends it is in the past before that.
        let current = [self.durable.borrow().run, self.hub.head().run];
        self.ended(run).map_or_else(|| !current.contains(&run), |ended| ended.forked)
    }

    /// A run of the past, if it is remembered.
    pub(crate) fn ended(&self, run: u64) -> Option<PastRun> {
        self.past.lock().iter().find(|past| past.run == run).copied()
    }

    /// The database, as soon as it is known.
    pub(crate) async fn source(&self, out: &ItemSender) -> Arc<dyn Source> {
        let mut source = self.source.subscribe();
        if source.borrow().is_none() {
            out.report_waiting("the database is not connected yet".into()).await;
        }
        let known = source.wait_for(Option::is_some).await.ok().and_then(|source| source.clone());
        match known {
            Some(source) => source,
            // The sender lives as long as `self`, so that waiting ends with a source.
            None => std::future::pending().await,
        }
    }

    /// Whether a replay that begins now could be complete.
    pub(crate) async fn confirm(&self, out: &ItemSender) -> Result<(), SourceError> {
        let source = self.source(out).await;
        persist(out, || source.confirm()).await
    }

    /// A watermark taken now.
    pub(crate) async fn sample(&self, out: &ItemSender) -> Result<Sample, SourceError> {
        let source = self.source(out).await;
        persist(out, || source.watermark()).await
    }
}

/// Asks again, with growing pauses, while the database is away.
pub(crate) async fn persist<T, F: Future<Output = Result<T, SourceError>>>(
    out: &ItemSender,
    mut ask: impl FnMut() -> F,
) -> Result<T, SourceError> {
    let mut pause = *RETRY.start();
    loop {
        match ask().await {
            Err(SourceError::Unavailable(why)) => {
                out.report_waiting(format!("the database is not available: {why}")).await;
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
    run: u64,
    /// What ids say of the filter.
    filter: u32,
    since: Option<Instant>,
    watermark: Watermark,
}

impl Round {
    fn cutover(self) -> Cutover {
        Cutover { run: self.run, cutover: self.watermark, safe_time: self.watermark.safe_time }
    }

    /// The place before all rows of a page.
    fn beginning(self, request: &PageRequest) -> Replaying {
        let PageRequest { kind, resource_type, .. } = *request;
        let cursor = Cursor { kind, resource_type, stamp: Instant::MIN, id: "".into() };
        let Self { run, filter, since, watermark } = self;
        Replaying { run, since, watermark, filter, group: None, cursor }
    }

    /// What is read, in order: the rows of the types that others refer to first, then the deletions, the
    /// other way round. Without a lower bound there is nobody who could have what was deleted.
    fn stages(self, filter: &Filter) -> impl Iterator<Item = (Kind, ResourceType)> {
        let types = sorted_types(filter);
        let deletions: Vec<_> = match self.since {
            Some(_) => types.iter().rev().map(|resource_type| (Kind::Deletion, *resource_type)).collect(),
            None => Vec::new(),
        };
        types.into_iter().map(|resource_type| (Kind::Upsert, resource_type)).chain(deletions)
    }
}

/// The types of a request in the order in which their rows are read.
pub(crate) fn sorted_types(filter: &Filter) -> Vec<ResourceType> {
    let mut types: Vec<_> = filter.types.iter().collect();
    types.sort_by_key(|resource_type| {
        let name = resource_type.as_str();
        REFERRED_TO.iter().position(|first| *first == name).unwrap_or(REFERRED_TO.len())
    });
    types
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

fn worth_a_round(earlier: &Sample, later: &Sample) -> bool {
    let moved =
        later.watermark.safe_time.unix_micros().saturating_sub(earlier.watermark.safe_time.unix_micros());
    u64::try_from(moved).is_ok_and(|micros| Duration::from_micros(micros) > ROUND_WORTH)
}

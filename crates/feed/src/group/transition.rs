//! What a change of members means for one client: what leaves, what comes, and what was written of it lately.
//!
//! A watermark splits history: what was stamped at or before its safe time is in the tables, the rest up to the place where the members
//! change is in the journal, of which the newest entry of each resource counts.

use super::patient_set::PatientSet;
use super::recent::{self, Recent, Sets};
use crate::delivery::large_frame::LargeFrame;
use crate::delivery::read_size::ReadSize;
use crate::id::{Cursor, GroupPages, Place, Replaying};
use crate::journal::UNREADABLE;
use crate::replay::type_pages::TypePages;
use crate::replay::{persist, sorted_types};
use crate::subscriber::Subscriber;
use crate::subscriber::follow::Trust;
use crate::subscriber::read::READ_BYTES;
use crate::{Anchor, EventId, Item, Kind, PageRequest, Position, Scope, Source, SourceError};
use fhir::{Instant, Patients, ResourceType};
use std::sync::Arc;

/// Patients whose pages are read together. Each page looks for the rows of all of them, so that more of them cost more than they
/// save.
const BATCH: usize = 16;
/// The batch of those who are so many that everybody's rows are read. Ids tell it, as the next time they might be fewer.
const EVERYBODY: u32 = u32::MAX;

/// A change of members that is told.
pub(crate) struct Change {
    /// The place in it.
    pub(super) pages: Replaying,
    /// Whether the place is one that a client came with, and not the beginning.
    pub(super) resumed: bool,
    /// In the recent entries, what was sent of them.
    pub(super) recent_after: Option<Position>,
    /// What is known of the place where the members change.
    pub(super) trust: Trust,
    /// Of the last thing that the client has.
    pub(super) id: EventId,
}

/// One change of members for one client.
pub(super) struct Transition<'a> {
    pub(super) subscriber: &'a Subscriber,
    pub(super) change: Change,
    /// Members before, throughout and after it.
    pub(super) stay: Arc<PatientSet>,
    /// Members after it who were not throughout.
    pub(super) join: Arc<PatientSet>,
    /// Members before it who were not throughout.
    pub(super) leave: Arc<PatientSet>,
}

impl Transition<'_> {
    /// Tells it: the id of the last thing sent; or why the client has to begin anew.
    pub(super) async fn run(self) -> Result<Result<EventId, &'static str>, SourceError> {
        let Self { subscriber, change, stay, join, leave } = &self;
        let Some(GroupPages { to, .. }) = change.pages.group.as_deref().copied() else {
            return Ok(Err(UNREADABLE));
        };
        let out = &subscriber.out;
        let sets = Sets { stay: stay.clone(), join: join.clone(), leave: leave.clone() };
        let types = subscriber.filter.types;
        let recent = Recent::read(&subscriber.shared, change.pages.watermark, to, types, sets.clone()).await;
        let recent = match recent {
            Ok(recent) => Arc::new(recent),
            Err(reason) => return Ok(Err(reason)),
        };
        let source = subscriber.shared.source(out).await;
        let mut passed = change.id.clone();
        if change.recent_after.is_none() {
            passed = self.pages(&source, &recent, passed).await?;
        }
        match self.recent(&recent, &sets, to, passed).await? {
            Ok(last) => passed = last,
            Err(reason) => return Ok(Err(reason)),
        }
        persist(out, || source.confirm()).await?;
        Ok(Ok(passed))
    }

    /// What was written lately, up to where the members change: the id of the last of it, or why the client has to begin anew.
    async fn recent(
        &self,
        recent: &Arc<Recent>,
        sets: &Sets,
        to: Anchor,
        mut passed: EventId,
    ) -> Result<Result<EventId, &'static str>, SourceError> {
        let Self { subscriber, change, .. } = self;
        let (shared, out) = (&subscriber.shared, &subscriber.out);
        // It names a place of the feed, not a row.
        let cursor = Cursor { stamp: Instant::MIN, id: "".into(), ..change.pages.cursor.clone() };
        let row = Replaying { cursor, ..change.pages.clone() };
        let mut after = change.recent_after.unwrap_or(Position::ZERO);
        loop {
            let held = shared.budget.take(READ_BYTES).await;
            let mut read = match recent::frames(shared, recent, sets, &row, to, after).await {
                Ok(read) => read,
                Err(reason) => return Ok(Err(reason)),
            };
            if read.last.is_none() && read.large.is_none() {
                return Ok(Ok(passed));
            }
            let queue = read.frame_queue(&shared.budget, held, &row);
            let mut sent = None;
            while let Some(buffer) = queue.take() {
                passed = buffer.place.clone();
                if let Place::Recent { at, .. } = &buffer.place.0 {
                    sent = Some(*at);
                }
                out.send(Item::Frames(buffer.frames), buffer.place).await;
            }
            if queue.reclaimed() {
                // Read again, from the last that was sent.
                after = sent.unwrap_or(after);
                continue;
            }
            after = read.last.unwrap_or(after);
            if let Some((position, event, length)) = read.large {
                let id = recent::id(&row, position);
                let frame = LargeFrame { shared, out, budget: &shared.budget };
                frame.begin(&id, event, &passed).await;
                let sent = frame.parts(position, length, &passed).await;
                // In the middle of a frame nothing can be told: the stream ends, and the client resumes before it.
                sent.map_err(|error| SourceError::Unavailable(error.to_string()))?;
                frame.end(id.clone(), event).await;
                (passed, after) = (id, position);
            }
        }
    }

    /// All pages, from the place on that the client came with.
    async fn pages(
        &self,
        source: &Arc<dyn Source>,
        recent: &Arc<Recent>,
        mut passed: EventId,
    ) -> Result<EventId, SourceError> {
        let Self { change, .. } = self;
        // The id of the Group itself comes before all rows, and nothing was decided yet.
        let rows = !change.pages.cursor.id.is_empty();
        let mut cursor = (change.resumed && rows).then(|| change.pages.cursor.clone());
        let at = change.pages.group.as_ref().map(|group| (group.leaving, group.batch));
        let mut read_size = ReadSize::new(PageRequest::LARGEST);
        for leaving in [true, false] {
            let ids = if leaving { &self.leave } else { &self.join };
            let begins_here = at.filter(|_| cursor.is_some());
            // What was done before the cut.
            if ids.len() == 0 || (leaving && begins_here.is_some_and(|(leaving, _)| !leaving)) {
                continue;
            }
            let everybody = match begins_here {
                Some((_, batch)) => batch == EVERYBODY,
                None => persist(&self.subscriber.out, || source.are_most(ids.len())).await?,
            };
            // One by one: there may be thousands, and as many clients that read them slowly.
            let one = if everybody { &[][..] } else { ids.sorted() };
            let batches = (0..).zip(one.chunks(BATCH)).map(|(number, batch)| {
                (number, Some(Arc::new(Patients::from_ids(batch.iter().map(|id| &**id)))))
            });
            for (number, mentions) in batches.chain(everybody.then_some((EVERYBODY, None))) {
                if begins_here.is_some_and(|(_, batch)| number < batch) {
                    continue;
                }
                let batch = (leaving, number);
                passed = self
                    .batch(source, recent, batch, mentions.as_ref(), &mut cursor, &mut read_size, passed)
                    .await?;
                // The place lay in this batch, in a type that nobody has any rows of now.
                cursor = None;
            }
        }
        Ok(passed)
    }

    /// The rows of a batch of patients, type by type.
    #[allow(clippy::too_many_arguments)]
    async fn batch(
        &self,
        source: &Arc<dyn Source>,
        recent: &Arc<Recent>,
        (leaving, batch): (bool, u32),
        mentions: Option<&Arc<Patients>>,
        cursor: &mut Option<Cursor>,
        read_size: &mut ReadSize,
        mut passed: EventId,
    ) -> Result<EventId, SourceError> {
        let Self { subscriber, change, .. } = self;
        let types = subscriber.filter.types;
        let present = persist(&subscriber.out, || source.present(None, types, mentions.cloned())).await?;
        for resource_type in sorted_types(&subscriber.filter) {
            let after = match cursor {
                Some(at) if at.resource_type == resource_type => {
                    cursor.take().filter(|at| !at.id.is_empty()).map(|at| (at.stamp, at.id))
                }
                Some(_) => continue,
                None => None,
            };
            if !present.contains(&(Kind::Upsert, resource_type)) {
                continue;
            }
            let scope = self.scope(recent, leaving, mentions, resource_type);
            let request = PageRequest {
                resource_type,
                kind: Kind::Upsert,
                scope: Some(scope),
                since: None,
                until: change.pages.watermark.safe_time,
                after,
                expected: None,
                bytes: read_size.bytes(),
            };
            passed = self.type_pages(source, request, (leaving, batch), read_size, passed).await?;
        }
        Ok(passed)
    }

    async fn type_pages(
        &self,
        source: &Arc<dyn Source>,
        request: PageRequest,
        (leaving, batch): (bool, u32),
        read_size: &mut ReadSize,
        passed: EventId,
    ) -> Result<EventId, SourceError> {
        let Self { subscriber, change, .. } = self;
        let PageRequest { kind, resource_type, .. } = request;
        let row = Replaying {
            group: change
                .pages
                .group
                .as_deref()
                .map(|group| Box::new(GroupPages { leaving, batch, ..*group })),
            cursor: Cursor { kind, resource_type, stamp: Instant::MIN, id: "".into() },
            ..change.pages.clone()
        };
        let pages = TypePages { shared: &subscriber.shared, out: &subscriber.out, source, row };
        pages.run(request, read_size, passed).await
    }

    /// Which rows of a batch are sent: those that do not belong to who stays, which the client has, and of which the journal has
    /// nothing newer. What belongs to several members comes with the first of them.
    fn scope(
        &self,
        recent: &Arc<Recent>,
        leaving: bool,
        mentions: Option<&Arc<Patients>>,
        resource_type: ResourceType,
    ) -> Scope {
        let whose = if leaving { self.leave.clone() } else { self.join.clone() };
        let (stay, recent) = (self.stay.clone(), recent.clone());
        // A batch has all of those who are between its first and its last.
        let bounds = mentions.and_then(|mentions| mentions.iter().next().zip(mentions.iter().last()));
        let bounds = bounds.map(|(first, last)| Box::<str>::from(first)..=Box::<str>::from(last));
        let wants = move |id: &str, patients: &Patients| {
            let first = patients.iter().find(|id| whose.contains(id));
            let in_batch = |first: &str| {
                bounds.as_ref().is_none_or(|bounds| (&**bounds.start()..=&**bounds.end()).contains(&first))
            };
            first.is_some_and(in_batch) && !stay.has_any(patients) && !recent.has(resource_type, id)
        };
        Scope { mentions: mentions.cloned(), wants: Arc::new(wants) }
    }
}

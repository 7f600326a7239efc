//! The pages of one resource type, or of its deletions, sent one after the other.

use crate::delivery::frame_queue::FrameQueue;
use crate::delivery::large_frame::LargeFrame;
use crate::delivery::read_size::ReadSize;
use crate::delivery::subscription::ItemSender;
use crate::id::{Cursor, Place, Replaying};
use crate::replay::page_frames::PageFrames;
use crate::replay::persist;
use crate::replay::spill::{Spill, SpillKey};
use crate::shared::Shared;
use crate::{EventId, Item, LargeRow, Page, PageRequest, PageRows as _, Scope, Source, SourceError};
use std::sync::Arc;
use tokio::time::Instant as Clock;
use tokio_util::task::AbortOnDropHandle;

/// The pages of one type for one subscriber.
pub(crate) struct TypePages<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) out: &'a ItemSender,
    pub(crate) source: &'a Arc<dyn Source>,
    /// The place before all its rows.
    pub(crate) row: Replaying,
}

type Read = (Page, FrameQueue<EventId>);

impl TypePages<'_> {
    /// Sends its pages; the id of the last row sent, or the one given.
    pub(crate) async fn run(
        &self,
        mut request: PageRequest,
        read_size: &mut ReadSize,
        mut passed: EventId,
    ) -> Result<EventId, SourceError> {
        let mut ahead: Option<AbortOnDropHandle<Result<Read, SourceError>>> = None;
        loop {
            // What failed ahead is tried again, with pauses.
            let early = match ahead.take() {
                Some(ahead) => ahead.await.ok().and_then(Result::ok),
                None => None,
            };
            let (page, queue) = match early {
                Some(page) => page,
                None => persist(self.out, || self.read(&request)).await?,
            };
            let more = page.next.is_some();
            let (after, expected, bytes) = (page.next, page.expected, read_size.bytes());
            let next = PageRequest { after, expected, bytes, ..request.clone() };
            let this = std::mem::replace(&mut request, next);
            if more && read_size.is_prompt() {
                ahead = Some(AbortOnDropHandle::new(tokio::spawn(self.read(&request))));
                // So that the database has it before we are busy with this one.
                tokio::task::yield_now().await;
            }
            let begun = Clock::now();
            let mut sent = None;
            while let Some(buffer) = queue.take() {
                sent = Some(buffer.place.clone());
                self.out.send(Item::Frames(buffer.frames), buffer.place).await;
            }
            passed = sent.clone().unwrap_or(passed);
            if queue.reclaimed() {
                read_size.reclaimed();
                ahead = None;
                // The rest of this page, from the last row that was sent.
                let after = sent.as_ref().and_then(place_of).or_else(|| this.after.clone());
                request = PageRequest { after, bytes: read_size.bytes(), ..this };
                continue;
            }
            if let Some(large) = &page.large {
                passed = self.send_large(large, this.scope.as_ref(), passed).await?;
            }
            read_size.record(begun.elapsed(), self.shared.page_budget.waiting() > 0);
            request.bytes = read_size.bytes();
            if !more {
                return Ok(passed);
            }
        }
    }

    /// Sends a large row, if it is still there; its id, or the one given.
    async fn send_large(
        &self,
        large: &LargeRow,
        scope: Option<&Scope>,
        passed: EventId,
    ) -> Result<EventId, SourceError> {
        let Replaying { cursor: Cursor { kind, resource_type, .. }, .. } = self.row;
        let spills = &self.shared.spills;
        let key = SpillKey::Row(large.version);
        let read = || async { self.source.large(resource_type, large.clone()).await };
        let spill = persist(self.out, || spills.get(&key, read())).await?;
        let wanted = |spill: &Arc<Spill>| scope.is_none_or(|scope| (scope.wants)(&large.id, &spill.patients));
        let Some(spill) = spill.filter(wanted) else { return Ok(passed) };
        let cursor = Cursor { stamp: large.stamp, id: large.id.clone(), ..self.row.cursor.clone() };
        let id = EventId(Place::Replay(Replaying { cursor, ..self.row.clone() }));
        if self.row.group.as_ref().is_some_and(|group| group.leaving) {
            return Ok(self.send_leaving(large, id).await);
        }
        let frame = LargeFrame { shared: self.shared, out: self.out, budget: &self.shared.page_budget };
        frame.spilled(&spill, kind.event(resource_type), (&id, &passed)).await?;
        Ok(id)
    }

    /// Tells that a large row leaves.
    async fn send_leaving(&self, large: &LargeRow, id: EventId) -> EventId {
        let mut rows = PageFrames::new(self.shared.framing.clone(), &self.shared.pool, self.row.clone());
        rows.row(large.stamp, &large.id, &mut |_| true);
        let queue = rows.finish(&self.shared.page_budget, None);
        while let Some(buffer) = queue.take() {
            self.out.send(Item::Frames(buffer.frames), buffer.place).await;
        }
        id
    }

    /// A page, and its frames. First room, then a turn: whoever waits for room must not hold a turn that others could use;
    /// and the turn ends with the page, however slow its reader is.
    fn read(
        &self,
        request: &PageRequest,
    ) -> impl Future<Output = Result<Read, SourceError>> + Send + 'static {
        let (shared, source) = (self.shared.clone(), self.source.clone());
        let (row, request) = (self.row.clone(), request.clone());
        async move {
            let held = shared.page_budget.take(request.bytes).await;
            let _turn = shared.page_permits.take().await;
            let mut rows = PageFrames::new(shared.framing.clone(), &shared.pool, row);
            let page = source.page(request, &mut rows).await?;
            Ok((page, rows.finish(&shared.page_budget, held)))
        }
    }
}

/// The row that an id of a replay names.
fn place_of(id: &EventId) -> Option<(fhir::Instant, Box<str>)> {
    match &id.0 {
        Place::Replay(place) => Some((place.cursor.stamp, place.cursor.id.clone())),
        Place::Beginning
        | Place::Anew { .. }
        | Place::Live { .. }
        | Place::Cutover { .. }
        | Place::Changing { .. }
        | Place::Recent { .. }
        | Place::Old { .. } => None,
    }
}

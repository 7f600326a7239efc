//! The Group itself, for a stream that begins and asks for it.

use super::stop::Stop;
use super::stream::GroupStream;
use crate::delivery::budget::Reservation;
use crate::delivery::large_frame::LargeFrame;
use crate::id::{Cursor, GroupPages, Place, Replaying};
use crate::replay::spill::SpillKey;
use crate::replay::{persist, sorted_types};
use crate::source::{LARGE_BYTES, Large};
use crate::subscriber::Subscriber;
use crate::{Anchor, EventCounts, EventId, Frames, Item, Kind, SourceError};
use bytes::Bytes;
use fhir::{Instant, Patients, ResourceType};
use std::sync::Arc;

impl GroupStream<'_> {
    /// Sends the Group as of a position, before all pages; the id of that, or the one given if there is no such Group.
    pub(super) async fn send_group(
        &self,
        pages: &Replaying,
        to: Anchor,
        passed: EventId,
    ) -> Result<EventId, Stop> {
        let Subscriber { shared, filter, out } = self.subscriber;
        let budget = &shared.page_budget;
        // Room first: as many streams as may be open could each read a Group of a hundred thousand members.
        let mut held = budget.take(LARGE_BYTES).await;
        let content = self.as_of().itself(to.position).await.map_err(|why| Self::unknown(why, &passed))?;
        let Some(content) = content else { return Ok(passed) };
        let first = sorted_types(filter).first().copied().unwrap_or(ResourceType::GROUP);
        let cursor = Cursor { kind: Kind::Upsert, resource_type: first, stamp: Instant::MIN, id: "".into() };
        let group = Some(Box::new(GroupPages { from: None, to, leaving: false, batch: 0 }));
        let id = EventId(Place::Replay(Replaying { group, cursor, ..pages.clone() }));
        if content.len() > LARGE_BYTES {
            let epoch = shared.durable.borrow().epoch;
            let key = SpillKey::Group(self.id.into(), epoch, to.position);
            let spill = persist(out, || shared.spills.get(&key, large(content.clone()))).await?;
            drop((content, held));
            let Some(spill) = spill else {
                return Err(Stop::End(SourceError::Unavailable("the Group could not be stored".into())));
            };
            LargeFrame { shared, out, budget }.spilled(&spill, ResourceType::GROUP, (&id, &passed)).await?;
            return Ok(id);
        }
        let mut frame = Vec::new();
        shared.framing.frame(&id.to_string(), ResourceType::GROUP, &content, &mut frame);
        drop(content);
        budget.fit(&mut held, frame.len());
        let counts = Arc::new(EventCounts::of(ResourceType::GROUP, 1));
        let frames = Frames { bytes: Reservation::attach(held, frame), counts, open: false };
        out.send(Item::Frames(frames), id.clone()).await;
        Ok(id)
    }
}

async fn large(content: Bytes) -> Result<Option<Large>, SourceError> {
    Ok(Some(Large { patients: Patients::none(), write: Box::new(move |out| out.write_all(&content)) }))
}

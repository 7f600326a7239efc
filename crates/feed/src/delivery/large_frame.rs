//! The frame of a large resource, sent piece by piece: nobody holds it whole.

use crate::delivery::budget::{Budget, Reservation};
use crate::delivery::frame_queue::FRAME_BUFFER_BYTES;
use crate::delivery::subscription::{EventCounts, ItemSender};
use crate::replay::spill::Spill;
use crate::shared::Shared;
use crate::{EventId, Frames, Item, Position, SourceError};
use bytes::Bytes;
use fhir::ResourceType;
use std::io;
use std::sync::Arc;

/// One subscriber's frame.
pub(crate) struct LargeFrame<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) out: &'a ItemSender,
    /// That the pieces come out of.
    pub(crate) budget: &'a Budget,
}

impl LargeFrame<'_> {
    /// Sends what comes before the data. `passed` is the id of everything before the frame.
    pub(crate) async fn begin(&self, id: &EventId, event: ResourceType, passed: &EventId) {
        let mut before = Vec::new();
        self.shared.framing.begin(&id.to_string(), event, &mut before);
        self.send(before.into(), passed.clone()).await;
    }

    /// Reads and sends a piece of the data; its length.
    pub(crate) async fn send_chunk(
        &self,
        passed: &EventId,
        read: impl Future<Output = io::Result<Vec<u8>>>,
    ) -> io::Result<usize> {
        let mut held = self.budget.take(FRAME_BUFFER_BYTES).await;
        let bytes = read.await?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = bytes.len();
        self.budget.fit(&mut held, length);
        self.send(Reservation::attach(held, bytes), passed.clone()).await;
        Ok(length)
    }

    /// Reads and sends the data of an entry of the journal, which is stored in parts.
    pub(crate) async fn parts(&self, position: Position, length: u64, passed: &EventId) -> io::Result<()> {
        let (mut sent, mut number) = (0, 0);
        while sent < length {
            let part = async {
                let part = self.shared.journal.read(move |journal| journal.part(position, number)).await;
                part.map_err(io::Error::other)?
                    .ok_or_else(|| io::Error::other("what was being sent is no longer kept"))
            };
            sent += self.send_chunk(passed, part).await? as u64;
            number += 1;
        }
        Ok(())
    }

    /// Sends the whole frame of a resource that was put into a file.
    pub(crate) async fn spilled(
        &self,
        spill: &Arc<Spill>,
        event: ResourceType,
        (id, passed): (&EventId, &EventId),
    ) -> Result<(), SourceError> {
        self.begin(id, event, passed).await;
        let mut offset = 0;
        while offset < spill.length {
            let spill = Arc::clone(spill);
            let read = async move {
                let read = tokio::task::spawn_blocking(move || spill.read(offset, FRAME_BUFFER_BYTES));
                read.await.map_err(io::Error::other)?
            };
            let sent = self.send_chunk(passed, read).await;
            // In the middle of a frame nothing can be told: the stream ends, and the client resumes before it.
            offset += sent.map_err(|error| SourceError::Unavailable(error.to_string()))? as u64;
        }
        self.end(id.clone(), event).await;
        Ok(())
    }

    /// Sends what comes after the data, with the id that is passed with it.
    pub(crate) async fn end(&self, id: EventId, event: ResourceType) {
        let mut after = Vec::new();
        self.shared.framing.end(&mut after);
        let counts = Arc::new(EventCounts::of(event, 1));
        self.out.send(Item::Frames(Frames { bytes: after.into(), counts, open: false }), id).await;
    }

    async fn send(&self, bytes: Bytes, passed: EventId) {
        let counts = Arc::new(EventCounts::default());
        self.out.send(Item::Frames(Frames { bytes, counts, open: true }), passed).await;
    }
}

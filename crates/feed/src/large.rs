//! The frame of a large resource, sent piece by piece: nobody holds it whole.

use crate::budget::{Budget, Held};
use crate::feed::Shared;
use crate::subscription::{Out, Tally};
use crate::{EventId, Frames, Item};
use bytes::Bytes;
use fhir::ResourceType;
use std::io;
use std::sync::Arc;

/// One subscriber's frame.
pub(crate) struct LargeFrame<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) out: &'a Out,
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
    pub(crate) async fn piece(
        &self,
        passed: &EventId,
        read: impl FnOnce() -> io::Result<Vec<u8>> + Send + 'static,
    ) -> io::Result<usize> {
        let mut held = self.budget.take(crate::pieces::PIECE_BYTES).await;
        let bytes = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = bytes.len();
        self.budget.fit(&mut held, length);
        self.send(Held::attach(held, bytes), passed.clone()).await;
        Ok(length)
    }

    /// Sends what comes after the data, with the id that is passed with it.
    pub(crate) async fn end(&self, id: EventId, event: ResourceType) {
        let mut after = Vec::new();
        self.shared.framing.end(&mut after);
        let tally = Arc::new(Tally::of(event, 1));
        self.out.send(Item::Frames(Frames { bytes: after.into(), tally, open: false }), id).await;
    }

    async fn send(&self, bytes: Bytes, passed: EventId) {
        let tally = Arc::new(Tally::default());
        self.out.send(Item::Frames(Frames { bytes, tally, open: true }), passed).await;
    }
}

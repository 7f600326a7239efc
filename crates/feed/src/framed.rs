//! The frames of a page, written where its rows come in: no resource is copied once more for its frame, and the
//! memory of a page that was sent serves the next.

use crate::budget::{Budget, Held};
use crate::id::{Cursor, Place, Replaying, RowIds};
use crate::source::PageRows;
use crate::{EventId, Frames, Framing, Item, Tally};
use bytes::Bytes;
use fhir::{Instant, ResourceType};
use parking_lot::Mutex;
use std::sync::Arc;

/// What the frames of most pages come to: a page has about a megabyte of resources. Most of an untouched rest costs nothing.
const CAPACITY: usize = 3 << 19;
/// Of so many pages the memory is kept while nobody needs it.
const SPARE: usize = 2;

/// Memory for pages.
#[derive(Clone, Default)]
pub(crate) struct Spare(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spare {
    fn take(&self) -> Vec<u8> {
        self.0.lock().pop().unwrap_or_else(|| Vec::with_capacity(CAPACITY))
    }

    /// Keeps the memory, unless there is enough or it has grown.
    fn give(&self, mut memory: Vec<u8>) {
        memory.clear();
        let mut spare = self.0.lock();
        if memory.capacity() == CAPACITY && spare.len() < SPARE {
            spare.push(memory);
        }
    }
}

/// The frames of a page while it is read.
pub(crate) struct Framed {
    framing: Arc<dyn Framing>,
    /// Any row of the stage: what ids have in common.
    row: Replaying,
    event: ResourceType,
    ids: RowIds,
    /// The last row's place.
    last: (Instant, String),
    count: u64,
    frames: Lent,
}

impl Framed {
    /// A page with rows like this one.
    pub(crate) fn new(framing: Arc<dyn Framing>, spare: &Spare, row: Replaying) -> Self {
        Self {
            framing,
            event: row.cursor.kind.event(row.cursor.resource_type),
            ids: RowIds::new(&row),
            row,
            last: (Instant::MIN, String::new()),
            count: 0,
            frames: Lent { frames: spare.take(), spare: spare.clone() },
        }
    }

    /// The page, if it has rows, and the id of the last. What is held for it is made to fit.
    pub(crate) fn finish(self, budget: &Budget, mut held: Option<Held>) -> Option<(Item, EventId)> {
        if self.count == 0 {
            return None;
        }
        let frames = &self.frames.frames;
        budget.fit(&mut held, frames.len());
        // A client may take its time, and what is kept meanwhile should not be much more than what is counted.
        let bytes = if frames.len() < frames.capacity() / 2 {
            Held::attach(held, Bytes::copy_from_slice(frames))
        } else {
            Held::attach(held, self.frames)
        };
        let tally = Arc::new(Tally::of(self.event, self.count));
        let (stamp, id) = self.last;
        let cursor = Cursor { stamp, id: id.into(), ..self.row.cursor };
        let id = EventId(Place::Replay(Replaying { cursor, ..self.row }));
        Some((Item::Frames(Frames { bytes, tally }), id))
    }
}

impl PageRows for Framed {
    fn row(&mut self, stamp: Instant, id: &str, write: &mut dyn FnMut(&mut Vec<u8>) -> bool) {
        let frames = &mut self.frames.frames;
        let start = frames.len();
        self.framing.begin(self.ids.text(stamp, id), self.event, frames);
        if !write(frames) {
            frames.truncate(start);
            return;
        }
        self.framing.end(frames);
        self.count += 1;
        self.last.0 = stamp;
        id.clone_into(&mut self.last.1);
    }

    fn clear(&mut self) {
        self.frames.frames.clear();
        self.count = 0;
    }
}

/// Frames in memory that is given back.
struct Lent {
    frames: Vec<u8>,
    spare: Spare,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.frames
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.spare.give(std::mem::take(&mut self.frames));
    }
}

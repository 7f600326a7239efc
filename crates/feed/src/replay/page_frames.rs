//! The frames of a page, written where its rows come in: no resource is copied once more for its frame, and the
//! memory of a piece that was sent serves the next.

use crate::delivery::budget::{Budget, Reservation};
use crate::delivery::frame_queue::{FRAME_BUFFER_BYTES, FrameBuffer, FrameQueue};
use crate::id::{Cursor, Place, Replaying, RowIds};
use crate::source::PageRows;
use crate::{EventCounts, EventId, Frames, Framing, Kind};
use bytes::Bytes;
use fhir::{Instant, ResourceType, write_out_of_scope};
use parking_lot::Mutex;
use std::sync::Arc;

/// What most pieces come to. Most of an untouched rest costs nothing.
const CAPACITY: usize = FRAME_BUFFER_BYTES + (16 << 10);
/// Of so many pieces the memory is kept while nobody needs it: of two pages.
const MAX_POOLED: usize = 64;

/// Memory for pieces of pages.
#[derive(Clone, Default)]
pub(crate) struct BufferPool(Arc<Mutex<Vec<Vec<u8>>>>);

impl BufferPool {
    fn take(&self) -> Vec<u8> {
        self.0.lock().pop().unwrap_or_else(|| Vec::with_capacity(CAPACITY))
    }

    /// Keeps the memory, unless there is enough or it has grown.
    fn give(&self, mut memory: Vec<u8>) {
        memory.clear();
        let mut pool = self.0.lock();
        if memory.capacity() == CAPACITY && pool.len() < MAX_POOLED {
            pool.push(memory);
        }
    }
}

/// The frames of a page while it is read.
pub(crate) struct PageFrames {
    framing: Arc<dyn Framing>,
    /// Any row of the stage: what ids have in common.
    row: Replaying,
    event: ResourceType,
    /// Whether the rows leave, and do not come.
    leaving: bool,
    ids: RowIds,
    pool: BufferPool,
    /// The pieces that are full.
    full: Vec<Written>,
    /// The one that is written.
    last: Written,
    /// What all of them come to.
    bytes: usize,
}

/// Rows of one piece.
struct Written {
    frames: PooledBuffer,
    count: u64,
    /// The last row's place.
    stamp: Instant,
    id: String,
}

impl Written {
    fn new(pool: &BufferPool) -> Self {
        let frames = PooledBuffer { frames: pool.take(), pool: pool.clone() };
        Self { frames, count: 0, stamp: Instant::MIN, id: String::new() }
    }
}

impl PageFrames {
    /// A page with rows like this one.
    pub(crate) fn new(framing: Arc<dyn Framing>, pool: &BufferPool, row: Replaying) -> Self {
        let leaving = row.group.as_ref().is_some_and(|group| group.leaving);
        let kind = if leaving { Kind::Deletion } else { row.cursor.kind };
        Self {
            framing,
            event: kind.event(row.cursor.resource_type),
            leaving,
            ids: RowIds::new(&row),
            row,
            pool: pool.clone(),
            full: Vec::new(),
            last: Written::new(pool),
            bytes: 0,
        }
    }

    /// The page, with the id of the last row of each piece. What is held for it is made to fit.
    pub(crate) fn finish(self, budget: &Budget, mut held: Option<Reservation>) -> FrameQueue<EventId> {
        budget.fit(&mut held, self.bytes);
        let (row, event) = (self.row, self.event);
        let all = self.full.into_iter().chain([self.last]).filter(|written| written.count > 0);
        let queue = all.map(|Written { frames, count, stamp, id }| {
            let length = frames.frames.len();
            let held = Reservation::part(&mut held, length);
            // A client may take its time, and what is kept meanwhile should not be much more than what is counted.
            let bytes = if length < frames.frames.capacity() / 2 {
                Reservation::attach(held, Bytes::copy_from_slice(&frames.frames))
            } else {
                Reservation::attach(held, frames)
            };
            let cursor = Cursor { stamp, id: id.into(), ..row.cursor.clone() };
            FrameBuffer {
                frames: Frames { bytes, counts: Arc::new(EventCounts::of(event, count)), open: false },
                place: EventId(Place::Replay(Replaying { cursor, ..row.clone() })),
            }
        });
        FrameQueue::new(queue.collect(), budget)
    }
}

impl PageRows for PageFrames {
    fn row(&mut self, stamp: Instant, id: &str, write: &mut dyn FnMut(&mut Vec<u8>) -> bool) {
        if self.last.frames.frames.len() >= FRAME_BUFFER_BYTES {
            let next = Written::new(&self.pool);
            self.full.push(std::mem::replace(&mut self.last, next));
        }
        let frames = &mut self.last.frames.frames;
        let start = frames.len();
        self.framing.begin(self.ids.text(stamp, id), self.event, frames);
        let data = frames.len();
        let mut written = write(frames);
        if self.leaving {
            // Of what leaves only that is told.
            frames.truncate(data);
            let Cursor { resource_type, .. } = self.row.cursor;
            written &= write_out_of_scope(resource_type, id, self.row.watermark.safe_time, frames).is_ok();
        }
        if !written {
            frames.truncate(start);
            return;
        }
        self.framing.end(frames);
        self.bytes += frames.len() - start;
        self.last.count += 1;
        self.last.stamp = stamp;
        id.clone_into(&mut self.last.id);
    }

    fn clear(&mut self) {
        self.full.clear();
        self.last.frames.frames.clear();
        self.last.count = 0;
        self.bytes = 0;
    }
}

/// Frames in memory that is given back.
struct PooledBuffer {
    frames: Vec<u8>,
    pool: BufferPool,
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.frames
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.frames));
    }
}

//! What was read for one subscriber, in pieces: each is sent by itself, and while they wait they can be taken back.

use crate::Frames;
use crate::delivery::budget::{Budget, Reclaim};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use tokio::time::Instant as Clock;

/// A piece ends with the frame that brings it to this.
pub(crate) const FRAME_BUFFER_BYTES: usize = 32 << 10;

/// Some frames, and the place that is reached with them.
pub(crate) struct FrameBuffer<P> {
    pub(crate) frames: Frames,
    pub(crate) place: P,
}

/// The pieces, in order.
pub(crate) struct FrameQueue<P>(Arc<Mutex<Waiting<P>>>);

struct Waiting<P> {
    buffers: VecDeque<FrameBuffer<P>>,
    /// When the last one was taken, or all were read.
    touched: Clock,
    reclaimed: bool,
}

impl<P: Send + 'static> FrameQueue<P> {
    /// These pieces, whose bytes are of the budget.
    pub(crate) fn new(buffers: VecDeque<FrameBuffer<P>>, budget: &Budget) -> Self {
        let waiting = Arc::new(Mutex::new(Waiting { buffers, touched: Clock::now(), reclaimed: false }));
        let reclaim: Weak<dyn Reclaim> = {
            let waiting: Arc<dyn Reclaim> = waiting.clone();
            Arc::downgrade(&waiting)
        };
        budget.may_reclaim(reclaim);
        Self(waiting)
    }

    /// The next one; `None` if none is left.
    pub(crate) fn take(&self) -> Option<FrameBuffer<P>> {
        let mut waiting = self.0.lock();
        waiting.touched = Clock::now();
        waiting.buffers.pop_front()
    }

    /// Whether pieces were taken back: what follows the last that was taken is to be read again.
    pub(crate) fn reclaimed(&self) -> bool {
        self.0.lock().reclaimed
    }
}

impl<P: Send> Reclaim for Mutex<Waiting<P>> {
    fn untouched_since(&self) -> Option<(Clock, usize)> {
        let waiting = self.lock();
        (!waiting.buffers.is_empty()).then(|| (waiting.touched, waiting.bytes()))
    }

    fn reclaim(&self) -> usize {
        let mut waiting = self.lock();
        let bytes = waiting.bytes();
        // The last may have been taken a moment ago.
        waiting.reclaimed |= bytes > 0;
        waiting.buffers = VecDeque::new();
        bytes
    }
}

impl<P> Waiting<P> {
    fn bytes(&self) -> usize {
        self.buffers.iter().map(|buffer| buffer.frames.bytes.len()).sum()
    }
}

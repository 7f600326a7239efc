//! Detaching a stream from hyper.
//!
//! hyper keeps buffers for a connection as long as it is open. So the response of a stream is put here
//! instead of being returned to hyper, which waits for it and is dropped once it has flushed earlier
//! responses. Requests can be pipelined, and hyper does not promise to write one response completely
//! before it reads the next request.

use axum::response::Response;
use hyper::Version;
use parking_lot::Mutex;

/// A response that hyper does not write.
pub(super) struct DetachedStream {
    pub(super) response: Response,
    /// The version of the request.
    pub(super) version: Version,
}

/// Where a connection's stream waits to be detached.
#[derive(Default)]
pub(super) struct DetachSlot(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Nothing,
    /// hyper may hold unsent bytes of earlier responses.
    Unflushed(DetachedStream),
    Ready(DetachedStream),
}

impl DetachSlot {
    /// Puts a stream here. hyper gets nothing more to write after it: it answers requests in order.
    pub(super) fn put(&self, detached: DetachedStream) {
        *self.0.lock() = State::Unflushed(detached);
    }

    /// hyper has written everything that it held.
    pub(super) fn flushed(&self) {
        let mut state = self.0.lock();
        *state = match std::mem::take(&mut *state) {
            State::Unflushed(detached) => State::Ready(detached),
            other => other,
        };
    }

    /// Takes the stream, once hyper has nothing left to write.
    pub(super) fn take(&self) -> Option<DetachedStream> {
        let mut state = self.0.lock();
        match std::mem::take(&mut *state) {
            State::Ready(detached) => Some(detached),
            other => {
                *state = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn detached() -> DetachedStream {
        DetachedStream { response: Response::new(Body::empty()), version: Version::HTTP_11 }
    }

    #[test]
    fn stream_is_taken_after_earlier_responses_are_flushed() {
        let detach = DetachSlot::default();
        detach.flushed();
        assert!(detach.take().is_none());
        detach.put(detached());
        assert!(detach.take().is_none(), "hyper may hold an answer from before");
        detach.flushed();
        detach.flushed();
        assert!(detach.take().is_some());
        assert!(detach.take().is_none());
    }
}

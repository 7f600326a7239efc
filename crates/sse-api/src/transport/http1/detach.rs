//! How a stream comes from hyper to us.
//!
//! hyper keeps buffers for every connection, and would for as long as a stream is open. So a stream's response is not
//! given to hyper but put here; hyper goes on waiting for it, and is dropped once it holds nothing of earlier responses:
//! requests may come one behind the other without waiting, and hyper does not promise that it writes one
//! answer to its end before it comes to the next request.

use axum::response::Response;
use hyper::Version;
use parking_lot::Mutex;

/// The response that hyper does not write.
pub(super) struct DetachedStream {
    pub(super) response: Response,
    /// By which the request came.
    pub(super) version: Version,
}

/// The place where one connection hands its stream over.
#[derive(Default)]
pub(super) struct DetachSlot(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Nothing,
    /// hyper may hold what was to be sent before.
    Unflushed(DetachedStream),
    Ready(DetachedStream),
}

impl DetachSlot {
    /// Hands a stream over. After this hyper gets no more to write: it answers one request after the other.
    pub(super) fn put(&self, detached: DetachedStream) {
        *self.0.lock() = State::Unflushed(detached);
    }

    /// Notes that hyper has written all that it held.
    pub(super) fn flushed(&self) {
        let mut state = self.0.lock();
        *state = match std::mem::take(&mut *state) {
            State::Unflushed(detached) => State::Ready(detached),
            other => other,
        };
    }

    /// The stream, once the connection is only its own.
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
    fn a_stream_is_taken_once_what_lay_before_it_is_written() {
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

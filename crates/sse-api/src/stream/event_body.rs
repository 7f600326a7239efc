//! The body of a stream, produced on demand.
//!
//! Nothing is taken from the subscription until the connection has written its buffer. A slow client
//! costs that buffer and the socket's, however far behind it is.

use crate::feed_handle::FeedStream;
use crate::metrics::EndReason;
use crate::stream::framing::{HEARTBEAT, outcome_frame, random_retry_delay};
use crate::stream::notices;
use crate::stream::registry::StreamHandle;
use bytes::Bytes;
use feed::{Item, SourceError, idle_timer, poll_on_wake};
use futures_core::Stream;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The first notice of a stream, and its heartbeat.
pub(crate) struct StreamOptions {
    /// The notice `start`.
    pub(crate) start: String,
    /// After how long without events a comment line is sent.
    pub(crate) heartbeat: Duration,
}

/// What the loop reacts to.
enum Event {
    Stopping,
    Item(Result<Item, SourceError>),
    Quiet,
}

/// The frames of a stream. Dropping it closes the stream's registration.
pub(crate) fn event_body(
    mut subscriber: impl FeedStream,
    options: StreamOptions,
    mut handle: StreamHandle,
    stopping: CancellationToken,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    async_stream::stream! {
        let start = outcome_frame(Some(random_retry_delay()), subscriber.id().as_bytes(), &options.start);
        handle.record_notice("start", start.len());
        yield Ok(start);

        let mut stopped = pin!(poll_on_wake(stopping.cancelled()));
        let mut quiet = Instant::now() + options.heartbeat;
        let mut alarm = pin!(sleep_until(quiet));
        // Set while a frame is sent in pieces: nothing else may be sent until it ends.
        let mut in_frame = false;
        loop {
            let event = tokio::select! {
                // Shutdown first, so that a stream that always has changes ends too; the heartbeat last, as
                // it is for streams without changes.
                biased;
                () = stopped.as_mut() => Event::Stopping,
                item = subscriber.next() => Event::Item(item),
                () = idle_timer(alarm.as_mut(), quiet), if !in_frame => Event::Quiet,
            };
            let bytes = match event {
                Event::Item(Ok(Item::Frames(frames))) => {
                    in_frame = frames.open;
                    handle.record_frames(&frames);
                    frames.bytes
                }
                Event::Item(Ok(Item::Notice(notice))) => {
                    let (code, outcome) = notices::of(&notice);
                    let frame = outcome_frame(None, subscriber.id().as_bytes(), &outcome);
                    handle.record_notice(code, frame.len());
                    frame
                }
                Event::Item(Ok(Item::Waiting(what))) => {
                    handle.log_wait(what);
                    continue;
                }
                Event::Quiet => {
                    handle.record_bytes(HEARTBEAT.len());
                    HEARTBEAT
                }
                Event::Stopping => {
                    handle.set_end_reason(EndReason::Shutdown);
                    if in_frame {
                        return;
                    }
                    let (code, outcome) = notices::shutdown();
                    let last = outcome_frame(Some(random_retry_delay()), subscriber.id().as_bytes(), &outcome);
                    handle.record_notice(code, last.len());
                    yield Ok(last);
                    return;
                }
                Event::Item(Err(error)) => {
                    handle.set_end_reason(if matches!(error, SourceError::Unavailable(_)) {
                        EndReason::Unavailable
                    } else {
                        EndReason::Refused
                    });
                    // The database's message is for operators only.
                    tracing::warn!(%error, "stream failed");
                    if in_frame {
                        return;
                    }
                    let (code, outcome) = notices::failed(&error);
                    let last = outcome_frame(Some(random_retry_delay()), subscriber.id().as_bytes(), &outcome);
                    handle.record_notice(code, last.len());
                    yield Ok(last);
                    return;
                }
            };
            yield Ok(bytes);
            quiet = Instant::now() + options.heartbeat;
        }
    }
}

#[cfg(test)]
mod tests;

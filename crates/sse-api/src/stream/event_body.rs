//! One stream: the body of its response, made as the connection asks for it.
//!
//! Nothing is taken from the subscription before the connection has written what it has in hand, so a slow client costs
//! that and a socket's buffer, whatever lies before it.

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

/// What a stream begins with, and how it goes on.
pub(crate) struct StreamOptions {
    /// The notice `start`.
    pub(crate) start: String,
    /// How long it may be quiet.
    pub(crate) heartbeat: Duration,
}

/// What has happened.
enum Event {
    Stopping,
    Item(Result<Item, SourceError>),
    Quiet,
}

/// The frames of a stream. Its place is given back when this is dropped.
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
        // Set while a frame is sent in pieces: until it ends nothing else may be.
        let mut in_frame = false;
        loop {
            let event = tokio::select! {
                // A stream that is never without changes must hear of the end too, and its heartbeat
                // waits for a moment without.
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
                    // What the database said is for the operator alone.
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

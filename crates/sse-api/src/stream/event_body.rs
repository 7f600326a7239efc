//! One stream: the body of its response, made as the connection asks for it.
//!
//! Nothing is taken from the subscription before the connection has written what it has in hand, so a slow client costs
//! that and a socket's buffer, whatever lies before it.

use crate::feed_handle::Subscriber;
use crate::metrics::Ended;
use crate::stream::framing::{HEARTBEAT, draw_retry, outcome_frame};
use crate::stream::notices;
use crate::stream::registry::OpenStream;
use bytes::Bytes;
use feed::{Item, SourceError, idle_timer, poll_on_wake};
use futures_core::Stream;
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// What a stream begins with, and how it goes on.
pub(crate) struct Opening {
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
pub(crate) fn frames(
    mut subscriber: impl Subscriber,
    opening: Opening,
    mut open: OpenStream,
    stopping: CancellationToken,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    async_stream::stream! {
        let start = outcome_frame(Some(draw_retry()), subscriber.id().as_bytes(), &opening.start);
        open.sent_notice("start", start.len());
        yield Ok(start);

        let mut stopped = pin!(poll_on_wake(stopping.cancelled()));
        let mut quiet = Instant::now() + opening.heartbeat;
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
                    open.sent(&frames);
                    frames.bytes
                }
                Event::Item(Ok(Item::Notice(notice))) => {
                    let (code, outcome) = notices::of(&notice);
                    let frame = outcome_frame(None, subscriber.id().as_bytes(), &outcome);
                    open.sent_notice(code, frame.len());
                    frame
                }
                Event::Item(Ok(Item::Waiting(what))) => {
                    open.waits_for(what);
                    continue;
                }
                Event::Quiet => {
                    open.sent_bytes(HEARTBEAT.len());
                    HEARTBEAT
                }
                Event::Stopping => {
                    open.ends(Ended::Shutdown);
                    if in_frame {
                        return;
                    }
                    let (code, outcome) = notices::shutdown();
                    let last = outcome_frame(Some(draw_retry()), subscriber.id().as_bytes(), &outcome);
                    open.sent_notice(code, last.len());
                    yield Ok(last);
                    return;
                }
                Event::Item(Err(error)) => {
                    open.ends(if matches!(error, SourceError::Unavailable(_)) {
                        Ended::Unavailable
                    } else {
                        Ended::Refused
                    });
                    // What the database said is for the operator alone.
                    tracing::warn!(%error, "a stream cannot go on");
                    if in_frame {
                        return;
                    }
                    let (code, outcome) = notices::failed(&error);
                    let last = outcome_frame(Some(draw_retry()), subscriber.id().as_bytes(), &outcome);
                    open.sent_notice(code, last.len());
                    yield Ok(last);
                    return;
                }
            };
            yield Ok(bytes);
            quiet = Instant::now() + opening.heartbeat;
        }
    }
}

#[cfg(test)]
mod tests;

//! The loop that connects everything: database, slot, stream, layout, feed.
//!
//! [`run`] makes one session after the other. A session `prepare`s (both connections, publication, slot,
//! and whether the journal may go on from where it is or a new epoch begins) and then streams.

mod coalesce;
mod error;
mod prepare;
mod session;
mod slot_monitor;

pub use error::RunError;

use crate::layout::RowDecoder;
use crate::sink::{FeedSink, Sink};
use crate::{Settings, SourceStatus};
use error::{SessionError, chain};
use feed::{Feed, Publisher};
use pg::Backoff;
use pg::Retry;
use session::{End, Session};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The longest wait for the end of another process that holds the slot.
const STAND_BY: Duration = Duration::from_secs(1);

/// Follows the database into the feed until `shutdown`; comes back from whatever passes. It should have a thread of its own,
/// which it holds up for a tenth of a millisecond at times.
pub async fn run(
    settings: Settings,
    decoder: Box<dyn RowDecoder>,
    feed: Feed,
    publisher: Publisher,
    status: watch::Sender<SourceStatus>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    run_into(settings, decoder, &mut FeedSink::new(feed, publisher), status, shutdown).await
}

/// [`run`] into any [`Sink`].
pub async fn run_into(
    settings: Settings,
    decoder: Box<dyn RowDecoder>,
    sink: &mut impl Sink,
    status: watch::Sender<SourceStatus>,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let mut session = Session::new(settings, decoder, status, shutdown.clone());
    let mut backoff = Backoff::new();
    loop {
        let ended = session.run(sink, &mut backoff).await;
        session.status.send_modify(|status| status.connected = false);
        let mut longest = Duration::MAX;
        let (retry, state) = match ended {
            Ok(End::Shutdown) => {
                session.status.send_modify(|status| "stopped".clone_into(&mut status.state));
                return Ok(());
            }
            Ok(End::Reopened) => (Retry::Backoff, "the journal was reopened".to_owned()),
            Err(error) => {
                let (retry, state) = (error.retry(), chain(&error));
                if matches!(error, SessionError::HeldByAnother { .. }) {
                    // Whoever holds the slot serves: what is heard here would stand still.
                    sink.set_leader(false);
                    longest = STAND_BY;
                }
                if let (Retry::Never, SessionError::Run(error)) = (retry, error) {
                    return Err(error);
                }
                (retry, state)
            }
        };
        let wait = backoff.next(retry).min(longest);
        match retry {
            Retry::Backoff => {
                tracing::warn!(reason = state, ?wait, "not following the database; trying again");
            }
            Retry::Operator | Retry::Never => tracing::error!(
                reason = state,
                ?wait,
                "cannot follow the database until somebody mends this; trying again"
            ),
        }
        session.status.send_modify(|status| {
            status.state = state;
            status.needs = Some(retry);
            status.reconnects += 1;
        });
        tokio::select! {
            () = shutdown.cancelled() => {
                session.status.send_modify(|status| "stopped".clone_into(&mut status.state));
                return Ok(());
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
}

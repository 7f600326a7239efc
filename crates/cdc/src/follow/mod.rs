//! The loop that connects everything: database, slot, stream, layout, feed.
//!
//! [`run`] makes one session after the other. A session `prepare`s (both connections, publication, slot,
//! and whether the journal may go on from where it is or a new epoch begins) and then streams.

mod error;
mod look;
mod pace;
mod prepare;
mod session;

pub use error::RunError;

use crate::layout::{Layout, RowDecoder};
use crate::sink::{FeedSink, Sink};
use crate::{SlotName, SourceStatus};
use error::{SessionError, chain};
use feed::{Feed, Publisher};
use pg::Backoff;
use pg::{Database, Retry};
use session::{End, Session};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The longest wait for the end of another process that holds the slot.
const STAND_BY: Duration = Duration::from_secs(1);

/// What is followed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database.
    pub database: Database,
    /// The slot, made if it is missing.
    pub slot: SlotName,
    /// The publication, made if it is missing and the role may.
    pub publication: String,
    /// What is known of the tables.
    pub layout: Arc<dyn Layout>,
    /// The database keeps at most this many bytes of log for us, about. Beyond that its disk comes first: the slot is
    /// given up, and what it held is not read any more, so that subscribers are reset.
    pub max_wal_held: u64,
    /// The URLs below which the resources of this database stand: an absolute reference that begins with one of them names
    /// one of them.
    pub base_urls: fhir::BaseUrls,
}

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

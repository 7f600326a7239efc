//! What is watched while the log is read: how far the slot is behind, whether what is followed is still the same, and
//! whether the server shuts down.

use super::error::SessionError;
use crate::Settings;
use crate::check::slot_state;
use crate::identity::Identity;
use crate::sink::LogEnds;
use crate::wal_flush::{flush_lsn, force_durable};
use crate::{SourceStatus, publication};
use feed::Lsn;
use pg::database::Ended;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// How often the slot is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Looks after slot and publication over the ordinary connection, and notices there that the server
/// shuts down: to a walsender it says so only when all is acknowledged.
pub(super) async fn watch_database(
    client: &Client,
    mut ended: Ended,
    settings: &Settings,
    identity: &Identity,
    status: &watch::Sender<SourceStatus>,
    log_ends: LogEnds,
) -> SessionError {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let looking = async {
        let mut end = LogEnd::default();
        loop {
            look.tick().await;
            end.look(client, status, &log_ends).await?;
            let held = look_at_slot(client, settings, status).await?;
            if held > settings.max_wal_held {
                let limit = settings.max_wal_held;
                return Ok(SessionError::TooMuchHeld { held, limit });
            }
            let now = Identity::of(client, &settings.publication, &*settings.layout).await?;
            if let Some(difference) = now.differs_from(&identity.text()) {
                return Ok(SessionError::IdentityChanged(difference.reason));
            }
            if let Some(name) =
                publication::subscriptions(client, settings.layout.tables()).await?.into_iter().next()
            {
                return Ok(publication::PublicationError::Subscribed(name).into());
            }
        }
    };
    tokio::select! {
        biased;
        sql_state = &mut ended => match sql_state.ok().flatten().as_deref() {
            Some("57P01" | "57P03") => SessionError::ShuttingDown,
            _ => SessionError::WatchEnded,
        },
        reason = looking => reason.unwrap_or_else(|error: tokio_postgres::Error| match error.code().map(SqlState::code) {
            Some("57P01" | "57P03") => SessionError::ShuttingDown,
            _ => SessionError::Database(error),
        }),
    }
}

/// Where the log ended at the look before.
#[derive(Default)]
struct LogEnd(Lsn);

impl LogEnd {
    /// Tells where the log ends on the database's disk.
    ///
    /// It may end within a record whose end is not on disk yet, and which the walsender therefore does not send: on a database
    /// where nothing commits, for minutes. Then the rest is written, so that what is received comes to where it ended.
    async fn look(
        &mut self,
        client: &Client,
        status: &watch::Sender<SourceStatus>,
        log_ends: &LogEnds,
    ) -> Result<(), tokio_postgres::Error> {
        let at = Instant::now();
        let end = flush_lsn(client).await?;
        log_ends(at, end);
        if end == std::mem::replace(&mut self.0, end) && status.borrow().received_lsn < end {
            force_durable(client).await?;
        }
        Ok(())
    }
}

/// Tells how far the slot is behind, and warns while there is still time. How much log is held for it.
pub(super) async fn look_at_slot(
    client: &Client,
    settings: &Settings,
    status: &watch::Sender<SourceStatus>,
) -> Result<u64, tokio_postgres::Error> {
    let slot = slot_state::ask(client, settings).await?;
    let end = flush_lsn(client).await?;
    let lag = slot.lag();
    let warnings = slot.warnings(settings);
    status.send_modify(|status| {
        status.slot_lag_bytes = Some(lag.unacknowledged);
        status.wal_held_bytes = Some(lag.held);
        status.wal_rate = Some(status.wal_written.at(Instant::now(), end));
        status.wal_limit_bytes = Some(slot.limit(settings.max_wal_held).0);
        // Numbers change all the time: said in the log when it begins and when it ends.
        if status.warnings.len() < warnings.len() {
            tracing::warn!(slot = %settings.slot, warning = warnings.join("; "), "the slot needs somebody's attention");
        } else if warnings.is_empty() && !status.warnings.is_empty() {
            tracing::info!(slot = %settings.slot, "the slot is well again");
        }
        status.warnings = warnings;
    });
    Ok(lag.held)
}

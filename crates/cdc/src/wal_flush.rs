//! What was read of the database counts once the database cannot forget it.
//!
//! An asynchronous commit is visible before it is on the database's disk. After a power failure it never was, and its
//! transaction's id is used again. So whoever has seen something waits until the log is on disk up to where it ended
//! then. If that takes long, it is forced, by whoever waits; all who wait in this process share one limit on how often.

use feed::Lsn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_postgres::types::PgLsn;
use tokio_postgres::{Client, Error};

/// How often to look whether the log is on disk, ...
const LOOK: Duration = Duration::from_millis(5);
/// ... how long before that is forced, ...
const FORCE_AFTER: Duration = Duration::from_millis(50);
/// ... and how often that is done at most.
const FORCE_EVERY: Duration = Duration::from_secs(1);

/// Waits for the database's disk. Its clones share the limit.
#[derive(Clone, Debug, Default)]
pub(crate) struct WalFlush {
    forced: Arc<Mutex<Option<Instant>>>,
}

impl WalFlush {
    /// Waits until the log is on disk up to there.
    pub(crate) async fn wait(&self, client: &Client, end: Lsn) -> Result<(), Error> {
        let begun = Instant::now();
        while !is_durable(client, end).await? {
            if begun.elapsed() >= FORCE_AFTER && self.may_force() {
                force_durable(client).await?;
            } else {
                sleep(LOOK).await;
            }
        }
        Ok(())
    }

    fn may_force(&self) -> bool {
        let mut forced = self.forced.lock().unwrap_or_else(PoisonError::into_inner);
        let may = forced.is_none_or(|last| last.elapsed() >= FORCE_EVERY);
        if may {
            *forced = Some(Instant::now());
        }
        may
    }
}

/// Whether the log is on the database's disk up to there.
pub(crate) async fn is_durable(client: &Client, l: Lsn) -> Result<bool, Error> {
    Ok(flush_lsn(client).await? >= l)
}

/// Where the log ends on the database's disk: perhaps within a record.
pub(crate) async fn flush_lsn(client: &Client) -> Result<Lsn, Error> {
    let row = client.query_one("select pg_current_wal_flush_lsn()", &[]).await?;
    Ok(Lsn::new(u64::from(row.try_get::<_, PgLsn>(0)?)))
}

/// Has the log written to disk up to its end, by a commit of nothing. "local": a synchronous standby
/// that is away must not make us wait.
pub(crate) async fn force_durable(client: &Client) -> Result<(), Error> {
    client
        .batch_execute(
            "begin read write; set local synchronous_commit = local; \
             select pg_logical_emit_message(true, 'fhir-tail', ''); commit",
        )
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_share_one_limit() {
        let pages = WalFlush::default();
        let watermark = pages.clone();
        assert!(pages.may_force());
        assert!(!watermark.may_force() && !pages.may_force(), "at once again");
        sleep(FORCE_EVERY).await;
        assert!(watermark.may_force());
        assert!(!pages.may_force(), "another did");
    }
}

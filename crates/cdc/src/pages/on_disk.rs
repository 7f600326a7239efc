//! What was read counts once the database cannot forget it.
//!
//! An asynchronous commit is visible before it is on the database's disk. If it replaced or deleted a row, a page passes
//! over that row: its newer state will come from the feed. After a power failure that commit never was and the old
//! row is there again, which no page will read any more. So a page waits until the log is on disk up to
//! where it ended when the page had been read; unless nothing newer than the page's upper bound is visible, as then
//! nothing was passed over.

use super::pool::failure;
use super::query::newer;
use crate::marks::{force_durable, is_durable};
use feed::{Lsn, PageRequest, SourceError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;

/// How often to look whether the log is on disk, how long before that is forced, and how often that is done.
const LOOK: Duration = Duration::from_millis(5);
const FORCE_AFTER: Duration = Duration::from_millis(50);
const FORCE_EVERY: Duration = Duration::from_secs(1);

/// Waits for the database's disk.
#[derive(Default)]
pub(super) struct OnDisk {
    forced: Mutex<Option<Instant>>,
}

impl OnDisk {
    /// Waits for what a page that has just been read may have passed over.
    pub(super) async fn after_page(&self, client: &Client, page: &PageRequest) -> Result<(), SourceError> {
        let sql = format!("select case when {} then pg_current_wal_insert_lsn() end", newer(page));
        self.wait(client, &sql).await
    }

    /// Waits for all that a statement which has just ended may have seen.
    pub(super) async fn after_all(&self, client: &Client) -> Result<(), SourceError> {
        self.wait(client, "select pg_current_wal_insert_lsn()").await
    }

    async fn wait(&self, client: &Client, end: &str) -> Result<(), SourceError> {
        let failed = |error: tokio_postgres::Error| failure(&error);
        let row = client.query_one(end, &[]).await.map_err(failed)?;
        let Some(end) = row.try_get::<_, Option<PgLsn>>(0).map_err(failed)? else { return Ok(()) };
        let end = Lsn::new(u64::from(end));
        let begun = Instant::now();
        while !is_durable(client, end).await.map_err(|error| SourceError::Unavailable(error.to_string()))? {
            if begun.elapsed() >= FORCE_AFTER && self.may_force() {
                let forced = force_durable(client).await;
                forced.map_err(|error| SourceError::Unavailable(error.to_string()))?;
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

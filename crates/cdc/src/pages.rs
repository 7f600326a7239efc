//! Pages of the tables, for replays.
//!
//! A page is a statement of its own, read to its end at once: no snapshot and no transaction outlives it, however slow
//! the client is that it goes to. A few connections serve everyone.

mod pool;
mod query;

pub(crate) use query::present;

use crate::layout::{BadRow, BadRows, Reason};
use crate::on_disk::OnDisk;
use crate::timestamptz::Timestamptz;
use bytes::Bytes;
use feed::{Kind, Lsn, Page, PageRequest, PageRow, SourceError};
use fhir::{Instant, ResourceType, TypeSet};
use futures_util::StreamExt;
use pool::{Connection, Pool};
use query::Parameters;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::types::{PgLsn, ToSql};
use tokio_postgres::{Client, Row, RowStream};

/// A page has at most this many rows ...
pub(crate) const ROWS: usize = 1_000;
/// ... and comes to about this many bytes: it ends with the row that brings it to that, or to twice that.
pub(crate) const BYTES: usize = 1 << 20;
/// How long one page may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pages, from a pool of connections.
pub(crate) struct Pages {
    pool: Pool,
    on_disk: OnDisk,
    bad_rows: Arc<BadRows>,
}

impl Pages {
    pub(crate) fn new(database: crate::Database, on_disk: OnDisk, bad_rows: Arc<BadRows>) -> Self {
        Self { pool: Pool::new(database), on_disk, bad_rows }
    }

    /// Reads a page.
    pub(crate) async fn read(&self, request: &PageRequest) -> Result<Page, SourceError> {
        self.attempt(|connection| async move { self.page(&connection, request).await }).await
    }

    /// The types with rows and those with tombstones, stamped after `since`. Without a lower bound nobody asks for tombstones.
    pub(crate) async fn present(
        &self,
        since: Option<Instant>,
        types: TypeSet,
    ) -> Result<Vec<(Kind, ResourceType)>, SourceError> {
        self.attempt(|connection| async move {
            let client = &connection.client;
            let mut present = Vec::new();
            let kinds = [Some(Kind::Upsert), since.map(|_| Kind::Deletion)];
            for kind in kinds.into_iter().flatten() {
                let statement = query::present(kind, since);
                let found = client.query(&statement, &[]).await.map_err(|error| pool::failure(&error))?;
                for row in &found {
                    let name = row.try_get::<_, &str>(0).ok();
                    match name.and_then(|name| name.parse().ok()) {
                        Some(resource_type) => present.push((kind, resource_type)),
                        // Who asks for some types does not ask for this. Counted once for all rows of that type.
                        None if types == TypeSet::all() => {
                            let version = version_of_type(client, kind, name).await?;
                            self.meet(kind, version, &Reason::UnknownType)?;
                        }
                        None => {}
                    }
                }
            }
            let end = only(client.query_typed(query::END, &[]).await)?;
            self.until_on_disk(client, end).await?;
            Ok(present)
        })
        .await
    }

    /// The newest stamp of a tombstone that was purged.
    pub(crate) async fn tombstones_purged(&self) -> Result<Option<Instant>, SourceError> {
        let failed = |error: tokio_postgres::Error| pool::failure(&error);
        self.attempt(|connection| async move {
            let client = &connection.client;
            let purged =
                client.query_opt("select last_updated from fhir.purged", &[]).await.map_err(failed)?;
            let stamp = purged.map(|row| row.try_get::<_, Timestamptz>(0)).transpose().map_err(failed)?;
            Ok(stamp.map(|Timestamptz(stamp)| stamp))
        })
        .await
    }

    /// Does what `work` does on one of the connections. That may have died while nobody used it: then once
    /// more, on a new one.
    async fn attempt<T, F>(&self, work: impl Fn(Arc<Connection>) -> F) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        let bounded = async |connection| {
            timeout(PATIENCE, work(connection)).await.unwrap_or_else(|_| {
                let told = format!("the tables were not read within {} s", PATIENCE.as_secs());
                Err(SourceError::Unavailable(told))
            })
        };
        let pooled = self.pool.get().await?;
        let failure = match bounded(pooled.connection()).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        let was_used_before = pooled.discard();
        if !was_used_before || matches!(failure, SourceError::Refused(_)) {
            return Err(failure);
        }
        let pooled = self.pool.get_new().await?;
        let answer = bounded(pooled.connection()).await;
        if answer.is_err() {
            pooled.discard();
        }
        answer
    }

    /// Waits until the log is on the database's disk up to this end, if it gives one. A page passes over a row that a commit
    /// has replaced or deleted, since its newer state will come from the feed. Were that commit lost, the old row would be
    /// there again, and no page would read it any more.
    async fn until_on_disk(&self, client: &Client, end: Option<PgLsn>) -> Result<(), SourceError> {
        let failed = |error: tokio_postgres::Error| pool::failure(&error);
        let Some(end) = end else { return Ok(()) };
        self.on_disk.wait(client, Lsn::new(u64::from(end))).await.map_err(failed)
    }

    async fn page(&self, connection: &Connection, request: &PageRequest) -> Result<Page, SourceError> {
        match self.attempt_page(connection, request).await? {
            Some(page) => Ok(page),
            None => {
                let unlike = PageRequest { expected: None, ..request.clone() };
                // Nothing is too large for a page of which nothing is expected.
                Ok(self.attempt_page(connection, &unlike).await?.unwrap_or_default())
            }
        }
    }

    /// `None` if already the first row is not what was expected.
    async fn attempt_page(
        &self,
        connection: &Connection,
        request: &PageRequest,
    ) -> Result<Option<Page>, SourceError> {
        let failed = |error: tokio_postgres::Error| pool::failure(&error);
        let (client, statements) = (&connection.client, connection.pages(request.kind));
        let parameters = Parameters::of(request, BYTES, ROWS);
        let Parameters { resource_type, until, after_stamp, after_id, rows, largest } = &parameters;
        let all: [&(dyn ToSql + Sync); 6] = [resource_type, until, after_stamp, after_id, rows, largest];
        let found = match request.expected {
            None => client.query_raw(&statements.weighed, all.into_iter().take(5)).await,
            Some(_) => client.query_raw(&statements.alike, all).await,
        };
        let found = found.map_err(failed)?;
        let (page, end) = self.rows(request, &parameters, found).await?;
        let end = match end {
            Some(end) => end,
            // It had no rows that could have said.
            None => {
                let newer: [&(dyn ToSql + Sync); 2] = [resource_type, until];
                only(client.query(&connection.end_if_newer, &newer).await)?
            }
        };
        self.until_on_disk(client, end).await?;
        Ok(page)
    }

    /// The page, and the end of the log if there was a row to say whether it matters.
    async fn rows(
        &self,
        request: &PageRequest,
        parameters: &Parameters<'_>,
        rows: RowStream,
    ) -> Result<(Option<Page>, Option<Option<PgLsn>>), SourceError> {
        let failed = |error: tokio_postgres::Error| pool::failure(&error);
        let mut rows = pin!(rows);
        // A little more than a page, since its last row may go beyond it; what is not written takes no memory.
        let mut building = Building { data: Vec::with_capacity(BYTES + BYTES / 8), ..Building::default() };
        // Rows that were expected may come to a little more. What Postgres compressed to a hundredth comes to far more.
        let enough = if request.expected.is_none() { BYTES } else { 2 * BYTES };
        let mut count = 0;
        let (mut end, mut log_end) = (End::Last, None);
        while let Some(row) = rows.next().await {
            let row = row.map_err(failed)?;
            if log_end.is_none() {
                log_end = Some(row.try_get(5).map_err(failed)?);
            }
            let size: i64 = row.try_get(4).map_err(failed)?;
            if request.expected.is_some() && size > parameters.largest {
                end = End::Unlike;
                break;
            }
            count += 1;
            self.add(request, &row, &mut building)?;
            if count == parameters.rows {
                end = End::More;
            } else if building.data.len() >= enough || request.expected.is_none() && size >= query::WEIGHT {
                // What is left of the statement is thrown away; `query` keeps that short.
                end = End::More;
                break;
            }
        }
        let page = (count > 0 || end == End::Last).then(|| building.finish(end, count));
        Ok((page, log_end))
    }

    fn add(&self, request: &PageRequest, row: &Row, building: &mut Building) -> Result<(), SourceError> {
        // Without these two there is no place to go on from.
        let id: &str = row.try_get(0).map_err(|_| unreadable("id"))?;
        let Timestamptz(stamp) = row.try_get(2).map_err(|_| unreadable("last_updated"))?;
        let start = building.data.len();
        let version_id = row.try_get::<_, Option<i64>>(1).ok().flatten();
        match write(request, row, (id, version_id, stamp), &mut building.data) {
            Ok(()) => building.rows.push((stamp, id.into(), start..building.data.len())),
            Err(reason) => self.meet(request.kind, version_id, &reason)?,
        }
        // Nothing before the calendar can be streamed, nor be a place to go on from: on to the calendar's beginning.
        let place = if stamp < Instant::YEAR_ONE { (Instant::YEAR_ONE, "") } else { (stamp, id) };
        building.last = Some((place.0, place.1.into()));
        Ok(())
    }

    fn meet(&self, kind: Kind, version: Option<i64>, reason: &Reason) -> Result<(), SourceError> {
        let refused = |row: BadRow| SourceError::Refused(row.to_string());
        self.bad_rows.meet(kind, version, reason).map_err(refused)
    }
}

/// The one value of an answer, a place in the log.
fn only(answer: Result<Vec<Row>, tokio_postgres::Error>) -> Result<Option<PgLsn>, SourceError> {
    let failed = |error: tokio_postgres::Error| pool::failure(&error);
    let rows = answer.map_err(failed)?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose().map_err(failed)?.flatten())
}

/// The version of some row of a type, to find it by.
async fn version_of_type(
    client: &Client,
    kind: Kind,
    name: Option<&str>,
) -> Result<Option<i64>, SourceError> {
    let failed = |error: tokio_postgres::Error| pool::failure(&error);
    let row = client.query_opt(&query::one_version(kind), &[&name]).await.map_err(failed)?;
    Ok(row.map(|row| row.try_get(0)).transpose().map_err(failed)?.flatten())
}

/// It will be as unreadable the next time.
fn unreadable(column: &str) -> SourceError {
    SourceError::Refused(format!(
        "column {column} of a page cannot be read: is the database's encoding SQL_ASCII?"
    ))
}

/// Writes a row with this id, version and stamp.
fn write(
    request: &PageRequest,
    row: &Row,
    (id, version_id, last_updated): (&str, Option<i64>, Instant),
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    // As in the log, which has such a stamp as text: "-infinity", or a year "BC".
    if last_updated < Instant::YEAR_ONE {
        return Err(Reason::Unreadable("last_updated"));
    }
    let version_id = version_id.ok_or(Reason::Null("version_id"))?;
    let columns = fhir::Columns { resource_type: request.resource_type, id, version_id, last_updated };
    match request.kind {
        Kind::Upsert => {
            let content: Option<&str> = row.try_get(3).map_err(|_| Reason::Unreadable("content"))?;
            fhir::write_resource(content.ok_or(Reason::Null("content"))?.as_bytes(), &columns, out)?;
        }
        Kind::Deletion => fhir::write_deletion(&columns, out)?,
    }
    Ok(())
}

/// A page while it is read: all its data in one allocation.
#[derive(Default)]
struct Building {
    data: Vec<u8>,
    rows: Vec<(Instant, Box<str>, Range<usize>)>,
    last: Option<(Instant, Box<str>)>,
}

/// What follows a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing.
    Last,
    /// Perhaps more.
    More,
    /// A row that is not like those before.
    Unlike,
}

impl Building {
    fn finish(self, end: End, read: i64) -> Page {
        let read = usize::try_from(read).unwrap_or(usize::MAX);
        let expected = read.saturating_mul(BYTES).checked_div(self.data.len()).filter(|_| end == End::More);
        let data = Bytes::from(self.data);
        let rows = self.rows.into_iter();
        let rows = rows.map(|(stamp, id, range)| PageRow { stamp, id, data: data.slice(range) }).collect();
        Page { rows, next: self.last.filter(|_| end != End::Last), expected }
    }
}

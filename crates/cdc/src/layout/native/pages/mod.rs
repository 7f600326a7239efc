//! Pages of the tables, for replays.

mod query;
mod read_so_far;
mod row;

pub(super) use query::present;

use super::rows::table;
use super::stamps;
use crate::layout::{BadRow, Pages, Reason};
use crate::pages::{PageContext, PagePool, Prepared, Purpose, failure};
use crate::timestamptz::Timestamptz;
use bytes::Bytes;
use feed::{
    Answer, Kind, Large, LargeRow, Lsn, Page, PageRequest, PageRows, Scope, SourceError, WriteResource,
};
use fhir::{Instant, Patients, ResourceType, TypeSet};
use futures_util::StreamExt;
use query::{Parameters, Rows};
use read_so_far::{End, ReadSoFar};
use row::Found;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::{Mutex, OnceCell};
use tokio_postgres::types::{PgLsn, ToSql};
use tokio_postgres::{Client, Error, Row, RowStream, Statement};

/// A page has at most this many rows.
pub(crate) const ROWS: usize = 1_000;
/// Of fewer patients their rows are always looked for by the index, ...
const MANY: usize = 64;
/// ... and of more if so many times as many are stored. Each page looks for all keys of its patients, which took 0.8 ms for
/// each of them; to read everybody's rows took 4 us each.
const SHARE: usize = 24;
/// The pages of the native layout.
pub(super) struct NativePages {
    pool: PagePool<Statements>,
    context: PageContext,
}

type Connection = crate::pages::Connection<Statements>;

/// What is prepared on a connection.
struct Statements {
    /// Of each [`Rows`], once it was needed.
    pages: [OnceCell<PageStatements>; 5],
    /// [`query::end_if_newer`].
    end_if_newer: Statement,
}

/// The statements for pages of one kind.
struct PageStatements {
    /// [`query::weighed`].
    weighed: Statement,
    /// [`query::alike`].
    alike: Statement,
}

impl PageStatements {
    async fn prepare(client: &Client, which: Rows) -> Result<Self, Error> {
        let (weighed, alike) = (query::weighed(which), query::alike(which));
        let (weighed, alike) = tokio::try_join!(client.prepare(&weighed), client.prepare(&alike))?;
        Ok(Self { weighed, alike })
    }
}

impl Prepared for Statements {
    async fn prepare(client: &Client, purpose: Purpose) -> Result<Self, Error> {
        let first = match purpose {
            Purpose::ByType => Rows::Resources,
            Purpose::ByPatient => Rows::Mentioning,
        };
        let end = query::end_if_newer();
        let (statements, end_if_newer) =
            tokio::try_join!(PageStatements::prepare(client, first), client.prepare(&end))?;
        let mut pages = [const { OnceCell::const_new() }; 5];
        pages[first as usize] = OnceCell::new_with(Some(statements));
        Ok(Self { pages, end_if_newer })
    }
}

impl Statements {
    async fn pages(&self, client: &Client, which: Rows) -> Result<&PageStatements, SourceError> {
        let prepare = || PageStatements::prepare(client, which);
        self.pages[which as usize].get_or_try_init(prepare).await.map_err(|error| failure(&error))
    }
}

impl Pages for NativePages {
    fn page<'a>(&'a self, request: PageRequest, rows: &'a mut dyn PageRows) -> Answer<'a, Page> {
        Box::pin(async move { self.read(&request, rows).await })
    }

    fn large(&self, resource_type: ResourceType, row: LargeRow) -> Answer<'_, Option<Large>> {
        Box::pin(async move { self.read_large(resource_type, &row).await })
    }

    fn present(
        &self,
        since: Option<Instant>,
        types: TypeSet,
        mentions: Option<Arc<Patients>>,
    ) -> Answer<'_, Vec<(Kind, ResourceType)>> {
        Box::pin(async move {
            match mentions {
                None => self.present_of_all(since, types).await,
                Some(patients) => self.present_of(since, types, &patients).await,
            }
        })
    }

    fn estimates(&self, types: TypeSet) -> Answer<'_, Vec<(ResourceType, u64)>> {
        Box::pin(self.read_estimates(types))
    }

    fn group<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Bytes>> {
        Box::pin(self.read_group(id))
    }

    fn are_most(&self, patients: usize) -> Answer<'_, bool> {
        Box::pin(self.are_most_of_all(patients))
    }

    fn stored(&self, patients: Patients) -> Answer<'_, Patients> {
        Box::pin(async move { self.read_stored(&patients).await })
    }

    fn tick(&self) -> Answer<'_, ()> {
        Box::pin(self.pool.tick())
    }

    fn tombstones_purged(&self) -> Answer<'_, Option<Instant>> {
        Box::pin(self.pool.attempt(Purpose::ByType, |connection| async move {
            stamps::tombstones_purged(&connection.client).await.map_err(|error| failure(&error))
        }))
    }
}

impl NativePages {
    pub(super) fn new(context: PageContext) -> Self {
        Self { pool: PagePool::new(&context), context }
    }

    /// Reads a page.
    async fn read(&self, request: &PageRequest, rows: &mut dyn PageRows) -> Result<Page, SourceError> {
        // One attempt after the other.
        let rows = Mutex::new(rows);
        let which = self.which(request).await?;
        let purpose = if which.of_patients() { Purpose::ByPatient } else { Purpose::ByType };
        self.pool
            .attempt(purpose, |connection| {
                let rows = &rows;
                async move { self.page(&connection, request, which, &mut **rows.lock().await).await }
            })
            .await
    }

    /// How the rows of a page are found.
    async fn which(&self, request: &PageRequest) -> Result<Rows, SourceError> {
        let Some(scope) = &request.scope else {
            return Ok(match request.kind {
                Kind::Upsert => Rows::Resources,
                Kind::Deletion => Rows::Deletions,
            });
        };
        Ok(match (request.kind, &scope.mentions) {
            (Kind::Deletion, _) => Rows::JudgedDeletions,
            (Kind::Upsert, None) => Rows::Resources,
            (Kind::Upsert, Some(_)) if request.resource_type == ResourceType::PATIENT => Rows::ThePatients,
            (Kind::Upsert, Some(patients)) if self.are_most_of_all(patients.iter().count()).await? => {
                Rows::Resources
            }
            (Kind::Upsert, Some(_)) => Rows::Mentioning,
        })
    }

    /// Whether these are so many patients that it takes less to read everybody's rows than to look for theirs.
    async fn are_most_of_all(&self, count: usize) -> Result<bool, SourceError> {
        if count < MANY {
            return Ok(false);
        }
        let enough = i64::try_from(count.saturating_mul(SHARE)).unwrap_or(i64::MAX);
        self.pool
            .attempt(Purpose::ByType, |connection| async move {
                let failed = |error: tokio_postgres::Error| failure(&error);
                let row =
                    connection.client.query_one(query::MORE_PATIENTS, &[&enough]).await.map_err(failed)?;
                row.try_get(0).map(|more: bool| !more).map_err(failed)
            })
            .await
    }

    /// A Group as it is streamed; `None` if it is not there, or cannot be streamed.
    async fn read_group(&self, id: &str) -> Result<Option<Bytes>, SourceError> {
        self.pool
            .attempt(Purpose::ByType, |connection| async move {
                let failed = |error: tokio_postgres::Error| failure(&error);
                let row = connection.client.query_opt(query::GROUP, &[&id]).await.map_err(failed)?;
                let Some(row) = row else { return Ok(None) };
                let found = Found::read(&row, &connection.encoding)?;
                let mut streamed = Vec::new();
                match found.write(ResourceType::GROUP, Kind::Upsert, &mut streamed) {
                    Ok(()) => Ok(Some(streamed.into())),
                    Err(reason) => {
                        self.meet(Kind::Upsert, found.version_id, &reason)?;
                        Ok(None)
                    }
                }
            })
            .await
    }

    /// Those of these patients who are stored.
    async fn read_stored(&self, patients: &Patients) -> Result<Patients, SourceError> {
        let ids: Vec<&str> = patients.iter().collect();
        self.pool
            .attempt(Purpose::ByType, |connection| {
                let ids = &ids;
                async move {
                    let failed = |error: tokio_postgres::Error| failure(&error);
                    let rows = connection.client.query(query::STORED, &[ids]).await.map_err(failed)?;
                    let stored: Vec<&str> =
                        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(failed)?;
                    Ok(Patients::from_ids(stored))
                }
            })
            .await
    }

    /// About how many rows of these types there are, as the planner estimates.
    async fn read_estimates(&self, types: TypeSet) -> Result<Vec<(ResourceType, u64)>, SourceError> {
        self.pool
            .attempt(Purpose::ByType, |connection| async move {
                let failed = |error: tokio_postgres::Error| failure(&error);
                let rows = connection.client.query(query::ESTIMATES, &[]).await.map_err(failed)?;
                let mut estimates = Vec::new();
                for row in rows {
                    let (name, total): (&str, i64) =
                        (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
                    if let (Ok(of), Ok(total)) = (name.parse(), u64::try_from(total))
                        && types.contains(of)
                    {
                        estimates.push((of, total));
                    }
                }
                Ok(estimates)
            })
            .await
    }

    /// The types with rows that mention one of these patients, and those with tombstones, stamped after `since`.
    async fn present_of(
        &self,
        since: Option<Instant>,
        types: TypeSet,
        patients: &Patients,
    ) -> Result<Vec<(Kind, ResourceType)>, SourceError> {
        let asked_for = query::asked_for(patients);
        let found = self.pool.attempt(Purpose::ByPatient, |connection| {
            let asked_for = &asked_for;
            async move {
                let failed = |error: tokio_postgres::Error| failure(&error);
                let client = &connection.client;
                let since = since.map(Timestamptz::within_calendar);
                let statement = query::present_of_patients();
                let rows = client.query(&statement, &[asked_for, &since]).await.map_err(failed)?;
                let types = rows.iter().filter_map(|row| row.try_get::<_, &str>(0).ok()?.parse().ok());
                let found = types.map(|of| (Kind::Upsert, of)).collect::<Vec<(Kind, ResourceType)>>();
                // A row that a commit has replaced is passed over here as in a page.
                let end = only(client.query_typed(query::END, &[]).await)?;
                self.pool.until_on_disk(client, end).await?;
                Ok(found)
            }
        });
        let mut present = found.await?;
        if since.is_some() {
            // A request for some types does not ask for types that are none.
            let some = if types == TypeSet::all() { fhir::compartment_types() } else { types };
            let all = self.present_of_all(since, some).await?;
            present.extend(all.into_iter().filter(|(kind, _)| *kind == Kind::Deletion));
        }
        Ok(present)
    }

    /// The types with rows and those with tombstones, stamped after `since`. Without a lower bound nobody asks for tombstones.
    async fn present_of_all(
        &self,
        since: Option<Instant>,
        types: TypeSet,
    ) -> Result<Vec<(Kind, ResourceType)>, SourceError> {
        self.pool
            .attempt(Purpose::ByType, |connection| async move {
                let client = &connection.client;
                let mut present = Vec::new();
                let kinds = [Some(Kind::Upsert), since.map(|_| Kind::Deletion)];
                for kind in kinds.into_iter().flatten() {
                    let statement = query::present(kind, since);
                    let found = client.query(&statement, &[]).await.map_err(|error| failure(&error))?;
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
                self.pool.until_on_disk(client, end).await?;
                Ok(present)
            })
            .await
    }

    /// Reads a large row, on a connection of its own: what that has grown to is closed with it.
    async fn read_large(
        &self,
        resource_type: ResourceType,
        wanted: &LargeRow,
    ) -> Result<Option<Large>, SourceError> {
        let failed = |error: tokio_postgres::Error| failure(&error);
        let read = async |connection: Arc<Connection>| {
            let client = &connection.client;
            let stamp = Timestamptz(wanted.stamp);
            let parameters: [&(dyn ToSql + Sync); 3] = [&resource_type.as_str(), &stamp, &wanted.version];
            let found = client.query_opt(query::LARGE, &parameters).await.map_err(failed)?;
            if found.is_none() {
                let end = only(client.query_typed(query::END, &[]).await)?;
                self.pool.until_on_disk(client, end).await?;
            }
            Ok(found.map(|row| (row, Arc::clone(&connection.encoding))))
        };
        let found = self.pool.once("a large row was not read", read).await?;
        // It is spliced where it lies, while it is written.
        let Some((row, encoding)) = found else { return Ok(None) };
        let found = Found::read(&row, &encoding)?;
        let bad = found.text().and_then(|text| found.large(resource_type, &text).map(|_| ())).err();
        if let Some(reason) = bad {
            self.meet(Kind::Upsert, Some(wanted.version), &reason)?;
            return Ok(None);
        }
        let patients = found.patients(resource_type, &self.context.rows.base_urls);
        let write: WriteResource = Box::new(move |out| {
            let again = || std::io::Error::other("a large row cannot be read");
            let found = Found::read(&row, &encoding).map_err(|_| again())?;
            let text = found.text().map_err(|_| again())?;
            found.large(resource_type, &text).map_err(|_| again())?.write(out)
        });
        Ok(Some(Large { patients, write }))
    }

    async fn page(
        &self,
        connection: &Connection,
        request: &PageRequest,
        which: Rows,
        rows: &mut dyn PageRows,
    ) -> Result<Page, SourceError> {
        match self.attempt_page(connection, request, which, rows).await? {
            Some(page) => Ok(page),
            None => {
                let unlike = PageRequest { expected: None, ..request.clone() };
                // Nothing is too large for a page of which nothing is expected.
                Ok(self.attempt_page(connection, &unlike, which, rows).await?.unwrap_or_default())
            }
        }
    }

    /// `None` if already the first row is not what was expected.
    async fn attempt_page(
        &self,
        connection: &Connection,
        request: &PageRequest,
        which: Rows,
        out: &mut dyn PageRows,
    ) -> Result<Option<Page>, SourceError> {
        out.clear();
        let failed = |error: tokio_postgres::Error| failure(&error);
        let (client, statements) =
            (&connection.client, connection.statements.pages(&connection.client, which).await?);
        let parameters = Parameters::of(request, ROWS, &connection.encoding);
        let after_id = parameters.after_id();
        let Parameters { resource_type, until, after_stamp, rows, bytes, .. } = &parameters;
        let mut all: Vec<&(dyn ToSql + Sync)> =
            vec![resource_type, until, after_stamp, &after_id, rows, bytes];
        let scope = request.scope.as_ref().filter(|_| which.of_patients());
        let patients = scope.and_then(|scope| scope.mentions.as_deref()).map(query::asked_for);
        all.extend(patients.iter().map(|patients| patients as &(dyn ToSql + Sync)));
        let statement = match request.expected {
            None => &statements.weighed,
            Some(_) => &statements.alike,
        };
        let found = client.query_raw::<_, &(dyn ToSql + Sync), _>(statement, all).await.map_err(failed)?;
        let (page, end) = self.rows(connection, request, &parameters, found, out).await?;
        let end = match end {
            Some(end) => end,
            // It had no rows that could have said.
            None => {
                let newer: [&(dyn ToSql + Sync); 2] = [resource_type, until];
                only(client.query(&connection.statements.end_if_newer, &newer).await)?
            }
        };
        self.pool.until_on_disk(client, end).await?;
        Ok(page)
    }

    /// The page, and the end of the log if there was a row to say whether it matters.
    async fn rows(
        &self,
        connection: &Connection,
        request: &PageRequest,
        parameters: &Parameters<'_>,
        rows: RowStream,
        out: &mut dyn PageRows,
    ) -> Result<(Option<Page>, Option<Option<Lsn>>), SourceError> {
        let failed = |error: tokio_postgres::Error| failure(&error);
        let mut rows = pin!(rows);
        let mut read = ReadSoFar::default();
        // Rows that were expected may come to a little more. What Postgres compressed to a hundredth comes to far more.
        let enough = if request.expected.is_none() { request.bytes } else { 2 * request.bytes };
        let (mut end, mut log_end) = (End::Last, None);
        while let Some(row) = rows.next().await {
            let row = row.map_err(failed)?;
            if log_end.is_none() {
                log_end = Some(row.try_get::<_, Option<PgLsn>>(4).map_err(failed)?.map(lsn));
            }
            let weight: i64 = match request.expected {
                None => row.try_get(5).map_err(failed)?,
                Some(_) => 0,
            };
            let large = match request.expected {
                None => row.try_get(6).map_err(failed)?,
                Some(_) => false,
            };
            let row = Found::read(&row, &connection.encoding)?;
            if large {
                read.large(&row)?;
                end = End::More;
                break;
            }
            if request.expected.is_some() && request.kind == Kind::Upsert && row.content.is_none() {
                end = End::Unlike;
                break;
            }
            read.rows += 1;
            self.add(request, &row, &mut read, out)?;
            if read.rows == parameters.rows {
                end = End::More;
            } else if read.bytes >= enough || weight >= parameters.bytes {
                // What is left of the statement is thrown away; `query` keeps that short.
                end = End::More;
                break;
            }
        }
        let page = (read.rows > 0 || end == End::Last).then(|| read.finish(end));
        Ok((page, log_end))
    }

    fn add(
        &self,
        request: &PageRequest,
        row: &Found<'_>,
        read: &mut ReadSoFar,
        out: &mut dyn PageRows,
    ) -> Result<(), SourceError> {
        let mut bad = None;
        let (stamp, id) = row.place();
        out.row(row.stamp, &id, &mut |out| {
            let start = out.len();
            bad = row.write(request.resource_type, request.kind, out).err();
            let wanted = |scope: &Scope| {
                (scope.wants)(&id, &row.patients(request.resource_type, &self.context.rows.base_urls))
            };
            // What was read counts, sent or not: a page costs what it reads.
            read.bytes += out.len() - start;
            bad.is_none() && request.scope.as_ref().is_none_or(wanted)
        });
        if let Some(reason) = bad {
            self.meet(request.kind, row.version_id, &reason)?;
        }
        read.last.0 = stamp;
        (*id).clone_into(&mut read.last.1);
        Ok(())
    }

    fn meet(&self, kind: Kind, version: Option<i64>, reason: &Reason) -> Result<(), SourceError> {
        let refused = |row: BadRow| SourceError::Refused(row.to_string());
        self.context.rows.bad_rows.meet(table(kind), kind, version, reason).map_err(refused)
    }
}

/// The one value of an answer, a place in the log.
fn only(answer: Result<Vec<Row>, tokio_postgres::Error>) -> Result<Option<Lsn>, SourceError> {
    let failed = |error: tokio_postgres::Error| failure(&error);
    let rows = answer.map_err(failed)?;
    let end: Option<PgLsn> = rows.first().map(|row| row.try_get(0)).transpose().map_err(failed)?.flatten();
    Ok(end.map(lsn))
}

fn lsn(at: PgLsn) -> Lsn {
    Lsn::new(u64::from(at))
}

/// The version of some row of a type, to find it by.
async fn version_of_type(
    client: &Client,
    kind: Kind,
    name: Option<&str>,
) -> Result<Option<i64>, SourceError> {
    let failed = |error: tokio_postgres::Error| failure(&error);
    let row = client.query_opt(&query::one_version(kind), &[&name]).await.map_err(failed)?;
    Ok(row.map(|row| row.try_get(0)).transpose().map_err(failed)?.flatten())
}

//! Stamps ahead of the clock: what is left when the database's clock had jumped forward and came back.
//!
//! Such rows lie beyond every safe time to come, so no replay would send them: while there are any, no replay begins.

use crate::layout::native::pages::present;
use crate::layout::native::rows::table_name;
use crate::timestamptz::Timestamptz;
use feed::Kind;
use fhir::Instant;
use pg::{ConnectError, Database, Session};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// What is stamped further ahead of the clock than this was stamped by a clock that had jumped.
const AHEAD_MICROS: i64 = 60_000_000;

/// What rows that are stamped ahead need, in words for people.
pub(crate) const REMEDY: &str =
    "give them new stamps with 'fhir-tail migrate --restamp' (subscribers are reset)";

/// How many rows are stamped ahead of the clock. By steps along the index that replays use: however many rows there are,
/// only those that are ahead are counted.
pub(crate) async fn ahead(client: &Client) -> Result<i64, tokio_postgres::Error> {
    let Timestamptz(clock) = client.query_one("select clock_timestamp()", &[]).await?.try_get(0)?;
    let limit = Instant::from_unix_micros(clock.unix_micros().saturating_add(AHEAD_MICROS));
    let mut total: i64 = 0;
    for kind in [Kind::Upsert, Kind::Deletion] {
        let table = table_name(kind);
        let sql = format!(
            "select coalesce(sum(ahead.n), 0)::int8 from ({}) present(name) cross join lateral (\
                 select count(*) n from {table} r \
                 where r.resource_type = present.name and r.last_updated > timestamptz '{limit}') ahead",
            present(kind, Some(limit)),
        );
        total = total.saturating_add(client.query_one(&sql, &[]).await?.try_get(0)?);
    }
    Ok(total)
}

/// The newest stamp that is not too far ahead, by the same steps; `None` without any rows, or in another layout. What is
/// further ahead is counted by [`ahead`], and has to be mended first.
pub(crate) async fn newest(client: &Client) -> Result<Option<Instant>, tokio_postgres::Error> {
    let mut newest = None;
    for kind in [Kind::Upsert, Kind::Deletion] {
        let table = table_name(kind);
        let there = client.query_one("select to_regclass($1) is not null", &[&table]).await?;
        if !there.try_get::<_, bool>(0)? {
            continue;
        }
        let sql = format!(
            "select max(last_updated) from ({}) present(name) cross join lateral (\
                 select r.last_updated from {table} r where r.resource_type = present.name \
                    and r.last_updated <= clock_timestamp() + interval '1 microsecond' * {AHEAD_MICROS} \
                  order by r.last_updated desc limit 1) newest",
            present(kind, None),
        );
        let stamp: Option<Timestamptz> = client.query_one(&sql, &[]).await?.try_get(0)?;
        newest = newest.max(stamp.map(|Timestamptz(stamp)| stamp));
    }
    Ok(newest)
}

/// Closes a time: see [`Stamps::close_time`](crate::layout::Stamps::close_time).
pub(super) async fn close_time(client: &Client, reached: Instant) -> Result<Instant, tokio_postgres::Error> {
    let reached = Timestamptz::within_calendar(reached);
    let row = client.query_one("select fhir.close_time($1)", &[&reached]).await?;
    row.try_get(0).map(|Timestamptz(closed)| closed)
}

/// The newest stamp of a tombstone that was purged.
pub(super) async fn tombstones_purged(client: &Client) -> Result<Option<Instant>, tokio_postgres::Error> {
    let purged = client.query_opt("select last_updated from fhir.purged", &[]).await?;
    purged.map(|row| row.try_get(0).map(|Timestamptz(stamp)| stamp)).transpose()
}

/// How often rows were stamped again.
pub(super) async fn generation(client: &Client) -> Result<String, tokio_postgres::Error> {
    let there: bool =
        client.query_one("select to_regclass('fhir.restamped') is not null", &[]).await?.try_get(0)?;
    let times = match there {
        true => client.query_opt("select times from fhir.restamped", &[]).await?,
        false => None,
    };
    let times: i64 = times.map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
    Ok(format!("stamped again {times} times"))
}

/// Rows could not be given new stamps; all is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestampError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The role may not.
    #[error("only the owner of fhir.resource, or a superuser, can give its rows new stamps")]
    NotPermitted(#[source] tokio_postgres::Error),
    /// Somebody writes all the time.
    #[error("a writer has kept the tables locked for ten seconds: try again when it is done")]
    Busy(#[source] tokio_postgres::Error),
    /// The database refused.
    #[error("the rows could not be given new stamps")]
    Failed(#[source] tokio_postgres::Error),
}

/// Gives new versions and stamps to rows that are stamped ahead of the clock; how many. In the same transaction it is
/// written down that this was done, which is what makes a service begin a new epoch, now or when it is started.
pub async fn restamp(database: &Database) -> Result<i64, RestampError> {
    let client = database.connect(Session::Migrate).await?;
    let stamped = async {
        client.batch_execute("set lock_timeout = '10s'").await?;
        client.query_one("select fhir.restamp()", &[]).await?.try_get(0)
    };
    stamped.await.map_err(|error| match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => RestampError::NotPermitted(error),
        Some(&SqlState::LOCK_NOT_AVAILABLE) => RestampError::Busy(error),
        _ => RestampError::Failed(error),
    })
}

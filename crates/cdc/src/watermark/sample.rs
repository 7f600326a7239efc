//! One sample: the statements, and what follows from their answers.

use super::closings::Closings;
use super::{Open, Xid};
use crate::layout::Stamps;
use crate::lossy::{Lossy, is_unconvertible};
use crate::timestamptz::Timestamptz;
use feed::{Lsn, Sample, Watermark};
use fhir::Instant;
use std::time::Duration;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::PgLsn;

/// The clock may fall behind ours by this much before that counts as a step back.
const MARGIN_MICROS: i64 = 100_000;

/// The transaction that got its id first, if any has one, and the id that was given last. The privilege is
/// asked for with every sample: without it the others' rows would be silently incomplete.
const WRITERS: &str = "
    select pg_has_role(current_user, 'pg_read_all_stats', 'usage'),
           a.pid, a.application_name, a.state, a.xact_start, a.oldest, a.newest
      from (select 1) always
      left join lateral (
            select pid, application_name, state, xact_start, backend_xid::text oldest,
                   first_value(backend_xid::text) over (order by age(backend_xid)) newest
              from pg_stat_activity
             where datname = current_database() and backend_xid is not null
             order by age(backend_xid) desc limit 1) a on true";

/// Its owner and its identifier are for people.
fn prepared(owner: &str, gid: &str) -> String {
    format!(
        "select transaction::text, {owner}, prepared, {gid},
                first_value(transaction::text) over (order by age(transaction)) newest
           from pg_prepared_xacts
          where database = current_database() order by age(transaction) desc limit 1"
    )
}

/// A sample whose watermark may not hold yet.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) sample: Sample,
    /// The database's clock when it was begun.
    pub(super) clock: Instant,
    /// Our clock when the database's had been read.
    pub(super) read: tokio::time::Instant,
    /// Who holds the safe time back.
    pub(super) holder: Option<Holder>,
    /// While the clock does not step, nothing stamped at or before this is still invisible. The safe time may be older, as no time is
    /// closed while nothing changes: this is what says how far behind it is.
    pub(super) visible_until: Instant,
    /// Whether a time was closed for it.
    pub(super) closed: bool,
}

/// What a sample is taken with.
pub(super) struct Request<'a> {
    /// The safe time of the sample before.
    pub(super) floor: Option<Instant>,
    /// Whether a time is to be closed if anything was written to the log since the fence LSN.
    pub(super) close: bool,
    /// Whether one is to be closed even if nothing was.
    pub(super) must_close: bool,
    /// The fence LSN of the sample before.
    pub(super) fence_lsn: Option<Lsn>,
    /// What a closed time has to reach, if the clock is a little behind it.
    pub(super) reached: Instant,
    pub(super) closings: &'a mut Closings,
}

/// Who keeps the safe time from moving on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Holder {
    /// A transaction that has written.
    Backend { pid: i32, application: String, state: String, since: Instant },
    /// One that does not say when it began.
    Unknown { pid: i32, application: String, state: String },
    /// A prepared transaction.
    Prepared { xid: String, gid: String, owner: String, since: Instant },
}

impl Holder {
    /// A sentence for people; `clock` is the database's.
    pub(crate) fn describe(&self, clock: Instant) -> String {
        let age = |since: Instant| {
            let micros = clock.unix_micros().saturating_sub(since.unix_micros());
            Duration::from_micros(u64::try_from(micros).unwrap_or(0)).as_secs()
        };
        match self {
            Self::Backend { pid, application, state, since } => format!(
                "process {pid} of the database (application '{application}', {state}) has been in a \
                 transaction that writes for {} s",
                age(*since)
            ),
            Self::Unknown { pid, application, state } => format!(
                "process {pid} of the database (application '{application}', {state}) is in a transaction \
                 and does not say since when: set track_activities to on"
            ),
            Self::Prepared { xid, owner, since, .. } => format!(
                "transaction {xid} of role {owner} was prepared {} s ago: commit prepared or rollback \
                 prepared",
                age(*since)
            ),
        }
    }
}

/// Why there is no sample.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SampleError {
    #[error("a statement of the watermark failed")]
    Postgres(#[from] tokio_postgres::Error),
    #[error(
        "the role of this service cannot see other roles' transactions, so that no time is known to be \
         safe: grant pg_read_all_stats to it"
    )]
    NotPermitted,
    #[error("the database is a standby: watermarks are taken on the primary")]
    Standby,
    #[error("the database's layout is older than this program: run fhir-tail migrate")]
    NotMigrated,
    #[error(
        "the role of this service may not close a time, so that none would stay safe: \
         {0} it"
    )]
    MayNotClose(&'static str),
    /// The first of the facts that fail.
    #[error("{0}")]
    FactsFail(String),
    #[error("no time is known to be safe yet: {0}")]
    Held(String),
    #[error(
        "the database has forgotten which time was closed, so that stamps may repeat what clients were told of: \
         no replay begins until its clock has passed {0}, or the journal is begun anew"
    )]
    Reopened(Instant),
    #[error("the database shows '{0}' as the id of a transaction")]
    NoXid(String),
    #[error("the database does not answer")]
    Silent,
}

impl SampleError {
    /// Refused until somebody mends it; else it passes.
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::NotPermitted
                | Self::MayNotClose(_)
                | Self::Standby
                | Self::NotMigrated
                | Self::Reopened(_)
                | Self::FactsFail(_)
        )
    }

    /// Whether another connection would help.
    pub(super) const fn needs_connection(&self) -> bool {
        matches!(self, Self::Postgres(_) | Self::Silent | Self::Standby)
    }
}

/// Where the next record of the log would begin.
pub(super) async fn end_of_log(client: &Client) -> Result<Lsn, SampleError> {
    let row = client.query_one("select pg_current_wal_insert_lsn()", &[]).await.map_err(standby)?;
    Ok(lsn(&row, 0)?)
}

/// Takes a sample.
pub(super) async fn take(
    client: &Client,
    stamps: &dyn Stamps,
    request: Request<'_>,
) -> Result<Draft, SampleError> {
    let Request { floor, close, must_close, fence_lsn, reached, closings } = request;
    let taken = tokio::time::Instant::now();
    let now = "select clock_timestamp(), pg_current_wal_insert_lsn()";
    let row = client.query_one(now, &[]).await.map_err(standby)?;
    let read = tokio::time::Instant::now();
    let (Timestamptz(clock), end) = (row.try_get(0)?, lsn(&row, 1)?);

    let closed = if must_close || (close && fence_lsn != Some(end)) {
        let closed = stamps.close_time(client, reached).await.map_err(|error| not_migrated(stamps, error))?;
        if let Some(floor) = floor
            && closed < floor
        {
            return Err(SampleError::Reopened(floor));
        }
        Some(closed)
    } else {
        None
    };

    let Writers { holder, open } = writers(client).await?;
    if let Some(closed) = closed {
        closings.push(closed, open);
    }
    let safe_time = floor
        .max(closings.take_safe(open))
        .ok_or_else(|| SampleError::Held(holder.as_ref().map(|h| h.describe(clock)).unwrap_or_default()))?;

    let fence_lsn = end_of_log(client).await?;
    let purged = stamps.tombstones_purged(client).await;
    let tombstones_purged = purged.map_err(|error| not_migrated(stamps, error))?;
    let visible_until = match &holder {
        None => clock.max(safe_time),
        Some(Holder::Backend { since, .. } | Holder::Prepared { since, .. }) => {
            clock.min(*since).max(safe_time)
        }
        Some(Holder::Unknown { .. }) => safe_time,
    };
    let sample = Sample { watermark: Watermark { safe_time, fence_lsn }, taken, tombstones_purged };
    Ok(Draft { sample, clock, read, holder, visible_until, closed: closed.is_some() })
}

fn lsn(row: &tokio_postgres::Row, column: usize) -> Result<Lsn, tokio_postgres::Error> {
    Ok(Lsn::new(u64::from(row.try_get::<_, PgLsn>(column)?)))
}

/// Who has written and is not done.
struct Writers {
    /// The one that has been for longest.
    holder: Option<Holder>,
    open: Option<Open>,
}

/// Who keeps the safe time from moving on.
pub(crate) async fn holder(client: &Client) -> Result<Option<Holder>, SampleError> {
    Ok(writers(client).await?.holder)
}

/// Who has an id. To be asked after a time was closed.
async fn writers(client: &Client) -> Result<Writers, SampleError> {
    let row = client.query_one(WRITERS, &[]).await?;
    if !row.try_get::<_, bool>(0)? {
        return Err(SampleError::NotPermitted);
    }
    let writer = match row.try_get::<_, Option<i32>>(1)? {
        None => None,
        Some(pid) => {
            let application = row.try_get::<_, Option<Lossy>>(2)?.map(|Lossy(name)| name).unwrap_or_default();
            let state = row.try_get::<_, Option<String>>(3)?.unwrap_or_else(|| "state unknown".into());
            let holder = match row.try_get::<_, Option<Timestamptz>>(4)? {
                Some(Timestamptz(since)) => Holder::Backend { pid, application, state, since },
                None => Holder::Unknown { pid, application, state },
            };
            Some((holder, Open { oldest: xid(row.try_get(5)?)?, newest: xid(row.try_get(6)?)? }))
        }
    };
    // After the writers: one that is prepared in between is seen by the first statement or by this one.
    let named = match client.query_opt(&prepared("owner::text", "gid"), &[]).await {
        Err(error) if is_unconvertible(&error) => client.query_opt(&prepared("'?'::text", "gid"), &[]).await,
        named => named,
    };
    let prepared = match named? {
        None => None,
        Some(row) => {
            let Timestamptz(since) = row.try_get(2)?;
            let (Lossy(owner), Lossy(gid)) = (row.try_get(1)?, row.try_get(3)?);
            let holder = Holder::Prepared { xid: row.try_get(0)?, gid, owner, since };
            Some((holder, Open { oldest: xid(row.try_get(0)?)?, newest: xid(row.try_get(4)?)? }))
        }
    };
    Ok(match (writer, prepared) {
        (None, None) => Writers { holder: None, open: None },
        (Some((holder, open)), None) | (None, Some((holder, open))) => {
            Writers { holder: Some(holder), open: Some(open) }
        }
        (Some((writer, open)), Some((prepared, others))) => Writers {
            holder: Some(if open.oldest.is_before(others.oldest) { writer } else { prepared }),
            open: Some(open.and(others)),
        },
    })
}

fn xid(text: &str) -> Result<Xid, SampleError> {
    text.parse().map(Xid).map_err(|_| SampleError::NoXid(text.into()))
}

/// An error of a function of the log, which a standby has none of its own of.
pub(super) fn standby(error: tokio_postgres::Error) -> SampleError {
    // "recovery is in progress"
    if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) {
        SampleError::Standby
    } else {
        error.into()
    }
}

fn not_migrated(stamps: &dyn Stamps, error: tokio_postgres::Error) -> SampleError {
    match error.code() {
        Some(&SqlState::UNDEFINED_TABLE | &SqlState::UNDEFINED_FUNCTION) => SampleError::NotMigrated,
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => SampleError::MayNotClose(stamps.grant_to_close()),
        _ => error.into(),
    }
}

/// Whether the database's clock has stepped back between two samples by more than the margin, as far as
/// our own clock can tell.
pub(super) fn stepped_back(before: &Draft, after: &Draft) -> bool {
    let theirs = after.clock.unix_micros().saturating_sub(before.clock.unix_micros());
    // The least time that can have passed between the two readings.
    let ours = after.sample.taken.saturating_duration_since(before.read).as_micros();
    theirs.saturating_add(MARGIN_MICROS) < i64::try_from(ours).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(clock_micros: i64, taken: tokio::time::Instant) -> Draft {
        let watermark = Watermark { safe_time: Instant::MIN, fence_lsn: Lsn::ZERO };
        let clock = Instant::from_unix_micros(clock_micros);
        let sample = Sample { watermark, taken, tombstones_purged: None };
        let read = taken + Duration::from_millis(20);
        Draft { sample, clock, read, holder: None, visible_until: clock, closed: false }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_steps_back_is_noticed_and_a_slow_answer_is_not() {
        let now = tokio::time::Instant::now();
        let first = draft(0, now);
        let next = |clock_micros| draft(clock_micros, now + Duration::from_secs(1));
        assert!(!stepped_back(&first, &next(1_000_000)));
        assert!(!stepped_back(&first, &next(5_000_000)), "a step forward");
        assert!(!stepped_back(&first, &next(900_000)), "within the margin");
        assert!(stepped_back(&first, &next(800_000)));
        assert!(stepped_back(&first, &next(-3_600_000_000)));
    }
}

//! One sample: the statements, and what follows from their answers.

use crate::lossy::Lossy;
use crate::timestamptz::Timestamptz;
use feed::{Lsn, Mark, Sample};
use fhir::Instant;
use std::time::Duration;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::PgLsn;

/// What is taken off, against clocks that step a little.
const MARGIN_MICROS: i64 = 100_000;

/// The oldest transaction that has written, if there is one. A row without a beginning (`track_activities`
/// is off there) comes first. The privilege is asked for with every sample: without it the others' rows
/// would be silently incomplete.
const WRITERS: &str = "
    select pg_has_role(current_user, 'pg_read_all_stats', 'usage'),
           a.pid, a.application_name, a.state, a.xact_start
      from (select 1) always
      left join lateral (
            select pid, application_name, state, xact_start from pg_stat_activity
             where datname = current_database() and backend_xid is not null
             order by xact_start nulls first limit 1) a on true";

const PREPARED: &str = "
    select transaction::text, owner::text, prepared, gid from pg_prepared_xacts
     where database = current_database() order by prepared limit 1";

/// A sample whose mark may not hold yet.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) sample: Sample,
    /// Our clock when the database's had been read.
    pub(super) read: tokio::time::Instant,
    /// Who holds W back.
    pub(super) holder: Option<Holder>,
}

/// Who keeps W from moving on.
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
    #[error("a statement of the mark failed")]
    Postgres(#[from] tokio_postgres::Error),
    #[error(
        "the role of this service cannot see other roles' transactions, so that no time is known to be \
         safe: grant pg_read_all_stats to it"
    )]
    NotPermitted,
    #[error("the database is a standby: marks are taken on the primary")]
    Standby,
    #[error("the database has no table fhir.purged: run fhir-tail migrate")]
    NotMigrated,
    /// The first of the facts that fail.
    #[error("{0}")]
    FactsFail(String),
    #[error("no time is known to be safe yet: {0}")]
    Held(String),
    #[error("the database does not answer")]
    Silent,
}

impl SampleError {
    /// Refused until somebody mends it; else it passes.
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(self, Self::NotPermitted | Self::Standby | Self::NotMigrated | Self::FactsFail(_))
    }

    /// Whether another connection would help.
    pub(super) const fn needs_connection(&self) -> bool {
        matches!(self, Self::Postgres(_) | Self::Silent | Self::Standby)
    }
}

/// Takes a sample. `floor` is the W of the one before.
pub(super) async fn take(client: &Client, floor: Option<Instant>) -> Result<Draft, SampleError> {
    let taken = tokio::time::Instant::now();
    let Timestamptz(clock) = client.query_one("select clock_timestamp()", &[]).await?.try_get(0)?;
    let read = tokio::time::Instant::now();

    let holder = holder(client).await?;
    let w = safe_time(clock, holder.as_ref(), floor)
        .ok_or_else(|| SampleError::Held(holder.as_ref().map(|h| h.describe(clock)).unwrap_or_default()))?;

    let row = client.query_one("select pg_current_wal_insert_lsn()", &[]).await.map_err(standby)?;
    let l = Lsn::new(u64::from(row.try_get::<_, PgLsn>(0)?));
    let purged = client.query_opt("select last_updated from fhir.purged", &[]).await.map_err(not_migrated)?;
    let tombstones_purged = match purged {
        None => None,
        Some(row) => Some(row.try_get::<_, Timestamptz>(0)?.0),
    };
    Ok(Draft { sample: Sample { mark: Mark { w, l }, clock, taken, tombstones_purged }, read, holder })
}

/// Who keeps W from moving on to the clock. To be asked after the clock was read.
pub(crate) async fn holder(client: &Client) -> Result<Option<Holder>, SampleError> {
    let row = client.query_one(WRITERS, &[]).await?;
    if !row.try_get::<_, bool>(0)? {
        return Err(SampleError::NotPermitted);
    }
    let writer = match row.try_get::<_, Option<i32>>(1)? {
        None => None,
        Some(pid) => {
            let application = row.try_get::<_, Option<Lossy>>(2)?.map(|Lossy(name)| name).unwrap_or_default();
            let state = row.try_get::<_, Option<String>>(3)?.unwrap_or_else(|| "state unknown".into());
            Some(match row.try_get::<_, Option<Timestamptz>>(4)? {
                Some(Timestamptz(since)) => Holder::Backend { pid, application, state, since },
                None => Holder::Unknown { pid, application, state },
            })
        }
    };
    // After the writers: one that is prepared in between is seen by the first statement or by this one.
    let prepared = match client.query_opt(PREPARED, &[]).await? {
        None => None,
        Some(row) => {
            let Timestamptz(since) = row.try_get(2)?;
            let (Lossy(owner), Lossy(gid)) = (row.try_get(1)?, row.try_get(3)?);
            Some(Holder::Prepared { xid: row.try_get(0)?, gid, owner, since })
        }
    };
    Ok(prepared.or(writer))
}

/// W. What does not say when it began holds W where it was; `None` if it was nowhere yet.
fn safe_time(clock: Instant, holder: Option<&Holder>, floor: Option<Instant>) -> Option<Instant> {
    let oldest = match holder {
        None => clock,
        Some(Holder::Backend { since, .. }) => clock.min(*since),
        Some(Holder::Unknown { .. } | Holder::Prepared { .. }) => return floor,
    };
    let safe = Instant::from_unix_micros(oldest.unix_micros().saturating_sub(MARGIN_MICROS));
    Some(floor.map_or(safe, |floor| floor.max(safe)))
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

fn not_migrated(error: tokio_postgres::Error) -> SampleError {
    if error.code() == Some(&SqlState::UNDEFINED_TABLE) { SampleError::NotMigrated } else { error.into() }
}

/// Whether the database's clock has stepped back between two samples by more than the margin, as far as
/// our own clock can tell.
pub(super) fn stepped_back(before: &Draft, after: &Draft) -> bool {
    let theirs = after.sample.clock.unix_micros().saturating_sub(before.sample.clock.unix_micros());
    // The least time that can have passed between the two readings.
    let ours = after.sample.taken.saturating_duration_since(before.read).as_micros();
    theirs.saturating_add(MARGIN_MICROS) < i64::try_from(ours).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: i64) -> Instant {
        Instant::from_unix_micros(seconds * 1_000_000)
    }

    fn backend(since: Instant) -> Holder {
        Holder::Backend { pid: 1, application: String::new(), state: String::new(), since }
    }

    #[test]
    fn w_is_before_the_oldest_writer_and_never_falls() {
        let less = |seconds: i64| Instant::from_unix_micros(seconds * 1_000_000 - MARGIN_MICROS);
        assert_eq!(safe_time(at(50), None, None), Some(less(50)));
        assert_eq!(safe_time(at(50), Some(&backend(at(20))), None), Some(less(20)));
        assert_eq!(safe_time(at(50), Some(&backend(at(60))), None), Some(less(50)));
        assert_eq!(safe_time(at(50), Some(&backend(at(20))), Some(at(40))), Some(at(40)));
        assert_eq!(safe_time(at(50), None, Some(at(60))), Some(at(60)));
    }

    #[test]
    fn who_does_not_say_since_when_holds_w_where_it_was() {
        let unknown = Holder::Unknown { pid: 1, application: String::new(), state: String::new() };
        let prepared =
            Holder::Prepared { xid: "7".into(), gid: "g".into(), owner: "o".into(), since: at(45) };
        for holder in [unknown, prepared] {
            assert_eq!(safe_time(at(50), Some(&holder), Some(at(30))), Some(at(30)));
            assert_eq!(safe_time(at(50), Some(&holder), None), None);
        }
    }

    fn draft(clock_micros: i64, taken: tokio::time::Instant) -> Draft {
        let mark = Mark { w: Instant::MIN, l: Lsn::ZERO };
        let clock = Instant::from_unix_micros(clock_micros);
        let sample = Sample { mark, clock, taken, tombstones_purged: None };
        Draft { sample, read: taken + Duration::from_millis(20), holder: None }
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

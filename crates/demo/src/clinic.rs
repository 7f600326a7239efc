//! The clinic: it writes into the database, next to the sample data.
//!
//! What happens is decided by [`sample::Clinic`]; here it is read from the database, written to it in plain SQL, and
//! kept to a rate. Whatever goes wrong with the database, the clinic is read anew and goes on: nothing of it lives
//! here alone.

use crate::database::{Writer, read};
use crate::population::populate;
use anyhow::Context as _;
use load::NoTable;
use pg::{ConnectError, Database, Retry};
use sample::clinic::{Event, Unfit};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

/// A clinic: how large it is, and how busy.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Resources written each second, on average.
    pub rate: f64,
    /// Patients to begin with, in a database that has none.
    pub patients: u32,
    /// Another seed makes other people, and other things happen to them.
    pub seed: u64,
}

/// The first wait for a database that is away, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// A clinic that is late by more than this does not catch up: the rate is an average of the recent past.
const LATE: Duration = Duration::from_secs(1);

/// Writes until `stop`. A database that is away is waited for.
///
/// # Errors
///
/// If the database holds patients that are not test data, or refuses for a reason that only an operator can remove.
pub async fn work(database: Database, options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let working = async {
        let mut wait = WAITS.0;
        loop {
            let begun = Instant::now();
            let Err(error) = session(&database, options).await;
            if error.is::<Unfit>() {
                return Err(error.context("the simulator does not write to this database"));
            }
            if refused_for_good(&error) {
                let why = described(&error);
                return Err(anyhow::anyhow!("the simulator cannot write to this database: {why}"));
            }
            // It went well for a while: what happened is new.
            if begun.elapsed() > WAITS.1 {
                wait = WAITS.0;
            }
            tracing::warn!(error = described(&error), "the clinic is closed; it is tried again");
            sleep(wait).await;
            wait = (wait * 2).min(WAITS.1);
        }
    };
    stop.run_until_cancelled(working).await.unwrap_or(Ok(()))
}

/// One connection's work: it ends with an error only.
async fn session(database: &Database, options: Options) -> Result<std::convert::Infallible, anyhow::Error> {
    populate(database, options.patients, options.seed).await?;
    let client = database.connect(pg::Session::Simulate).await?;
    let mut clinic = read(&client, options.seed).await?;
    let mut writer = Writer::prepare(client).await?;
    tracing::info!(patients = clinic.patients(), rate = options.rate, "the clinic is open");
    let mut due = Instant::now();
    loop {
        let step = clinic.step(jiff::Timestamp::now());
        writer.write(&step).await.context("cannot write to fhir.resource")?;
        // An import is not paid for by minutes of silence.
        if step.event != Event::Import {
            due += Duration::from_secs_f64(changes(step.writes.len()) / options.rate);
        }
        due = due.max(Instant::now() - LATE);
        sleep_until(due).await;
    }
}

/// As a number to reckon with.
fn changes(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

/// Whether it takes an operator: a wrong password, a missing table or right.
fn refused_for_good(error: &anyhow::Error) -> bool {
    let judged = error.chain().find_map(|cause| {
        if cause.is::<NoTable>() {
            return Some(Retry::Operator);
        }
        if let Some(error) = cause.downcast_ref::<ConnectError>() {
            return Some(error.retry());
        }
        match cause.downcast_ref::<tokio_postgres::Error>()?.code()? {
            // A table was altered: what was prepared is prepared anew on the next connection.
            &SqlState::FEATURE_NOT_SUPPORTED => Some(Retry::Backoff),
            code => Some(Retry::of_sql_state(code.code())),
        }
    });
    matches!(judged, Some(Retry::Operator | Retry::Never))
}

/// An error in one line, without the details in which Postgres repeats values.
fn described(error: &anyhow::Error) -> String {
    let lines = error.chain().map(|cause| match cause.downcast_ref::<tokio_postgres::Error>() {
        Some(error) => match error.as_db_error() {
            Some(refused) => format!("{} (SQLSTATE {})", refused.message(), refused.code().code()),
            None => error.to_string(),
        },
        None => cause.to_string(),
    });
    let mut lines: Vec<String> = lines.collect();
    lines.dedup();
    lines.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let error = anyhow::anyhow!("inner").context("outer");
        assert_eq!(described(&error), "outer: inner");
    }
}

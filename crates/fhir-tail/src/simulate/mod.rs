//! `fhir-tail simulate`: a clinic that writes into the database, beside sample data.
//!
//! What happens is decided by [`sample::Clinic`]; here it is read from the database, written to it in plain SQL, and
//! kept to a rate. Whatever goes wrong with the database, the clinic is read anew and goes on: nothing of it lives
//! here alone.

mod database;
mod population;

use crate::load::NoTable;
use crate::migrate;
use crate::place::Place;
use crate::settings::Settings;
use crate::signals::Signals;
use anyhow::Context as _;
use database::{Writer, read};
use pg::{ConnectError, Database, Retry};
use sample::clinic::{Event, Unfit};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

pub(crate) use population::populate;

/// What there is, and how busy it is.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct ClinicOptions {
    /// Resources that are written each second, on average; a batch import comes on top of it now and then
    #[arg(long, value_name = "NUMBER", default_value_t = 10.0, value_parser = rate)]
    pub(crate) rate: f64,

    /// How many patients to begin with, where there are none yet
    #[arg(long, value_name = "NUMBER", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) patients: u32,

    /// Another seed makes other people, and other things happen to them
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
}

/// More than the options say.
pub(crate) const SIMULATE_HELP: &str = "\
It needs the tables that migrate makes. Where they are empty it first loads a sample population; where they hold \
patients that are not marked as test data it refuses to write. It waits for a database that is away, and ends with \
the database's message where waiting would not help: a wrong password, a missing table or right.

Examples:
  fhir-tail simulate --database-url postgres://app@db.example/demo --rate 50
  fhir-tail simulate                     on the embedded Postgres that serve runs";

/// The first wait for a database that is away, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// A clinic that is late by more than this does not catch up: the rate is an average of the recent past.
const LATE: Duration = Duration::from_secs(1);

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("a number of resources a second from 0.01 to 100000 is expected, such as 10".to_owned()),
    }
}

/// Writes until a signal, which is how it should end.
pub(crate) async fn run(settings: &Settings, options: ClinicOptions) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let place = tokio::select! {
        place = Place::of(settings) => place?,
        _ = signals.next() => return Ok(()),
    };
    let working = async {
        if place.is_ours_alone() {
            migrate::apply(&place.database).await?;
        }
        work(place.database.clone(), options, CancellationToken::new()).await
    };
    let result = tokio::select! {
        result = working => result,
        signal = signals.next() => {
            tracing::info!(signal, "the clinic closes");
            Ok(())
        }
    };
    place.close().await?;
    result
}

/// Writes until it is told to stop, finds data that it must not touch, or is refused for a reason that does not pass.
pub(crate) async fn work(
    database: Database,
    options: ClinicOptions,
    stop: CancellationToken,
) -> anyhow::Result<()> {
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
async fn session(
    database: &Database,
    options: ClinicOptions,
) -> Result<std::convert::Infallible, anyhow::Error> {
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
    fn a_rate_is_a_positive_number() {
        assert_eq!(rate("0.5"), Ok(0.5));
        for text in ["0", "-1", "NaN", "inf", "ten", "", "1e9"] {
            assert!(rate(text).unwrap_err().contains("such as 10"), "{text}");
        }
    }

    #[test]
    fn causes_are_told_once() {
        let error = anyhow::anyhow!("inner").context("outer");
        assert_eq!(described(&error), "outer: inner");
    }
}

//! `fhir-tail migrate`: the native layout, in the database that was named, and as it should be.

use crate::output::say;
use crate::place::Place;
use crate::settings::Settings;
use anyhow::Context as _;
use cdc::layout::native::{self, Applied, IndexError, IndexProgress, Repaired};
use pg::{Database, Session};
use std::time::Duration;
use tokio::time::Instant;

/// How often people are told how far the index is, if it is not in another phase.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Applies what is missing and says what that was. `restamp`: also gives new stamps to rows that are stamped ahead.
pub(crate) async fn run(settings: &Settings, restamp: bool) -> anyhow::Result<()> {
    let place = Place::of(settings).await?;
    let result = async {
        report(&place.database).await?;
        if restamp {
            let rows = native::restamp(&place.database).await?;
            say(format_args!(
                "{rows} rows were stamped ahead of the clock{}",
                if rows > 0 {
                    " and have new stamps: the service begins anew, and resets its subscribers"
                } else {
                    ""
                }
            ));
        }
        anyhow::Ok(())
    }
    .await;
    place.close().await?;
    result
}

async fn report(database: &Database) -> anyhow::Result<()> {
    let Done { applied, repaired: Repaired { done, left } } = apply(database).await?;
    let index = build_index(database, |progress| say(format_args!("{progress}")));
    for migration in &applied {
        say(format_args!("applied {}", migration.name));
    }
    for statement in &done {
        say(format_args!("repaired: {}", first_line(statement)));
    }
    for statement in &left {
        say(format_args!("left to do, as a superuser: {statement}"));
    }
    // It may take an hour: what was done before it is told first.
    let built = match index.await {
        Ok(built) => built,
        Err(IndexError::NotPermitted { statement, .. }) => {
            say(format_args!("left to do, as the owner of fhir.resource: {statement}"));
            return Ok(());
        }
        Err(error) => {
            return Err(error).context(
                "the index of patients was not built: run 'fhir-tail migrate' again, which goes on from here",
            );
        }
    };
    for statement in &built {
        say(format_args!("done: {statement}"));
    }
    if applied.is_empty() && done.is_empty() && left.is_empty() && built.is_empty() {
        say(format_args!("nothing to do: {database} is up to date"));
    }
    Ok(())
}

/// Builds the index of patients where it is missing. `told` hears of each phase, and of a long one again and again.
pub(crate) async fn build_index(
    database: &Database,
    told: impl Fn(&IndexProgress),
) -> Result<Vec<String>, IndexError> {
    let mut last: Option<(Instant, IndexProgress)> = None;
    native::build_patient_index(database, |progress| {
        let same = |(at, before): &(Instant, IndexProgress)| {
            before.is_same_phase(progress) && at.elapsed() < TELL_EVERY
        };
        if !last.as_ref().is_some_and(same) {
            told(progress);
            last = Some((Instant::now(), progress.clone()));
        }
    })
    .await
}

/// Of a function, which is long, what it begins with.
fn first_line(statement: &str) -> String {
    match statement.split_once('\n') {
        None => statement.to_owned(),
        Some((first, _)) => format!("{first} …"),
    }
}

/// What was done.
pub(crate) struct Done {
    applied: Vec<Applied>,
    repaired: Repaired,
}

/// Applies what is missing, and makes right what has changed since it was applied.
pub(crate) async fn apply(database: &Database) -> anyhow::Result<Done> {
    let failed = || format!("cannot migrate {database}");
    let mut client = database.connect(Session::Migrate).await?;
    let applied = native::migrate(&mut client).await.with_context(failed)?;
    let repaired = native::repair(&client).await.with_context(failed)?;
    Ok(Done { applied, repaired })
}

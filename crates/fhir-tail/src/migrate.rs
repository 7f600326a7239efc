//! `fhir-tail migrate`: the native layout, in the database that was named, and as it should be.

use crate::output::say;
use crate::place::Place;
use crate::settings::Settings;
use anyhow::Context as _;
use cdc::{Applied, Database, Repaired, Session};

/// Applies what is missing and says what that was. `restamp`: also gives new stamps to rows that are stamped ahead.
pub(crate) async fn run(settings: &Settings, restamp: bool) -> anyhow::Result<()> {
    let place = Place::of(settings).await?;
    let result = async {
        report(&place.database).await?;
        if restamp {
            let rows = cdc::restamp(&place.database).await?;
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
    for migration in &applied {
        say(format_args!("applied {}", migration.name));
    }
    for statement in &done {
        say(format_args!("repaired: {}", first_line(statement)));
    }
    for statement in &left {
        say(format_args!("left to do, as a superuser: {statement}"));
    }
    if applied.is_empty() && done.is_empty() && left.is_empty() {
        say(format_args!("nothing to do: {database} is up to date"));
    }
    Ok(())
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
    let applied = cdc::migrate(&mut client).await.with_context(failed)?;
    let repaired = cdc::repair(&client).await.with_context(failed)?;
    Ok(Done { applied, repaired })
}

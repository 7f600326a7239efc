//! `fhir-tail migrate`: the native layout, in the database that was named.

use crate::output::say;
use crate::place::Place;
use crate::settings::Settings;
use anyhow::Context as _;
use cdc::{Database, Session};

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
    let applied = apply(database).await?;
    for migration in &applied {
        say(format_args!("applied {migration}"));
    }
    if applied.is_empty() {
        say(format_args!("nothing to do: {database} is up to date"));
    }
    Ok(())
}

/// Applies what is missing; gives the names of what was applied.
pub(crate) async fn apply(database: &Database) -> anyhow::Result<Vec<String>> {
    let mut client = database.connect(Session::Migrate).await?;
    let applied = cdc::migrate(&mut client).await.with_context(|| format!("cannot migrate {database}"))?;
    Ok(applied.iter().map(|migration| migration.name.to_owned()).collect())
}

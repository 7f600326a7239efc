//! `fhir-tail uninstall --print`: what it prints, run as it stands, leaves the resources and nothing of the service.

use anyhow::{Result, ensure};
use std::time::Duration;
use tests::{Binary, Case, Context, Site, cases};

pub(crate) fn cases() -> Vec<Case> {
    cases![each the_printed_sql_removes_the_service_and_keeps_the_resources]
}

const LEFT: &str = "select (select count(*) from pg_replication_slots) \
    + (select count(*) from pg_publication) \
    + (select count(*) from pg_roles where rolname = 'fhir_tail') \
    + (select count(*) from pg_class where relname = 'resource_mentions') \
    + (select count(*) from pg_class where oid = 'fhir.resource'::regclass and relreplident <> 'd')";

async fn the_printed_sql_removes_the_service_and_keeps_the_resources(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    site.put("Patient", "p").await?;
    site.settle().await?;
    site.server.terminate(Duration::from_secs(30)).await?;
    let before: i64 = site.sql.query_one(LEFT, &[]).await?.get(0);
    ensure!(before == 5, "{before} of the five things that are removed were there");

    let output = Binary::find()?.succeed(&["uninstall", "--print"])?;
    let sql = String::from_utf8(output.stdout)?;
    // Twice: what was cut off is run again.
    for _ in 0..2 {
        site.sql.batch_execute(&sql).await?;
        let left: i64 = site.sql.query_one(LEFT, &[]).await?.get(0);
        ensure!(left == 0, "{left} things are left");
    }
    let row = site.sql.query_one("select count(*) from fhir.resource", &[]).await?;
    ensure!(row.get::<_, i64>(0) == 1, "the resource is gone");
    site.put("Patient", "q").await?;

    // And it can be installed again.
    Binary::find()?.succeed(&["migrate", "--database-url", &site.cluster.url("postgres")])?;
    let again: i64 = site.sql.query_one(LEFT, &[]).await?.get(0);
    ensure!(again == 4, "{again}: the slot is made by the service, the rest by migrate");
    // Without the flag nothing is printed that somebody might run.
    let refused = Binary::find()?.run(&["uninstall"])?;
    ensure!(refused.status.code() == Some(2) && refused.stdout.is_empty(), "{}", refused.status);
    Ok(())
}

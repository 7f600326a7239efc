//! Tables that `migrate` finds and did not make as they are: those of a restored dump, and those in partitions.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{Binary, Case, Client, Context, Reader, SOON, Site, Subscribe, cases};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        once migrate_makes_right_what_a_restore_lacks,
        each a_table_partitioned_by_type,
    ]
}

/// The answer of `check` as JSON.
pub(crate) fn check(site: &Site) -> Result<String> {
    let url = site.cluster.url("fhir_tail");
    Ok(String::from_utf8(Binary::find()?.run(&["check", "--json", "--database-url", &url])?.stdout)?)
}

/// The SQL that `check` offers for what fails.
pub(crate) fn checked_sql(answer: &str, subject: &str) -> Result<String> {
    let answer: Value = serde_json::from_str(answer)?;
    let lines = answer["checks"].as_array().context("no checks")?;
    let line = lines.iter().find(|line| line["subject"] == subject && line["verdict"] == "failure");
    Ok(line.and_then(|line| line["sql"].as_str()).with_context(|| format!("no SQL: {answer:#}"))?.to_owned())
}

/// A dump of the database alone: roles are not in it.
async fn migrate_makes_right_what_a_restore_lacks(context: Context) -> Result<()> {
    let site = Site::prepare(&context, &[], &[]).await?;
    site.put("Patient", "p").await?;
    let socket = site.cluster.socket().parent().context("a socket in a folder")?.display().to_string();
    let dump = context.directory().join("dump.sql");
    let run = |program: &str, arguments: &[&str]| -> Result<Vec<u8>> {
        let mut command = context.postgres().command(program);
        let output = command.args(["-h", &socket, "-U", "postgres"]).args(arguments).output()?;
        ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    };
    std::fs::write(&dump, run("pg_dump", &["--no-publications", "fhir"])?)?;
    let url = site.cluster.url("postgres");
    let Site { server, cluster, sql } = site;
    drop(sql);
    run("psql", &["-c", "drop database fhir with (force)", "-c", "drop role fhir_tail", "postgres"])?;
    run("psql", &["-c", "create database fhir", "postgres"])?;
    run("psql", &["-q", "-f", &dump.display().to_string(), "fhir"])?;
    let migrate = Binary::find()?.succeed(&["migrate", "--database-url", &url])?;
    let said = String::from_utf8(migrate.stdout)?;
    for part in [
        "create role",
        "grant usage on schema fhir",
        "grant execute on function fhir.close_time",
        "grant pg_read_all_stats",
        "create publication",
    ] {
        ensure!(said.contains(part), "no '{part}': {said}");
    }
    let sql = cluster.connect().await?;
    sql.batch_execute("alter role fhir_tail login").await?;
    let mut site = Site { server, cluster, sql };
    site.server.start().await?;
    site.ready().await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    reader.hear("p", SOON, |reader| reader.heard_of("p")).await?;
    // Each alone, and all that one may not do is said.
    for broken in [
        "drop publication fhir_tail",
        "alter publication fhir_tail drop table fhir.tombstone",
        "alter role fhir_tail noreplication",
        "revoke select on fhir.restamped from fhir_tail",
        "drop trigger after_insert on fhir.resource",
        "drop function fhir.after_delete() cascade",
        "drop function fhir.close_time",
    ] {
        site.sql.batch_execute(broken).await.with_context(|| broken.to_owned())?;
        let said = String::from_utf8(Binary::find()?.succeed(&["migrate", "--database-url", &url])?.stdout)?;
        ensure!(said.contains("repaired: "), "{broken}: {said}");
        let again = String::from_utf8(Binary::find()?.succeed(&["migrate", "--database-url", &url])?.stdout)?;
        ensure!(again.starts_with("nothing to do"), "{broken}: {again}");
    }
    site.sql
        .batch_execute(
            "create role owner login; alter database fhir owner to owner; alter schema fhir owner to owner; \
             do $$ declare t text; begin for t in select tablename from pg_tables where schemaname = 'fhir' loop \
               execute format('alter table fhir.%I owner to owner', t); end loop; end $$; \
             alter role fhir_tail noreplication; revoke pg_read_all_stats from fhir_tail; \
             revoke select on fhir.purged from fhir_tail",
        )
        .await?;
    let url = site.cluster.url("owner");
    let said = String::from_utf8(Binary::find()?.succeed(&["migrate", "--database-url", &url])?.stdout)?;
    ensure!(said.contains("repaired: grant select on"), "{said}");
    for left in ["alter role \"fhir_tail\" replication;", "grant pg_read_all_stats to \"fhir_tail\";"] {
        ensure!(said.contains(&format!("left to do, as a superuser: {left}")), "{said}");
    }
    Ok(())
}

async fn a_table_partitioned_by_type(context: Context) -> Result<()> {
    let mut site = Site::prepare(&context, &[], &[]).await?;
    site.sql
        .batch_execute(
            "alter table fhir.resource rename to before; \
             create table fhir.resource (like fhir.before including constraints including defaults) \
               partition by list (resource_type); \
             drop table fhir.before; \
             create table fhir.resource_patient partition of fhir.resource for values in ('Patient'); \
             create table fhir.resource_rest partition of fhir.resource default; \
             create index resource_replay on fhir.resource (resource_type, last_updated, id); \
             alter table fhir.resource add constraint resource_pkey primary key (resource_type, id)",
        )
        .await?;
    let url = site.cluster.url("postgres");
    Binary::find()?.succeed(&["migrate", "--database-url", &url])?;
    for publication in [
        "alter publication fhir_tail set (publish_via_partition_root = false)",
        "drop publication fhir_tail; create publication fhir_tail for table fhir.resource, fhir.tombstone",
        "drop publication fhir_tail; create publication fhir_tail for table fhir.resource_patient, fhir.tombstone",
    ] {
        site.sql.batch_execute(publication).await?;
        let sql = checked_sql(&check(&site)?, "publication")?;
        ensure!(sql.contains("set (publish_via_partition_root = true);"), "{sql}");
        site.sql.batch_execute(&sql).await.with_context(|| sql.clone())?;
        let answer: Value = serde_json::from_str(&check(&site)?)?;
        ensure!(answer["ok"] == true, "{answer:#}");
    }
    site.server.start().await?;
    site.ready().await?;
    site.put("Patient", "p").await?;
    site.settle().await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    site.put("Observation", "o").await?;
    site.put("Patient", "p").await?;
    site.delete("Patient", "p").await?;
    site.put("Patient", "end").await?;
    reader.hear("the end", SOON, |reader| reader.heard_of("end")).await?;
    ensure!(reader.heard_of("o") && reader.about("p").count() == 3, "{}", reader.tail());
    let log = site.server.log()?;
    ensure!(!log.contains("not of the native layout"), "{log}");
    // Past the triggers of the whole: nobody would hear of it.
    site.sql.batch_execute("delete from fhir.resource_patient where id = 'end'").await?;
    let address = site.server.address();
    let done = |reader: &Reader| reader.noticed("reset-all");
    reader.hear_on(|| address.now(), "the reset", SOON, done).await?;
    partitions_that_come_and_go(&site, reader).await
}

/// What a partition has or takes away is in no log.
async fn partitions_that_come_and_go(site: &Site, mut reader: Reader) -> Result<()> {
    let address = site.server.address();
    let before = reader.notices("live").count();
    let again = |reader: &Reader| reader.notices("live").count() > before;
    reader.hear_on(|| address.now(), "everything again", SOON, again).await?;
    // Nothing in the log of the whole says so, hence it is refused. A partition that is made later has no such trigger
    // before `migrate` has run again.
    for sql in ["truncate fhir.resource_patient", "truncate only fhir.resource_rest"] {
        let refused = site.sql.batch_execute(sql).await.err().context("a partition was truncated")?;
        ensure!(format!("{refused:?}").contains("cannot be truncated"), "{refused:?}");
    }
    site.sql
        .batch_execute(
            "create table fhir.more (like fhir.resource including all); \
             insert into fhir.more values ('Basic', 'attached', 1, now() - interval '1 day', '{\"resourceType\":\"Basic\"}')",
        )
        .await?;
    let detach = "alter table fhir.resource detach partition fhir.more";
    let attach = "alter table fhir.resource attach partition fhir.more for values in ('Basic')";
    for (statement, is_there) in [
        (attach.to_owned(), true),
        (format!("begin; {detach}; delete from fhir.more; {attach}; commit"), false),
        ("drop table fhir.more".to_owned(), false),
    ] {
        let before = reader.notices("reset-all").count();
        site.sql.batch_execute(&statement).await.with_context(|| statement.clone())?;
        if statement == attach {
            let sql = checked_sql(&check(site)?, "triggers")?;
            ensure!(sql.contains("create trigger refuse_truncate before truncate on fhir.more"), "{sql}");
            Binary::find()?.succeed(&["migrate", "--database-url", &site.cluster.url("postgres")])?;
        }
        let done = |reader: &Reader| {
            let last = |code| reader.heard.iter().rposition(|heard| heard.what.code() == Some(code));
            reader.notices("reset-all").count() > before && last("live") > last("reset-all")
        };
        reader.hear_on(|| address.now(), &statement, SOON, done).await?;
        let reset = reader.heard.iter().rposition(|heard| heard.what.code() == Some("reset-all"));
        let since = &reader.heard[reset.context("no reset-all")?..];
        let has = since.iter().any(|heard| heard.what.key().is_some_and(|key| key.id == "attached"));
        ensure!(has == is_there, "{statement}: {}", reader.tail());
    }
    Ok(())
}

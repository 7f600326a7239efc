//! `fhir-tail check`: each failure is made real on a cluster and seen with its SQL; that SQL, run as it stands, mends it.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::{Binary, Case, Cluster, Context, SOON, Site, cases, http, put, until};

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each a_database_that_is_ready_passes,
        once without_tables_it_says_to_migrate,
        once without_an_answer_it_fails,
        each the_servers_settings_are_mended_by_a_restart,
        each what_the_role_lacks_is_granted,
        each the_publication_is_made_whole,
        each the_tables_are_made_as_they_were,
        each what_others_may_do_is_taken_back,
        once stamps_ahead_of_the_clock_are_drawn_again,
        once standbys_that_would_count_us_are_named,
        each a_slot_that_was_given_up_is_dropped,
        once a_slot_of_another_is_left_alone,
        each who_holds_replays_back_is_ended,
        once a_log_without_a_limit_is_warned_of,
        once a_subscription_that_writes_past_the_triggers_is_named,
    ]
}

/// The answer: whether all is well, and the lines.
struct Answer(Value);

impl Answer {
    /// What does not pass, by subject.
    fn bad(&self) -> Vec<(&str, &str)> {
        let lines = self.0["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
        lines
            .iter()
            .filter_map(|line| Some((line["subject"].as_str()?, line["verdict"].as_str()?)))
            .filter(|(_, verdict)| *verdict != "pass")
            .collect()
    }

    /// The line of this subject that does not pass.
    fn line(&self, subject: &str) -> Result<&Value> {
        let lines = self.0["checks"].as_array().context("no checks")?;
        let found = lines.iter().find(|line| line["subject"] == subject && line["verdict"] != "pass");
        found.with_context(|| format!("nothing is wrong with {subject}: {:#}", self.0))
    }

    fn sql(&self, subject: &str) -> Result<String> {
        Ok(self.line(subject)?["sql"].as_str().with_context(|| format!("{subject} has no sql"))?.to_owned())
    }
}

async fn ask(cluster: &Cluster, user: &str) -> Result<Answer> {
    let url = cluster.url(user);
    let run = move || {
        Binary::find()?.run(&["check", "--json", "--accept", "unlimited-wal", "--database-url", &url])
    };
    let output = tokio::task::spawn_blocking(run).await??;
    let answer: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)))?;
    let code = if answer["ok"] == true { 0 } else { 1 };
    ensure!(output.status.code() == Some(code), "{} for {answer:#}", output.status);
    Ok(Answer(answer))
}

/// A migrated database whose service may log in.
async fn migrated(context: &Context, settings: &[&str]) -> Result<Site> {
    Site::prepare(context, settings, &[]).await
}

/// Runs statements one by one, as psql does: `alter system` takes no others beside it.
async fn run(site: &Site, sql: &str) -> Result<()> {
    for statement in sql.split_inclusive(';') {
        site.sql.batch_execute(statement).await.with_context(|| sql.to_owned())?;
    }
    Ok(())
}

/// Breaks one thing, sees it fail, runs the SQL that is offered, and sees it pass.
async fn breaks_and_mends(site: &Site, user: &str, breaking: &str, subject: &str) -> Result<()> {
    let before = ask(&site.cluster, user).await?;
    ensure!(before.line(subject).is_err(), "{subject} is wrong before '{breaking}'");
    site.sql.batch_execute(breaking).await.with_context(|| breaking.to_owned())?;
    let broken = ask(&site.cluster, user).await?;
    let sql = broken.sql(subject)?;
    run(site, &sql).await?;
    let mended = ask(&site.cluster, user).await?;
    ensure!(mended.line(subject).is_err(), "'{sql}' does not mend '{breaking}': {:#}", mended.0);
    Ok(())
}

async fn a_database_that_is_ready_passes(context: Context) -> Result<()> {
    let mut site = migrated(&context, &[]).await?;
    for user in ["postgres", "fhir_tail"] {
        let answer = ask(&site.cluster, user).await?;
        ensure!(answer.bad().is_empty() && answer.0["ok"] == true, "{user}: {:#}", answer.0);
    }
    // So does one that is being served, with writes in it.
    site.server.start().await?;
    site.put("Patient", "p").await?;
    until("the slot to be read from", SOON, || async {
        let answer = ask(&site.cluster, "fhir_tail").await?;
        ensure!(answer.0["ok"] == true, "{:#}", answer.0);
        Ok(answer.bad().is_empty().then_some(()))
    })
    .await?;
    // And for people.
    let output = Binary::find()?.succeed(&["check", "--database-url", &site.cluster.url("fhir_tail")])?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(text.contains("\n✓ publication ") && text.ends_with(" passed\n"), "{text}");
    ensure!(!text.contains('\x1b'), "colours, and nobody to see them: {text}");
    Ok(())
}

async fn without_tables_it_says_to_migrate(context: Context) -> Result<()> {
    let cluster = Cluster::start(&context, &[]).await?;
    let answer = ask(&cluster, "postgres").await?;
    let line = answer.line("tables")?;
    ensure!(line["message"].as_str().is_some_and(|text| text.contains("fhir-tail migrate")), "{line}");
    ensure!(answer.0["ok"] == false);
    Binary::find()?.succeed(&["migrate", "--database-url", &cluster.url("postgres")])?;
    ask(&cluster, "postgres").await?.line("tables").err().context("the tables are there now")?;
    Ok(())
}

async fn without_an_answer_it_fails(context: Context) -> Result<()> {
    let cluster = Cluster::start(&context, &[]).await?;
    let answer = ask(&cluster, "nobody_of_this_name").await?;
    ensure!(answer.bad() == [("connection", "failure")], "{:#}", answer.0);
    // Nothing to check at all is another matter than something that fails.
    let data = context.directory().join("data").display().to_string();
    let output = Binary::find()?.run(&["check", "--data-dir", &data])?;
    ensure!(output.status.code() == Some(2), "{}", output.status);
    Ok(())
}

async fn the_servers_settings_are_mended_by_a_restart(context: Context) -> Result<()> {
    let settings =
        ["wal_level = replica", "max_replication_slots = 1", "max_wal_senders = 0", "track_activities = off"];
    let mut site = migrated(&context, &settings).await?;
    site.sql.batch_execute("select pg_create_physical_replication_slot('standby')").await?;
    let answer = ask(&site.cluster, "postgres").await?;
    for subject in ["wal_level", "slots", "walsenders", "track_activities"] {
        run(&site, &answer.sql(subject)?).await?;
    }
    let waits = ask(&site.cluster, "postgres").await?;
    ensure!(waits.line("wal_level")?.get("sql").is_none(), "{:#}", waits.0);
    site.cluster.stop_fast().await?;
    site.cluster.start_again().await?;
    let answer = ask(&site.cluster, "fhir_tail").await?;
    ensure!(answer.bad().is_empty(), "{:#}", answer.0);
    // For some sessions only.
    site.sql = site.cluster.connect().await?;
    for off in ["role fhir_tail", "database fhir", "role postgres in database fhir"] {
        let breaking = format!("alter {off} set track_activities = off");
        breaks_and_mends(&site, "postgres", &breaking, "track_activities").await?;
    }
    Ok(())
}

async fn what_the_role_lacks_is_granted(context: Context) -> Result<()> {
    let site = migrated(&context, &[]).await?;
    // It makes no difference who asks, but for who may not log in.
    for user in ["postgres", "fhir_tail"] {
        for (breaking, subject) in [
            ("alter role fhir_tail noreplication", "replication"),
            ("revoke pg_read_all_stats from fhir_tail", "pg_read_all_stats"),
            ("revoke select on fhir.tombstone, fhir.purged from fhir_tail", "select"),
            ("revoke select on fhir.migration from fhir_tail", "select"),
            ("revoke usage on schema fhir from fhir_tail", "select"),
            ("alter table fhir.resource enable row level security", "row security"),
        ] {
            breaks_and_mends(&site, user, breaking, subject).await?;
        }
        site.sql
            .batch_execute(
                "alter table fhir.resource disable row level security; alter role fhir_tail nobypassrls",
            )
            .await?;
    }
    breaks_and_mends(&site, "postgres", "alter role fhir_tail nologin", "role").await
}

async fn the_publication_is_made_whole(context: Context) -> Result<()> {
    let site = migrated(&context, &[]).await?;
    for breaking in [
        "drop publication fhir_tail",
        "alter publication fhir_tail drop table fhir.tombstone",
        "alter publication fhir_tail set (publish = 'insert, truncate')",
    ] {
        breaks_and_mends(&site, "postgres", breaking, "publication").await?;
    }
    if context.postgres().major() >= 15 {
        for narrow in ["fhir.resource where (id <> 'x')", "fhir.resource (resource_type, id)"] {
            let breaking = format!("alter publication fhir_tail set table {narrow}, fhir.tombstone");
            breaks_and_mends(&site, "fhir_tail", &breaking, "publication").await?;
        }
    }
    // Deletions come as inserts.
    site.sql.batch_execute("alter publication fhir_tail set (publish = 'insert, update')").await?;
    ensure!(ask(&site.cluster, "fhir_tail").await?.bad().is_empty());
    Ok(())
}

async fn the_tables_are_made_as_they_were(context: Context) -> Result<()> {
    let site = migrated(&context, &[]).await?;
    for (breaking, subject) in [
        ("drop trigger after_delete on fhir.resource", "triggers"),
        (
            "drop trigger stamp_insert on fhir.resource; drop trigger refuse_truncate on fhir.tombstone",
            "triggers",
        ),
        ("alter table fhir.resource disable trigger all", "triggers"),
        ("alter table fhir.resource enable trigger stamp_update", "triggers"),
        ("alter table fhir.resource replica identity nothing", "replica identity"),
        ("alter table fhir.tombstone replica identity full", "replica identity"),
        ("alter table fhir.resource drop constraint resource_pkey", "replica identity"),
    ] {
        breaks_and_mends(&site, "fhir_tail", breaking, subject).await?;
    }
    // They do their work again.
    let version = site.put("Patient", "p").await?;
    ensure!(site.put("Patient", "p").await? > version);
    site.delete("Patient", "p").await?;
    let tombstones: i64 = site.sql.query_one("select count(*) from fhir.tombstone", &[]).await?.try_get(0)?;
    ensure!(tombstones == 1, "{tombstones} tombstones");
    Ok(())
}

async fn what_others_may_do_is_taken_back(context: Context) -> Result<()> {
    let site = migrated(&context, &[]).await?;
    site.sql.batch_execute("create role other; grant usage on schema fhir to other").await?;
    for (breaking, subject) in [
        ("grant execute on function fhir.after_delete(), fhir.stamp_insert() to public", "functions"),
        ("alter function fhir.after_insert() security invoker", "functions"),
        ("alter function fhir.stamp_update() reset search_path", "functions"),
        ("alter function fhir.stamp_bulk_insert() owner to other", "functions"),
        ("grant all on fhir.resource to other", "writers"),
        ("grant insert, update on fhir.tombstone to other", "writers"),
        ("grant all on all sequences in schema fhir to other", "writers"),
        ("grant trigger on fhir.resource to public", "writers"),
        ("grant create on schema fhir to other", "writers"),
    ] {
        breaks_and_mends(&site, "fhir_tail", breaking, subject).await?;
    }
    // Writing is left to them.
    site.sql
        .batch_execute("set role other; select fhir.put('Patient', 'p', '{}'); reset role")
        .await
        .context("what a writer needs was taken, too")?;
    Ok(())
}

async fn stamps_ahead_of_the_clock_are_drawn_again(context: Context) -> Result<()> {
    let site = migrated(&context, &[]).await?;
    for (kind, id) in [("Patient", "now"), ("Patient", "later"), ("Observation", "later")] {
        site.put(kind, id).await?;
    }
    let breaking = "begin; alter table fhir.resource disable trigger stamp_update; \
                    update fhir.resource set last_updated = now() + interval '1 day' where id = 'later'; \
                    alter table fhir.resource enable always trigger stamp_update; commit";
    breaks_and_mends(&site, "postgres", breaking, "stamps").await?;
    Ok(())
}

async fn standbys_that_would_count_us_are_named(context: Context) -> Result<()> {
    // No standby is there: commits must not wait for any.
    let site = migrated(&context, &["synchronous_commit = local"]).await?;
    let set = |value: &str| format!("alter system set synchronous_standby_names = '{value}'");
    let reloaded = async |value: &str| -> Result<()> {
        site.sql.batch_execute(&set(value)).await?;
        site.sql.batch_execute("select pg_reload_conf()").await?;
        until("the setting", SOON, || async {
            let now: String = site.sql.query_one("show synchronous_standby_names", &[]).await?.try_get(0)?;
            Ok((now == value).then_some(()))
        })
        .await
    };
    reloaded(r#"ANY 2 (a, "fhir-tail")"#).await?;
    run(&site, &ask(&site.cluster, "fhir_tail").await?.sql("standbys")?).await?;
    until("the remedy", SOON, || async {
        Ok(ask(&site.cluster, "fhir_tail").await?.line("standbys").is_err().then_some(()))
    })
    .await?;
    // Nobody but the operator knows whom this means.
    reloaded("*").await?;
    let answer = ask(&site.cluster, "fhir_tail").await?;
    ensure!(answer.line("standbys")?.get("sql").is_none(), "{:#}", answer.0);
    Ok(())
}

async fn a_slot_that_was_given_up_is_dropped(context: Context) -> Result<()> {
    let site = migrated(&context, &["max_slot_wal_keep_size = 2MB", "max_wal_size = 4MB"]).await?;
    site.sql.batch_execute("select pg_create_logical_replication_slot('fhir_tail', 'pgoutput')").await?;
    let answer = ask(&site.cluster, "fhir_tail").await?;
    ensure!(answer.bad() == [("slot", "warning")], "nobody reads from it: {:#}", answer.0);
    site.until_the_slot_is_lost().await?;
    let sql = ask(&site.cluster, "fhir_tail").await?.sql("slot")?;
    site.sql.batch_execute(&sql).await?;
    let answer = ask(&site.cluster, "fhir_tail").await?;
    ensure!(answer.bad().is_empty(), "{:#}", answer.0);
    Ok(())
}

async fn a_slot_of_another_is_left_alone(context: Context) -> Result<()> {
    let site = migrated(&context, &[]).await?;
    site.sql.batch_execute("select pg_create_physical_replication_slot('fhir_tail')").await?;
    let answer = ask(&site.cluster, "fhir_tail").await?;
    let line = answer.line("slot")?;
    ensure!(line["verdict"] == "failure" && line.get("sql").is_none(), "{line}");
    Ok(())
}

async fn who_holds_replays_back_is_ended(context: Context) -> Result<()> {
    let site = migrated(&context, &[]).await?;
    let long = site.cluster.connect().await?;
    long.batch_execute("begin").await?;
    put(&long, "Patient", "long", 1).await?;
    // As soon as it is long enough.
    let sql = until("the transaction to be named", SOON, || async {
        Ok(ask(&site.cluster, "fhir_tail").await?.sql("transactions").ok())
    })
    .await?;
    site.sql.batch_execute(&sql).await?;
    until("its end", SOON, || async {
        Ok(ask(&site.cluster, "fhir_tail").await?.bad().is_empty().then_some(()))
    })
    .await?;
    // One that does not say since when, at once.
    let silent = site.cluster.connect().await?;
    silent.batch_execute("set track_activities = off; begin").await?;
    put(&silent, "Patient", "silent", 1).await?;
    let answer = ask(&site.cluster, "fhir_tail").await?;
    ensure!(answer.line("transactions")?["verdict"] == "failure", "{:#}", answer.0);
    site.sql.batch_execute(&answer.sql("transactions")?).await?;
    until("its end", SOON, || async {
        Ok(ask(&site.cluster, "fhir_tail").await?.bad().is_empty().then_some(()))
    })
    .await?;
    let prepare = "begin; select fhir.put('Patient', 'p', '{\"resourceType\":\"Patient\"}'); \
                   prepare transaction 'two ''phases'";
    breaks_and_mends(&site, "fhir_tail", prepare, "transactions").await
}

/// `max_slot_wal_keep_size` is -1 unless somebody has set it.
async fn a_log_without_a_limit_is_warned_of(context: Context) -> Result<()> {
    let mut site = migrated(&context, &[]).await?;
    let url = site.cluster.url("fhir_tail");
    let check = |more: &[&str]| -> Result<(Option<i32>, Answer)> {
        let output = Binary::find()?.run(&[&["check", "--json", "--database-url", &url], more].concat())?;
        Ok((output.status.code(), Answer(serde_json::from_slice(&output.stdout)?)))
    };
    let subject = "max_slot_wal_keep_size";
    let (code, answer) = check(&[])?;
    ensure!(code == Some(0) && answer.bad() == [(subject, "warning")], "{:#}", answer.0);
    let (code, strict) = check(&["--strict"])?;
    ensure!(code == Some(1) && strict.bad() == [(subject, "failure")], "{:#}", strict.0);
    let (code, accepted) = check(&["--strict", "--accept", "unlimited-wal"])?;
    ensure!(code == Some(0) && accepted.bad().is_empty(), "{:#}", accepted.0);
    run(&site, &answer.sql(subject)?).await?;
    until("the setting", SOON, || async { Ok((check(&["--strict"])?.0 == Some(0)).then_some(())) }).await?;
    // The service says for how long it and its clients may be away.
    site.server.start().await?;
    site.ready().await?;
    until("the rates", SOON, || async {
        let mut ready = http::get(site.server.listening()?, "/health/ready", "").await?;
        let health: Value = ready.json().await?;
        let hours = &health["may_be_away_hours"];
        // Seven days, if nothing is written; a year at most.
        Ok((hours["client"] == 168 && hours["service"].as_u64() > Some(0)).then_some(()))
    })
    .await?;
    ensure!(site.metric("fhir_tail_client_may_be_away_seconds").await? == 604_800.0);
    ensure!(site.metric("fhir_tail_service_may_be_away_seconds").await? > 0.0);
    Ok(())
}

async fn a_subscription_that_writes_past_the_triggers_is_named(context: Context) -> Result<()> {
    let site = migrated(&context, &[]).await?;
    // Another database of the same cluster is the publisher.
    let mut config = site.cluster.config("postgres");
    let (other, connection) = config.dbname("postgres").connect(tokio_postgres::NoTls).await?;
    tokio::spawn(async move { connection.await.ok() });
    other
        .batch_execute(
            "create schema fhir; create table fhir.resource (resource_type text, id text, version_id bigint, \
             last_updated timestamptz, content json); create publication other for table fhir.resource",
        )
        .await?;
    other.batch_execute("select pg_create_logical_replication_slot('other', 'pgoutput')").await?;
    let host = site.cluster.data().parent().context("the cluster is in a folder")?.display().to_string();
    let subscribe = format!(
        "create subscription other connection 'host={host} dbname=postgres user=postgres' publication other \
         with (create_slot = false, enabled = false, copy_data = false)"
    );
    site.sql.batch_execute(&subscribe).await?;
    let answer = ask(&site.cluster, "fhir_tail").await?;
    let sql = answer.sql("subscriptions")?;
    // It can be refreshed only while it is enabled, which is what one in use would be.
    other.batch_execute("alter publication other drop table fhir.resource").await?;
    site.sql.batch_execute("alter subscription other enable").await?;
    site.sql.batch_execute(&sql).await?;
    let answer = ask(&site.cluster, "fhir_tail").await?;
    ensure!(answer.line("subscriptions").is_err(), "{:#}", answer.0);
    // Its worker must not hold the cluster's end up.
    site.sql.batch_execute("alter subscription other disable").await?;
    Ok(())
}

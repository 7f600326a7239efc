//! What a database's administrator has set for roles and databases changes nothing of what the program does.

use anyhow::{Context as _, Result, ensure};
use tests::{
    Binary, Case, Client, Cluster, Context, SOON, Server, Site, Subscribe, What, cases, http, put, until,
};
use tokio_postgres::Client as Sql;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each settings_of_role_and_database_change_nothing,
        once the_operators_own_options_are_heard,
        each who_keeps_the_slot_from_being_made_is_named,
    ]
}

/// What is right for somebody, and would break a session that depends on something else.
const HOSTILE: &[(&str, &str)] = &[
    ("lock_timeout", "'1ms'"),
    ("statement_timeout", "'1ms'"),
    ("idle_in_transaction_session_timeout", "'1ms'"),
    ("idle_session_timeout", "'1ms'"),
    // From PostgreSQL 17 on.
    ("transaction_timeout", "'20ms'"),
    ("wal_sender_timeout", "'1ms'"),
    ("search_path", "nowhere"),
    ("datestyle", "'German, DMY'"),
    ("timezone", "'Asia/Kathmandu'"),
    ("intervalstyle", "iso_8601"),
    ("extra_float_digits", "-15"),
    ("bytea_output", "escape"),
    ("client_encoding", "latin1"),
    ("default_transaction_read_only", "on"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_deferrable", "on"),
    ("row_security", "on"),
    ("standard_conforming_strings", "off"),
    ("transform_null_equals", "on"),
    ("array_nulls", "off"),
    ("quote_all_identifiers", "on"),
    ("check_function_bodies", "off"),
    ("session_replication_role", "replica"),
    ("synchronous_commit", "off"),
    ("client_min_messages", "debug5"),
    ("jit", "on"),
    ("jit_above_cost", "0"),
    ("work_mem", "'64kB'"),
    ("plan_cache_mode", "force_custom_plan"),
    ("enable_indexscan", "off"),
    ("enable_indexonlyscan", "off"),
    ("enable_nestloop", "off"),
    ("enable_hashjoin", "off"),
    ("fhir.bulk_load", "on"),
];

/// Sets all of them for `whom`: `role x`, `database x`.
async fn set_all(sql: &Sql, whom: &str) -> Result<()> {
    let known = sql.query("select name from pg_settings", &[]).await?;
    let known: Vec<String> = known.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    for (name, value) in HOSTILE {
        let is_known = name.contains('.') || known.iter().any(|known| known.eq_ignore_ascii_case(name));
        if is_known {
            sql.batch_execute(&format!("alter {whom} set {name} = {value}")).await.context(*name)?;
        }
    }
    Ok(())
}

async fn settings_of_role_and_database_change_nothing(context: Context) -> Result<()> {
    let cluster = Cluster::start(&context, &[]).await?;
    // Those that are open already are not affected.
    let sql = cluster.connect().await?;
    set_all(&sql, "database fhir").await?;
    set_all(&sql, "role postgres").await?;
    let url = cluster.url("postgres");
    let binary = Binary::find()?;
    binary.succeed(&["migrate", "--database-url", &url])?;
    sql.batch_execute("alter role fhir_tail login").await?;
    set_all(&sql, "role fhir_tail").await?;
    let file = context.directory().join("patients.ndjson");
    let lines: Vec<String> = (0..2_500)
        .map(|id| {
            format!(r#"{{"resourceType":"Patient","id":"p{id}","n":{id},"name":[{{"family":"Größe"}}]}}"#)
        })
        .collect();
    std::fs::write(&file, lines.join("\n"))?;
    binary.succeed(&["load", "--database-url", &url, &file.display().to_string()])?;
    // Updated, over the same connections.
    binary.succeed(&["load", "--database-url", &url, &file.display().to_string()])?;
    binary.succeed(&["migrate", "--restamp", "--database-url", &url])?;

    let mut server = Server::new(context.directory(), &cluster.url("fhir_tail"), &[])?;
    server.start().await?;
    let mut site = Site { server, cluster, sql };
    site.ready().await?;
    binary.succeed(&["check", "--database-url", &site.cluster.url("fhir_tail")])?;
    site.settle().await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    ensure!(reader.heard.iter().filter(|heard| matches!(heard.what, What::Resource { .. })).count() == 2_500);
    site.put("Patient", "new").await?;
    site.delete("Patient", "p7").await?;
    reader.hear("a deletion", SOON, |reader| reader.heard_of("new") && deleted(reader, "p7")).await?;

    // Idle for longer than the limits; then it goes on where it was.
    let id = reader.last_id.clone();
    site.server.terminate(SOON).await?;
    site.put("Patient", "meanwhile").await?;
    site.server.start().await?;
    reader.connect(site.server.listening()?).await?;
    reader.hear("what was missed", SOON, |reader| reader.heard_of("meanwhile")).await?;
    ensure!(!reader.noticed("reset") && !reader.noticed("reset-all"), "{id:?}: {}", reader.tail());
    let log = site.server.log()?;
    ensure!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    Ok(())
}

fn deleted(reader: &tests::Reader, id: &str) -> bool {
    matches!(reader.about(id).last(), Some(What::Deletion { .. }))
}

async fn the_operators_own_options_are_heard(context: Context) -> Result<()> {
    let site = Site::prepare(&context, &[], &[]).await?;
    let url =
        format!("{}&options=-c%20role%3Dnobody%20-c%20statement_timeout%3D1", site.cluster.url("postgres"));
    site.sql.batch_execute("create role nobody nologin").await?;
    let output = Binary::find()?.run(&["check", "--json", "--database-url", &url])?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    // As that role, and with our timeout.
    let role =
        answer["checks"].as_array().into_iter().flatten().find(|line| line["subject"] == "pg_read_all_stats");
    let message = role.and_then(|line| line["message"].as_str()).unwrap_or_default();
    ensure!(message.starts_with("nobody "), "{answer:#}");
    Ok(())
}

async fn who_keeps_the_slot_from_being_made_is_named(context: Context) -> Result<()> {
    let mut site = Site::prepare(&context, &[], &[]).await?;
    set_all(&site.sql, "role fhir_tail").await?;
    let writer = site.cluster.connect().await?;
    writer.batch_execute("set application_name = 'the nightly import'; begin").await?;
    put(&writer, "Patient", "open", 1).await?;
    let pid: i32 = writer.query_one("select pg_backend_pid()", &[]).await?.try_get(0)?;
    site.server.start().await?;
    let at = site.server.listening()?;
    until("the state to name who is waited for", SOON, || async {
        let body = http::get(at, "/health/ready", "").await?.body().await?;
        let body = String::from_utf8(body)?;
        let named =
            body.contains(&format!("process {pid} (role postgres")) && body.contains("the nightly import");
        Ok(named.then_some(()))
    })
    .await?;
    let log = site.server.log()?;
    ensure!(log.contains(&format!("process {pid} ")), "{log}");
    // A prepared one has no process.
    writer.batch_execute("prepare transaction 'the forgotten one'").await?;
    until("the state to name a prepared transaction", SOON, || async {
        let body = http::get(at, "/health/ready", "").await?.body().await?;
        Ok(String::from_utf8(body)?.contains("prepared transaction 'the forgotten one'").then_some(()))
    })
    .await?;
    writer.batch_execute("commit prepared 'the forgotten one'").await?;
    site.ready().await?;
    let log = site.server.log()?;
    ensure!(!log.contains("cannot follow") && !log.contains("trying again"), "{log}");
    Ok(())
}

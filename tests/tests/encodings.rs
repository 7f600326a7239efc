//! Databases of other encodings than UTF8.

use crate::wire::{EVENTS, frames, says};
use anyhow::{Context as _, Result, ensure};
use tests::sse::Frame;
use tests::{Binary, Case, Cluster, Context, SOON, Site, cases, http, until};
use tokio_postgres::NoTls;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each what_the_server_can_convert_is_streamed,
        each rows_that_are_not_utf_8_are_left_out,
        once a_row_that_is_no_text_stops_where_that_was_asked_for,
        each rows_with_bytes_that_the_encoding_does_not_define_are_left_out,
        once what_an_encoding_lacks_cannot_be_loaded_into_it,
        once a_role_whose_name_is_no_text_here_is_waited_for,
    ]
}

/// A cluster whose database `fhir` is of this encoding, with the tables in it.
async fn of_encoding(context: &Context, encoding: &str, arguments: &[&str]) -> Result<Site> {
    let cluster = Cluster::start(context, &[]).await?;
    let (client, connection) = cluster.config("postgres").dbname("postgres").connect(NoTls).await?;
    tokio::spawn(async move { connection.await.ok() });
    client.batch_execute("drop database fhir").await?;
    let made = "template template0 lc_collate 'C' lc_ctype 'C'";
    client.batch_execute(&format!("create database fhir encoding '{encoding}' {made}")).await?;
    let url = cluster.url("fhir_tail");
    Site::on(context, cluster, &url, arguments).await
}

/// What no message may show.
const SECRET: &str = "Geheimrat";

/// Puts a patient whose name is written in these bytes, as a client of the database's encoding does.
async fn put_bytes(site: &Site, id: &str, name: &[u8]) -> Result<()> {
    let content =
        [format!(r#"{{"resourceType":"Patient","name":"{SECRET} "#).as_bytes(), name, b"\"}"].concat();
    let hex: String = content.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("convert_from(decode('{hex}', 'hex'), getdatabaseencoding())");
    site.sql.batch_execute(&format!("select fhir.put('Patient', '{id}', {text}::json)")).await?;
    Ok(())
}

/// A case's own folder within the test's.
fn within(context: &Context, name: &str) -> Result<Context> {
    let directory = context.directory().join(name);
    std::fs::create_dir(&directory)?;
    Ok(Context::new(context.postgres().clone(), &directory, context.template()))
}

async fn subscribed(site: &Site) -> Result<http::Response> {
    http::get(site.server.listening()?, "/fhir/$export", EVENTS).await
}

/// The names that come, up to the patient of this id.
async fn heard(site: &Site, last: &str) -> Result<Vec<String>> {
    names(&mut subscribed(site).await?, last).await
}

async fn names(response: &mut http::Response, last: &str) -> Result<Vec<String>> {
    let last = format!(r#""id":"{last}""#);
    let (_, frames) = frames(response, |frame| {
        frame.get("data").is_some_and(|data| data.contains(&last)) || says(frame, "exception")
    })
    .await?;
    let name = |frame: &Frame| {
        let data: serde_json::Value = serde_json::from_str(&frame.get("data")?).ok()?;
        Some(data["name"].as_str()?.strip_prefix(SECRET)?.trim().to_owned())
    };
    Ok(frames.iter().filter_map(name).collect())
}

async fn what_the_server_can_convert_is_streamed(context: Context) -> Result<()> {
    for (encoding, bytes, name) in [
        ("LATIN1", &b"M\xfcller \x81"[..], "Müller \u{81}"),
        ("WIN1252", b"\x80 M\xfcller", "€ Müller"),
        ("EUC_JP", b"\xc5\xc4\xc3\xe6 \x8e\xb1", "田中 ｱ"),
        ("KOI8R", b"\xe9\xd7\xc1\xce", "Иван"),
    ] {
        let context = within(&context, encoding)?;
        let mut site = of_encoding(&context, encoding, &[]).await?;
        site.server.start().await?;
        site.ready().await?;
        put_bytes(&site, "a", bytes).await?;
        // One that is large, stored and spliced apart from the others.
        let times = (3 << 19) / bytes.len();
        put_bytes(&site, "large", &bytes.repeat(times)).await?;
        put_bytes(&site, "b", b"end").await?;
        let expected = [name.to_owned(), name.repeat(times), "end".to_owned()];
        // From the log, and from the tables.
        ensure!(heard(&site, "b").await? == expected, "{encoding}");
        site.settle().await?;
        ensure!(heard(&site, "b").await? == expected, "{encoding}");
        Binary::find()?.succeed(&["check", "--database-url", &site.cluster.url("fhir_tail")])?;
        site.server.terminate(SOON).await?;
    }
    Ok(())
}

async fn rows_that_are_not_utf_8_are_left_out(context: Context) -> Result<()> {
    let mut site = of_encoding(&context, "SQL_ASCII", &[]).await?;
    let binary = Binary::find()?;
    site.server.set("--log-level", "trace");
    site.server.start().await?;
    site.ready().await?;
    put_bytes(&site, "a", "Müller".as_bytes()).await?;
    put_bytes(&site, "bad", b"M\xfcller").await?;
    put_bytes(&site, "b", b"end").await?;
    ensure!(heard(&site, "b").await? == ["Müller", "end"]);
    site.settle().await?;
    ensure!(heard(&site, "b").await? == ["Müller", "end"]);

    // Names of the cluster, which watermarks and messages show, need not be text either.
    let hex = "63726561746520726f6c65202274fc7222";
    let role = format!("do $do$ begin execute convert_from(decode('{hex}', 'hex'), 'SQL_ASCII'); end $do$");
    site.sql.batch_execute(&role).await?;
    // Keys, where the table's constraints are gone: more than a page of them, which nothing gets stuck at.
    site.sql.batch_execute("alter table fhir.resource drop constraint resource_id_is_a_fhir_id").await?;
    let keys = "insert into fhir.resource (resource_type, id, content)
        select 'Patient', 'c' || convert_from(decode('ff', 'hex') || decode(lpad(to_hex(128 + i % 128), 2, '0'), 'hex')
               || decode(lpad(to_hex(128 + i / 128), 2, '0'), 'hex'), 'SQL_ASCII'), '{\"resourceType\":\"Patient\"}'
          from generate_series(0, 2499) i";
    site.sql.batch_execute(keys).await?;
    put_bytes(&site, "d", b"last").await?;
    site.settle().await?;
    ensure!(heard(&site, "d").await? == ["Müller", "end", "last"]);
    let skipped = site.metric("fhir_tail_rows_skipped_total").await?;
    ensure!(skipped >= 5_000.0, "{skipped} skipped, in the log and in the tables");

    // A restart goes on, and what can be streamed can be loaded.
    site.server.terminate(SOON).await?;
    let file = context.directory().join("more.ndjson");
    std::fs::write(&file, format!(r#"{{"resourceType":"Patient","id":"e","name":"{SECRET} Größe"}}"#))?;
    let url = site.cluster.url("postgres");
    binary.succeed(&["load", "--database-url", &url, &file.display().to_string()])?;
    let checked = binary.succeed(&["check", "--database-url", &site.cluster.url("fhir_tail")])?;
    ensure!(String::from_utf8_lossy(&checked.stdout).contains("SQL_ASCII"), "check does not say it");
    let log = site.server.log()?;
    site.server.start().await?;
    ensure!(heard(&site, "e").await?.contains(&"Größe".to_owned()));
    let log = log + &site.server.log()?;
    ensure!(log.contains("column content is not UTF-8") && log.contains("column id is not UTF-8"), "{log}");
    ensure!(!log.contains(SECRET) && !log.contains("0xfc") && !log.contains("cannot follow"), "{log}");
    Ok(())
}

async fn a_row_that_is_no_text_stops_where_that_was_asked_for(context: Context) -> Result<()> {
    no_text_stops(&context, "SQL_ASCII", b"M\xfcller", "is not UTF-8").await?;
    for (encoding, _, _, undefined) in UNDEFINED {
        no_text_stops(
            &context,
            encoding,
            undefined,
            "has bytes that the database's encoding does not define",
        )
        .await?;
    }
    Ok(())
}

async fn no_text_stops(context: &Context, encoding: &str, bad: &[u8], why: &str) -> Result<()> {
    let context = within(context, encoding)?;
    let mut site = of_encoding(&context, encoding, &["--on-bad-row", "stop"]).await?;
    site.server.start().await?;
    site.ready().await?;
    put_bytes(&site, "bad", bad).await?;
    let status = site.server.exited(SOON).await?;
    ensure!(status.code() == Some(1), "{status}");
    let log = site.server.log()?;
    ensure!(log.contains(&format!("column content {why}")) && !log.contains(SECRET), "{log}");
    // What the message says gets past it.
    site.sql.batch_execute("delete from fhir.resource where id = 'bad'").await?;
    site.server.set("--on-bad-row", "skip");
    site.server.start().await?;
    site.ready().await?;
    put_bytes(&site, "a", b"end").await?;
    ensure!(heard(&site, "a").await? == ["end"]);
    until("all to be acknowledged", SOON, || async {
        let lag = site.metric("fhir_tail_slot_lag_bytes").await?;
        Ok((lag == 0.0).then_some(()))
    })
    .await?;
    site.server.terminate(SOON).await?;
    site.server.set("--on-bad-row", "stop");
    site.server.start().await?;
    site.ready().await?;
    ensure!(heard(&site, "a").await? == ["end"]);
    Ok(())
}

/// In each the last bytes are those that it does not define.
const UNDEFINED: [(&str, &[u8], &str, &[u8]); 2] = [
    ("WIN1252", b"\x80 M\xfcller", "€ Müller", b"\x81"),
    ("EUC_JP", b"\xc5\xc4\xc3\xe6 \x8e\xb1 \x8f\xb0\xa1", "田中 ｱ 丂", b"\xc5\xc4\xa9\xa1"),
];

async fn rows_with_bytes_that_the_encoding_does_not_define_are_left_out(context: Context) -> Result<()> {
    for (encoding, bytes, name, undefined) in UNDEFINED {
        let context = within(&context, encoding)?;
        let mut site = of_encoding(&context, encoding, &[]).await?;
        site.server.start().await?;
        site.ready().await?;
        let mut live = subscribed(&site).await?;
        put_bytes(&site, "a", bytes).await?;
        put_bytes(&site, "bad", undefined).await?;
        put_bytes(&site, "b", b"end").await?;
        ensure!(names(&mut live, "b").await? == [name, "end"], "{encoding}, live");
        ensure!(heard(&site, "b").await? == [name, "end"], "{encoding}, from the log");
        site.settle().await?;
        ensure!(heard(&site, "b").await? == [name, "end"], "{encoding}, from the tables");
        let skipped = site.metric("fhir_tail_rows_skipped_total").await?;
        ensure!(skipped >= 2.0, "{encoding}: {skipped} skipped, in the log and in the tables");
        // All is acknowledged, so a restart does not meet it again; and it is streamed once it is fixed.
        site.server.terminate(SOON).await?;
        let log = site.server.log()?;
        ensure!(
            log.contains("column content has bytes that the database's encoding does not define"),
            "{log}"
        );
        ensure!(!log.contains(SECRET) && !log.contains("22P05") && !log.contains("cannot follow"), "{log}");
        site.server.start().await?;
        site.ready().await?;
        put_bytes(&site, "bad", b"fixed").await?;
        ensure!(heard(&site, "bad").await? == [name, "end", "fixed"], "{encoding}");
        site.settle().await?;
        ensure!(heard(&site, "bad").await? == [name, "end", "fixed"], "{encoding}, fixed in the tables");
        let checked =
            Binary::find()?.succeed(&["check", "--database-url", &site.cluster.url("fhir_tail")])?;
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        ensure!(said.contains(&format!("is {encoding}, which is converted")), "{said}");
        site.server.terminate(SOON).await?;
    }
    Ok(())
}

async fn what_an_encoding_lacks_cannot_be_loaded_into_it(context: Context) -> Result<()> {
    let site = of_encoding(&context, "LATIN1", &[]).await?;
    let file = context.directory().join("patients.ndjson");
    let lines = [("good", "Müller"), ("bad", "田中")]
        .map(|(id, name)| format!(r#"{{"resourceType":"Patient","id":"{id}","name":"{SECRET} {name}"}}"#));
    std::fs::write(&file, lines.join("\n"))?;
    let url = site.cluster.url("postgres");
    let output = Binary::find()?.run(&[
        "load",
        "--keep-going",
        "--database-url",
        &url,
        &file.display().to_string(),
    ])?;
    let told = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{told}");
    let line =
        told.lines().find(|line| line.contains("patients.ndjson:2")).context("the line is not named")?;
    ensure!(line.contains("no character U+7530") && line.contains("encoding UTF8"), "{told}");
    ensure!(!told.contains(SECRET), "{told}");
    let name: String = site
        .sql
        .query_one("select string_agg(content->>'name', ';') from fhir.resource", &[])
        .await?
        .try_get(0)?;
    ensure!(name == format!("{SECRET} Müller"), "{name}");
    Ok(())
}

/// Roles are the cluster's: one that was made in a database of UTF8 has a name that need not be text in ours.
async fn a_role_whose_name_is_no_text_here_is_waited_for(context: Context) -> Result<()> {
    let mut site = of_encoding(&context, "EUC_JP", &[]).await?;
    site.sql.batch_execute("create role writer login superuser").await?;
    let (holder, connection) = site.cluster.config("writer").connect(NoTls).await?;
    let holding = tokio::spawn(connection);
    holder.batch_execute("begin; select fhir.put('Patient', 'p', '{\"resourceType\":\"Patient\"}')").await?;
    let (elsewhere, connection) = site.cluster.config("postgres").dbname("postgres").connect(NoTls).await?;
    tokio::spawn(connection);
    elsewhere.batch_execute("alter role writer rename to \"山田\"").await?;
    site.server.start().await?;
    until("the one that is waited for to be named", SOON, || async {
        Ok(site.server.log()?.contains("blockers=\"process ").then_some(()))
    })
    .await?;
    holder.batch_execute("commit").await?;
    drop(holder);
    holding.await??;
    site.ready().await?;
    // Nor does it keep `check` from asking who may do more than he should.
    site.sql
        .batch_execute(
            "create role reader; grant trigger on fhir.resource to reader; \
             alter role reader set track_activities = off",
        )
        .await?;
    elsewhere.batch_execute("alter role reader rename to \"水\"").await?;
    let output = Binary::find()?
        .command()
        .args(["check", "--database-url", &site.cluster.url("postgres")])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(!said.contains("invalid byte sequence") && said.contains("TRIGGER"), "{said}");
    Ok(())
}

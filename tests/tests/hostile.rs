//! What may stand in the tables: the unusual arrives as it was written, and what cannot be streamed is left out or stops
//! the service, as it is set, and never holds up anything else.

use crate::wire::{EVENTS, frames, says};
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeSet;
use tests::sse::Frame;
use tests::{Case, Client, Context, Reader, SOON, Site, Subscribe, cases, http};
use tokio_postgres::error::SqlState;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each what_is_stored_arrives_as_it_is,
        each bad_rows_are_counted_and_left_out,
        once nothing_goes_past_a_bad_row_if_told_so,
    ]
}

/// Stands for what the row's columns say.
const META: &str = "§";

/// Resources: type, id, what is written, and what comes.
fn unusual() -> Vec<(&'static str, &'static str, String, String)> {
    let set = |resource_type: &str, id: &str, rest: &str| {
        let written = format!("{{\"resourceType\":\"{resource_type}\"{rest}");
        let comes =
            format!("{{\"resourceType\":\"{resource_type}\",\"id\":\"{id}\",\"meta\":{{{META}}}{rest}");
        // Line ends between tokens are blanks, and what other readers take for a line end is an escape.
        let comes = comes.replace(['\r', '\n'], " ");
        let comes = [('\u{85}', "\\u0085"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")]
            .iter()
            .fold(comes, |comes, (mark, escape)| comes.replace(*mark, escape));
        (written, comes)
    };
    let nested = |depth: usize| format!(",\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let narrative = format!(
        ",\"text\":{{\"status\":\"generated\",\"div\":\"<div>{}</div>\"}}}}",
        "é€x ".repeat(1_400_000)
    );
    let mut all = Vec::new();
    for (resource_type, id, rest) in [
        ("Patient", "line-ends", ",\r\n\"a\"\n:\r[1,\n2]\r\n}\n"),
        ("Patient", "separators", ",\"a\":\"\u{2028}\u{2029}\u{85}\u{7f}\u{feff}\"}"),
        ("Patient", "escapes", ",\"a\":\"\\u0000\\r\\n\\u2028\\/\",\"\\u0000\":1}"),
        ("Patient", "surrogates", ",\"a\":\"\\ud83d\\ude00\",\"b\":[\"\\ud83d\\ude00\"]}"),
        (
            "Observation",
            "numbers",
            ",\"a\":1.50,\"b\":1e400,\"c\":-0.0,\"d\":123456789012345678901234567890.10,\"e\":1E-7}",
        ),
        ("Patient", "duplicates", ",\"a\":1,\"a\":2,\"contained\":[{\"id\":\"x\",\"id\":\"y\"}]}"),
        ("Patient", "narrative", &narrative),
        ("Patient", "nested-1000", &nested(1_000)),
        // What we make of a deletion and say ourselves, but stored: it has an id.
        (
            "Bundle",
            "deletion",
            ",\"type\":\"transaction\",\"entry\":[{\"request\":{\"method\":\"DELETE\",\"url\":\"Patient/line-ends\"}}]}",
        ),
        (
            "OperationOutcome",
            "notice",
            ",\"issue\":[{\"severity\":\"information\",\"code\":\"informational\",\"details\":{\"coding\":[{\"system\":\
             \"urn:fhir-tail:notice\",\"code\":\"reset-all\"}]}}]}",
        ),
        ("Basic", "A.b-64.0123456789012345678901234567890123456789012345678901234", "}"),
    ] {
        let (written, comes) = set(resource_type, id, rest);
        all.push((resource_type, id, written, comes));
    }
    // Of several the last one counts, as for those who read JSON; and escapes are letters.
    all.push((
        "Patient",
        "keys",
        "{\"\\u0069d\":\"a\",\"meta\":{\"source\":\"urn:a\"},\"resourceType\":\"Patient\",\"id\":7,\
         \"m\\u0065ta\":{\"versionId\":\"3\",\"source\":\"urn:b\",\"tag\":[]}}"
            .to_owned(),
        format!("{{\"id\":\"keys\",\"meta\":{{{META},\"source\":\"urn:b\",\"tag\":[]}},\"resourceType\":\"Patient\"}}"),
    ));
    for (id, depth) in [("nested-10000", 10_000), ("nested-100000", 100_000)] {
        let (written, comes) = set("Patient", id, &nested(depth));
        all.push(("Patient", id, written, comes));
    }
    // What json_in lets pass but no parser of UTF-16 could.
    let (written, comes) = set("Patient", "half-a-pair", ",\"a\":\"\\ud800\",\"b\":\"\\udc00\\ud800\"}");
    all.push(("Patient", "half-a-pair", written, comes));
    all
}

/// What a frame that is none of our notices holds.
fn stored(frame: &Frame) -> Option<(String, String)> {
    let (event, data) = (frame.get("event")?, frame.get("data")?);
    (event != "OperationOutcome" || data.contains("\"id\":")).then_some((event, data))
}

async fn what_is_stored_arrives_as_it_is(context: Context) -> Result<()> {
    let mut site = Site::start(&context).await?;
    let at = site.server.listening()?;
    let mut live = http::get(at, "/fhir/$export", EVENTS).await?;
    frames(&mut live, |frame| says(frame, "live")).await?;

    let insert = "insert into fhir.resource (resource_type, id, content) values ($1, $2, ($3::text)::json) returning \
        version_id, to_char(last_updated at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let mut expected = BTreeSet::new();
    for (resource_type, id, written, comes) in unusual() {
        let row = match site.sql.query_one(insert, &[&resource_type, &id, &written]).await {
            Ok(row) => row,
            // Deep nesting is too much for the database's own parser, or none of its business.
            Err(error) if error.code() == Some(&SqlState::STATEMENT_TOO_COMPLEX) => {
                ensure!(id.starts_with("nested-10000"), "{id} is refused: {error}");
                continue;
            }
            Err(error) => return Err(error).context(id),
        };
        let (version, updated): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        let meta = format!("\"versionId\":\"{version}\",\"lastUpdated\":\"{updated}\"");
        expected.insert((resource_type.to_owned(), comes.replace(META, &meta)));
    }
    site.put("Basic", "the-end").await?;
    let told = |frames: &[Frame]| -> BTreeSet<_> {
        frames.iter().filter_map(stored).filter(|(_, data)| !data.contains("\"id\":\"the-end\"")).collect()
    };
    let (_, heard) =
        frames(&mut live, |frame| frame.get("data").is_some_and(|data| data.contains("the-end"))).await?;
    differ("live", &told(&heard), &expected)?;
    ensure!(heard.iter().filter_map(stored).count() == expected.len() + 1, "something came twice");

    site.settle().await?;
    let mut replay = http::get(at, "/fhir/$export", EVENTS).await?;
    let (_, heard) = frames(&mut replay, |frame| says(frame, "live")).await?;
    differ("replayed", &told(&heard), &expected)?;
    ensure!(site.metric("fhir_tail_rows_skipped_total").await? == 0.0, "a row was left out");
    site.server.must_run()
}

/// Fails with the first difference, and only the beginning of it.
fn differ(
    how: &str,
    heard: &BTreeSet<(String, String)>,
    expected: &BTreeSet<(String, String)>,
) -> Result<()> {
    let missing = expected.difference(heard).next();
    let other = heard.difference(expected).next();
    ensure!(missing.is_none() && other.is_none(), "{how}: {missing:.300?} did not come, {other:.300?} did");
    Ok(())
}

/// Takes away what keeps bad rows out, as somebody might who has a reason.
const WITHOUT_CONSTRAINTS: &str = "
    alter table fhir.resource drop constraint resource_type_is_a_fhir_type_name;
    alter table fhir.resource drop constraint resource_id_is_a_fhir_id;
    alter table fhir.resource drop constraint resource_content_is_an_object;
    alter table fhir.resource alter column content drop not null;
    alter table fhir.resource alter column version_id drop not null";

/// What is a secret in these rows.
const SECRET: &str = "sesame";

const BAD_ROWS: &str = "
    insert into fhir.resource (resource_type, id, content) values
        ('Patient', 'a/b', '{\"resourceType\":\"Patient\",\"a\":\"sesame\"}'),
        ('Patient', '', '{\"resourceType\":\"Patient\",\"a\":\"sesame\"}'),
        ('Patient', repeat('sesame', 11), '{\"resourceType\":\"Patient\"}'),
        ('Patient', E'sesame\\n\\ndata: x', '{\"resourceType\":\"Patient\"}'),
        ('Patent', 'p', '{\"resourceType\":\"Patent\",\"a\":\"sesame\"}'),
        ('Patient', 'array', '[\"sesame\"]'),
        ('Patient', 'text', '\"sesame\"'),
        ('Patient', 'other', '{\"resourceType\":\"Group\",\"a\":\"sesame\"}'),
        ('Patient', 'none', '{\"a\":\"sesame\"}'),
        ('Patient', 'nothing', null);
    alter table fhir.resource disable trigger stamp_insert;
    insert into fhir.resource (resource_type, id, last_updated, content)
        values ('Patient', 'unnumbered', now(), '{\"resourceType\":\"Patient\",\"a\":\"sesame\"}');
    alter table fhir.resource enable always trigger stamp_insert;
    delete from fhir.resource where id = 'a/b'";

/// Eleven rows and a tombstone.
const BAD: f64 = 12.0;

async fn bad_rows_are_counted_and_left_out(context: Context) -> Result<()> {
    const SKIPPED: &str = "fhir_tail_rows_skipped_total";
    let mut site = Site::start(&context).await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    site.sql.batch_execute(WITHOUT_CONSTRAINTS).await?;
    site.put("Patient", "good-1").await?;
    site.sql.batch_execute(BAD_ROWS).await?;
    site.put("Patient", "good-2").await?;
    reader.hear("the good ones", SOON, |reader| reader.heard_of("good-2")).await?;
    let ids = |reader: &Reader| -> Vec<String> {
        reader.heard.iter().filter_map(|heard| heard.what.key()).map(|key| key.id.clone()).collect()
    };
    ensure!(ids(&reader) == ["good-1", "good-2"], "{:?}", ids(&reader));
    ensure!(site.metric(SKIPPED).await? == BAD, "{} rows were left out", site.metric(SKIPPED).await?);

    // A replay meets them again, and what was deleted with them.
    site.settle().await?;
    let before = site.metric(SKIPPED).await?;
    let replay = site.live(Subscribe::with(Client::Raw, "_since=2000-01-01T00:00:00Z")).await?;
    ensure!(ids(&replay) == ["good-1", "good-2"], "{:?}", ids(&replay));
    ensure!(site.metric(SKIPPED).await? >= before + BAD - 1.0, "{}", site.metric(SKIPPED).await?);
    ensure!(http::get(site.server.listening()?, "/health/ready", "").await?.status == 200, "not ready");
    site.server.must_run()?;
    let log = site.server.log()?;
    ensure!(log.contains("a row cannot be streamed"), "{log}");
    ensure!(log.contains("version_id=") && !log.contains(SECRET) && !log.contains("panicked"), "{log}");
    Ok(())
}

/// The statement that the service names to get rid of a row, from its log.
fn remedy(log: &str) -> Result<&str> {
    let (_, rest) = log.rsplit_once("(delete from ").context("no statement is named")?;
    let (statement, _) = rest.split_once(";)").context("the statement does not end")?;
    ensure!(statement.starts_with("fhir.resource where version_id = "), "{statement}");
    Ok(statement)
}

async fn nothing_goes_past_a_bad_row_if_told_so(context: Context) -> Result<()> {
    let mut site = Site::prepare(&context, &[], &["--on-bad-row", "stop"]).await?;
    site.server.start().await?;
    let mut reader = site.live(Subscribe::all(Client::Raw)).await?;
    site.put("Patient", "good-1").await?;
    reader.hear("a good one", SOON, |reader| reader.heard_of("good-1")).await?;
    site.sql.batch_execute(WITHOUT_CONSTRAINTS).await?;
    let bad = "insert into fhir.resource (resource_type, id, content) values ('Patient', 'a/b', '{\"a\":\"sesame\"}')";
    site.sql.batch_execute(bad).await?;
    site.put("Patient", "good-2").await?;
    // It ends, and again when it is started again, although the row is gone by then: its version is in the log.
    for round in 0..2 {
        if round == 0 || site.server.start().await.is_ok() {
            let status = site.server.exited(SOON).await?;
            ensure!(status.code() == Some(1), "{status}");
        }
        let log = site.server.log()?;
        ensure!(log.contains("--on-bad-row skip") && log.contains("version_id 2"), "{log}");
        ensure!(!log.contains(SECRET) && !log.contains("panicked"), "{log}");
        if round == 0 {
            let deleted = site.sql.execute(&format!("delete from {}", remedy(&log)?), &[]).await?;
            ensure!(deleted == 1, "{deleted} rows deleted");
        }
    }
    // Passed once, nothing else is missing.
    site.server.set("--on-bad-row", "skip");
    site.server.start().await?;
    reader.connect(site.server.listening()?).await?;
    reader.hear("what came after", SOON, |reader| reader.heard_of("good-2")).await?;
    ensure!(!reader.noticed("reset") && reader.about("good-2").count() == 1, "{}", reader.tail());
    site.server.terminate(SOON).await?;

    // What lies behind, but in a replay's way, ends that; not those who did not ask for it, and no others.
    let bad = "insert into fhir.resource (resource_type, id, content) values ('Patient', 'c/d', '{}'), ('Patent', 'p', '{}')";
    site.server.start().await?;
    site.sql.batch_execute(bad).await?;
    reader.connect(site.server.listening()?).await?;
    site.put("Patient", "good-3").await?;
    reader.hear("what comes after", SOON, |reader| reader.heard_of("good-3")).await?;
    site.settle().await?;
    site.server.terminate(SOON).await?;
    site.server.set("--on-bad-row", "stop");
    site.server.start().await?;
    let at = site.server.listening()?;
    reader.connect(at).await?;
    let replayed = async |query: &str| -> Result<Vec<Frame>> {
        let mut response = http::get(at, &format!("/fhir/$export{query}"), EVENTS).await?;
        let end = |frame: &Frame| says(frame, "live") || says(frame, "exception");
        Ok(frames(&mut response, end).await?.1)
    };
    // The tombstone of what was deleted is in the way of nothing.
    for query in ["?_type=Group", "?_type=Group,Basic&_since=2000-01-01T00:00:00Z"] {
        let heard = replayed(query).await?;
        ensure!(heard.iter().any(|frame| says(frame, "live")), "{query}: {heard:?}");
    }
    // Who names types meets what is bad of those alone.
    let heard = replayed("?_type=Patient").await?;
    ensure!(heard.iter().any(|frame| says(frame, "exception")), "{heard:?}");
    ensure!(site.server.log()?.contains("id is not a FHIR id"), "{}", site.server.log()?);
    for row in ["the one of a type that is none", "the one with a bad id"] {
        let heard = replayed("").await?;
        ensure!(heard.iter().any(|frame| says(frame, "exception")), "{row}: {heard:?}");
        ensure!(
            !format!("{heard:?}").contains("version_id"),
            "what is told to the operator, a client hears: {heard:?}"
        );
        let log = site.server.log()?;
        let deleted = site.sql.execute(&format!("delete from {}", remedy(&log)?), &[]).await?;
        ensure!(deleted == 1, "{row}: {deleted} rows deleted");
    }
    for query in ["", "?_since=2000-01-01T00:00:00Z"] {
        let heard = replayed(query).await?;
        ensure!(heard.iter().any(|frame| says(frame, "live")), "{query}: {heard:?}");
    }
    site.put("Patient", "good-4").await?;
    reader.hear("what comes after it all", SOON, |reader| reader.heard_of("good-4")).await?;
    ensure!(!reader.noticed("reset"), "{}", reader.tail());
    ensure!(!site.server.log()?.contains(SECRET), "{}", site.server.log()?);
    site.server.must_run()
}

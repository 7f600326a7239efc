//! `fhir-tail tail --envelope`: its lines, merged into a table by `seq` alone as docs/tail.md shows it, are what the database
//! itself says, whatever was killed, cut and lost meanwhile, and whoever left and joined again.

use crate::documents::TAIL;
use crate::members::{in_tables, note, put_group};
use anyhow::{Context as _, Result, anyhow, ensure};
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use tests::markdown::Document;
use tests::tail::Tail;
use tests::{Case, Context, Proxy, SOON, Site, Target, cases, seed, until};
use tokio::time::sleep;
use tokio_postgres::Client as Sql;

pub(crate) fn cases() -> Vec<Case> {
    cases![
        each a_table_that_is_merged_by_seq,
        once envelopes_on_standard_output,
        once a_folder_stays_with_or_without_envelopes,
    ]
}

/// The `sql` blocks of the document: the table and the view, and the statement for a line.
struct Merge {
    statements: Vec<String>,
}

impl Merge {
    fn read() -> Result<Self> {
        let blocks = Document::read(TAIL)?.blocks().into_iter();
        let statements: Vec<_> =
            blocks.filter(|block| block.language == "sql").map(|block| block.text).collect();
        ensure!(statements.len() == 2, "{TAIL} has {} blocks of sql", statements.len());
        Ok(Self { statements })
    }

    /// Merges lines, in an order that is not theirs; the versions of what is there then.
    async fn merge(&self, sql: &Sql, lines: &[String]) -> Result<BTreeMap<String, i64>> {
        sql.batch_execute("create schema merged; set search_path to merged").await?;
        sql.batch_execute(&self.statements[0]).await?;
        let insert = sql.prepare(self.statements[1].trim().trim_end_matches(';')).await?;
        for line in lines.iter().rev() {
            sql.execute(&insert, &[line]).await.with_context(|| format!("{line:.300}"))?;
        }
        let dense = "select count(*) = coalesce(max(seq), 0) and coalesce(min(seq), 1) = 1 from envelope";
        let dense: bool = sql.query_one(dense, &[]).await?.try_get(0)?;
        ensure!(dense, "numbers are missing");
        let now = "select type || '/' || id, (resource #>> '{meta,versionId}')::bigint from current_resource";
        let rows = sql.query(now, &[]).await?;
        sql.batch_execute("reset search_path; drop schema merged cascade").await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }
}

/// The lines of the numbered files, in their order; the last may be on its way.
fn lines(output: &Path) -> Result<Vec<String>> {
    let mut paths: Vec<_> =
        std::fs::read_dir(output)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "ndjson"));
    paths.sort();
    let mut lines = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path)?;
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        lines.extend(whole.lines().map(str::to_owned));
    }
    Ok(lines)
}

/// In the order of the files the numbers are 1, 2, 3, …
fn numbered(lines: &[String]) -> Result<()> {
    for (index, line) in lines.iter().enumerate() {
        let expected = format!("{{\"seq\":{},\"op\":\"", index + 1);
        ensure!(line.starts_with(&expected), "line {} is {line:.200}", index + 1);
    }
    Ok(())
}

const PATIENTS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

async fn a_table_that_is_merged_by_seq(context: Context) -> Result<()> {
    let seed = seed()?;
    let result = run(&context, Rng::with_seed(seed)).await;
    result.with_context(|| format!("with FHIR_TAIL_TEST_SEED={seed}"))
}

async fn run(context: &Context, mut random: Rng) -> Result<()> {
    let merge = Merge::read()?;
    let mut site = Site::start(context).await?;
    for id in PATIENTS {
        site.put("Patient", id).await?;
        note(&site, &format!("of-{id}"), id).await?;
    }
    put_group(&site, "g", &["Patient/a", "Patient/b", "Patient/c"]).await?;
    site.ready().await?;
    let proxy = Proxy::start(Target::Server(site.server.address())).await?;
    let output = context.directory().join("output");
    let shown = output.display().to_string();
    let url = format!("http://{}/fhir", proxy.address());
    let options = ["--group", "g", "--type", "Patient,Basic", "--output", &shown];
    let more = ["--envelope", "--rotate-bytes", "5KB", "--sync-interval", "5ms"];
    let mut tail = Tail::new(context.directory(), &url, &[&options[..], &more].concat())?;
    tail.start()?;
    let mut kills = 0;
    for step in 0..200 {
        match random.u8(..20) {
            0..8 => note(&site, &random.u8(..12).to_string(), PATIENTS[random.usize(..6)]).await?,
            8..10 => site.delete("Basic", &random.u8(..12).to_string()).await?,
            10..13 => {
                // One who leaves and joins again, among others.
                let mut members: BTreeSet<_> = (0..4).map(|_| PATIENTS[random.usize(..6)]).collect();
                for always in ["a", "b"] {
                    members.insert(always);
                }
                let members: Vec<_> = members.iter().map(|id| format!("Patient/{id}")).collect();
                put_group(&site, "g", &members.iter().map(String::as_str).collect::<Vec<_>>()).await?;
            }
            13 => proxy.cut(),
            14..18 => {
                ensure!(tail.runs(), "it has ended: {}", tail.log()?);
                sleep(Duration::from_millis(random.u64(1..150))).await;
                tail.kill().await?;
                tail.start()?;
                kills += 1;
            }
            _ if step % 8 == 0 => {
                site.server.kill().await?;
                site.server.start().await?;
                site.ready().await?;
            }
            _ => {}
        }
    }
    is_merged(&merge, &site, &mut tail, &output).await?;
    ensure!(kills > 10, "only {kills} kills");
    // On a busy machine the stream may not have come beyond the current state so far, which names nothing that is gone. What
    // has been received since the last kill is taken back by a line of its own.
    put_group(&site, "g", &["Patient/a", "Patient/b", "Patient/c"]).await?;
    note(&site, "to-be-deleted", "a").await?;
    note(&site, "to-be-removed", "c").await?;
    is_merged(&merge, &site, &mut tail, &output).await?;
    site.delete("Basic", "to-be-deleted").await?;
    put_group(&site, "g", &["Patient/a", "Patient/b"]).await?;
    is_merged(&merge, &site, &mut tail, &output).await?;
    let ops = |op: &str| -> Result<usize> {
        Ok(lines(&output)?.iter().filter(|line| line.contains(&format!(",\"op\":\"{op}\""))).count())
    };
    ensure!(ops("remove")? > 0 && ops("delete")? > 0, "nothing left, or nothing was deleted");

    // The journal is lost, and what was deleted meanwhile is told by nothing but its absence.
    site.server.terminate(SOON).await?;
    std::fs::remove_dir_all(context.directory().join("data"))?;
    note(&site, "missed", "a").await?;
    site.delete("Basic", "of-b").await?;
    site.server.start().await?;
    site.ready().await?;
    is_merged(&merge, &site, &mut tail, &output).await?;
    ensure!(ops("reset-all")? > 0 && ops("live")? > 0, "no reset-all was told");
    // And from there.
    put_group(&site, "g", &["Patient/a"]).await?;
    put_group(&site, "g", &["Patient/a", "Patient/b", "Patient/c"]).await?;
    is_merged(&merge, &site, &mut tail, &output).await?;
    ensure!(tail.terminate(SOON).await?.success(), "{}", tail.log()?);
    numbered(&lines(&output)?)
}

/// Waits until the table that is merged of the lines is what the database says.
async fn is_merged(merge: &Merge, site: &Site, tail: &mut Tail, output: &Path) -> Result<()> {
    let wanted = in_tables(site).await?;
    ensure!(wanted.len() > 2, "{wanted:?}");
    let last = Mutex::new(BTreeMap::new());
    let result = until("the merged table to be the database's", SOON, || {
        let running = tail.runs();
        let (last, wanted) = (&last, &wanted);
        async move {
            ensure!(running, "it has ended");
            let lines = lines(output)?;
            numbered(&lines)?;
            let merged = merge.merge(&site.sql, &lines).await?;
            let same = merged == *wanted;
            *last.lock().map_err(|_| anyhow!("poisoned"))? = merged;
            Ok(same.then_some(()))
        }
    })
    .await;
    let log = tail.log().unwrap_or_default();
    result.with_context(|| format!("it is {last:?} instead of {wanted:?}: {log}"))
}

async fn envelopes_on_standard_output(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    site.put("Patient", "p1").await?;
    site.settle().await?;
    let url = format!("http://{}/fhir", site.server.listening()?);
    let position = context.directory().join("position.json").display().to_string();
    let options = ["--envelope", "--until-live", "--state", &position];
    let mut tail = Tail::new(context.directory(), &url, &options)?;
    for id in ["p2", "p3"] {
        tail.start()?;
        crate::tail::completes(&mut tail).await?;
        site.change(&format!("select fhir.put('Patient', '{id}', '{{\"resourceType\":\"Patient\"}}')"))
            .await?;
    }
    site.change("delete from fhir.resource where id = 'p1'").await?;
    tail.start()?;
    crate::tail::completes(&mut tail).await?;
    let text = std::fs::read_to_string(context.directory().join("tail.out"))?;
    let written: Vec<String> = text.lines().map(str::to_owned).collect();
    numbered(&written)?;
    ensure!(written.len() == 4, "{text}");
    ensure!(written[3] == r#"{"seq":4,"op":"delete","type":"Patient","id":"p1"}"#, "{text}");
    Ok(())
}

async fn a_folder_stays_with_or_without_envelopes(context: Context) -> Result<()> {
    let site = Site::start(&context).await?;
    site.put("Patient", "p1").await?;
    let url = format!("http://{}/fhir", site.server.listening()?);
    for (name, begun, then) in [("plain", &[][..], &["--envelope"][..]), ("envelope", &["--envelope"], &[])] {
        let output = context.directory().join(name).display().to_string();
        let mut tail =
            Tail::new(context.directory(), &url, &[&["--output", output.as_str()], begun].concat())?;
        tail.start()?;
        until("a line", SOON, || {
            let lines = lines(Path::new(&output));
            async move { Ok(lines.is_ok_and(|lines| !lines.is_empty()).then_some(())) }
        })
        .await?;
        ensure!(tail.terminate(SOON).await?.success(), "{}", tail.log()?);
        let mut other =
            Tail::new(context.directory(), &url, &[&["--output", output.as_str()], then].concat())?;
        other.start()?;
        let status = other.exited(SOON).await?;
        let log = other.log()?;
        ensure!(status.code() == Some(2) && log.contains("follow as it was started"), "{status}: {log}");
    }
    Ok(())
}
